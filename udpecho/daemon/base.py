"""A service as a daemon: HTTP pages, signals, a configuration that is read again, and systemd's protocol."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet import defer, error
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.daemon.states import failures
from udpecho.daemon.systemd import Notifier, Watchdog, watchdogInterval
from udpecho.interfaces import Reactor
from udpecho.net.restartable import RestartableService
from udpecho.net.stopping import stopAll
from udpecho.pieces import Work, inPieces

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from udpecho.daemon.command_line import Changes
    from udpecho.daemon.http_pages import MetricsService

#: Reads the options again; raises C{ValueError} if they are wrong.
Reloader = Callable[[], "Coroutine[Any, Any, tuple[Mapping[str, Any], Changes]]"]

_log = Logger()


class BaseDaemon(RestartableService, ABC):
    """What all daemons have; a subclass has what is special about one.

    C{SIGUSR1} logs the results so far. C{SIGHUP} reloads the configuration. Without one it changes nothing, except at a
    terminal: a hangup of that ends the process, as usual.

    @cvar name: what messages call it.
    """

    name: str

    def __init__(
        self,
        reactor: Reactor,
        service: IService,
        environment: MutableMapping[str, str],
        metrics: str | None = None,
        reload: Reloader | None = None,
    ) -> None:
        """@param reactor: an C{IReactorCore}, C{IReactorTime} and C{IReactorFromThreads} provider.
        @param service: what does the work.
        @param environment: what systemd has passed; what is used is removed from it.
        @param metrics: the endpoint of the HTTP pages, as in C{tcp:9107:interface=127.0.0.1}.
        @param reload: reads the configuration again.
        """
        super().__init__()
        self._reactor = reactor
        self._service = service
        self._reload = reload
        self._notifier = Notifier(environment)
        self._pages = None if metrics is None else self._makePages(metrics)
        interval = watchdogInterval(environment)
        self._watchdog = None if interval is None else Watchdog(reactor, interval, self._requireHealthy, self._notifier)
        self._handlers: dict[int, Any] = {}
        # Whether the service has worked since its start, the reload that runs, with its last step, and whether another follows.
        self._works = False
        self._reloading: defer.Deferred[None] | None = None
        self._applying: defer.Deferred[object] | None = None
        self._reloadsAgain = False

    def _makePages(self, metrics: str) -> MetricsService:
        from udpecho.daemon.http_pages import MetricsService

        return MetricsService(self._reactor, metrics, self._makeRegistry(), self.check, self.checkReady)

    # What a subclass has

    @abstractmethod
    def _makeRegistry(self) -> CollectorRegistry:
        """The metrics for the pages."""

    @abstractmethod
    def _bindSockets(self) -> None:
        """Bind what must be bound at the start, unless it is; called with the privileges, and without them.

        @raise CannotListenError: if the system refuses an address.
        """

    def _closeSockets(self) -> None:
        """Close what was bound, at a start that failed."""

    def _whenWorking(self) -> defer.Deferred[None]:
        """@return: fires when it works; called when the reactor runs."""
        return defer.succeed(None)

    def _parts(self) -> dict[str, Callable[[], object]]:
        """@return: what stops its parts, as for L{stopAll}."""
        return {f"the {self.name}": self._service.stopService}

    @abstractmethod
    def _status(self) -> str:
        """What it does, in one line."""

    @abstractmethod
    def _logResults(self) -> None:
        """Log the results so far."""

    @abstractmethod
    def _prepare(self, options: Mapping[str, Any]) -> Work[Callable[[], object]]:
        """Prepare to apply the options that can be applied without a restart.

        @return: applies them. It may return a Deferred, which fires when they are in force.
        @raise ValueError: if they cannot be applied.
        """

    @abstractmethod
    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """Check whether it works.

        @return: fires as L{Health <udpecho.daemon.states.Health>}.
        """

    def checkReady(self) -> defer.Deferred[dict[str, str | None]]:
        """Check whether it does its work now.

        @return: fires as L{check}.
        """
        return self.check()

    # The life of a daemon

    def _start(self) -> None:
        # Before it is announced: a supervisor may send a signal at once.
        self._handleSignal("SIGUSR1", self._logResults)
        if self._reload is not None or not os.isatty(0):
            self._handleSignal("SIGHUP", self.reload)
        self._service.startService()
        if self._pages is not None:
            self._pages.startService()
        self._reactor.callWhenRunning(self._reactorRuns)

    def _bind(self) -> None:
        try:
            self._bindSockets()
            if self._pages is not None:
                self._pages.privilegedStartService()
        except error.CannotListenError:
            self._closeSockets()
            if self._pages is not None:
                self._pages.stopService()
            raise

    def _reactorRuns(self) -> None:
        if self.running:
            self._whenWorking().addCallback(self._notifyReady)

    def _notifyReady(self, _: object) -> None:
        if self.running:
            self._works = True
            self._notifyState()
            if self._watchdog is not None:
                self._watchdog.start()

    def _notifyState(self) -> None:
        # It is ready when it works, and has applied the newest configuration.
        if self._works and self._reloading is None:
            self._notifier.ready(self._status())

    async def _stop(self) -> None:
        self._notifier.stopping()
        self._works = self._reloadsAgain = False
        if self._reloading is not None:
            self._reloading.cancel()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        parts: dict[str, Callable[[], object]] = {}
        if self._watchdog is not None:
            parts["the watchdog"] = self._watchdog.stop
        parts.update(self._parts())
        if self._pages is not None:
            parts["the pages"] = self._pages.stopService
        await stopAll(parts)

    def _handleSignal(self, name: str, callback: Callable[[], object]) -> None:
        """Call something in the reactor at a signal, after the handler that the signal has already."""
        number = getattr(signal, name, None)
        before = None if number is None else signal.getsignal(number)
        if number is None or before is None:
            # A handler that C code has set cannot be called, nor set again.
            return

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
        """Reload the configuration, and apply what can be applied without a restart. A wrong one changes nothing. It takes
        several turns of the reactor; any number of calls meanwhile are one more reload.
        """
        if self._reload is None:
            _log.warn("cannot reload: the {daemon} was started without --config FILE", daemon=self.name)
        elif self._reloading is not None:
            self._reloadsAgain = True
            if self._applying is not None:
                # What is in force everywhere is for the next one to report.
                self._applying.cancel()
        elif self.running:
            self._reloading = defer.Deferred.fromCoroutine(self._reloadOnce(self._reload))
            self._reloading.addBoth(self._reloaded)

    async def _reloadOnce(self, read: Reloader) -> None:
        # After all signals that this answers (sd_notify(3)).
        self._notifier.reloading()
        try:
            options, changes = await read()
            apply = await inPieces(self._reactor, self._prepare(options))
            self._applying = defer.maybeDeferred(apply)
            with suppress(defer.CancelledError):
                await self._applying
        except ValueError as e:
            _log.error("cannot reload, the configuration is unchanged: {reason}", reason=str(e))
            return
        _log.info("configuration reloaded: {applied}", applied=", ".join(changes.applicable) or "no changes")
        if changes.needRestart:
            _log.warn("a restart is needed for {options}", options=", ".join(changes.needRestart))

    def _reloaded(self, result: object) -> None:
        self._reloading = self._applying = None
        if isinstance(result, Failure) and not result.check(defer.CancelledError):
            _log.failure("cannot reload", result)
        if self._reloadsAgain:
            self._reloadsAgain = False
            self.reload()
        else:
            self._notifyState()

    def _requireHealthy(self) -> defer.Deferred[object]:
        def require(reasons: dict[str, str | None]) -> None:
            failed = failures(reasons)
            if failed or not reasons:
                raise RuntimeError("; ".join(f"{part}: {reason}" for part, reason in failed.items()) or "not listening")

        return self.check().addCallback(require)
