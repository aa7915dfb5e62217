"""
The workers of a server: processes on one port, started, replaced when they die, heard, and stopped.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet import defer, error
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import qual

from udpecho.addresses import DatagramAddress
from udpecho.busiest import Busiest
from udpecho.counters import COUNTERS_SIZE, Counters
from udpecho.interfaces import IDatagramJournal
from udpecho.messages import LineBuffer, decode, encode
from udpecho.sockets.group import hasQueued

#: Seconds beyond its time to drain that a worker has for starting and ending, before it is killed.
_grace = 5.0
#: Seconds in which a killed process must be gone.
_deathTimeout = 5.0
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
    " from udpecho.worker import main; main(sys.argv[n:])"
)
#: Where in a worker the descriptors are that it is given, after standard input, output and error.
_firstDescriptor = 3

_log = Logger()


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


class SharedAccounts:
    """
    Accounts in memory that processes share.

    @ivar descriptor: the memory, for the processes to map.
    @ivar accounts: the accounts, in their order.
    """

    def __init__(self, number: int) -> None:
        """
        @param number: how many accounts.

        @raise OSError: if there is no descriptor or no memory left.
        """
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("udpecho")
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(self.descriptor, number * COUNTERS_SIZE)
            self._memory = mmap.mmap(self.descriptor, number * COUNTERS_SIZE)
        except BaseException:
            os.close(self.descriptor)
            raise
        whole = memoryview(self._memory)
        self.accounts = [Counters(whole[at : at + COUNTERS_SIZE]) for at in range(0, len(whole), COUNTERS_SIZE)]

    def close(self) -> None:
        """
        Give the memory back. The accounts stay as they are.
        """
        for account in self.accounts:
            account.detach()
        # Where objects live on after their last use the memory does too.
        with suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)


class GuardNews:
    """
    What the guards of all workers tell.

    @ivar wouldDrop: in a dry run, the datagrams that would have been dropped, by reason.
    """

    def __init__(self) -> None:
        self.wouldDrop: Counter[str] = Counter()
        self._busiest: dict[str, Busiest[str]] = {}
        self._fills: dict[int, float] = {}

    def heard(
        self, worker: int, busiest: Mapping[str, Sequence[tuple[str, int]]], wouldDrop: Mapping[str, int], fill: float
    ) -> None:
        """
        One of them told something.

        @param worker: which.
        @param busiest: what its L{Guard.busiest <udpecho.guard.Guard.busiest>} said.
        @param wouldDrop: how many more it would have dropped.
        @param fill: how full its limiter's table is.
        """
        for reason, found in busiest.items():
            for prefix, datagrams in found:
                self._busiest.setdefault(reason, Busiest()).add(prefix, datagrams)
        self.wouldDrop.update(wouldDrop)
        self._fills[worker] = fill

    @property
    def fill(self) -> float:
        """
        How full the fullest table is, from 0 to 1.
        """
        return max(self._fills.values(), default=0.0)

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """
        @see: L{Guard.busiest <udpecho.guard.Guard.busiest>}
        """
        taken = {reason: busiest.take(most) for reason, busiest in self._busiest.items()}
        return {reason: found for reason, found in taken.items() if found}


class _Relay:
    """
    Hands the lines of one worker to the journal of all.

    A reply has its line if its datagram had one. The two have no more in common than the peer and the size; the oldest of many
    that have no reply are forgotten.

    @ivar everything: whether all datagrams have their lines.
    """

    def __init__(self, journal: IDatagramJournal, everything: bool) -> None:
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
        """
        Send the worker a message.
        """
        self.transport.writeToChild(0, encode(kind, value))

    def stop(self) -> None:
        """
        Ask the process to end, when it has answered what is queued.
        """
        self.transport.closeStdin()

    def kill(self) -> None:
        """
        End the process at once.
        """
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        The worker said something.
        """
        if childFD != 1:
            self._complains(data)
            return
        for line in self._lines.feed(data):
            self._heard(line)

    def childConnectionLost(self, childFD: int) -> None:
        """
        The worker says no more: it is ending.
        """
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
        """
        The process is over, and has nothing more to say.
        """
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
        """
        Start a process.
        """
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
        """
        Have the process end. If there is none, and something is queued, one is started to answer that.
        """
        _cancel(self._waiting)
        self._waiting = None
        if self.process is None and any(map(hasQueued, self._sockets)):
            self.start()
        if self.process is not None:
            self.process.stop()

    def isReady(self) -> None:
        """
        The process answers.
        """
        self.failed = False
        self._pool.oneIsReady()

    def ended(self, reason: BaseException) -> None:
        """
        The process is over, or could not be started.
        """
        process, self.process = self.process, None
        assert process is not None
        inHand = self.account.giveUp()
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


class WorkerPool:
    """
    Keeps a number of workers running.

    @ivar reactor: starts the processes, and the next ones when it is time.
    @ivar journal: gets their lines.
    @ivar logsAll: whether all datagrams have their lines.
    @ivar settings: what they are told.
    @ivar memory: the descriptor of the memory of their accounts.
    @ivar accounts: the account of each.
    @ivar news: what their guards tell.
    @ivar stopping: whether they are to end.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: Sequence[Sequence[socket.socket]],
        journal: IDatagramJournal,
        logDatagrams: int | None,
        shared: SharedAccounts | None = None,
        **settings: object,
    ) -> None:
        """
        @param reactor: an C{IReactorProcess} and C{IReactorTime} provider.
        @param sockets: for each worker the bound sockets that it serves on. They stay open here, so that what is queued on
            them outlives a worker.
        @param journal: the journal of all workers.
        @param logDatagrams: how many datagrams a second each of them tells the journal of, beside the sum of the rest;
            C{None} for all.
        @param shared: the accounts of the workers, one for each, which the pool closes; by default new ones.
        @param settings: what else they are told: what JSON can carry.

        @raise OSError: if there is no descriptor or no memory left.
        """
        self.reactor = reactor
        self.journal = journal
        self.logsAll = logDatagrams is None
        self.settings = {"logDatagrams": logDatagrams, **settings}
        self.news = GuardNews()
        self._shared = SharedAccounts(len(sockets)) if shared is None else shared
        self.memory = self._shared.descriptor
        self.accounts = self._shared.accounts
        self.stopping = False
        self._ready: defer.Deferred[None] | None = defer.Deferred()
        self._complained = False
        self._stopped: defer.Deferred[None] | None = None
        self._slots = [_Slot(self, *parts) for parts in zip(range(len(sockets)), sockets, self.accounts)]

    def start(self) -> defer.Deferred[None]:
        """
        Start the workers.

        @return: fires when all of them have been ready at one time; never if they do not come to that.
        """
        ready = self._ready
        assert ready is not None
        for slot in self._slots:
            slot.start()
        return ready

    def alive(self) -> int:
        """
        How many workers answer.
        """
        return sum(slot.process is not None and slot.process.ready for slot in self._slots)

    def change(self, logDatagrams: int | None, **settings: object) -> None:
        """
        Have the workers, and those that come after them, go on with other settings.

        @param logDatagrams: as at the beginning.
        @param settings: the same.
        """
        self.logsAll = logDatagrams is None
        changed = {"logDatagrams": logDatagrams, **settings}
        self.settings.update(changed)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.relay.everything = self.logsAll
                slot.process.say("change", changed)

    def undrained(self) -> list[int]:
        """
        After the stop, the indices of the workers that had no process to answer what was queued, or one that failed.
        """
        return [index for index, slot in enumerate(self._slots) if not slot.drained]

    def stop(self, timeout: float) -> defer.Deferred[None]:
        """
        Have the workers answer what is queued and end; kill those that do not.

        @param timeout: how many seconds they have for what is queued.

        @return: fires when all are over.
        """
        self.stopping = True
        self._ready = None
        stopped = self._stopped = defer.Deferred()
        killing = self.reactor.callLater(timeout + _grace, self._kill)
        stopped.addBoth(lambda _: _cancel(killing))
        for slot in self._slots:
            slot.stop()
        self.oneHasStopped()
        return stopped

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                _log.warn("worker {worker} does not end, and is killed", worker=slot.name)
                slot.process.kill()
        giveUp = self.reactor.callLater(_deathTimeout, self._giveUp)
        assert self._stopped is not None
        self._stopped.addBoth(lambda _: _cancel(giveUp))

    def _giveUp(self) -> None:
        _log.error(
            "workers cannot be killed: {workers}", workers=[slot.name for slot in self._slots if slot.process is not None]
        )
        self._finish()

    def oneHasStopped(self) -> None:
        """
        A worker's process is over, as it should.
        """
        if not any(slot.process for slot in self._slots):
            self._finish()

    def _finish(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self._shared.close()
            stopped.callback(None)

    def oneIsReady(self) -> None:
        """
        A worker answers.
        """
        self._complained = False
        if self._ready is not None and all(slot.process is not None and slot.process.ready for slot in self._slots):
            ready, self._ready = self._ready, None
            ready.callback(None)

    def oneHasDied(self) -> None:
        """
        A worker's process is over, and was not to be.
        """
        if not self._complained and all(slot.failed for slot in self._slots):
            self._complained = True
            _log.error("no worker can start: nothing is answered until one does, and they are tried again and again")


def _cancel(call: IDelayedCall | None) -> None:
    """
    Cancel a delayed call, if there is one and it has yet to come.
    """
    if call is not None and call.active():
        call.cancel()


def _commandLine(reactor: object) -> list[str]:
    """
    How to run a worker with the kind of reactor that runs this process.
    """
    kind = type(reactor)
    loop = getattr(reactor, "_asyncioEventloop", None)
    what = [kind.__module__, *([] if loop is None else [qual(type(loop))])]
    return [sys.executable, "-c", _program, str(len(sys.path)), *sys.path, *what]


def _howItEnded(reason: BaseException) -> str:
    """
    Say how a process ended, from what Twisted says.
    """
    number = getattr(reason, "signal", None)
    if number is not None:
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    if isinstance(reason, (error.ProcessDone, error.ProcessTerminated)):
        return f"ended with exit status {reason.exitCode}"
    return f"cannot be started: {reason}"


__all__ = ["BackOff", "GuardNews", "SharedAccounts", "WorkerPool"]
