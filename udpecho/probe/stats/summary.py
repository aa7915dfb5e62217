"""
What a series of probes says of the path to a peer, in constant memory however long it runs.

Times are whole nanoseconds when they come in, and seconds in L{Statistics.asDict}.
"""

from __future__ import annotations

from typing import Any

from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats import window
from udpecho.probe.stats.distribution import Distribution, Interval, seconds, wilson
from udpecho.probe.stats.jitter import DEGREES, Jitter, Reordering, Variation
from udpecho.probe.stats.window import FATES, ProbeWindow

#: How many probes are remembered if the caller does not say: two seconds' at 32 000 a second.
DEFAULT_WINDOW = 65536

#: What a datagram may be that came, and is no probe's first reply.
_beside = (Outcome.DUPLICATE, Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN, Outcome.UNMATCHED)
_codes = {outcome: fate for fate, outcome in enumerate(FATES)}


class Statistics:
    """
    Is told of each probe of one socket, and sums up.

    Each probe has one fate at a time, and the sums add up, always::

        scheduled = sent + not sent
        sent = answered + late + lost + lost in our own queue + refused + unreachable + outstanding

    A fate may change while the probe is in the window, the latest so many: a reply makes one that was lost or refused answered
    or late, a refusal makes one that was lost refused. When a probe leaves the window its fate is final; its replies are
    L{unmatched <Outcome.UNMATCHED>} from then on, be they late or duplicates, and if it was still outstanding it is lost.

    What our own receive queue dropped is known as a number only (SO_RXQ_OVFL, SO_MEMINFO; C{socket(7)}), not which probes'
    replies they were. So many of those that timed out, if there are as many, were lost by us; the others by the network.

    The times of late replies are among the round trips: without them the slowest would be missing.

    @ivar roundTrips: the times of first replies.
    @ivar sendErrors: by how much probes left beside their schedule, early or late.
    @ivar reordering: which replies were overtaken.
    @ivar jitter: RFC 3550's.
    @ivar variation: RFC 3393's.
    @ivar ownDropped: how many datagrams our own receive queue dropped.
    """

    def __init__(self, timeout: int | None = None, window: int = DEFAULT_WINDOW) -> None:
        """
        @param timeout: after how many ns a reply is late. Its own round trip decides, so that one which came in time and was
            read late is not; C{None} if what L{timedOut} said before decides.
        @param window: how many of the latest probes are remembered, at a byte each. More than are ever outstanding: the rate by
            the seconds in which replies may still come.
        """
        self.roundTrips = Distribution()
        self.sendErrors = Distribution()
        self.reordering = Reordering()
        self.jitter = Jitter()
        self.variation = Variation()
        self.ownDropped = 0
        self._timeout = timeout
        self._fates = ProbeWindow(window)
        self._counts = self._fates.counts
        self._beside = dict.fromkeys(_beside, 0)
        self._sent = 0
        self._scheduled = 0

    # What happens

    def probeSent(self, sequence: int, sendError: int = 0) -> None:
        """
        A probe was sent.

        @param sequence: its number: 0, and then one more than the last probe's, sent or not.
        @param sendError: by how many ns it left after its schedule; below 0 for before.

        @raise ValueError: if the number is not the next.
        """
        self._fates.add(sequence, window.OUTSTANDING)
        self._scheduled += 1
        self._sent += 1
        self.sendErrors.record(abs(sendError))

    def probeNotSent(self, sequence: int) -> None:
        """
        A probe could not be sent.

        @param sequence: as for L{probeSent}.

        @raise ValueError: if the number is not the next.
        """
        self._fates.add(sequence, window.NOT_SENT)
        self._scheduled += 1

    def replyReceived(self, sequence: int, roundTrip: int) -> Outcome:
        """
        A whole reply to a probe of ours came.

        @param sequence: the number in it.
        @param roundTrip: its time, in ns.

        @return: answered or late; duplicate or unmatched.

        @raise ValueError: if the time is negative.
        """
        before = self._fates.get(sequence)
        if before is None or before == window.NOT_SENT:
            return self.datagramReceived(Outcome.UNMATCHED)
        if before == window.ANSWERED or before == window.LATE:
            return self.datagramReceived(Outcome.DUPLICATE)
        # First, as it may refuse the time.
        self.roundTrips.record(roundTrip)
        late = before == window.LOST if self._timeout is None else roundTrip > self._timeout
        self._fates.change(sequence, window.LATE if late else window.ANSWERED)
        self.reordering.arrive(sequence)
        self.jitter.arrive(roundTrip)
        self.variation.arrive(sequence, roundTrip)
        return Outcome.LATE if late else Outcome.ANSWERED

    def datagramReceived(self, outcome: Outcome) -> Outcome:
        """
        A datagram came that is no first reply.

        @param outcome: duplicate, corrupt, cut, longer, foreign or unmatched.

        @return: it.

        @raise ValueError: if it is something else.
        """
        if outcome not in self._beside:
            raise ValueError(f"{outcome} is not what such a datagram is: one of {', '.join(each.value for each in _beside)} is")
        self._beside[outcome] += 1
        return outcome

    def timedOut(self, sequence: int) -> bool:
        """
        The time of a probe is over.

        @return: whether it was outstanding, and is lost now.
        """
        return self._settle(sequence, window.LOST, (window.OUTSTANDING,))

    def refused(self, sequence: int) -> bool:
        """
        The peer's host refused a probe.

        @return: whether it had no reply, and is refused now.
        """
        return self._settle(sequence, window.REFUSED, (window.OUTSTANDING, window.LOST))

    def unreachable(self, sequence: int) -> bool:
        """
        A probe could not be brought to the peer.

        @return: whether it had no reply, and is unreachable now.
        """
        return self._settle(sequence, window.UNREACHABLE, (window.OUTSTANDING, window.LOST))

    def ownDrops(self, count: int) -> None:
        """Our own receive queue dropped so many more datagrams."""
        self.ownDropped += count

    def _settle(self, sequence: int, fate: int, unsettled: tuple[int, ...]) -> bool:
        if self._fates.get(sequence) not in unsettled:
            return False
        self._fates.change(sequence, fate)
        return True

    # What it comes to

    @property
    def scheduled(self) -> int:
        """Probes that had their turn."""
        return self._scheduled

    @property
    def sent(self) -> int:
        """Those that were sent."""
        return self._sent

    @property
    def received(self) -> int:
        """Those that have a reply, in time or late."""
        return self._counts[window.ANSWERED] + self._counts[window.LATE]

    @property
    def highest(self) -> int:
        """The number of the last probe, -1 before the first."""
        return self._fates.highest

    @property
    def oldestOutstanding(self) -> int | None:
        """The number of the first probe that is under way, or C{None}."""
        return self._fates.oldestOutstanding

    def count(self, outcome: Outcome) -> int:
        """How many probes have a fate, or how many datagrams came that are of a kind."""
        if outcome in self._beside:
            return self._beside[outcome]
        lostOwn = min(self.ownDropped, self._counts[window.LOST])
        if outcome is Outcome.LOST_OWN:
            return lostOwn
        return self._counts[_codes[outcome]] - (lostOwn if outcome is Outcome.LOST else 0)

    @property
    def loss(self) -> Interval | None:
        """
        The share that the network lost, of the probes that it either lost or brought there and back: those refused, unreachable
        and under way are not among them, those lost in our own queue are, and came back. C{None} where there are none.
        """
        lost = self.count(Outcome.LOST)
        return wilson(lost, self.received + self.count(Outcome.LOST_OWN) + lost)

    @property
    def longestLossRun(self) -> int | None:
        """
        How many probes timed out one after the other, at most (the longest of RFC 3357's loss periods); C{None} where
        no probe has a reply or timed out.
        """
        return self._fates.longestLossRun if self.received + self._counts[window.LOST] else None

    @property
    def p95MinusMedian(self) -> float | None:
        """The 95th percentile of the round trips less their median, in ns: what owping (RFC 4656's own tool) calls jitter."""
        high, middle = self.roundTrips.knownQuantile(0.95), self.roundTrips.median()
        return None if high is None or middle is None else high - middle

    def checkSums(self) -> None:
        """
        Check that all sums add up, counting afresh what can be.

        @raise ArithmeticError: if they do not; with the sum that does not.
        """
        received, inWindow = self.received, self._fates.inWindow()
        ofSent = [each for each in Outcome if each not in self._beside and each is not Outcome.NOT_SENT]
        sums = {
            "scheduled = sent + not sent": (self._scheduled, self._sent + self.count(Outcome.NOT_SENT)),
            "scheduled = the highest number + 1": (self._scheduled, self._fates.highest + 1),
            "sent = the sum of its fates": (self._sent, sum(self.count(each) for each in ofSent)),
            "sent = send errors": (self._sent, self.sendErrors.count),
            "received = round trips": (received, self.roundTrips.count),
            "received = arrivals": (received, self.reordering.arrivals),
            "outstanding = those in the window": (self._counts[window.OUTSTANDING], inWindow[window.OUTSTANDING]),
        }
        for name, (left, right) in sums.items():
            if left != right:
                raise ArithmeticError(f"{name} does not hold: {left} and {right}")
        for outcome, remembered, all in zip(FATES, inWindow, self._counts):
            if remembered > all:
                raise ArithmeticError(f"{remembered} probes in the window are {outcome.value}, but {all} of all")

    def asDict(self) -> dict[str, Any]:
        """All of it, as C{report.schema.json} describes it: times in seconds, C{None} where there is nothing to tell."""
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
            "corrupt": self.count(Outcome.CORRUPT),
            "cut": self.count(Outcome.CUT),
            "longer": self.count(Outcome.LONGER),
            "foreign": self.count(Outcome.FOREIGN),
            "unmatched": self.count(Outcome.UNMATCHED),
            "rtt": self.roundTrips.asDict(),
            "jitter": seconds(self.jitter.value),
            "ipdv": {"mean": seconds(self.variation.mean), "max": seconds(self.variation.max)},
            "p95_minus_median": seconds(self.p95MinusMedian),
            "send_error": self.sendErrors.asDict(),
            "own_queue_drops": self.ownDropped,
            "outcomes": {each.value: self.count(each) for each in Outcome if each not in self._beside},
        }
