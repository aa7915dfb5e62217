"""The probes from one port of this machine to one peer: sent when it is time, matched with what comes back."""

from __future__ import annotations

import errno
import secrets
from array import array
from collections.abc import Callable

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, PortUnreachable, unreachable
from udpecho.net.linux.mmsg import SLOTS
from udpecho.probe import outcomes, records
from udpecho.probe.io.socket import Arrivals, IProbeReceiver, IProbeSocket, Taken, Undelivered, explain
from udpecho.probe.io.timestamps import Clocks, StampIds, StepWatch, roundTrip
from udpecho.probe.outcomes import Outcome
from udpecho.probe.packet import Codec, Verdict
from udpecho.probe.schedule import Flood, Plan, Schedule
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.target import Target

#: The fewest and the most probes that are remembered, at 17 bytes each.
_leastRemembered, _mostRemembered = 1 << 12, 1 << 21
#: Seconds until a full send queue is tried again.
_fullPause = 0.0005
#: How many probes that are too late are given up in one turn.
_givenUpAtOnce = 10_000
#: Seconds between two looks at what the receive queue has dropped.
_dropsPause = 1.0
_second = 1_000_000_000

_outcomes = {
    Verdict.FOREIGN: Outcome.FOREIGN,
    Verdict.CORRUPT: Outcome.CORRUPT,
    Verdict.CUT: Outcome.CUT,
    Verdict.LONGER: Outcome.LONGER,
}
#: What the system says of itself, and the network says of a peer: that it is not there.
_noWay = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})

#: Hears of each event.
Listener = Callable[["Flow", outcomes.Event], object]


@implementer(IProbeReceiver)
class Flow:
    """
    The probes of one socket.

    @ivar target: whom they are sent to.
    @ivar statistics: what they say so far.
    @ivar socket: what they are sent by.
    @ivar said: what the network, or the system, said last of not reaching the peer; or C{None}.
    """

    socket: IProbeSocket

    def __init__(
        self,
        target: Target,
        plan: Plan,
        clocks: Clocks,
        steps: StepWatch,
        listener: Listener | None = None,
        arrived: Callable[[], object] | None = None,
    ) -> None:
        """
        @param target: whom to send to.
        @param plan: what to send, and when.
        @param clocks: what tells the time.
        @param steps: knows whether the wall clock was set.
        @param listener: hears of each event; without one they cost nothing.
        @param arrived: is called when something has come by a socket that calls by itself.
        """
        self.target = target
        self.said: EchoError | None = None
        self._plan = plan
        self._clocks = clocks
        self._steps = steps
        self._listener = listener
        self._arrived = arrived
        self._peer = str(target.address)
        self._source = ""
        self._codec = Codec(secrets.randbits(64), frozenset(plan.sizes), plan.pattern)
        self._timeout = round(plan.timeout * _second)
        self._window = window = _windowOf(plan)
        self.statistics = Statistics(self._timeout, window)
        self._sendTimes = array("q", bytes(8 * window))
        self._sendStamps = array("q", bytes(8 * window))
        self._ids = StampIds()
        # Stamps of probes below this are of the wall clock before it was set.
        self._firstTrusted = 0
        self._byKernel = self._byMonotonic = 0
        self._formed: list[int | None] = []
        self._schedule: Schedule | Flood = Schedule(plan, 0)
        self._start = self._lastSent = self._last = 0
        self._tryAgainAt = 0
        self._drops: int | None = None
        self._dropsAt = 0
        self._closed = False

    def begin(self, socket: IProbeSocket, start: int) -> None:
        """
        Begin to send.

        @param socket: what to send by.
        @param start: when, in ns of the monotonic clock.
        """
        self.socket = socket
        self._source = str(socket.source)
        self._formed = [None] * socket.most
        self._start = self._lastSent = self._last = start
        self._schedule = (Flood if self._plan.flood else Schedule)(self._plan, start)
        self._drops = socket.drops()

    @property
    def source(self) -> DatagramAddress:
        """The local address."""
        return self.socket.source

    def timeOf(self, event: outcomes.Event) -> int | None:
        """
        When the probe of an event that is just told was sent, or, if it was not, should have been.

        @return: ns of the monotonic clock; C{None} for a datagram that does not tell which probe it is of.
        """
        if event.sequence is None:
            return None
        if event.outcome is Outcome.NOT_SENT:
            return self._schedule.at(event.sequence, self._last)
        return self._sendTimes[event.sequence % self._window]

    @property
    def sizes(self) -> list[int]:
        """The sizes of the probes, each once."""
        return list(dict.fromkeys(self._plan.sizes))

    @property
    def elapsed(self) -> float:
        """The seconds from the first probe's time to the last event."""
        return max(0, self._last - self._start) / _second

    @property
    def timestampSource(self) -> str:
        """Where the round trips come from: one of L{report.TIMESTAMP_SOURCES}."""
        if self._byKernel and self._byMonotonic:
            return "mixed"
        if self._byKernel or self._byMonotonic:
            return "kernel" if self._byKernel else "monotonic"
        return "kernel" if self.socket.stamped else "monotonic"

    @property
    def outstanding(self) -> int:
        """How many probes are under way."""
        return self.statistics.count(Outcome.OUTSTANDING)

    def report(self) -> dict[str, object]:
        """This flow's part of the JSON document."""
        return records.targetReport(
            self.target.name,
            self.statistics,
            self.timestampSource,
            peer=self._peer,
            source=str(self.source),
            sizes=self.sizes,
            elapsed=self.elapsed,
        )

    # Sending

    def send(self, now: int) -> bool:
        """
        Send what is due, as much as one call takes.

        @return: whether there was something.
        """
        following = self.statistics.highest + 1
        if self._closed or now < self._tryAgainAt:
            return False
        missed = min(self._schedule.missed(following, now), _givenUpAtOnce)
        for sequence in range(following, following + missed):
            self._notSent(sequence, "its time was over before this machine came to it")
        due = self._schedule.due(following + missed, self.outstanding, now)
        if due <= 0 or self._closed:
            return missed > 0
        self._sendSome(following + missed, min(due, self.socket.most))
        return True

    def _sendSome(self, first: int, count: int) -> None:
        sizes, clock, wall = self._plan.sizes, self._clocks.monotonic, self._clocks.wall()
        for index in range(count):
            sequence = first + index
            size = sizes[sequence % len(sizes)]
            slot = self.socket.slot(index, size)
            if self._formed[index] != size:
                self._formed[index] = size
                self._codec.prepare(slot)
            self._codec.write(slot, sequence, wall)
        if self._steps.stepped():
            self.distrustStamps()
        before = clock()
        taken = self.socket.send(count)
        after = clock()
        self._record(first, taken.number, before, after)
        if taken.error:
            self._settle(first + taken.number, taken)
        self.readErrors()

    def _record(self, first: int, count: int, before: int, after: int) -> None:
        """Note what was sent, between two times."""
        if not count:
            return
        window, statistics, at = self._window, self.statistics, self._schedule.at
        sendTimes, sendStamps = self._sendTimes, self._sendStamps
        for index in range(count):
            sequence = first + index
            slot = sequence % window
            sendTimes[slot] = before
            sendStamps[slot] = 0
            # They leave one after the other.
            sentAt = before + (after - before) * index // count
            statistics.probeSent(sequence, sentAt - at(sequence, sentAt))
        self._ids.sent(first, count)
        self._lastSent = self._last = after

    def _settle(self, sequence: int, taken: Taken) -> None:
        """A probe was not taken."""
        if taken.full:
            self._tryAgainAt = self._clocks.monotonic() + round(_fullPause * _second)
            return
        if taken.error in _noWay:
            self.said = unreachable(taken.error, self._peer)
        self._notSent(sequence, explain(taken.error))

    def _notSent(self, sequence: int, detail: str) -> None:
        self.statistics.probeNotSent(sequence)
        self._last = self._clocks.monotonic()
        if self._listener is not None:
            self._tell(Outcome.NOT_SENT, sequence, detail=detail)

    # What comes back

    def read(self) -> bool:
        """
        Read one batch.

        @return: whether more may be there.
        """
        arrivals = self.socket.receive()
        self._take(arrivals)
        return len(arrivals.datagrams) >= SLOTS

    def readErrors(self) -> None:
        """Read the error queue."""
        stamps, failures = self.socket.readErrors()
        for number, time in stamps:
            sequence = self._ids.sequenceOf(number)
            if sequence is not None and sequence >= self._firstTrusted:
                self._sendStamps[sequence % self._window] = time
        for failure in failures:
            self._undelivered(failure)

    def distrustStamps(self) -> None:
        """The wall clock was set: the stamps of what was sent before are of no use."""
        self._firstTrusted = self.statistics.highest + 1
        self._sendStamps = array("q", bytes(8 * self._window))

    def datagramsArrived(self, arrivals: Arrivals) -> None:
        """
        Datagrams came.

        @see: L{IProbeReceiver.datagramsArrived}
        """
        self._take(arrivals)
        if self._arrived is not None:
            self._arrived()

    def _take(self, arrivals: Arrivals) -> None:
        now = self._clocks.monotonic()
        # A stamp is in the error queue before the reply is in the receive queue.
        self.readErrors()
        if not arrivals.datagrams:
            return
        if self._steps.stepped():
            self.distrustStamps()
        self._last = now
        parse, highest = self._codec.parse, self.statistics.highest
        for datagram, stamp in zip(arrivals.datagrams, arrivals.stamps):
            verdict, sequence, _ = parse(datagram, highest)
            if verdict is not Verdict.OURS:
                self._beside(_outcomes[verdict], len(datagram))
                continue
            if sequence is None:
                # An empty one.
                sequence = self.statistics.oldestOutstanding
            if sequence is None or sequence <= highest - self._window:
                self._beside(Outcome.UNMATCHED, len(datagram))
            else:
                self._reply(sequence, stamp, now, len(datagram))

    def _reply(self, sequence: int, stamp: int, now: int, size: int) -> None:
        slot = sequence % self._window
        monotonic = now - self._sendTimes[slot]
        kernel = roundTrip(self._sendStamps[slot], stamp, monotonic)
        time = monotonic if kernel is None else kernel
        statistics = self.statistics
        before = statistics.reordering.reordered
        outcome = statistics.replyReceived(sequence, time)
        if outcome is Outcome.ANSWERED or outcome is Outcome.LATE:
            if kernel is None:
                self._byMonotonic += 1
            else:
                self._byKernel += 1
        if self._listener is not None:
            self._tell(outcome, sequence, size, time, statistics.reordering.reordered > before)

    def _beside(self, outcome: Outcome, size: int) -> None:
        self.statistics.datagramReceived(outcome)
        if self._listener is not None:
            self._tell(outcome, None, size)

    def probeUndelivered(self, undelivered: Undelivered) -> None:
        """
        The network said that a probe did not arrive.

        @see: L{IProbeReceiver.probeUndelivered}
        """
        self._undelivered(undelivered)
        if self._arrived is not None:
            self._arrived()

    def _undelivered(self, undelivered: Undelivered) -> None:
        self.said = reason = undelivered.reason
        sequence = self._codec.sequenceOf(undelivered.quoted, self.statistics.highest)
        if sequence is None:
            # It says nothing of which one: the one that has been under way for longest.
            sequence = self.statistics.oldestOutstanding
        if sequence is None:
            return
        refused = isinstance(reason, PortUnreachable)
        settled = self.statistics.refused(sequence) if refused else self.statistics.unreachable(sequence)
        self._last = self._clocks.monotonic()
        if settled and self._listener is not None:
            if refused:
                self._tell(Outcome.REFUSED, sequence)
            else:
                number = reason.errno or 0
                # The sentence names the peer, and so does the line.
                detail = explain(number) if number != errno.EMSGSIZE else str(reason)
                self._tell(Outcome.UNREACHABLE, sequence, detail=detail)

    # Time

    def expire(self, now: int) -> None:
        """Give up the probes whose time is over."""
        statistics, window = self.statistics, self._window
        while (oldest := statistics.oldestOutstanding) is not None:
            if self._sendTimes[oldest % window] + self._timeout > now:
                break
            self._lose(oldest)
        if now >= self._dropsAt:
            self._dropsAt = now + round(_dropsPause * _second)
            self.lookForDrops()

    def _lose(self, sequence: int) -> None:
        self.statistics.timedOut(sequence)
        self._last = self._clocks.monotonic()
        if self._listener is not None:
            self._tell(Outcome.LOST, sequence)

    def lookForDrops(self) -> None:
        """Ask the system what the receive queue has dropped meanwhile."""
        drops = self.socket.drops()
        if drops is not None and self._drops is not None:
            # A number of 32 bits.
            self.statistics.ownDrops((drops - self._drops) % (1 << 32))
            self._drops = drops

    def next(self, now: int) -> int | None:
        """When there is something to do next, in ns of the monotonic clock; C{None} for never."""
        following = self._schedule.next(self.statistics.highest + 1, self.outstanding, now)
        times = [] if following is None else [max(following, self._tryAgainAt)]
        oldest = self.statistics.oldestOutstanding
        if oldest is not None:
            times.append(self._sendTimes[oldest % self._window] + self._timeout)
        if following is None and self._plan.wait is not None:
            times.append(self._lastSent + round(self._plan.wait * _second))
        return min(times) if times else None

    def isOver(self, now: int) -> bool:
        """Whether all probes were sent, and nothing is waited for."""
        if not self._schedule.isOver(self.statistics.highest + 1, now):
            return False
        oldest, wait = self.statistics.oldestOutstanding, self._plan.wait
        if wait is None:
            return oldest is None
        if now >= self._lastSent + round(wait * _second):
            while (oldest := self.statistics.oldestOutstanding) is not None:
                self._lose(oldest)
            return True
        # Those that are lost may yet come.
        return oldest is None and not self.statistics.count(Outcome.LOST) + self.statistics.count(Outcome.LOST_OWN)

    def close(self) -> None:
        """Send and hear nothing more. May be called twice."""
        if not self._closed:
            self._closed = True
            self.lookForDrops()
            self.socket.close()

    def _tell(
        self,
        outcome: Outcome,
        sequence: int | None,
        size: int | None = None,
        time: int | None = None,
        reordered: bool = False,
        detail: str | None = None,
    ) -> None:
        sizes = self._plan.sizes
        sendError = sentAt = None
        if sequence is not None and outcome is not Outcome.NOT_SENT:
            sent = self._sendTimes[sequence % self._window]
            sendError = sent - self._schedule.at(sequence, sent)
            sentAt = (sent + self._steps.offset) / _second
        if size is None:
            size = sizes[(sequence or 0) % len(sizes)]
        event = outcomes.Event(
            self.target.name,
            self._peer,
            outcome,
            sequence,
            size,
            time,
            reordered,
            sendError,
            sentAt,
            detail,
            self._source,
        )
        if self._listener is not None:
            self._listener(self, event)


def _windowOf(plan: Plan) -> int:
    """How many probes to remember: twice as many as are ever under way."""
    needed = 2 * plan.outstanding
    if plan.wait is not None and not plan.flood:
        needed = max(needed, round(2 * plan.wait / plan.interval))
    if plan.count is not None:
        needed = min(needed, plan.count)
    return min(max(_leastRemembered, needed), _mostRemembered)
