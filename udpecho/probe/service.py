"""Continuous probes, as a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, cast

from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.errors import EchoError
from udpecho.interfaces import Reactor
from udpecho.net.monotonic import useMonotonicTime
from udpecho.net.stopping import stopAll
from udpecho.parsing import firstTwice, parseAddress
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import failureMessage, findTarget, isRepeated

if TYPE_CHECKING:
    from udpecho.probe.metrics import ProbeMetrics

#: Seconds until a target that could not be probed is tried again.
RETRY = 4.0

_notStarted = "it is not started yet"

_log = Logger()


@dataclass
class _TargetState:
    """One target. The prober is C{None} until the name is resolved; C{starting} resolves it and starts the prober. C{reason} is
    why there is no prober. C{place} is its number among those that send from fixed ports.
    """

    name: str
    place: int
    prober: Prober | None = None
    starting: defer.Deferred[None] | None = None
    nextStart: IDelayedCall | None = None
    reason: str = _notStarted

    @property
    def problem(self) -> str | None:
        """Why it is not probed, or C{None} if it is."""
        if self.prober is None:
            return self.reason
        return next((flow.problem for flow in self.prober.flows if flow.problem is not None), None)

    def stop(self) -> None:
        """Stop, and log the results."""
        if self.nextStart is not None:
            self.nextStart.cancel()
            self.nextStart = None
        starting, self.starting = self.starting, None
        if starting is not None:
            starting.cancel()
        prober, self.prober, self.reason = self.prober, None, _notStarted
        if prober is not None:
            try:
                prober.stop()
            finally:
                for flow in prober.flows:
                    _logResults(flow)


class ProbeService(Service):
    """Probes targets from the start to the stop of the service. A target that cannot be resolved or reached is tried again
    every few seconds, and the log has each new reason once. At the stop it has one line for each flow.
    """

    def __init__(
        self,
        reactor: Reactor,
        targets: Sequence[str],
        plan: Plan | None = None,
        *,
        sources: int = 1,
        options: SocketOptions | None = None,
        metrics: ProbeMetrics | None = None,
        resolveInterval: float = 60.0,
        open: Callable[..., Prober] = Prober,
    ) -> None:
        """@param reactor: an C{IReactorTime}, C{IReactorFDSet} and C{IReactorPluggableNameResolver} provider.
        @param targets: the servers, each as C{HOST:PORT} or C{[ADDR]:PORT}.
        @param plan: the schedule and the sizes of the probes to each target.
        @param sources: the number of local ports to probe each target from.
        @param resolveInterval: how often the names of targets are looked up again, in seconds. While a target does not answer,
            that is done more often.
        @param options: the socket options. A port in C{bindAddress} is that of the first flow, the others use the next ones.
        @param open: makes a prober; for tests.
        @raise ValueError: if there is no target, or the plan has a count or a duration.
        """
        self._plan = plan or Plan()
        if self._plan.count is not None or self._plan.duration is not None:
            raise ValueError(
                "the plan of a service must have neither count nor duration,"
                f" got count={self._plan.count!r} and duration={self._plan.duration!r}"
            )
        useMonotonicTime(reactor)
        self._reactor = reactor
        self._sources = sources
        self._options = options
        self._metrics = metrics
        self._resolveInterval = resolveInterval
        self._open = open
        self._targets: list[_TargetState] = []
        self.configure(targets)

    def configure(self, targets: Sequence[str]) -> None:
        """Probe these targets from now on. Those that are probed already go on undisturbed.

        @param targets: all servers to probe, each as C{HOST:PORT} or C{[ADDR]:PORT}.
        @raise ValueError: if there is no target, or one that is there twice or is not of that form. Nothing is changed then.
        """
        if not targets:
            raise ValueError("targets must have one target or more, got none")
        for name in targets:
            parseAddress(name)
        twice, wanted = firstTwice(targets), set(targets)
        if twice is not None:
            raise ValueError(f"each target must be given once, got {twice!r} twice")
        known = {target.name: target for target in self._targets}
        taken = {target.place for target in self._targets if target.name in wanted}
        free = (place for place in count() if place not in taken)
        self._targets = [known.pop(name) if name in known else _TargetState(name, next(free)) for name in targets]
        stopAll({name: target.stop for name, target in known.items()})
        for removed in known.values():
            if self._metrics is not None:
                self._metrics.remove(removed.name)
        if self.running:
            self._startMissing()

    def states(self) -> Mapping[str, str | None]:
        """Whether each target is probed: C{None} if it is, else the reason why not, for a person. A target that does not answer
        is probed.
        """
        return {target.name: target.problem for target in self._targets}

    def logResults(self) -> None:
        """Log the results so far, with one line for each flow, and why the other targets are not probed."""
        for target in self._targets:
            if target.prober is None:
                _log.info("not probing {target}: {reason}", target=target.name, reason=target.reason)
            else:
                for flow in target.prober.flows:
                    _logResults(flow, "still probing")

    @property
    def bindAddresses(self) -> list[tuple[str, int]]:
        """The local addresses that all targets are probed from, as far as the options name them."""
        bindAddress = None if self._options is None else self._options.bindAddress
        if bindAddress is None:
            return []
        host, port = bindAddress
        return [(host, port + number) for number in range(len(self._targets) * self._sources)] if port else [bindAddress]

    def _optionsOf(self, target: _TargetState) -> SocketOptions | None:
        options = self._options
        if options is None or options.bindAddress is None or not options.bindAddress[1]:
            return options
        host, port = options.bindAddress
        return options._replace(bindAddress=(host, port + target.place * self._sources))

    @property
    def flows(self) -> list[Flow]:
        """The flows of the targets that are probed now."""
        return [flow for target in self._targets if target.prober is not None for flow in target.prober.flows]

    def startService(self) -> None:
        """Start to probe the targets, one after the other, all within an interval."""
        super().startService()
        self._startMissing()

    def _startMissing(self) -> None:
        missing = [target for target in self._targets if not (target.prober or target.starting or target.nextStart)]
        for number, target in enumerate(missing):
            if self._metrics is not None:
                for source in range(self._sources):
                    self._metrics.expect(target.name, source)
            target.nextStart = self._reactor.callLater(number * self._plan.interval / len(missing), self._start, target)

    def stopService(self) -> defer.Deferred[None]:
        """Stop, and log the results."""
        super().stopService()
        return stopAll({target.name: target.stop for target in self._targets})

    def _start(self, target: _TargetState) -> None:
        target.nextStart = None
        # It may have finished already.
        target.starting = starting = defer.Deferred.fromCoroutine(self._openProber(target))
        starting.addErrback(self._failed, target)
        starting.addBoth(self._started, target, starting)

    def _started(self, _: object, target: _TargetState, starting: defer.Deferred[None]) -> None:
        if target.starting is starting:
            target.starting = None

    async def _openProber(self, target: _TargetState) -> None:
        found = await findTarget(self._reactor, target.name, None if self._options is None else self._options.family)
        metrics = self._metrics
        prober = self._open(
            self._reactor,
            [found],
            self._plan,
            sources=self._sources,
            options=self._optionsOf(target),
            listener=None if metrics is None else metrics.event,
            resolveInterval=self._resolveInterval,
        )
        # From now on it can be stopped, by an observer of the log for example.
        target.prober, target.starting = prober, None
        finished = prober.start()
        if not prober.flows:
            # It could not open its sockets: this raises the reason.
            await finished
        finished.addErrback(self._failed, target)
        target.reason = _notStarted
        for source, flow in enumerate(prober.flows):
            if metrics is not None:
                metrics.add(flow, source)
            _log.info(
                "probing {target} at {peer} from {source}", target=target.name, peer=str(found.address), source=str(flow.source)
            )

    def _failed(self, failure: Failure, target: _TargetState) -> None:
        if failure.check(defer.CancelledError):
            return
        former, target.prober = target.reason, None
        if failure.check(EchoError, error.CannotListenError, OSError, ValueError) is None:
            target.reason = str(failure.value)
            _log.failure("cannot probe {target}", failure, target=target.name)
        else:
            target.reason = failureMessage(cast(Exception, failure.value))
            if target.reason != former and not isRepeated(self._reactor, failure.value):
                _log.warn("cannot probe {target}: {reason}", target=target.name, reason=target.reason)
        # An observer of the log may have stopped the service, started it again, or removed the target.
        if self.running and target.nextStart is None and any(each is target for each in self._targets):
            target.nextStart = self._reactor.callLater(RETRY, self._start, target)


def _logResults(flow: Flow, doing: str = "stopped probing") -> None:
    statistics = flow.statistics
    counts = {outcome.value: statistics.count(outcome) for outcome in Outcome if statistics.count(outcome)}
    median = statistics.roundTrips.median()
    _log.info(
        "{doing} {target} from {source}: sent={sent} {counts} median={median}",
        doing=doing,
        target=flow.target.name,
        source=str(flow.source),
        sent=statistics.sent,
        counts=" ".join(f"{name}={count}" for name, count in counts.items()),
        median="-" if median is None else f"{median * 1e3:.3f}ms",
        outcomes=counts,
    )
