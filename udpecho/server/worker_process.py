"""One worker process, as its parent sees it."""

from __future__ import annotations

import signal
import socket
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from udpecho.addresses import DatagramAddress
from udpecho.guard.heavy_hitters import HeavyHitters
from udpecho.interfaces import IDatagramLog
from udpecho.net.sockets import hasQueued
from udpecho.server.counters import Counters
from udpecho.server.worker_messages import LineBuffer, decode, encode

if TYPE_CHECKING:
    from udpecho.server.worker_pool import WorkerPool

_log = Logger()

#: How much of what a worker writes to its standard error is logged, in bytes for each process.
_maxComplaint = 16384
#: Seconds in which the lines of one traceback come.
_complaintTime = 0.5
#: Seconds between two looks whether a process that says no more is over.
_reapInterval = 0.05
#: How many datagrams of a worker may have a line in the log and not yet that of their reply.
_maxUnanswered = 1024
#: The module search path is the parent's, whatever it came from, and nothing is imported from the working directory, as with
#: C{-m} it would be. An interrupt at the terminal, and its hanging up, are for the parent, which has the workers end.
_program = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path[:] = sys.argv[2:n];"
    " import signal; [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)];"
    " from udpecho.server.worker_main import main; main(sys.argv[n:])"
)
#: Where in a worker the descriptors are that it is given, after standard input, output and error.
_firstDescriptor = 3


class BackOff:
    """
    How long to wait before what failed is tried again: not at all, then ever longer. What went well for long enough has
    another first time.
    """

    def __init__(self, first: float = 0.1, most: float = 10.0) -> None:
        """
        @param first: the second wait, in seconds; each further one is twice as long.
        @param most: the longest wait, and how long it has to go well to begin anew, in seconds.
        """
        self._first = first
        self._most = most
        self._next = 0.0

    def next(self, lived: float) -> float:
        """
        Tell how long to wait now.

        @param lived: how many seconds it went well.
        """
        if lived >= self._most:
            self._next = 0.0
        now = self._next
        self._next = min(now * 2, self._most) or self._first
        return now


class WorkerGuardStats:
    """
    What the guards of all workers tell.

    @ivar wouldDrop: in a dry run, the datagrams that would have been dropped, by reason.
    """

    def __init__(self) -> None:
        self.wouldDrop: Counter[str] = Counter()
        self._busiest: dict[str, HeavyHitters[str]] = {}
        self._fills: dict[int, float] = {}

    def heard(
        self, worker: int, busiest: Mapping[str, Sequence[tuple[str, int]]], wouldDrop: Mapping[str, int], fill: float
    ) -> None:
        """
        One of them told something.

        @param worker: which.
        @param busiest: what its L{Guard.busiest <udpecho.guard.guard.Guard.busiest>} said.
        @param wouldDrop: how many more it would have dropped.
        @param fill: how full its limiter's table is.
        """
        for reason, found in busiest.items():
            for prefix, datagrams in found:
                self._busiest.setdefault(reason, HeavyHitters()).add(prefix, datagrams)
        self.wouldDrop.update(wouldDrop)
        self._fills[worker] = fill

    @property
    def fill(self) -> float:
        """How full the fullest table is, from 0 to 1."""
        return max(self._fills.values(), default=0.0)

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """@see: L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}"""
        taken = {reason: busiest.drain(most) for reason, busiest in self._busiest.items()}
        return {reason: found for reason, found in taken.items() if found}


class _Relay:
    """
    Hands the lines of one worker to the journal of all.

    A reply has its line if its datagram had one. The two have no more in common than the peer and the size; the oldest of many
    that have no reply are forgotten.

    @ivar everything: whether all datagrams have their lines.
    """

    def __init__(self, journal: IDatagramLog, everything: bool) -> None:
        self.everything = everything
        self._journal = journal
        self._unanswered: OrderedDict[tuple[int, DatagramAddress], int] = OrderedDict()

    def received(self, value: Sequence[Any]) -> None:
        size, address = self._read(value)
        if self._journal.received(size, address) and not self.everything:
            self._unanswered[size, address] = self._unanswered.pop((size, address), 0) + 1
            if len(self._unanswered) > _maxUnanswered:
                self._unanswered.popitem(last=False)

    def written(self, value: Sequence[Any]) -> None:
        size, address = self._read(value)
        number = self._unanswered.pop((size, address), 0)
        if number > 1:
            self._unanswered[size, address] = number - 1
        self._journal.written(size, address, number > 0 or self.everything)

    def passed(self, value: Sequence[int]) -> None:
        self._journal.passed(*value)

    @staticmethod
    def _read(value: Sequence[Any]) -> tuple[int, DatagramAddress]:
        size, host, port, scopeID = value
        address = DatagramAddress((host, port))
        address.scopeID = scopeID
        return size, address


class _Process(ProcessProtocol):
    """
    One worker's process.

    @ivar ready: whether it answers.
    @ivar relay: takes its lines.
    @ivar started: when it was started, in the reactor's seconds.
    """

    transport: IProcessTransport

    def __init__(self, slot: _Slot, pool: WorkerPool) -> None:
        self.ready = False
        self.started = pool.reactor.seconds()
        self._slot = slot
        self._reactor = pool.reactor
        self._lines = LineBuffer()
        self._complaint = b""
        self._complained = 0
        self._complaining: IDelayedCall | None = None
        self._reaping: IDelayedCall | None = None
        relay = self.relay = _Relay(pool.journal, pool.logsAll)
        self._handlers: dict[str, Callable[[Any], None]] = {
            "ready": self._isReady,
            "received": relay.received,
            "written": relay.written,
            "passed": relay.passed,
            "log": self._logged,
            "guard": lambda value: pool.news.heard(slot.name, **value),
        }

    def say(self, kind: str, value: object) -> None:
        """Send the worker a message."""
        self.transport.writeToChild(0, encode(kind, value))

    def stop(self) -> None:
        """Ask the process to end, when it has answered what is queued."""
        self.transport.closeStdin()

    def kill(self) -> None:
        """End the process at once."""
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """The worker said something."""
        if childFD != 1:
            self._complains(data)
            return
        for line in self._lines.feed(data):
            self._heard(line)

    def childConnectionLost(self, childFD: int) -> None:
        """The worker says no more: it is ending."""
        if childFD == 1:
            self._reapSoon()

    def _reapSoon(self) -> None:
        self._reaping = self._reactor.callLater(_reapInterval, self._reap)

    def _reap(self) -> None:
        """
        Collect the process. That is for the reactor to do when it is signalled, but not each is: not one that runs without its
        signal handlers, or on an event loop that has its own.
        """
        from twisted.internet.process import reapAllProcesses

        self._reapSoon()
        reapAllProcesses()

    def _heard(self, line: bytes) -> None:
        try:
            kind, value = decode(line)
            self._handlers[kind](value)
        except Exception:
            _log.failure("worker {worker} said what makes no sense: {line}", worker=self._slot.name, line=line[:200])

    def _isReady(self, _: object) -> None:
        self.ready = True
        self._slot.isReady()

    def _logged(self, value: Sequence[str]) -> None:
        level, text = value
        _log.emit(LogLevel.lookupByName(level), "worker {worker}: {text}", worker=self._slot.name, text=text)

    def _complains(self, data: bytes) -> None:
        room = _maxComplaint - self._complained
        self._complaint += data[:room]
        self._complained += len(data[:room])
        if room and self._complaining is None:
            self._complaining = self._reactor.callLater(_complaintTime, self._logComplaint)

    def _logComplaint(self) -> None:
        _cancel(self._complaining)
        self._complaining = None
        if self._complaint:
            more = " (and what else it writes there is left out)" if self._complained == _maxComplaint else ""
            text, self._complaint = self._complaint.decode(errors="replace").rstrip(), b""
            _log.warn("worker {worker} wrote to its standard error{more}: {text}", worker=self._slot.name, text=text, more=more)

    def processEnded(self, reason: Failure) -> None:
        """The process is over, and has nothing more to say."""
        self._logComplaint()
        _cancel(self._reaping)
        assert reason.value is not None
        self._slot.ended(reason.value)


class _Slot:
    """
    A worker, and those that take its place.

    @ivar name: its number, from 1.
    @ivar process: its process, if it has one at the moment.
    @ivar failed: whether its last process ended before it was ready.
    @ivar drained: whether its last process was told to end, and did.
    """

    def __init__(self, pool: WorkerPool, index: int, sockets: Sequence[socket.socket], account: Counters) -> None:
        self.name = index + 1
        self.process: _Process | None = None
        self.failed = False
        self.drained = False
        self.account = account
        self._pool = pool
        self._index = index
        self._sockets = sockets
        self._backOff = BackOff()
        self._waiting: IDelayedCall | None = None

    def start(self) -> None:
        """Start a process."""
        self._waiting = None
        pool = self._pool
        descriptors = [pool.memory, *(sock.fileno() for sock in self._sockets)]
        numbers = range(_firstDescriptor, _firstDescriptor + len(descriptors))
        process = _Process(self, pool)
        # Before it is started, since it may be over before that has returned.
        self.process = process
        try:
            pool.reactor.spawnProcess(
                process,
                sys.executable,
                _commandLine(pool.reactor),
                env=None,
                childFDs={0: "w", 1: "r", 2: "r", **dict(zip(numbers, descriptors))},
            )
        except OSError as e:
            self.ended(e)
            return
        memory, *sockets = numbers
        process.say("configure", {**pool.settings, "slot": self._index, "memory": memory, "sockets": sockets})

    def stop(self) -> None:
        """Have the process end. If there is none, and something is queued, one is started to answer that."""
        _cancel(self._waiting)
        self._waiting = None
        if self.process is None and any(map(hasQueued, self._sockets)):
            self.start()
        if self.process is not None:
            self.process.stop()

    def isReady(self) -> None:
        """The process answers."""
        self.failed = False
        self._pool.oneIsReady()

    def ended(self, reason: BaseException) -> None:
        """The process is over, or could not be started."""
        process, self.process = self.process, None
        assert process is not None
        inHand = self.account.writeOffPending()
        lost = f"; what it had in hand counts as send_failed: {inHand}" if inHand else ""
        if self._pool.stopping:
            self.drained = isinstance(reason, error.ProcessDone)
            if not self.drained:
                _log.warn("worker {worker} {how}{lost}", worker=self.name, how=_howItEnded(reason), lost=lost)
            self._pool.oneHasStopped()
            return
        self.failed = not process.ready
        delay = self._backOff.next(self._pool.reactor.seconds() - process.started)
        _log.warn(
            "worker {worker} {how}{early}{lost}; another takes its place {when}",
            worker=self.name,
            how=_howItEnded(reason),
            early=" before it was ready" if self.failed else "",
            lost=lost,
            inHand=inHand,
            when=f"in {delay:g} s" if delay else "at once",
            delay=delay,
        )
        self._waiting = self._pool.reactor.callLater(delay, self.start)
        self._pool.oneHasDied()


def _cancel(call: IDelayedCall | None) -> None:
    """Cancel a delayed call, if there is one and it has yet to come."""
    if call is not None and call.active():
        call.cancel()


def _commandLine(reactor: object) -> list[str]:
    """How to run a worker with the kind of reactor that runs this process."""
    kind = type(reactor)
    loop = getattr(reactor, "_asyncioEventloop", None)
    what = [kind.__module__, *([] if loop is None else [qual(type(loop))])]
    return [sys.executable, "-c", _program, str(len(sys.path)), *sys.path, *what]


def _howItEnded(reason: BaseException) -> str:
    """Say how a process ended, from what Twisted says."""
    number = getattr(reason, "signal", None)
    if number is not None:
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    if isinstance(reason, (error.ProcessDone, error.ProcessTerminated)):
        return f"ended with exit status {reason.exitCode}"
    return f"cannot be started: {reason}"
