"""The workers of a server: processes on one port, started, replaced when they die, heard, and stopped."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from udpecho.interfaces import IDatagramLog
from udpecho.server.shared_counters import SharedCounters
from udpecho.server.worker_process import WorkerGuardStats, _cancel, _Slot

#: Seconds beyond its time to drain that a worker has for starting and ending, before it is killed.
_grace = 5.0
#: Seconds in which a killed process must be gone.
_deathTimeout = 5.0

_log = Logger()


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
        journal: IDatagramLog,
        logDatagrams: int | None,
        shared: SharedCounters | None = None,
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
        self.news = WorkerGuardStats()
        self._shared = SharedCounters(len(sockets)) if shared is None else shared
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
        """How many workers answer."""
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
        """After the stop, the indices of the workers that had no process to answer what was queued, or one that failed."""
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
        writeOffPending = self.reactor.callLater(_deathTimeout, self._giveUp)
        assert self._stopped is not None
        self._stopped.addBoth(lambda _: _cancel(writeOffPending))

    def _giveUp(self) -> None:
        _log.error(
            "workers cannot be killed: {workers}", workers=[slot.name for slot in self._slots if slot.process is not None]
        )
        self._finish()

    def oneHasStopped(self) -> None:
        """A worker's process is over, as it should."""
        if not any(slot.process for slot in self._slots):
            self._finish()

    def _finish(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self._shared.close()
            stopped.callback(None)

    def oneIsReady(self) -> None:
        """A worker answers."""
        self._complained = False
        if self._ready is not None and all(slot.process is not None and slot.process.ready for slot in self._slots):
            ready, self._ready = self._ready, None
            ready.callback(None)

    def oneHasDied(self) -> None:
        """A worker's process is over, and was not to be."""
        if not self._complained and all(slot.failed for slot in self._slots):
            self._complained = True
            _log.error("no worker can start: nothing is answered until one does, and they are tried again and again")
