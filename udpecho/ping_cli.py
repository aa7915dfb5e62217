"""
C{udpecho ping}: the prober on the command line.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress, parseAddress, parseLocalAddress
from udpecho.arguments import parseNumber
from udpecho.console import ANSWERED, UNANSWERED, UNREACHABLE, WRONG_INPUT, CannotPrint, Printer, argument, complain
from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.networks import LOOPBACK, PRIVATE, AddressRanges
from udpecho.ping_pictures import MOST_DRAWN, Picture, View, canBeLive
from udpecho.probe import report
from udpecho.probe.flow import Flow, Target
from udpecho.probe.live import LiveUnavailable
from udpecho.probe.options import parseInterval, parseRate, parseSizes, parseTOS
from udpecho.probe.outcomes import Outcome
from udpecho.probe.packet import DEFAULT_PATTERN, parsePattern
from udpecho.probe.plot import PlotUnavailable, parsePlotFile
from udpecho.probe.prober import Prober, findTarget
from udpecho.probe.schedule import Plan
from udpecho.probe.verdict import RTT_FIGURES, Limit, LossLimit, parseLossLimit, parseRttLimit
from udpecho.probe.verdict import failures as brokenLimits
from udpecho.sockets.probing import SocketOptions

#: Seconds in which a target's name must be looked up.
LOOK_UP_TIMEOUT = 5.0
#: To how many probes a second from one port a stranger need not have agreed, as C{ping -f} has it.
POLITE_RATE = 100

_mostSources = 1024
_mostProbes = 10**15
_ownNetworks = {version: AddressRanges([*LOOPBACK, *PRIVATE], version) for version in (4, 6)}
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


def _addSchedule(ping: argparse.ArgumentParser) -> None:
    group = ping.add_argument_group("when")
    count = argument(lambda text: parseNumber(text, 1, _mostProbes, "a number of probes"))
    group.add_argument("-c", "--count", metavar="N", type=count, help="stop after N probes to each target")
    speed = group.add_mutually_exclusive_group()
    speed.add_argument(
        "-i", "--interval", metavar="TIME", type=argument(parseInterval), default=1.0, help="time between two probes [1s]"
    )
    speed.add_argument("--rate", metavar="N", type=argument(parseRate), help="probes a second, as in 100, 0.5 or 50k")
    speed.add_argument("-f", "--flood", action="store_true", help="send as fast as replies come; 100 a second while none come")
    group.add_argument(
        "--allow-strangers",
        action="store_true",
        help=f"allow --flood, and more than {POLITE_RATE} probes a second, to others than this machine and private networks",
    )
    seconds = argument(lambda text: parseInterval(text, 0))
    group.add_argument("-w", "--duration", metavar="TIME", type=seconds, help="stop to send after so long")
    group.add_argument(
        "-W", "--timeout", metavar="TIME", type=argument(parseInterval), default=1.0, help="a later reply is late [1s]"
    )
    group.add_argument(
        "--wait",
        metavar="TIME",
        type=seconds,
        help="how long after the last probe to wait for late replies too [until all others have come or timed out]",
    )


def _addDatagrams(ping: argparse.ArgumentParser) -> None:
    group = ping.add_argument_group("what and how")
    group.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=argument(parseSizes),
        default=(64,),
        help="size of the payload, a list 64,512 or a range 64-1400 or 64-1400:8, which are gone through again and again [64]",
    )
    group.add_argument(
        "-p", "--pattern", metavar="HEX", type=argument(parsePattern), default=DEFAULT_PATTERN, help="what fills it, as in ff00"
    )
    group.add_argument(
        "-b",
        "--bind",
        metavar="ADDR",
        type=argument(parseLocalAddress),
        help="the local address to send from, ADDR or ADDR:PORT",
    )
    sources = argument(lambda text: parseNumber(text, 1, _mostSources, "a number of sources"))
    group.add_argument(
        "--sources", metavar="N", type=sources, default=1, help="send from N ports, so that N paths are covered, each reported"
    )
    group.add_argument(
        "-Q",
        "--tos",
        metavar="CLASS",
        type=argument(parseTOS),
        help="traffic class (type of service): a byte, or the name of a code point, as in EF",
    )
    ttl = argument(lambda text: parseNumber(text, 1, 255, "a time to live"))
    group.add_argument("-t", "--ttl", metavar="N", type=ttl, help="time to live (IPv6: hop limit)")
    group.add_argument("--dont-fragment", action="store_true", help="send each probe whole or not at all")
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")


def _addOutput(ping: argparse.ArgumentParser) -> None:
    group = ping.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="print the summary only")
    group.add_argument(
        "--live", action="store_true", help="show rates, loss and a histogram on the terminal, in place of the lines"
    )
    group.add_argument(
        "--plot", metavar="FILE", type=argument(parsePlotFile), help="draw a picture at the end, FILE.svg or FILE.png"
    )
    form = group.add_mutually_exclusive_group()
    for name, output, meaning in (
        ("json", _Document, "print one JSON document at the end"),
        ("ndjson", _JSONLines, "print each event as a line of JSON"),
        ("csv", _Rows, "print each event as a row of CSV"),
        ("fping", _FpingLines, "print a line of round trips for each target at the end, as fping -C does; needs an end"),
    ):
        form.add_argument(f"--{name}", dest="output", action="store_const", const=output, help=meaning)


def _addLimits(ping: argparse.ArgumentParser) -> None:
    group = ping.add_argument_group("for scripts")
    group.add_argument(
        "--fail-if-loss",
        metavar="PERCENT",
        type=argument(parseLossLimit),
        help="exit status 1 if the network loses more, as in 1%%, of any target; what is lost or late within that limit"
        " does not give status 1 then",
    )
    group.add_argument(
        "--fail-if-rtt",
        metavar="FIGURE=TIME",
        type=argument(parseRttLimit),
        action="append",
        default=[],
        help="exit status 1 if a figure of any target's round trips is larger, as in p99=20ms, or not known; may be given"
        f" several times ({', '.join(RTT_FIGURES)})",
    )


def _targetText(text: str) -> str:
    """
    Check a target, and leave it as it is written.
    """
    parseAddress(text)
    return text


class Output(Protocol):
    """
    Shows what happens.
    """

    def begin(self, flows: Sequence[Flow]) -> object:
        """
        It begins.
        """

    def event(self, flow: Flow, event: report.Event) -> object:
        """
        Something happened.
        """

    def end(self, flows: Sequence[Flow]) -> object:
        """
        It is over.
        """


def _nameOf(flow: Flow, flows: Sequence[Flow]) -> str:
    """
    What a flow is called: its target, and its source if the target has several.
    """
    alone = sum(other.target is flow.target for other in flows) == 1
    return flow.target.name if alone else f"{flow.target.name} from {flow.source}"


def summaries(flows: Sequence[Flow]) -> str:
    """
    The summary of each flow.
    """
    return "\n\n".join(
        report.summary(_nameOf(flow, flows), flow.statistics, flow.elapsed, flow.timestampSource) for flow in flows
    )


class _Lines:
    """
    As ping prints them.
    """

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        for flow in {flow.target: flow for flow in flows}.values():
            self._line(report.headLine(flow.target.name, str(flow.target.address), *flow.sizes))

    def event(self, flow: Flow, event: report.Event) -> None:
        self._line(report.probeLine(event))

    def end(self, flows: Sequence[Flow]) -> None:
        self._line(f"\n{summaries(flows)}")


class _Quiet(_Lines):
    """
    Without the lines.
    """

    event = None  # type: ignore[assignment]


class _Document:
    """
    One JSON document.
    """

    event = None

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        pass

    def end(self, flows: Sequence[Flow]) -> None:
        document = report.document(flow.report() for flow in flows)
        self._line(json.dumps(document, indent=2, allow_nan=False))


class _JSONLines:
    """
    An object for each event.
    """

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        pass

    def event(self, flow: Flow, event: report.Event) -> None:
        self._line(report.ndjsonLine(event))

    def end(self, flows: Sequence[Flow]) -> None:
        pass


class _Rows(_JSONLines):
    """
    A row for each event.
    """

    def begin(self, flows: Sequence[Flow]) -> None:
        self._line(report.csvHeader())

    def event(self, flow: Flow, event: report.Event) -> None:
        self._line(report.csvRow(event))


class _FpingLines:
    """
    As C{fping -C}. All round trips are kept, at 8 bytes each.
    """

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line
        self._times: dict[Flow, array[int]] = {}

    def begin(self, flows: Sequence[Flow]) -> None:
        self._times = {flow: array("q") for flow in flows}

    def event(self, flow: Flow, event: report.Event) -> None:
        times = self._times[flow]
        if event.sequence is not None and event.roundTrip is not None and event.outcome is not Outcome.DUPLICATE:
            self._reach(times, event.sequence + 1)
            times[event.sequence] = event.roundTrip

    def end(self, flows: Sequence[Flow]) -> None:
        for flow, times in self._times.items():
            self._reach(times, flow.statistics.scheduled)
            self._line(report.fpingLine(_nameOf(flow, flows), (None if time < 0 else time for time in times)))

    def _reach(self, times: array[int], count: int) -> None:
        times.extend([-1] * (count - len(times)))


def planOf(options: argparse.Namespace) -> Plan:
    """
    What the command line asks for.

    @raise ValueError: if replies could not be told apart.
    """
    return Plan(
        interval=options.interval if options.rate is None else 1 / options.rate,
        count=options.count,
        duration=options.duration,
        timeout=options.timeout,
        wait=options.wait,
        sizes=options.size,
        pattern=options.pattern,
        flood=options.flood,
    )


def impolite(plan: Plan, options: argparse.Namespace, target: Target) -> str | None:
    """
    Whether a target should have been asked first.

    @return: what is wrong, or C{None}.
    """
    address = ip_address(target.address.host)
    if options.allow_strangers or int(address) in _ownNetworks[address.version] or _isOurs(address):
        return None
    if plan.flood:
        what = "a flood"
    elif options.sources / plan.interval > POLITE_RATE:
        what = f"more than {POLITE_RATE} probes a second"
    else:
        return None
    return f"{target.name} is neither this machine nor in a private network: {what} needs --allow-strangers, and its consent"


def _isOurs(address: IPv4Address | IPv6Address) -> bool:
    """
    Whether an address is one of this machine: then it can be bound. So can groups, which are others' too.
    """
    if address.is_multicast:
        return False
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True


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
    """
    One line on why a target cannot be probed.
    """
    if isinstance(reason, error.CannotListenError):
        return f"cannot send from {formatAddress((reason.interface, reason.port))}: {reason.socketError.strerror}"
    if isinstance(reason, OSError) and reason.strerror:
        return f"the system refuses an option: {reason.strerror}"
    return str(reason.args[0])


class _Ping:
    """
    One run of the command.
    """

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
        """
        @return: whether there is the picture that there is to be.
        """
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
        """
        Print a summary at SIGQUIT, where there is such a signal.
        """
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

    def _hear(self, flow: Flow, event: report.Event) -> None:
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
    """
    Whether a flow's probes were all refused so far, and there was one.
    """
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


__all__ = ["POLITE_RATE", "Output", "addPing", "impolite", "ping_", "planOf", "statusOf", "summaries"]
