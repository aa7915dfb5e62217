"""Probes that go on for ever, as a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.errors import EchoError
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import findTarget

#: Seconds in which a name must be looked up, and after which a target that could not be probed is tried again.
LOOK_UP_TIMEOUT = 5.0
RETRY = 10.0

_log = Logger()


class Metrics(Protocol):
    """What L{udpecho.probe.metrics.ProbeMetrics} is for a service."""

    def expect(self, target: str, source: int) -> object:
        """There will be a flow."""

    def add(self, flow: Flow, source: int) -> object:
        """There is a flow."""

    def event(self, flow: Flow, event: Event) -> object:
        """Something happened."""


@dataclass
class _Running:
    """
    One target.

    @ivar prober: what probes it now, C{None} before.
    @ivar work: looks the name up.
    @ivar retry: begins, again.
    """

    name: str
    prober: Prober | None = None
    work: defer.Deferred[None] | None = None
    retry: IDelayedCall | None = field(default=None)


class ProbeService(Service):
    """
    Probes targets from the start to the stop of the service. A target that cannot be looked up or reached is tried again every
    ten seconds. At the stop there is one line in the log for each flow.
    """

    def __init__(
        self,
        reactor: Any,
        targets: Sequence[str],
        plan: Plan | None = None,
        *,
        sources: int = 1,
        options: SocketOptions | None = None,
        metrics: Metrics | None = None,
        open: Callable[..., Prober] = Prober,
    ) -> None:
        """
        @param reactor: the reactor to run on.
        @param targets: C{HOST:PORT} of each.
        @param plan: what to send, and when, to each; it has no end.
        @param sources: from how many ports to probe each.
        @param options: what to send with.
        @param metrics: is told of all that happens.
        @param open: makes a prober.

        @raise ValueError: if there is no target, or the plan has an end.
        """
        self._plan = plan or Plan()
        if not targets:
            raise ValueError("there is no target: one or more are needed")
        if self._plan.count is not None or self._plan.duration is not None:
            raise ValueError("a service probes for ever: a plan without a count and a duration is for it")
        self._reactor = reactor
        self._sources = sources
        self._options = options
        self._metrics = metrics
        self._open = open
        self._targets = [_Running(name) for name in targets]

    @property
    def flows(self) -> list[Flow]:
        """The flows of those targets that are probed now."""
        return [flow for target in self._targets if target.prober is not None for flow in target.prober.flows]

    def startService(self) -> None:
        """Begin with each target, one after the other within an interval."""
        super().startService()
        shift = self._plan.interval / len(self._targets)
        for number, target in enumerate(self._targets):
            if self._metrics is not None:
                for source in range(self._sources):
                    self._metrics.expect(target.name, source)
            target.retry = self._reactor.callLater(number * shift, self._begin, target)

    def stopService(self) -> None:
        """Stop, and log the sums."""
        super().stopService()
        for target in self._targets:
            if target.retry is not None:
                target.retry.cancel()
                target.retry = None
            if target.work is not None:
                target.work.cancel()
            prober, target.prober = target.prober, None
            if prober is not None:
                prober.stop()
                for flow in prober.flows:
                    _logSums(flow)

    def _begin(self, target: _Running) -> None:
        target.retry = None
        work = defer.Deferred.fromCoroutine(self._probe(target))
        target.work = work
        work.addErrback(self._failed, target)
        work.addBoth(lambda _: setattr(target, "work", None))

    async def _probe(self, target: _Running) -> None:
        found = await findTarget(self._reactor, target.name, LOOK_UP_TIMEOUT)
        metrics = self._metrics
        prober = self._open(
            self._reactor,
            [found],
            self._plan,
            sources=self._sources,
            options=self._options,
            listener=None if metrics is None else metrics.event,
        )
        over = prober.start()
        if not prober.flows:
            await over
        target.prober = prober
        for number, flow in enumerate(prober.flows):
            if metrics is not None:
                metrics.add(flow, number)
            _log.info(
                "probing {target} at {peer} from {source}", target=target.name, peer=str(found.address), source=str(flow.source)
            )

    def _failed(self, failure: Failure, target: _Running) -> None:
        if failure.check(defer.CancelledError):
            return
        reason: Any = failure.value
        if failure.check(EchoError, error.DNSLookupError, error.CannotListenError, OSError, ValueError) is None:
            _log.failure("cannot probe {target}", failure, target=target.name)
        else:
            _log.warn("cannot probe {target}: {reason}", target=target.name, reason=str(reason.args[0]))
        if self.running:
            target.retry = self._reactor.callLater(RETRY, self._begin, target)


def _logSums(flow: Flow) -> None:
    statistics = flow.statistics
    counts = {outcome.value: statistics.count(outcome) for outcome in Outcome if statistics.count(outcome)}
    median = statistics.roundTrips.median()
    _log.info(
        "stopped probing {target} from {source}: sent={sent} {counts} median={median}",
        target=flow.target.name,
        source=str(flow.source),
        sent=statistics.sent,
        counts=" ".join(f"{name}={count}" for name, count in counts.items()),
        median="-" if median is None else f"{median / 1e6:.3f}ms",
        outcomes=counts,
    )
