"""The server as a daemon: beside the echo its metrics, its log of drops, its signals, and what systemd is told."""

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
from udpecho.server.service import EchoService

if TYPE_CHECKING:
    from udpecho.daemon.health import SelfEcho

#: Drops that the guard decides: a self-echo that met one of these was received, looked at and dropped by a server that works.
_decided = ("loop_guard", "not_allowed", "rate_limited", "too_large")

_log = Logger()


class CannotServeMetrics(Exception):
    """The page with the metrics cannot be served where it was to be; the message says why."""


class Reloaded(NamedTuple):
    """
    What the configuration says when it is read again.

    @ivar policy: the policy of the guard.
    @ivar logDatagrams: how many datagrams a second have their lines in the log; C{None} for all.
    @ivar applied: the names of the options that are applied.
    @ivar needRestart: those that have changed, and cannot be applied while serving.
    """

    policy: GuardPolicy
    logDatagrams: int | None
    applied: tuple[str, ...]
    needRestart: tuple[str, ...]


class Daemon(Service):
    """
    An L{EchoService}, and what a daemon has around it.

    C{SIGUSR1} logs the sums; C{SIGHUP} reads the configuration again. Without one it changes nothing, unless it may come from a
    terminal that hangs up: then it ends the process, as it does any.

    @ivar echo: the service.
    """

    def __init__(
        self,
        reactor: Any,
        echo: EchoService,
        environment: MutableMapping[str, str],
        *,
        metrics: str | None = None,
        reload: Callable[[], Reloaded] | None = None,
        payloadSize: int | None = None,
    ) -> None:
        """
        @param reactor: the reactor.
        @param echo: the service.
        @param environment: the process's, where systemd says how to be told; what it says there is taken out.
        @param metrics: the endpoint where metrics are served, as in C{tcp:9107:interface=127.0.0.1}.
        @param reload: reads the configuration again; raises C{ValueError} with a sentence if that cannot be used.
        @param payloadSize: the longest payload that the service answers, in bytes; C{None} for any.
        """
        self.echo = echo
        self._reactor = reactor
        self._reload = reload
        self._metrics = metrics
        self._notifier = Notifier(environment)
        self._payloadSize = payloadSize
        self._health: SelfEcho | None = None
        self._drops = DropLog(reactor, echo.counters, echo.busiest, echo.kernelDrops, echo.wouldDrop)
        self._pages = None if metrics is None else self._makePages(metrics)
        interval = watchdogInterval(environment)
        self._watchdog = None if interval is None else Watchdog(reactor, interval, self._requireHealthy, self._notifier)
        self._handlers: dict[int, Any] = {}

    def _makePages(self, metrics: str) -> Any:
        from udpecho.daemon.http_pages import MetricsService
        from udpecho.server.metrics import makeRegistry

        echo = self.echo
        registry = makeRegistry(echo.counters, echo.kernelDrops, echo.limiterFill, echo.workersAlive, echo.wouldDrop)
        return MetricsService(self._reactor, metrics, registry, self.check)

    # Starting and stopping

    def privilegedStartService(self) -> None:
        """
        Bind all ports.

        @raise error.CannotListenError: if the system refuses one; none is bound then.
        @raise CannotServeMetrics: if it refuses the endpoint of the metrics; the same.
        """
        super().privilegedStartService()
        self._bind()

    def _bind(self) -> None:
        self.echo.privilegedStartService()
        if self._pages is not None:
            try:
                self._pages.privilegedStartService()
            except (error.CannotListenError, OSError) as e:
                self.echo.abort()
                reason = getattr(e, "socketError", e)
                why = getattr(reason, "strerror", None) or reason
                raise CannotServeMetrics(f"cannot serve metrics on {self._metrics}: {why}") from None

    def startService(self) -> None:
        """
        Serve.

        @raise error.CannotListenError: if the system refuses a port; none is bound then.
        """
        self._bind()
        super().startService()
        # Before anybody is told that there is a server who may be sent signals.
        self._listen("SIGUSR1", self._drops.logCounters)
        if self._reload is not None or not _isAtTerminal():
            self._listen("SIGHUP", self.reload)
        self.echo.startService()
        if self._pages is not None:
            self._pages.startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        self._drops.start()
        self.echo.whenServing().addCallback(lambda _: self._serves())

    def _serves(self) -> None:
        if self.running:
            self._notifier.ready(self._status())
            if self._watchdog is not None:
                self._watchdog.start()

    def _status(self) -> str:
        return "answering on " + ", ".join(map(str, self.echo.addresses))

    def stopService(self) -> defer.Deferred[None]:
        """
        Answer what is already queued, and stop.

        @return: fires when all ports are closed.
        """
        super().stopService()
        self._notifier.stopping()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if self._watchdog is not None:
            self._watchdog.stop()
        self._drops.stop()
        # The last line is about the rest.
        self.echo.kernelDropsReported = self.echo.kernelDrops() or 0
        stopping = [self.echo.stopService()]
        if self._pages is not None:
            stopping.append(self._pages.stopService())
        self._sayWouldDrop()
        return defer.gatherResults(stopping).addCallback(lambda _: None)

    def _sayWouldDrop(self) -> None:
        wouldDrop = self.echo.wouldDrop()
        if wouldDrop:
            reasons = " ".join(f"{reason}={number}" for reason, number in sorted(wouldDrop.items()))
            number = sum(wouldDrop.values())
            _log.info("a dry run: {datagrams} would have been dropped ({reasons})", datagrams=number, reasons=reasons)

    # Signals

    def _listen(self, name: str, react: Callable[[], object]) -> None:
        """Have a signal call something in the reactor; whoever had it before hears it too."""
        number = getattr(signal, name, None)
        if number is None:
            return
        before = signal.getsignal(number)

        def handler(received: int, frame: Any) -> None:
            if callable(before):
                before(received, frame)
            self._reactor.callFromThread(react)

        try:
            signal.signal(number, handler)
        except ValueError:
            # Signals are for the main thread.
            return
        self._handlers[number] = before

    def reload(self) -> None:
        """
        Read the configuration again, and apply what can be applied while serving. One that cannot be used changes nothing.
        """
        if self._reload is None:
            _log.warn("there is no configuration to read again: --config FILE names one")
            return
        self._notifier.reloading()
        try:
            found = self._reload()
        except ValueError as e:
            _log.error("the configuration stays as it is: {reason}", reason=str(e))
        else:
            self.echo.configure(found.policy, found.logDatagrams)
            _log.info("the configuration is read again: {applied}", applied=", ".join(found.applied) or "nothing has changed")
            if found.needRestart:
                _log.warn("a restart is needed for {options}", options=", ".join(found.needRestart))
        self._notifier.ready(self._status())

    # Health

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """
        Have the service echo a datagram through each of its addresses. One that its guard drops is a sign of life too.

        @return: fires with each address, and C{None} or a sentence that says what is wrong.
        """
        before = self._decisions()

        def judge(found: dict[str, str | None]) -> dict[str, str | None]:
            if self._decisions() > before:
                return dict.fromkeys(found)
            return found

        if self._health is None:
            # Few servers are asked, and the others start sooner.
            from udpecho.daemon.health import SIZE, SelfEcho

            size = SIZE if self._payloadSize is None else min(SIZE, self._payloadSize)
            self._health = SelfEcho(self._reactor, lambda: self.echo.addresses, size=size)
        return self._health.check().addCallback(judge)

    def _decisions(self) -> int:
        dropped = self.echo.counters.dropped
        return sum(dropped[reason] for reason in _decided)

    def _requireHealthy(self) -> defer.Deferred[object]:
        def judge(found: dict[str, str | None]) -> None:
            ill = [f"{address}: {why}" for address, why in found.items() if why is not None]
            if ill or not found:
                raise RuntimeError("; ".join(ill) or "it does not listen")

        return self.check().addCallback(judge)


def _isAtTerminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
