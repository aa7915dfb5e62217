"""The workers of a server: processes on one port, started, replaced when they end, and stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet import defer, error
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from udpecho.interfaces import IDatagramLog
from udpecho.net.call_queue import CallQueue
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.sockets import hasQueued
from udpecho.server.counters import Counters, SharedCounters, WorkerGuardStats
from udpecho.server.listeners import SilentWorker
from udpecho.server.worker_messages import LogForwarder, WorkerSettings
from udpecho.server.worker_process import WorkerProcess, describeEnd

#: Seconds that a worker has to start and end, in addition to those in which it answers what is queued, before it is killed.
_grace = 5.0
#: Seconds until a killed process must have ended.
_killTimeout = 5.0
#: Seconds between the end of a process and the start of the next; also how long it must have lived to count as healthy again.
_maxDelay = 5.0
_delay = backoffPolicy(initialDelay=0.1, maxDelay=_maxDelay, factor=2, jitter=lambda: 0.0)
#: Seconds between two looks at whether the workers have written something, as each does once a second. Silence is counted in
#: looks: while this process itself is stopped, or its machine asleep, there are none.
_lookInterval = 1.0
#: The looks after which a worker does not count as one that answers, and those after which it is killed.
_silent = 3
_hangs = 6
#: The same while it starts, for the first attempt and at most. Each attempt that fails doubles the time for the next.
_startHangs, _maxStartHangs = 9, 60

_log = Logger()


class WorkerSlot:
    """A worker's sockets and counters, which its process and those that replace it have in common.

    @ivar name: its number, from 1.
    @ivar process: its process, if it has one at the moment.
    @ivar failed: whether its last process ended before it was ready.
    @ivar drained: whether its last process was stopped, and ended with exit status 0.
    """

    def __init__(self, pool: WorkerPool, index: int, sockets: Sequence[socket.socket], counters: Counters) -> None:
        self.name = index + 1
        self.process: WorkerProcess | None = None
        self.failed = False
        self.drained = False
        self.counters = counters
        self._pool = pool
        self._index = index
        self._sockets = sockets
        self._forwarder = LogForwarder(pool.log, pool.settings.logsAll)
        self._restarts = 0
        self._starting = SingleCall(pool.reactor, self.start)

    def start(self) -> None:
        """Start a process."""
        pool = self._pool
        forwarder = self._forwarder = LogForwarder(pool.log, pool.settings.logsAll)
        # Set before it is started: it may end before that returns.
        self.process = WorkerProcess(
            pool.reactor,
            self.name,
            {
                "applied": self._applied,
                "received": forwarder.received,
                "written": forwarder.written,
                "unlogged": forwarder.unlogged,
                "guard": lambda value: pool.guardStats.merge(self.name, **value),
            },
            self._ended,
        )
        descriptors = [pool.memory, *(sock.fileno() for sock in self._sockets)]
        self.process.start(self._index, descriptors, pool.settings)

    def change(self) -> None:
        """Have the process serve with the settings of the pool."""
        self._forwarder.logsAll = self._pool.settings.logsAll
        if self.process is not None:
            self.process.update(self._pool.settings)

    def hasChanged(self) -> bool:
        """Whether no process answers by former settings. One that is started later gets the newest."""
        return self.process is None or self.process.applied == self._pool.settings.number

    def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on other sockets: another process takes the place of this one."""
        self._sockets = sockets
        if self.process is not None:
            self.process.stop()

    def stop(self) -> None:
        """Have the process answer what is queued, and end. If there is none, and something is queued, start one."""
        self._starting.cancel()
        if self.process is None and any(map(hasQueued, self._sockets)):
            self.start()
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Kill a process that does not end."""
        if self.process is not None:
            _log.warn("worker {worker} does not end, and is killed", worker=self.name)
            self.process.kill()

    def silent(self) -> SilentWorker | None:
        """What is wrong; C{None} if a process answers."""
        process = self.process
        if process is None or not process.ready:
            return SilentWorker(self.name, "ended before it was ready" if self.failed else "starting", not self.failed)
        if process.silence < _silent:
            return None
        return SilentWorker(self.name, f"has not answered for {process.silence} s", False)

    def look(self) -> None:
        """Kill a process that hangs: its end has another start."""
        process = self.process
        if process is None:
            return
        process.silence += 1
        most = _hangs if process.ready else min(_startHangs * 2**self._restarts, _maxStartHangs)
        if process.silence % most == 0:
            _log.warn("worker {worker} has not answered for {seconds} s, and is killed", worker=self.name, seconds=most)
            process.kill()

    def _applied(self, number: int) -> None:
        process = self.process
        assert process is not None
        process.confirm(number)
        process.update(self._pool.settings)
        self.failed = False
        self._pool.workerReady()

    def _ended(self, reason: BaseException) -> None:
        process, self.process = self.process, None
        assert process is not None
        pending = self.counters.writeOffPending()
        lost = f"; unfinished datagrams, counted as send_failed: {pending}" if pending else ""
        if self._pool.stopping:
            self.drained = isinstance(reason, error.ProcessDone)
            if not self.drained:
                _log.warn("worker {worker} {how}{lost}", worker=self.name, how=describeEnd(reason), lost=lost)
            self._pool.workerStopped()
            return
        self.failed = not process.ready
        if process.ready and self._pool.reactor.seconds() - process.started >= _maxDelay:
            self._restarts = 0
        delay = _delay(self._restarts - 1) if self._restarts else 0.0
        self._restarts += 1
        _log.warn(
            "worker {worker} {how}{early}{lost}; another takes its place {when}",
            worker=self.name,
            how=describeEnd(reason),
            early=" before it was ready" if self.failed else "",
            lost=lost,
            pending=pending,
            when=f"in {delay:g} s" if delay else "at once",
            delay=delay,
        )
        self._starting.schedule(delay)
        self._pool.workerEnded()


class WorkerPool:
    """Keeps a number of workers running.

    @ivar settings: what they serve with.
    @ivar memory: the descriptor of the memory of their counters.
    @ivar counters: those of each worker.
    @ivar watches: those of each address.
    @ivar guardStats: the sum of what their guards report.
    @ivar started: whether they have been started.
    @ivar stopping: whether they are to end.
    """

    def __init__(
        self, reactor: Any, sockets: Sequence[Sequence[socket.socket]], log: IDatagramLog, settings: WorkerSettings
    ) -> None:
        """@param reactor: an C{IReactorProcess} and C{IReactorTime} provider.
        @param sockets: for each worker the bound sockets that it serves on. They stay open here, so that what is queued on
            them outlives a worker.
        @raise OSError: if there is no memory or no descriptor left for the counters.
        """
        self.reactor = reactor
        self.log = log
        self.settings = settings
        self.guardStats = WorkerGuardStats()
        self._shared = SharedCounters(len(sockets), len(sockets[0]))
        self.memory = self._shared.descriptor
        self.counters = self._shared.counters
        self.watches = self._shared.watches
        self.started = self.stopping = False
        self._ready: defer.Deferred[None] | None = defer.Deferred()
        self._changing: list[defer.Deferred[None]] = []
        self._logged = False
        self._stopped: defer.Deferred[None] | None = None
        self._killing, self._abandoning = SingleCall(reactor, self._kill), SingleCall(reactor, self._abandon)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._slots = [WorkerSlot(self, *parts) for parts in zip(range(len(sockets)), sockets, self.counters)]

    def start(self) -> defer.Deferred[None]:
        """Start the workers. The Deferred fires as soon as all are ready at one time."""
        ready = self._ready
        assert ready is not None
        self.started = True
        for slot in self._slots:
            slot.start()
        self._looking.start(_lookInterval, now=False)
        return ready

    def _look(self) -> None:
        self._each("look after", WorkerSlot.look)

    def _each(self, action: str, do: Callable[[WorkerSlot], object]) -> None:
        for slot in self._slots:
            try:
                do(slot)
            except Exception:
                # The next look finds the same, or nothing.
                _log.failure("cannot {action} worker {worker}", action=action, worker=slot.name)

    def silent(self) -> list[SilentWorker]:
        """The workers that do not answer."""
        return [silent for slot in self._slots if (silent := slot.silent()) is not None]

    def change(self, settings: WorkerSettings) -> defer.Deferred[None]:
        """Change the settings of the workers, and of those that replace them.

        @return: fires when no worker answers by former ones any more.
        """
        self.settings = settings
        changed: defer.Deferred[None] = defer.Deferred()
        self._changing.append(changed)
        if not self.stopping:
            for slot in self._slots:
                slot.change()
        self._checkChanged()
        return changed

    def _checkChanged(self) -> None:
        if self.stopping or all(slot.hasChanged() for slot in self._slots):
            calls = CallQueue()
            calls.addResults(self._changing, None)
            calls.run()

    def serve(self, sockets: Sequence[Sequence[socket.socket]]) -> None:
        """Serve on other sockets from now on, as many for each worker as before."""
        for slot, parts in zip(self._slots, sockets):
            slot.serve(parts)

    def undrained(self) -> list[int]:
        """After the stop, the indices of the workers whose process failed, or that had none."""
        return [index for index, slot in enumerate(self._slots) if not slot.drained]

    def stop(self, timeout: float) -> defer.Deferred[None]:
        """Have the workers answer what is queued, for C{timeout} seconds, and end; kill those that do not. The Deferred fires
        when all have ended.
        """
        self.stopping = True
        self._ready = None
        if self._looking.running:
            self._looking.stop()
        # Some may have ended, or not have been started, before all are asked.
        self._each("stop", WorkerSlot.stop)
        stopped = self._stopped = defer.Deferred()
        self._killing.schedule(timeout + _grace)
        self._checkChanged()
        self.workerStopped()
        return stopped

    def _kill(self) -> None:
        self._each("kill", WorkerSlot.kill)
        self._abandoning.schedule(_killTimeout)

    def _abandon(self) -> None:
        _log.error(
            "workers cannot be killed: {workers}", workers=[slot.name for slot in self._slots if slot.process is not None]
        )
        self._finish()

    def _finish(self) -> None:
        self._killing.cancel()
        self._abandoning.cancel()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def close(self) -> None:
        """Release the memory, when no process runs. The counters keep their numbers."""
        self._shared.close()

    # What a slot reports

    def workerStopped(self) -> None:
        """A process has ended after the stop."""
        if not any(slot.process for slot in self._slots):
            self._finish()

    def workerReady(self) -> None:
        """A worker answers, or has changed its settings."""
        self._logged = False
        self._checkChanged()
        if self._ready is not None and not self.silent():
            ready, self._ready = self._ready, None
            ready.callback(None)

    def workerEnded(self) -> None:
        """A process has ended before the stop."""
        self._checkChanged()
        if not self._logged and all(slot.failed for slot in self._slots):
            self._logged = True
            _log.error("no worker can start: nothing is answered until one does, and they are tried again and again")
