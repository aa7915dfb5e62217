"""The probes from one local port to one peer: sent at their scheduled times, matched with their replies."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from itertools import takewhile

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, PortUnreachable, unreachable
from udpecho.net.linux.mmsg import SLOTS
from udpecho.probe.io.socket import Arrivals, IProbeReceiver, IProbeSocket, Taken, Undelivered, explain
from udpecho.probe.io.timestamps import Clocks, StepWatch
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.packet import Codec
from udpecho.probe.schedule import Flood, Plan, Schedule
from udpecho.probe.send_times import SendTimes
from udpecho.probe.silence import PAUSE, Silence
from udpecho.probe.sockets import FlowSockets
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.target import Target

#: The smallest and the largest number of probes that are remembered, at 17 bytes each.
_minWindow, _maxWindow = 1 << 12, 1 << 21
_second = 1_000_000_000
#: How many batches to read from a socket that is to be closed: about what its receive buffer can have.
_mostReads = 1024
#: How long to wait while the send queue is full, in ns.
_fullPause = 500_000
#: How many overdue probes are given up in one turn.
_givenUpPerTurn = 10_000

#: Errors of sending that mean that the peer is unreachable.
_unreachable = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
#: Errors of sending that are of the datagram or of this machine's memory, and not of the path to the peer.
_notOfThePath = frozenset({errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM})

#: Called with each event.
Listener = Callable[["Flow", Event], object]


@implementer(IProbeReceiver)
class Flow:
    """The probes from one local port to one peer; L{begin} completes it. Parameters named C{now} are times of the monotonic
    clock, in ns.

    A connected socket keeps its local address, and the interface of a link-local peer (C{connect(2)}). While nothing is
    answered C{unanswered} is called about every second, so that L{use} can give it another socket or another C{target}.

    @ivar sockets: the socket to send by, and former ones to which replies may still come.
    @ivar bindAddress: the local C{(host, port)} that the user has chosen, or C{None}.
    @ivar problem: why no other socket can be opened while nothing is answered; or C{None}.
    @ivar readUntil: when the datagram that was read last has come, in ns of the monotonic clock.
    @ivar lastError: what the network, or the system, last reported about an unreachable peer; or C{None}.
    """

    def __init__(
        self,
        target: Target,
        plan: Plan,
        clocks: Clocks,
        steps: StepWatch,
        listener: Listener | None = None,
        arrived: Callable[[], object] | None = None,
        unanswered: Callable[[Flow], object] | None = None,
    ) -> None:
        """@param listener: called with each event; without it events are not made.
        @param arrived: called when a socket without a descriptor has received something.
        """
        self.target = target
        self.lastError: EchoError | None = None
        self.problem: str | None = None
        self.bindAddress: tuple[str, int] | None = None
        self.sockets = FlowSockets()
        self._unanswered = unanswered
        self._plan = plan
        self._clocks = clocks
        self._listener = listener
        self._arrived = arrived
        self._codec = Codec(secrets.randbits(64), frozenset(plan.sizes), plan.pattern)
        self._timeout = round(plan.timeout * _second)
        self._window = _windowOf(plan)
        self.statistics = Statistics(plan.timeout, self._window)
        self._sendTimes = SendTimes(self._window, steps)
        self._resumeAt = self.readUntil = 0
        self._silence = Silence()
        # Whether there may be no other reason to look in time.
        self._isSlow = self._timeout > PAUSE and plan.interval * _second > PAUSE / 2 and not plan.flood
        self._closed = False
        self._preparedSizes: list[int | None] = []

    def begin(self, socket: IProbeSocket, start: int) -> None:
        """Begin to send by a socket, with the first probe at C{start}, in ns of the monotonic clock."""
        self.use(socket, self.target)
        self._start = self._last = self._sendTimes.last = start
        self._schedule: Schedule | Flood = (Flood if self._plan.flood else Schedule)(self._plan, start)

    @property
    def socket(self) -> IProbeSocket:
        """The socket to send by, after L{begin}."""
        return self.sockets.current

    def use(self, socket: IProbeSocket, target: Target) -> None:
        """Send by another socket from now on, perhaps to another address. Replies to the former one may be on their way."""
        self.readDrops()
        end = self._clocks.monotonic() + max(2 * self._timeout, round((self._plan.wait or 0) * _second))
        self.sockets.use(socket, str(target.address), self.statistics.highest + 1, end)
        self.readDrops()
        self.target, self._preparedSizes = target, [None] * socket.most

    def release(self) -> None:
        """Close the socket to send by, until L{use}: a port that the user has chosen must be free before it is bound again."""
        # What comes as fast as it is read is not all read.
        for _ in range(_mostReads):
            if not self.read(self.socket):
                break
        self.readDrops()
        self.sockets.release()

    @property
    def taken(self) -> int:
        """How many datagrams the system has taken so far: a further socket counts from there on."""
        return self._sendTimes.taken

    def isUp(self) -> bool:
        """Whether a reply came in the last three intervals (or interval and timeout, if longer), and no send failed since."""
        interval = round(self._plan.interval * _second)
        return self._clocks.monotonic() - self._silence.answeredAt <= max(3 * interval, interval + self._timeout)

    @property
    def source(self) -> DatagramAddress:
        """The local address."""
        return self.socket.source

    def timeOf(self, event: Event) -> float | None:
        """When the current event's probe was sent, or scheduled, in seconds of the monotonic clock; C{None} if it has none."""
        if event.sequence is None:
            return None
        if event.outcome is Outcome.NOT_SENT:
            return self._schedule.at(event.sequence, self._last) / _second
        return self._sendTimes.of(event.sequence) / _second

    @property
    def sizes(self) -> list[int]:
        """The distinct sizes of the probes, in bytes."""
        return list(dict.fromkeys(self._plan.sizes))

    @property
    def elapsed(self) -> float:
        """The seconds from the scheduled time of the first probe to the latest event."""
        return max(0, self._last - self._start) / _second

    @property
    def timestampSource(self) -> str:
        """Where the round trips come from: one of L{TIMESTAMP_SOURCES <udpecho.probe.outcomes.TIMESTAMP_SOURCES>}."""
        return self._sendTimes.source or ("kernel" if self.socket.stamped else "monotonic")

    @property
    def outstanding(self) -> int:
        """The number of outstanding probes."""
        return self.statistics.count(Outcome.OUTSTANDING)

    # Sending

    def send(self, now: int) -> bool:
        """Send one batch of the probes that are due, and return whether any was due."""
        following = self.statistics.highest + 1
        if self._closed or now < self._resumeAt:
            return False
        missed = min(self._schedule.missed(following, now), _givenUpPerTurn)
        for sequence in takewhile(lambda _: not self._closed, range(following, following + missed)):
            self._notSent(sequence, "this machine was more than a second late")
        due = self._schedule.due(following + missed, self.outstanding, now)
        if due <= 0 or self._closed:
            return missed > 0
        self._sendBatch(following + missed, min(due, self.socket.most))
        return True

    def _sendBatch(self, first: int, count: int) -> None:
        sizes, clock, wall, socket = self._plan.sizes, self._clocks.monotonic, self._clocks.wall(), self.socket
        for index in range(count):
            sequence = first + index
            size = sizes[sequence % len(sizes)]
            slot = socket.slot(index, size)
            if self._preparedSizes[index] != size:
                self._preparedSizes[index] = size
                self._codec.prepare(slot)
            self._codec.write(slot, sequence, wall)
        self._sendTimes.checkClock(self.statistics.highest)
        before = clock()
        taken = socket.send(count)
        after = clock()
        if taken.number:
            probeSent, at = self.statistics.probeSent, self._schedule.at
            for sequence, time in enumerate(self._sendTimes.record(first, taken.number, before, after), first):
                probeSent(sequence, time - at(sequence, time))
            self._last = after
        if taken.error:
            self._sendFailed(first + taken.number, taken)
        self.readErrors(socket)

    def _sendFailed(self, sequence: int, taken: Taken) -> None:
        if taken.full:
            self._resumeAt = self._clocks.monotonic() + _fullPause
            return
        if taken.error in _unreachable:
            self.lastError = unreachable(taken.error, str(self.target.address))
        if taken.error in _notOfThePath:
            self._notSent(sequence, explain(taken.error))
            return
        self._silence.sendFailed()
        self._notSent(sequence, explain(taken.error) if self.sockets.isOpen else self.problem)

    def _notSent(self, sequence: int, detail: str | None) -> None:
        self.statistics.probeNotSent(sequence)
        self._last = self._clocks.monotonic()
        self._notify(Outcome.NOT_SENT, sequence, detail=detail)

    # Receiving

    def read(self, socket: IProbeSocket) -> bool:
        """Read one batch from one of the sockets, and return whether there may be more."""
        arrivals = socket.receive()
        self._received(arrivals, socket)
        return len(arrivals.datagrams) >= SLOTS

    def readErrors(self, socket: IProbeSocket) -> None:
        """Read the error queue of one of the sockets."""
        stamps, failures = socket.readErrors()
        self._sendTimes.addTimestamps(stamps)
        for failure in failures:
            self._undelivered(failure)

    def datagramsArrived(self, arrivals: Arrivals) -> None:
        """@see: L{IProbeReceiver.datagramsArrived}"""
        self._received(arrivals, self.socket)
        if self._arrived is not None:
            self._arrived()

    def _received(self, arrivals: Arrivals, socket: IProbeSocket) -> None:
        now = self._clocks.monotonic()
        # A timestamp is in the error queue before the reply is in the receive queue.
        self.readErrors(socket)
        if not arrivals.datagrams:
            return
        parse, highest = self._codec.parse, self.statistics.highest
        self._sendTimes.checkClock(highest)
        self._last = now
        self.readUntil = self._sendTimes.arrival(arrivals.stamps[-1], now)
        for number, (datagram, stamp) in enumerate(zip(arrivals.datagrams, arrivals.stamps)):
            if number and self._closed:  # by a listener
                return
            problem, sequence = parse(datagram, highest)
            if problem is not None:
                self._extraDatagram(problem, len(datagram))
                continue
            if sequence is None:
                # Empty datagrams have no number.
                sequence = self.statistics.oldestOutstanding
            if sequence is None or sequence <= highest - self._window:
                self._extraDatagram(Outcome.UNMATCHED, len(datagram))
            else:
                self._reply(sequence, stamp, now, len(datagram))

    def _reply(self, sequence: int, stamp: int, now: int, size: int) -> None:
        nanoseconds, byKernel = self._sendTimes.roundTrip(sequence, stamp, now)
        before = self.statistics.reordering.reordered
        outcome = self.statistics.replyReceived(sequence, nanoseconds)
        if outcome is Outcome.ANSWERED or outcome is Outcome.LATE:
            self._sendTimes.noteSource(byKernel)
            self._silence.answeredAt = now
        self._notify(outcome, sequence, size, nanoseconds / _second, self.statistics.reordering.reordered > before)

    def _extraDatagram(self, outcome: Outcome, size: int) -> None:
        self.statistics.datagramReceived(outcome)
        self._notify(outcome, None, size)

    def probeUndelivered(self, undelivered: Undelivered) -> None:
        """@see: L{IProbeReceiver.probeUndelivered}"""
        self._undelivered(undelivered)
        if self._arrived is not None:
            self._arrived()

    def _undelivered(self, undelivered: Undelivered) -> None:
        self.lastError = reason = undelivered.reason
        sequence = self._codec.sequenceOf(undelivered.quoted, self.statistics.highest)
        if sequence is None:
            # Without a usable quotation: the probe that has been outstanding for the longest time.
            sequence = self.statistics.oldestOutstanding
        if sequence is None or self._closed:
            return
        self._last = self._clocks.monotonic()
        self._silence.failed = True
        if isinstance(reason, PortUnreachable):
            if self.statistics.refused(sequence):
                self._notify(Outcome.REFUSED, sequence)
        elif self.statistics.unreachable(sequence):
            # Other messages repeat the peer, which the event has.
            detail = str(reason) if reason.errno == errno.EMSGSIZE else explain(reason.errno or 0)
            self._notify(Outcome.UNREACHABLE, sequence, detail=detail)

    # Time

    def expire(self, now: int) -> None:
        """Mark the probes that have timed out as lost."""
        while not self._closed and (oldest := self.statistics.oldestOutstanding) is not None:
            if self._sendTimes.of(oldest) + self._timeout > now:
                break
            self._lose(oldest)
        if not self._closed and now - self._silence.lookedAt >= PAUSE:
            self._look(now)

    def _look(self, now: int) -> None:
        self.readDrops()
        self.sockets.look(now)
        oldest = self.statistics.oldestOutstanding
        self._silence.look(now, None if oldest is None else self._sendTimes.of(oldest))
        if not self._silence.lasts:
            self.problem = None
        elif self._unanswered is not None:
            self._unanswered(self)

    def _lose(self, sequence: int) -> None:
        self._silence.failed = True
        self.statistics.timedOut(sequence)
        self._last = self._clocks.monotonic()
        self._notify(Outcome.LOST, sequence)

    def readDrops(self) -> None:
        """Read how many datagrams the receive queues have dropped."""
        self.statistics.addOwnDrops(self.sockets.newDrops())

    def next(self, now: int) -> int | None:
        """When there is something to do next, in ns of the monotonic clock; C{None} for never."""
        following = self._schedule.next(self.statistics.highest + 1, self.outstanding, now)
        times = [] if following is None else [max(following, self._resumeAt)]
        oldest = self.statistics.oldestOutstanding
        if oldest is not None:
            times.append(self._sendTimes.of(oldest) + self._timeout)
        if self._silence.lasts or (oldest is not None and self._isSlow):
            times.append(self._silence.next(None if oldest is None else self._sendTimes.of(oldest)))
        if following is None and self._plan.wait is not None:
            times.append(self._waitEnds(self._plan.wait))
        return min(times) if times else None

    def isOver(self, now: int) -> bool:
        """Whether all probes were sent, and no reply is waited for."""
        if not self._schedule.isOver(self.statistics.highest + 1, now):
            return False
        oldest, wait = self.statistics.oldestOutstanding, self._plan.wait
        if wait is None:
            return oldest is None
        if now >= self._waitEnds(wait):
            while not self._closed and (oldest := self.statistics.oldestOutstanding) is not None:
                self._lose(oldest)
            return True
        # Replies to lost probes may still come.
        return oldest is None and not self.statistics.count(Outcome.LOST) + self.statistics.count(Outcome.LOST_OWN)

    def _waitEnds(self, wait: float) -> int:
        return self._sendTimes.last + round(wait * _second)

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        if not self._closed:
            self._closed = True
            self.readDrops()
            self.sockets.close()

    def _notify(
        self,
        outcome: Outcome,
        sequence: int | None,
        size: int | None = None,
        roundTrip: float | None = None,
        reordered: bool = False,
        detail: str | None = None,
    ) -> None:
        if self._listener is None:
            return
        deviation = sentAt = None
        if sequence is not None and outcome is not Outcome.NOT_SENT:
            sent = self._sendTimes.of(sequence)
            deviation = (sent - self._schedule.at(sequence, sent)) / _second
            sentAt = self._sendTimes.wallTime(sequence)
        if size is None:
            size = self._plan.sizes[(sequence or 0) % len(self._plan.sizes)]
        peer, source = self.sockets.pathOf(sequence)
        names = self.target.name, peer
        self._listener(self, Event(*names, outcome, sequence, size, roundTrip, reordered, deviation, sentAt, detail, source))


def _windowOf(plan: Plan) -> int:
    """How many probes to remember: twice as many as are ever outstanding."""
    needed = 2 * plan.outstanding
    if plan.wait is not None and not plan.flood:
        needed = max(needed, round(2 * plan.wait / plan.interval))
    if plan.count is not None:
        needed = min(needed, plan.count)
    return min(max(_minWindow, needed), _maxWindow)
