"""C{udpecho ping}: the prober on the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.cli.console import ANSWERED, UNANSWERED, UNREACHABLE, WRONG_INPUT, CannotPrint, Printer, argument, complain
from udpecho.cli.ping.consent import impolite
from udpecho.cli.ping.display import MOST_DRAWN, Picture, View, canBeLive
from udpecho.cli.ping.formats import Output, _FpingLines, _Lines, _nameOf, _Quiet, summaries
from udpecho.cli.ping.live import LiveUnavailable
from udpecho.cli.ping.options import _addDatagrams, _addLimits, _addOutput, _addSchedule, _targetText, planOf
from udpecho.cli.ping.plot import PlotUnavailable
from udpecho.cli.ping.thresholds import Limit, LossLimit
from udpecho.cli.ping.thresholds import failures as brokenLimits
from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.probe import outcomes
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.outcomes import Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target, findTarget

#: Seconds in which a target's name must be looked up.
LOOK_UP_TIMEOUT = 5.0
#: What keeps a probe from being in order, whatever may be lost.
_bad = (Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT)
#: And what does where there is no limit of loss.
_missed = (Outcome.LOST, Outcome.LATE)


def addPing(commands: Any) -> None:
    """
    Add the command to those of C{udpecho}.

    @param commands: where C{argparse} keeps them.
    """
    ping = commands.add_parser(
        "ping",
        help="measure round trips and loss to echo servers",
        description="Send numbered probes to UDP echo servers on a fixed schedule, and say what comes back, and when. Without"
        " --count and --duration until it is interrupted, or each target has refused its first probe.",
        epilog="Times are seconds or have a unit (1s, 10ms, 100us). Interrupt it (SIGINT) for the summary and the end, send it"
        " SIGQUIT for the summary so far. Exit status: 0 all answered in time, 1 something was not, 2 wrong usage or input, 3 a"
        " target refused or cannot be reached and has answered nothing. As with ping, an interrupt is a normal end, with one of"
        " these.",
    )
    ping.add_argument(
        "targets", metavar="HOST:PORT", nargs="+", type=argument(_targetText), help="the servers; [ADDR]:PORT for IPv6"
    )
    _addSchedule(ping)
    _addDatagrams(ping)
    _addOutput(ping)
    _addLimits(ping)
    ping.set_defaults(run=ping_, interrupted=signal.SIGINT)


def statusOf(flows: Sequence[Flow], failures: Sequence[Exception], limits: Sequence[Limit] = ()) -> int:
    """
    The exit status. Each limit that is broken makes it L{UNANSWERED}; a limit of loss takes the place of the rule that nothing
    may be lost or late.

    @param flows: all flows, when they are over.
    @param failures: why others could not be opened.
    @param limits: what was asked for.
    """
    silent = [flow for flow in flows if not flow.statistics.received]
    if any(flow.said is not None for flow in silent) or any(_isUnreachable(reason) for reason in failures):
        return UNREACHABLE
    if failures or any(brokenLimits(flow.statistics, limits) for flow in flows):
        return UNANSWERED
    limited = any(isinstance(limit, LossLimit) for limit in limits)
    if silent and not limited:
        return UNANSWERED
    bad = _bad if limited else _bad + _missed
    return UNANSWERED if any(flow.statistics.count(outcome) for flow in flows for outcome in bad) else ANSWERED


def _isUnreachable(reason: Exception) -> bool:
    return isinstance(reason, (HostUnreachable, PortUnreachable))


def _explain(reason: Exception) -> str:
    """One line on why a target cannot be probed."""
    if isinstance(reason, error.CannotListenError):
        return f"cannot send from {formatAddress((reason.interface, reason.port))}: {reason.socketError.strerror}"
    if isinstance(reason, OSError) and reason.strerror:
        return f"the system refuses an option: {reason.strerror}"
    return str(reason.args[0])


class _Ping:
    """One run of the command."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._options = options
        self._broken: CannotPrint | None = None
        self._prober: Prober | None = None
        self._endless = options.count is None and options.duration is None
        self._limits: list[Limit] = [] if options.fail_if_loss is None else [options.fail_if_loss]
        self._limits += options.fail_if_rtt
        # Both are told of before there is a probe.
        self._picture = None if options.plot is None else Picture(options.plot)
        self._live = options.live and canBeLive()
        self._view: View | None = None
        quiet = options.quiet or self._live
        self._output: Output = (options.output or (_Quiet if quiet else _Lines))(Printer())

    async def run(self) -> int:
        options = self._options
        try:
            plan = planOf(options)
        except ValueError as e:
            complain(str(e))
            return WRONG_INPUT
        if options.output is _FpingLines and self._endless:
            complain("--fping keeps all round trips until the end: give it one, as in --count 10")
            return WRONG_INPUT
        family = options.family
        if family is None and options.bind is not None:
            family = 6 if ":" in options.bind[0] else 4
        targets = []
        failures: list[Exception] = []
        for text in options.targets:
            try:
                targets.append(await findTarget(self._reactor, text, LOOK_UP_TIMEOUT, family))
            except (ValueError, error.DNSLookupError, EchoError) as e:
                complain(str(e.args[0]))
                failures.append(e)
        for target in targets:
            sentence = impolite(plan, options, target)
            if sentence is not None:
                complain(sentence)
                return WRONG_INPUT
        drawn = len(targets) * options.sources
        if self._picture is not None and drawn > MOST_DRAWN:
            complain(f"--plot can show up to {MOST_DRAWN} targets and sources in one picture, and these are {drawn}")
            return WRONG_INPUT
        return await self._probe(targets, plan, failures) if targets else WRONG_INPUT

    async def _probe(self, targets: Sequence[Target], plan: Plan, failures: list[Exception]) -> int:
        options = self._options
        listens = self._endless or self._output.event is not None or self._picture is not None
        prober = self._prober = Prober(
            self._reactor,
            targets,
            plan,
            sources=options.sources,
            options=SocketOptions(options.bind, options.tos, options.ttl, options.dont_fragment),
            listener=self._hear if listens else None,
        )
        over = prober.start()
        for target, reason in prober.failures:
            complain(f"{target.name}: {_explain(reason)}")
            failures.append(reason)
        if not prober.flows:
            over.addErrback(lambda _: None)
            return UNREACHABLE if all(map(_isUnreachable, failures)) else WRONG_INPUT
        self._show(self._output.begin, prober.flows)
        if self._live:
            self._view = View.of(self._reactor, prober, self._nameOf, options.count, options.duration)
            self._view.start()
        try:
            with self._catchingQuit(), suppress(defer.CancelledError):
                await over
        finally:
            if self._view is not None:
                self._view.stop()
        return self._end(prober, failures)

    def _end(self, prober: Prober, failures: Sequence[Exception]) -> int:
        """
        Sum up.

        @return: the exit status.
        """
        if self._broken is None:
            self._show(self._output.end, prober.flows)
        drawn = self._draw(prober.flows)
        if self._broken is not None:
            self._broken.complain()
            return UNANSWERED
        for flow in prober.flows:
            for sentence in brokenLimits(flow.statistics, self._limits):
                complain(f"{self._nameOf(flow)}: {sentence}")
        return statusOf(prober.flows, failures, self._limits) if drawn else WRONG_INPUT

    def _draw(self, flows: Sequence[Flow]) -> bool:
        """@return: whether there is the picture that there is to be."""
        if self._picture is not None:
            try:
                self._picture.draw(flows, self._nameOf)
            except OSError as e:
                complain(f"cannot write {self._options.plot}: {e.strerror}")
                return False
        return True

    def _nameOf(self, flow: Flow) -> str:
        return _nameOf(flow, [] if self._prober is None else self._prober.flows)

    @contextmanager
    def _catchingQuit(self) -> Iterator[None]:
        """Print a summary at SIGQUIT, where there is such a signal."""
        number = getattr(signal, "SIGQUIT", None)
        if number is None:
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
                flow.lookForDrops()
            if self._view is not None:
                self._view.hide()
            complain(f"so far\n{summaries(self._prober.flows)}")

    def _show(self, how: Any, *what: Any) -> None:
        try:
            how(*what)
        except CannotPrint as e:
            self._broken = e
            if self._prober is not None:
                self._prober.stop()

    def _hear(self, flow: Flow, event: outcomes.Event) -> None:
        prober = self._prober
        if self._picture is not None and prober is not None:
            self._picture.event(prober, flow, event)
        if self._output.event is not None and self._broken is None:
            if self._view is not None and self._options.output is not _FpingLines and sys.stdout.isatty():
                # Or the line would be written into it.
                self._view.hide()
            self._show(self._output.event, flow, event)
        if self._endless and event.outcome is Outcome.REFUSED and prober is not None and all(map(_isRefused, prober.flows)):
            # Nobody asked to go on for long.
            prober.stop()


def _isRefused(flow: Flow) -> bool:
    """Whether a flow's probes were all refused so far, and there was one."""
    statistics = flow.statistics
    return 0 < statistics.count(Outcome.REFUSED) == statistics.sent


def ping_(reactor: Any, options: argparse.Namespace) -> defer.Deferred[int]:
    """
    C{udpecho ping}.

    @return: fires with the exit status. To be cancelled for a normal end.
    """

    def interrupted(failure: Failure) -> int:
        # While a name was looked up: there is nothing to sum up.
        failure.trap(defer.CancelledError)
        return UNANSWERED

    try:
        ping = _Ping(reactor, options)
    except (LiveUnavailable, PlotUnavailable, NotADirectoryError) as e:
        complain(str(e))
        return defer.succeed(WRONG_INPUT)
    return defer.Deferred.fromCoroutine(ping.run()).addErrback(interrupted)
