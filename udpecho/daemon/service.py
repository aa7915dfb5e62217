"""The server as a daemon: the echo service with HTTP pages, a log of drops, signals and systemd's protocol."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.logger import Logger

from udpecho.daemon.drop_log import DropLog
from udpecho.daemon.systemd import Notifier, Watchdog, watchdogInterval
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import Reactor
from udpecho.net.stopping import stopAll
from udpecho.server.service import EchoService

if TYPE_CHECKING:
    from udpecho.daemon.health import SelfEcho
    from udpecho.daemon.http_pages import MetricsService

_log = Logger()


class NewSettings(NamedTuple):
    """The outcome of a reload.

    @ivar logDatagrams: how many datagrams to log in a second; C{None} for all.
    @ivar applied: the names of the options that changed and are applied.
    @ivar needRestart: the names of those that changed and need a restart.
    """

    policy: GuardPolicy
    logDatagrams: int | None
    applied: tuple[str, ...]
    needRestart: tuple[str, ...]


class Daemon(Service):
    """An L{EchoService} as a daemon.

    C{SIGUSR1} logs the counters. C{SIGHUP} reloads the configuration. Without one it changes nothing, except at a terminal: a
    hangup of that ends the process, as usual.
    """

    def __init__(
        self,
        reactor: Reactor,
        echo: EchoService,
        environment: MutableMapping[str, str],
        *,
        metrics: str | None = None,
        reload: Callable[[], NewSettings] | None = None,
        payloadSize: int | None = None,
    ) -> None:
        """@param reactor: an C{IReactorCore}, C{IReactorTime} and C{IReactorFromThreads} provider that C{echo} can run on too.
        @param environment: what systemd has passed; what is used is removed from it.
        @param metrics: the endpoint of the HTTP pages, as in C{tcp:9107:interface=127.0.0.1}.
        @param reload: reads the configuration again; raises C{ValueError} if it is wrong.
        @param payloadSize: the longest payload that the service answers, in bytes; C{None} for any.
        """
        self.echo = echo
        self._reactor = reactor
        self._reload = reload
        self._notifier = Notifier(environment)
        self._payloadSize = payloadSize
        self._health: SelfEcho | None = None
        self._drops = DropLog(reactor, echo.counters, echo.busiest, echo.kernelDrops, echo.wouldDrop)
        self._pages = None if metrics is None else self._makePages(metrics)
        interval = watchdogInterval(environment)
        self._watchdog = None if interval is None else Watchdog(reactor, interval, self._requireHealthy, self._notifier)
        self._handlers: dict[int, Any] = {}

    def _makePages(self, metrics: str) -> MetricsService:
        from udpecho.daemon.http_pages import MetricsService
        from udpecho.server.metrics import makeRegistry

        echo = self.echo
        registry = makeRegistry(echo.counters, echo.kernelDrops, echo.limiterFill, echo.workersAlive, echo.wouldDrop)
        return MetricsService(self._reactor, metrics, registry, self.check, self.checkReady)

    def privilegedStartService(self) -> None:
        """@raise CannotListenError: if the system refuses a port, or the endpoint of the pages; none is bound then."""
        super().privilegedStartService()
        self._bind()

    def _bind(self) -> None:
        self.echo.privilegedStartService()
        if self._pages is not None:
            try:
                self._pages.privilegedStartService()
            except error.CannotListenError:
                self.echo.abort()
                raise

    def startService(self) -> None:
        """@raise CannotListenError: as L{privilegedStartService}, if that was not called."""
        self._bind()
        super().startService()
        # Before the server is announced: a supervisor may send a signal at once.
        self._handleSignal("SIGUSR1", self._drops.logCounters)
        if self._reload is not None or not os.isatty(0):
            self._handleSignal("SIGHUP", self.reload)
        self.echo.startService()
        if self._pages is not None:
            self._pages.startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        self._drops.start()
        self.echo.whenServing().addCallback(self._notifyReady)

    def _notifyReady(self, _: object) -> None:
        if self.running:
            self._notifier.ready(self._status())
            if self._watchdog is not None:
                self._watchdog.start()

    def _status(self) -> str:
        return "answering on " + ", ".join(map(str, self.echo.addresses))

    def stopService(self) -> defer.Deferred[None]:
        """@return: fires when the queued datagrams are answered and all ports are closed."""
        super().stopService()
        self._notifier.stopping()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        parts: dict[str, Callable[[], object]] = {}
        if self._watchdog is not None:
            parts["the watchdog"] = self._watchdog.stop
        parts["the log of drops"] = self._stopDropLog
        parts["the server"] = self.echo.stopService
        if self._pages is not None:
            parts["the pages"] = self._pages.stopService
        return stopAll(parts).addCallback(lambda _: stopAll({"the dry run": self._logWouldDrop}))

    def _stopDropLog(self) -> None:
        self._drops.stop()
        # The last line of the server is about the rest.
        self.echo.kernelDropsReported = self.echo.kernelDrops() or 0

    def _logWouldDrop(self) -> None:
        wouldDrop = self.echo.wouldDrop()
        if wouldDrop:
            reasons = " ".join(f"{reason}={number}" for reason, number in sorted(wouldDrop.items()))
            number = sum(wouldDrop.values())
            _log.info("dry run: {datagrams} datagrams would have been dropped ({reasons})", datagrams=number, reasons=reasons)

    def _handleSignal(self, name: str, callback: Callable[[], object]) -> None:
        """Call something in the reactor at a signal, after the handler that the signal has already."""
        number = getattr(signal, name, None)
        if number is None:
            return
        before = signal.getsignal(number)

        def handler(received: int, frame: Any) -> None:
            if callable(before):
                before(received, frame)
            self._reactor.callFromThread(callback)

        try:
            signal.signal(number, handler)
        except ValueError:
            # Only the main thread may have handlers.
            return
        self._handlers[number] = before

    def reload(self) -> None:
        """Reload the configuration, and apply what can be applied while serving. A wrong one changes nothing."""
        if self._reload is None:
            _log.warn("cannot reload: the server was started without --config FILE")
            return
        self._notifier.reloading()
        try:
            settings = self._reload()
        except ValueError as e:
            _log.error("cannot reload, the configuration is unchanged: {reason}", reason=str(e))
        else:
            self.echo.configure(settings.policy, settings.logDatagrams)
            _log.info("configuration reloaded: {applied}", applied=", ".join(settings.applied) or "no changes")
            if settings.needRestart:
                _log.warn("a restart is needed for {options}", options=", ".join(settings.needRestart))
        self._notifier.ready(self._status())

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

    async def _check(self, ready: bool) -> dict[str, str | None]:
        # Imported late: most servers are never checked.
        from udpecho.daemon.health import SIZE, SelfEcho, Works

        def starting(text: str) -> str:
            return text if ready else Works(f"ok ({text})")

        if self._health is None:
            size = SIZE if self._payloadSize is None else min(SIZE, self._payloadSize)
            self._health = SelfEcho(self._reactor, lambda: self.echo.addresses, size=size, watches=lambda: self.echo.watches)
        if self.echo.isServing:
            reasons = await self._health.check()
        else:
            reasons = {str(address): starting("starting") for address in self.echo.addresses}
        for number, reason, isStarting in self.echo.silentWorkers() if reasons else ():
            reasons[f"worker {number}"] = starting(reason) if isStarting else reason
        return reasons

    def _requireHealthy(self) -> defer.Deferred[object]:
        from udpecho.daemon.health import failures

        def require(reasons: dict[str, str | None]) -> None:
            failed = failures(reasons)
            if failed or not reasons:
                raise RuntimeError("; ".join(f"{part}: {reason}" for part, reason in failed.items()) or "not listening")

        return self.check().addCallback(require)
