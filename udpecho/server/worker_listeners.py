"""The sockets on which the workers of a server answer."""

from __future__ import annotations

import socket

from twisted.internet import defer, error

from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import IDatagramLog, Reactor
from udpecho.net.reuseport import SocketGroup
from udpecho.net.sockets import hasQueued
from udpecho.pieces import Work, finish
from udpecho.server.counters import Counters, CountersView, SummedCounters, WorkerGuardStats
from udpecho.server.listeners import DRAIN_TIMEOUT, BoundPort, Change, ListenAddresses, Listeners, SilentWorker
from udpecho.server.settings import ServiceOptions
from udpecho.server.worker_messages import WorkerSettings
from udpecho.server.worker_pool import WorkerPool


class WorkerListeners(Listeners):
    """Sockets on which workers serve, several on each address."""

    policy: GuardPolicy

    def __init__(
        self, reactor: Reactor, where: ListenAddresses, options: ServiceOptions, log: IDatagramLog, policy: GuardPolicy
    ) -> None:
        super().__init__(reactor, where, options, log, policy)
        self.guardStats = WorkerGuardStats()
        # Those of the workers that have ended first, then those of the workers.
        self._past = Counters()
        self._parts: list[CountersView] = [self._past]
        self.counters = SummedCounters(self._parts)
        self._pool: WorkerPool | None = None

    def bind(self) -> None:
        """Bind the sockets, and make the pool: there may be no memory left for its counters."""
        super().bind()
        if self._pool is None:
            try:
                pool = self._pool = WorkerPool(
                    self.reactor, self._sockets(), self.log, finish(WorkerSettings.make(self.options, self.policy))
                )
            except OSError as e:
                host = self.addresses[0].host
                self.abort()
                raise error.CannotListenError(host, self.where.port, e) from None
            self.guardStats = pool.guardStats
            self.watches = pool.watches
            self._parts += pool.counters

    def _groups(self) -> list[SocketGroup]:
        return [port for port in self.ports if isinstance(port, SocketGroup)]

    def _sockets(self) -> list[tuple[socket.socket, ...]]:
        return list(zip(*(group.sockets for group in self._groups())))

    def reopen(self, port: BoundPort, interface: str) -> BoundPort:
        """As L{Listeners.reopen}; other workers take the places of those that have the old sockets."""
        opened = super().reopen(port, interface)
        if self._pool is not None:
            self._pool.serve(self._sockets())
        return opened

    def _listen(self, interface: str, number: int, index: int) -> BoundPort:
        return SocketGroup(number, interface, self.options.workers, self.options.receiveBuffer)

    def abort(self) -> None:
        """Close the sockets at once, before a worker was started."""
        super().abort()
        self._closePool()

    async def close(self) -> None:
        """Close the sockets, when no worker runs."""
        await super().close()
        self._closePool()

    def _closePool(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for counters in pool.counters:
                self._parts.remove(counters)
                self._past.add(counters)
            pool.close()

    def start(self) -> defer.Deferred[None]:
        """Start the workers. The Deferred fires when all answer."""
        assert self._pool is not None
        return self._pool.start()

    async def _drain(self) -> bool:
        # The workers themselves log what they cannot answer.
        pool = self._pool
        if pool is None or not pool.started:
            return True
        await pool.stop(DRAIN_TIMEOUT)
        self.log.close()
        return not any(hasQueued(group.sockets[index]) for group in self._groups() for index in pool.undrained())

    def _prepare(self, options: ServiceOptions, policy: GuardPolicy) -> Work[Change]:
        settings = yield from WorkerSettings.make(options, policy)
        return lambda: defer.succeed(None) if self._pool is None else self._pool.change(settings)

    def processes(self) -> int:
        """@return: how many workers answer."""
        return self.options.workers - len(self.silentWorkers())

    def silentWorkers(self) -> list[SilentWorker]:
        """The workers that do not answer; while the service is stopped, all of them."""
        if self._pool is None:
            return [SilentWorker(number, "stopped", False) for number in range(1, self.options.workers + 1)]
        return self._pool.silent()
