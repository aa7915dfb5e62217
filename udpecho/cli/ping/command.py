"""C{udpecho ping}: the prober on the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from twisted.internet import defer
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from udpecho.cli.console import ANSWERED, UNANSWERED, UNREACHABLE, WRONG_INPUT, CannotPrint, Printer, argument, complain
from udpecho.cli.ping.consent import consentNeeded
from udpecho.cli.ping.display import MAX_PLOTTED, Picture, View, canBeLive
from udpecho.cli.ping.formats import FpingLines, Lines, Output, Quiet, nameOf, summaries
from udpecho.cli.ping.live import LiveUnavailable
from udpecho.cli.ping.options import addDatagrams, addLimits, addOutput, addSchedule, planOf
from udpecho.cli.ping.plot import PlotUnavailable
from udpecho.cli.ping.thresholds import Limit, LossLimit, exceeded
from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.interfaces import Reactor
from udpecho.parsing import parseTarget
from udpecho.printing import printable
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target, failureMessage, findTarget

#: Outcomes that give status 1 in any case.
_bad = (Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT)
#: Outcomes that give status 1 without a limit of loss.
_missed = (Outcome.LOST, Outcome.LATE)


def addPing(commands: Any) -> None:
    """Add the command to those of C{udpecho}: C{commands} is what C{add_subparsers} returned."""
    ping = commands.add_parser(
        "ping",
        help="measure round trips and loss to echo servers",
        description="Send numbered probes to UDP echo servers on a fixed schedule, and print their replies and statistics."
        " Without --count and --duration it runs until it is interrupted, or all targets have refused all probes.",
        epilog="Times are in seconds or have a unit (1s, 10ms, 100us). SIGINT (Ctrl-C) ends it with the summary, SIGQUIT prints"
        " the summary so far. Exit status: 0 all probes were answered in time, 1 some were not, 2 wrong usage or input, 3 a"
        " target refused or is unreachable and has answered nothing, 141 the reader of the output is gone. As with ping, an"
        " interrupt is a normal end, with one of these.",
    )
    ping.add_argument(
        "targets", metavar="HOST:PORT", nargs="+", type=argument(parseTarget), help="the servers; [ADDR]:PORT for IPv6"
    )
    addSchedule(ping)
    addDatagrams(ping)
    addOutput(ping)
    addLimits(ping)
    ping.set_defaults(run=ping_, interrupted=signal.SIGINT)


def statusOf(flows: Sequence[Flow], failures: Sequence[Exception], limits: Sequence[Limit] = ()) -> int:
    """The exit status. An exceeded limit gives L{UNANSWERED}. A limit of loss replaces the rule that no probe may be lost or
    late. C{failures} are the exceptions of the targets without flows.
    """
    silent = [flow for flow in flows if not flow.statistics.received]
    if any(flow.lastError is not None for flow in silent) or any(_isUnreachable(reason) for reason in failures):
        return UNREACHABLE
    if failures or any(exceeded(flow.statistics, limits) for flow in flows):
        return UNANSWERED
    limited = any(isinstance(limit, LossLimit) for limit in limits)
    if silent and not limited:
        return UNANSWERED
    bad = _bad if limited else _bad + _missed
    return UNANSWERED if any(flow.statistics.count(outcome) for flow in flows for outcome in bad) else ANSWERED


def _isUnreachable(reason: Exception) -> bool:
    return isinstance(reason, (HostUnreachable, PortUnreachable))


class _Ping:
    """One run of the command."""

    def __init__(self, reactor: Reactor, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._options = options
        self._cannotPrint: CannotPrint | None = None
        self._prober: Prober | None = None
        self._endless = options.count is None and options.duration is None
        self._limits: list[Limit] = [] if options.fail_if_loss is None else [options.fail_if_loss]
        self._limits += options.fail_if_rtt
        # Both raise before the first probe is sent.
        self._picture = None if options.plot is None else Picture(options.plot)
        self._live = options.live and canBeLive()
        self._view: View | None = None
        quiet = options.quiet or self._live
        self._output: Output = (options.output or (Quiet if quiet else Lines))(Printer())

    async def run(self) -> int:
        options = self._options
        try:
            plan = planOf(options)
        except ValueError as e:
            complain(str(e))
            return WRONG_INPUT
        if options.output is FpingLines and self._endless:
            complain("--fping must have --count or --duration, as in --count 10, got neither")
            return WRONG_INPUT
        family = options.family
        if family is None and options.bind is not None:
            family = 6 if ":" in options.bind[0] else 4
        targets = []
        failures: list[Exception] = []
        for text in options.targets:
            try:
                targets.append(await findTarget(self._reactor, text, family=family))
            except (ValueError, OSError, EchoError) as e:
                complain(failureMessage(e))
                failures.append(e)
        for target in targets:
            sentence = consentNeeded(plan, options, target)
            if sentence is not None:
                complain(sentence)
                return WRONG_INPUT
        flows = len(targets) * options.sources
        if self._picture is not None and flows > MAX_PLOTTED:
            complain(f"targets times sources of --plot must be {MAX_PLOTTED} or fewer, got {flows}")
            return WRONG_INPUT
        return await self._probe(targets, plan, failures) if targets else WRONG_INPUT

    async def _probe(self, targets: Sequence[Target], plan: Plan, failures: list[Exception]) -> int:
        options = self._options
        listens = self._endless or self._output.wantsEvents or self._picture is not None
        try:
            prober = self._prober = Prober(
                self._reactor,
                targets,
                plan,
                sources=options.sources,
                options=SocketOptions(options.bind, options.tos, options.ttl, options.dont_fragment),
                listener=self._event if listens else None,
            )
        except ValueError as e:
            complain(str(e))
            return WRONG_INPUT
        over = prober.start()
        for name, reason in prober.failures:
            complain(f"{name}: {failureMessage(reason)}")
            failures.append(reason)
        if not prober.flows:
            over.addErrback(lambda _: None)
            return UNREACHABLE if all(map(_isUnreachable, failures)) else WRONG_INPUT
        self._print(self._output.begin, prober.flows)
        if self._live:
            self._view = View(self._reactor, prober, self._nameOf, options.count, options.duration)
            self._view.start()
        try:
            with self._summaryOnQuit(), self._notices(), suppress(defer.CancelledError):
                await over
        finally:
            if self._view is not None:
                self._view.stop()
        return self._end(prober, failures)

    def _end(self, prober: Prober, failures: Sequence[Exception]) -> int:
        if self._cannotPrint is None:
            self._print(self._output.end, prober.flows)
        drawn = self._plot(prober.flows)
        if self._cannotPrint is not None:
            return self._cannotPrint.complain()
        for flow in prober.flows:
            for sentence in exceeded(flow.statistics, self._limits):
                complain(f"{self._nameOf(flow)}: {sentence}")
        return statusOf(prober.flows, failures, self._limits) if drawn else WRONG_INPUT

    def _plot(self, flows: Sequence[Flow]) -> bool:
        """@return: whether the plot was written, if there is to be one."""
        if self._picture is not None:
            try:
                self._picture.draw(flows, self._nameOf)
            except OSError as e:
                complain(f"cannot write {printable(self._options.plot)}: {e.strerror}")
                return False
        return True

    def _nameOf(self, flow: Flow) -> str:
        return nameOf(flow, [] if self._prober is None else self._prober.flows)

    @contextmanager
    def _summaryOnQuit(self) -> Iterator[None]:
        number = getattr(signal, "SIGQUIT", None)
        if number is None:
            # On Windows.
            yield
            return
        before = signal.signal(number, lambda number, frame: self._reactor.callFromThread(self._interim))
        try:
            yield
        finally:
            signal.signal(number, before)

    def _interim(self) -> None:
        if self._prober is not None and self._prober.running:
            for flow in self._prober.flows:
                flow.readDrops()
            self._complain(f"so far\n{summaries(self._prober.flows)}")

    def _complain(self, sentence: str) -> None:
        if self._view is not None:
            # Or the line would be written into it.
            self._view.hide()
        complain(sentence)

    @contextmanager
    def _notices(self) -> Iterator[None]:
        """Print what the prober logs: that it goes on from another address, for instance."""

        def observe(event: LogEvent) -> None:
            if event["log_level"] in (LogLevel.info, LogLevel.warn) and event["log_namespace"].startswith("udpecho.probe."):
                self._complain(formatEvent(event))

        observer = cast(ILogObserver, observe)
        globalLogPublisher.addObserver(observer)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(observer)

    def _print(self, method: Callable[..., None], *arguments: object) -> None:
        try:
            method(*arguments)
        except CannotPrint as e:
            self._cannotPrint = e
            if self._prober is not None:
                self._prober.stop()

    def _event(self, flow: Flow, event: Event) -> None:
        prober = self._prober
        if self._picture is not None and prober is not None:
            self._picture.event(prober, flow, event)
        if self._output.wantsEvents and self._cannotPrint is None:
            if self._view is not None and self._options.output is not FpingLines and sys.stdout.isatty():
                # Or the line would be written into it.
                self._view.hide()
            self._print(self._output.event, flow, event)
        if self._endless and event.outcome is Outcome.REFUSED and prober is not None and all(map(_isRefused, prober.flows)):
            prober.stop()


def _isRefused(flow: Flow) -> bool:
    """Whether all probes so far were refused, and there was one."""
    statistics = flow.statistics
    return 0 < statistics.count(Outcome.REFUSED) == statistics.sent


def ping_(reactor: Reactor, options: argparse.Namespace) -> defer.Deferred[int]:
    """C{udpecho ping}. The Deferred fires with the exit status; cancelling it is a normal end."""

    def interrupted(failure: Failure) -> int:
        # While a name was looked up: there is nothing to summarize.
        failure.trap(defer.CancelledError)
        return UNANSWERED

    try:
        ping = _Ping(reactor, options)
    except (LiveUnavailable, PlotUnavailable, NotADirectoryError) as e:
        complain(str(e))
        return defer.succeed(WRONG_INPUT)
    return defer.Deferred.fromCoroutine(ping.run()).addErrback(interrupted)
