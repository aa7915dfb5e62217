"""The server as a daemon: the echo service with a log of drops, and what all daemons have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.logger import Logger

from udpecho.daemon.base import BaseDaemon, Reloader
from udpecho.daemon.drop_log import DropLog
from udpecho.daemon.states import Works
from udpecho.interfaces import Reactor
from udpecho.pieces import Work
from udpecho.server.service import EchoService
from udpecho.server.settings import settingsFrom

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from udpecho.daemon.health import SelfEcho

_log = Logger()


class Daemon(BaseDaemon):
    """An L{EchoService} as a daemon. C{SIGUSR1} logs the counters."""

    name = "server"

    def __init__(
        self,
        reactor: Reactor,
        echo: EchoService,
        environment: MutableMapping[str, str],
        *,
        metrics: str | None = None,
        reload: Reloader | None = None,
        payloadSize: int | None = None,
    ) -> None:
        """@param reactor: one that C{echo} can run on too; for it and the other parameters see L{BaseDaemon}.
        @param payloadSize: the longest payload that the service answers, in bytes; C{None} for any.
        """
        self.echo = echo
        self._payloadSize = payloadSize
        self._health: SelfEcho | None = None
        self._drops = DropLog(reactor, echo.counters, echo.busiest, echo.kernelDrops, echo.wouldDrop)
        super().__init__(reactor, echo, environment, metrics, reload)
        if self._pages is not None or self._watchdog is not None:
            # Now: without a file descriptor nothing can be imported.
            self._selfEcho()

    def _makeRegistry(self) -> CollectorRegistry:
        from udpecho.server.metrics import makeRegistry

        echo = self.echo
        return makeRegistry(echo.counters, echo.kernelDrops, echo.limiterFill, echo.workersAlive, echo.wouldDrop)

    def _bindSockets(self) -> None:
        self.echo.privilegedStartService()

    def _closeSockets(self) -> None:
        self.echo.abort()

    def _whenWorking(self) -> defer.Deferred[None]:
        self._drops.start()
        return self.echo.whenServing()

    def _status(self) -> str:
        return "answering on " + ", ".join(map(str, self.echo.addresses))

    def _parts(self) -> dict[str, Callable[[], object]]:
        return {"the log of drops": self._stopDropLog, **super()._parts()}

    def _stopDropLog(self) -> None:
        self._drops.stop()
        # The last line of the server is about the rest.
        self.echo.kernelDropsReported = self.echo.kernelDrops() or 0

    async def _stop(self) -> None:
        await super()._stop()
        self._logWouldDrop()

    def _logResults(self) -> None:
        self._drops.logCounters()

    def _logWouldDrop(self) -> None:
        wouldDrop = self.echo.wouldDrop()
        if wouldDrop:
            reasons = " ".join(f"{reason}={number}" for reason, number in sorted(wouldDrop.items()))
            number = sum(wouldDrop.values())
            _log.info("dry run: {datagrams} datagrams would have been dropped ({reasons})", datagrams=number, reasons=reasons)

    def _prepare(self, options: Mapping[str, Any]) -> Work[Callable[[], object]]:
        serviceOptions, policy = settingsFrom(options)
        return self.echo.prepare(policy, serviceOptions.logDatagrams)

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """Check whether the service works: each of its addresses echoes a datagram, or drops it by decision, and each worker
        answers. What is being started works.

        @return: fires with a mapping of each address, and of each worker that does not answer, to C{None} or a L{Works} if it
            works, else to the reason why not.
        """
        return defer.Deferred.fromCoroutine(self._check(False))

    def checkReady(self) -> defer.Deferred[dict[str, str | None]]:
        """The same as L{check}, but what is being started does not work yet."""
        return defer.Deferred.fromCoroutine(self._check(True))

    def _selfEcho(self) -> SelfEcho:
        if self._health is None:
            # Imported late: most servers are never checked.
            from udpecho.daemon.health import SIZE, SelfEcho

            size = SIZE if self._payloadSize is None else min(SIZE, self._payloadSize)
            self._health = SelfEcho(self._reactor, lambda: self.echo.addresses, size=size, watches=lambda: self.echo.watches)
        return self._health

    async def _check(self, ready: bool) -> dict[str, str | None]:
        def starting(text: str) -> str:
            return text if ready else Works(f"ok ({text})")

        if self.echo.isServing:
            reasons = await self._selfEcho().check()
        else:
            reasons = {str(address): starting("starting") for address in self.echo.addresses}
        for number, reason, isStarting in self.echo.silentWorkers() if reasons else ():
            reasons[f"worker {number}"] = starting(reason) if isStarting else reason
        return reasons
