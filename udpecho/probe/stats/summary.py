"""The statistics of a flow of probes, in constant memory however long it runs."""

from __future__ import annotations

from typing import Any

from udpecho.probe.outcomes import EXTRA_DATAGRAMS, PROBE_OUTCOMES, Outcome
from udpecho.probe.stats import window as states
from udpecho.probe.stats.distribution import Distribution, Interval, wilson
from udpecho.probe.stats.jitter import DEGREES, Jitter, Reordering, Variation
from udpecho.probe.stats.window import OUTCOMES, ProbeWindow

#: How many probes are remembered by default: those of two seconds at 32 000 a second.
DEFAULT_WINDOW = 65536

_states = {outcome: state for state, outcome in enumerate(OUTCOMES)}
_withoutReply = (states.OUTSTANDING, states.LOST)


class Statistics:
    """The statistics of one flow. All figures are in seconds.

    Each probe has one outcome at a time, and the sums always add up::

        scheduled = sent + not sent
        sent = answered + late + lost + lost in our own queue + refused + unreachable + outstanding

    An outcome may change while the probe is in the window of the latest probes: a reply changes a lost or refused probe to
    answered or late, a refusal changes a lost probe to refused. When a probe leaves the window its outcome is final: if it was
    outstanding it is lost, and later replies to it are L{unmatched <Outcome.UNMATCHED>}.

    The kernel counts the datagrams that our own receive queue dropped (SO_RXQ_OVFL, SO_MEMINFO; C{socket(7)}), but not which
    probes they answered. So many of the probes that timed out are counted as lost by us, the others as lost by the network.

    The round trips of late replies count: without them the slowest would be missing.

    @ivar sent: the number of probes that were sent.
    @ivar roundTrips: the round trips of first replies.
    @ivar scheduleDeviations: how far from their scheduled times probes were sent, before or after.
    @ivar reordering: reordered replies (RFC 4737).
    @ivar jitter: interarrival jitter (RFC 3550).
    @ivar variation: delay variation (RFC 3393).
    @ivar ownDropped: how many datagrams our own receive queue dropped.
    @ivar dropsKnown: whether the system reports that.
    """

    def __init__(self, timeout: float | None = None, window: int = DEFAULT_WINDOW) -> None:
        """@param timeout: a reply with a longer round trip, in seconds, is late, whenever it was read. If C{None}, a reply is
            late if L{timedOut} was called before.
        @param window: the number of latest probes to remember, one byte each: more than are ever outstanding.
        """
        self.roundTrips = Distribution()
        self.scheduleDeviations = Distribution()
        self.reordering = Reordering()
        self.jitter = Jitter()
        self.variation = Variation()
        self.sent = self.ownDropped = 0
        self.dropsKnown = True
        self._timeoutNanoseconds = None if timeout is None else round(timeout * 1e9)
        self._window = ProbeWindow(window)
        self._counts = self._window.counts
        self._extra = dict.fromkeys(EXTRA_DATAGRAMS, 0)

    # Input

    def probeSent(self, sequence: int, deviationNanoseconds: int = 0) -> None:
        """Add a probe that was sent.

        @param sequence: its number: 0, and then one more than the previous probe's.
        @param deviationNanoseconds: how long after its scheduled time it was sent, in ns; below 0 if before.
        @raise ValueError: if the number is not the next.
        """
        self._window.add(sequence, states.OUTSTANDING)
        self.sent += 1
        self.scheduleDeviations.recordNanoseconds(abs(deviationNanoseconds))

    def probeNotSent(self, sequence: int) -> None:
        """Add a probe that could not be sent; C{sequence} is as for L{probeSent}."""
        self._window.add(sequence, states.NOT_SENT)

    def replyReceived(self, sequence: int, nanoseconds: int) -> Outcome:
        """Add a valid reply to a probe, with its round trip.

        @return: answered or late; duplicate or unmatched.
        @raise ValueError: if the round trip is negative.
        """
        before = self._window.get(sequence)
        if before is None or before == states.NOT_SENT:
            return self.datagramReceived(Outcome.UNMATCHED)
        if before == states.ANSWERED or before == states.LATE:
            return self.datagramReceived(Outcome.DUPLICATE)
        # First, since it may raise.
        self.roundTrips.recordNanoseconds(nanoseconds)
        timeout = self._timeoutNanoseconds
        late = before == states.LOST if timeout is None else nanoseconds > timeout
        self._window.change(sequence, states.LATE if late else states.ANSWERED)
        self.reordering.arrive(sequence)
        self.jitter.arrive(nanoseconds)
        self.variation.arrive(sequence, nanoseconds)
        return Outcome.LATE if late else Outcome.ANSWERED

    def datagramReceived(self, outcome: Outcome) -> Outcome:
        """Add a datagram that is not a first valid reply, and return its outcome.

        @raise ValueError: if that is not one of L{EXTRA_DATAGRAMS}.
        """
        if outcome not in self._extra:
            raise ValueError(f"outcome must be one of {', '.join(each.value for each in EXTRA_DATAGRAMS)}, got {outcome.value}")
        self._extra[outcome] += 1
        return outcome

    def timedOut(self, sequence: int) -> bool:
        """A probe timed out. Return whether it was outstanding, and is lost now."""
        return self._change(sequence, states.LOST, (states.OUTSTANDING,))

    def refused(self, sequence: int) -> bool:
        """The peer's host refused a probe. Return whether it had no reply, and is refused now."""
        return self._change(sequence, states.REFUSED, _withoutReply)

    def unreachable(self, sequence: int) -> bool:
        """The network could not deliver a probe. Return whether it had no reply, and is unreachable now."""
        return self._change(sequence, states.UNREACHABLE, _withoutReply)

    def _change(self, sequence: int, state: int, fromStates: tuple[int, ...]) -> bool:
        if self._window.get(sequence) not in fromStates:
            return False
        self._window.change(sequence, state)
        return True

    # Results

    def addOwnDrops(self, number: int | None) -> None:
        """Our own receive queue has dropped so many more datagrams; C{None} if the system does not report it."""
        self.dropsKnown &= number is not None
        self.ownDropped += number or 0

    @property
    def scheduled(self) -> int:
        """The number of probes whose time has come, sent or not."""
        return self.highest + 1

    @property
    def received(self) -> int:
        """The number of probes that have a reply, in time or late."""
        return self._counts[states.ANSWERED] + self._counts[states.LATE]

    @property
    def highest(self) -> int:
        """The number of the latest probe, -1 before the first."""
        return self._window.highest

    @property
    def oldestOutstanding(self) -> int | None:
        """The number of the first outstanding probe, or C{None}."""
        return self._window.oldestOutstanding

    def count(self, outcome: Outcome) -> int:
        """The number of probes, or of received datagrams, with an outcome."""
        if outcome in self._extra:
            return self._extra[outcome]
        lostOwn = min(self.ownDropped, self._counts[states.LOST])
        if outcome is Outcome.LOST_OWN:
            return lostOwn
        return self._counts[_states[outcome]] - (lostOwn if outcome is Outcome.LOST else 0)

    @property
    def loss(self) -> Interval | None:
        """The share of probes that the network lost, of those that it lost or carried there and back. Refused, unreachable and
        outstanding probes are not counted; those lost in our own queue were carried. C{None} if there are none.
        """
        lost = self.count(Outcome.LOST)
        return wilson(lost, self.received + self.count(Outcome.LOST_OWN) + lost)

    @property
    def longestLossRun(self) -> int | None:
        """The largest number of consecutive probes that timed out (the longest loss period of RFC 3357); C{None} if no probe
        has a reply or timed out.
        """
        return self._window.longestLossRun if self.received + self._counts[states.LOST] else None

    @property
    def p95MinusMedian(self) -> float | None:
        """The 95th percentile of the round trips minus their median, in seconds: owping (RFC 4656) calls it jitter."""
        high, middle = self.roundTrips.quantile(0.95), self.roundTrips.median()
        return None if high is None or middle is None else high - middle

    def asDict(self) -> dict[str, Any]:
        """All results as C{report.schema.json} describes them: times in seconds, C{None} for what is not known."""
        loss = self.loss
        degrees = {str(n): self.reordering.degree(n) for n in range(1, DEGREES + 1)}
        return {
            "scheduled": self.scheduled,
            "sent": self.sent,
            "received": self.received,
            "lost": self.count(Outcome.LOST),
            "loss": dict.fromkeys(Interval._fields) if loss is None else loss._asdict(),
            "longest_loss_run": self.longestLossRun,
            "late": self.count(Outcome.LATE),
            "duplicates": self.count(Outcome.DUPLICATE),
            "reordered": self.reordering.reordered,
            "reordered_ratio": self.reordering.ratio,
            "n_reordering": {**degrees, "max": self.reordering.greatest if self.received else None},
            **{each.value: self.count(each) for each in EXTRA_DATAGRAMS if each is not Outcome.DUPLICATE},
            "rtt": self.roundTrips.asDict(),
            "jitter": self.jitter.value,
            "ipdv": {"mean": self.variation.mean, "max": self.variation.max},
            "p95_minus_median": self.p95MinusMedian,
            "schedule_deviation": self.scheduleDeviations.asDict(),
            "own_queue_drops": self.ownDropped if self.dropsKnown else None,
            "outcomes": {
                each.value: None if each is Outcome.LOST_OWN and not self.dropsKnown else self.count(each)
                for each in PROBE_OUTCOMES
            },
        }
