"""C{udpecho proxy}: a UDP proxy that injects faults."""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.cli.console import ANSWERED, WRONG_INPUT, CannotPrint, Printer, addArgument, argument, complain
from udpecho.cli.control import parseControl, startControl
from udpecho.errors import EchoError
from udpecho.faults.control import ProxyTable
from udpecho.faults.decision import Decider, Decision
from udpecho.faults.models import GilbertElliott, Jitter
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.faults.proxy_options import IDLE_TIMEOUT, MAX_HELD, ProxyOptions
from udpecho.faults.rule_text import parseRule
from udpecho.faults.rules import Rules
from udpecho.interfaces import Reactor
from udpecho.parsing import (
    parseAddress,
    parseBytes,
    parseInterval,
    parseListen,
    parsePayloadSize,
    parseSeconds,
    parseShare,
)

#: The options that are arguments of L{FaultPlan} as they are.
_faults = ("loss", "burst", "duplicate", "reorder", "corrupt", "truncate", "delay", "rate", "queue", "mtu")

#: What the API calls the proxy of the command line.
_name = "proxy"


def addProxy(commands: Any) -> None:
    """Add the command to the subparsers of C{udpecho}."""
    proxy = commands.add_parser(
        "proxy",
        help="pass datagrams between two programs, with faults",
        description="Pass datagrams between clients and an upstream server, with the faults of a bad network.",
        epilog="Shares are percentages (10%) or numbers from 0 to 1, times are seconds or have a unit (50ms). Ctrl-C"
        " ends it and prints the sums.",
    )
    addArgument(proxy, "listen", "LISTEN", parseListen, "the address for the clients, ADDR:PORT; port 0 is any")
    addArgument(proxy, "upstream", "UPSTREAM", parseAddress, "the server, HOST:PORT")
    defaults = FaultPlan()
    for name, meaning in (
        ("loss", "share of datagrams that is lost"),
        ("duplicate", "share that arrives twice"),
        ("reorder", "share that is delayed, so that later ones overtake it"),
        ("corrupt", "share in which a bit is flipped"),
        ("truncate", "share whose end is missing"),
    ):
        addArgument(proxy, f"--{name}", "SHARE", parseShare, meaning, getattr(defaults, name))
    burst = (
        "bursty loss (Gilbert-Elliott), not the server's --burst: probabilities to go bad, to recover, and to get through when"
        " good and when bad"
    )
    addArgument(proxy, "--burst", "P,R[,K,H]", _parseBurst, burst)
    addArgument(proxy, "--delay", "TIME", parseSeconds, "delay of each datagram", defaults.delay)
    addArgument(proxy, "--jitter", "TIME", parseSeconds, "a random delay in addition", 0.0)
    shapes = ["uniform", "normal", "exponential"]
    proxy.add_argument("--jitter-shape", choices=shapes, default="uniform", help="distribution of --jitter [uniform]")
    addArgument(
        proxy, "--reorder-delay", "TIME", parseSeconds, "additional delay of a reordered datagram [10ms]", defaults.reorderDelay
    )
    rate = "bytes a second that get through, as in 64k (the server's --rate is in datagrams)"
    addArgument(proxy, "--rate", "BYTES", parseBytes, rate)
    addArgument(proxy, "--queue", "BYTES", parseBytes, "how many bytes may wait for the rate [64k]", defaults.queue)
    addArgument(proxy, "--mtu", "BYTES", parsePayloadSize, "the longest payload that gets through")
    rule = "what becomes of some datagrams, as in 'lose starts=0004 nth=3'; may be given several times"
    proxy.add_argument("--rule", metavar="RULE", type=argument(_checkRule), action="append", default=[], help=rule)
    proxy.add_argument("--direction", choices=["both", "up", "down"], default="both", help="the direction with faults [both]")
    proxy.add_argument("--seed", default="0", help="any text; the same seed gives the same faults [0]")
    idle = "how long a client may be idle until it is forgotten [%(default)gs]"
    addArgument(proxy, "--idle-timeout", "TIME", parseInterval, idle, IDLE_TIMEOUT)
    held = "how many bytes may wait in the proxy, half of it for one client [64M]"
    addArgument(proxy, "--max-held", "BYTES", parseBytes, held, MAX_HELD)
    anyPort = "pass on what comes from other ports of the upstream's host, as of a TFTP server"
    proxy.add_argument("--any-port", action="store_true", help=anyPort)
    control = "have an HTTP API like Toxiproxy's change the faults: a port of 127.0.0.1, ADDR:PORT, or an endpoint"
    addArgument(proxy, "--control", "WHERE", parseControl, control)
    proxy.add_argument("-v", "--verbose", action="store_true", help="print what happens to each datagram")
    proxy.set_defaults(run=_proxy)


def _parseBurst(text: str) -> GilbertElliott:
    values = [parseShare(value) for value in text.split(",")]
    if len(values) not in (2, 4):
        raise ValueError(f"burst must be P,R or P,R,K,H, shares as in 1%,25%, got {text!r}")
    return GilbertElliott(*values)


def _checkRule(text: str) -> str:
    # Read again for each direction: each counts by itself.
    parseRule(text)
    return text


def _plan(options: argparse.Namespace, direction: str) -> Decider | None:
    """The faults of a direction, C{None} if it has none."""
    if options.direction not in ("both", direction):
        return None
    faults = {name: getattr(options, name) for name in _faults}
    jitter = Jitter(options.jitter, options.jitter_shape)
    seed = f"{options.seed} {direction}"
    plan = FaultPlan(seed, jitter=jitter, reorderDelay=options.reorder_delay, **faults)
    rules = [parseRule(text, f"{seed} {number}") for number, text in enumerate(options.rule)]
    return Rules(*rules, plan=plan) if rules else plan


def _proxy(reactor: Reactor, options: argparse.Namespace) -> defer.Deferred[int]:
    """Run the command until it is cancelled. The Deferred fires with the exit status."""
    printer = Printer()
    broken: defer.Deferred[None] = defer.Deferred()

    def watch(direction: str, client: tuple[str, int], size: int, decision: Decision) -> None:
        try:
            printer.line(f"{direction}: bytes={size} client={formatAddress(client)} {decision}")
        except CannotPrint as e:
            if not broken.called:
                broken.errback(e)

    def make(upstream: tuple[str, int], up: Decider | None, down: Decider | None) -> FaultProxy:
        limits = ProxyOptions(maxHeld=options.max_held, anyPort=options.any_port)
        watcher = watch if options.verbose else None
        return FaultProxy(reactor, upstream, up, down, options.idle_timeout, watcher=watcher, **limits)

    async def run() -> int:
        proxy = make(options.upstream, _plan(options, "up"), _plan(options, "down"))
        await proxy.upstream.lookUp()
        proxy.start(options.listen[1], options.listen[0])
        complain(f"passing datagrams from {formatAddress(proxy.address)} to {formatAddress(proxy.upstream.addresses[0])}")
        table = ProxyTable(make, options.seed)
        table.adopt(_name, proxy, options.upstream)
        control = None
        try:
            if options.control is not None:
                # Only few want it, and it takes a while to import.
                from udpecho.faults.control_pages import Control

                control = Control(reactor, table)
                await startControl(control, options.control)
            await broken
        finally:
            if control is not None:
                await control.stop()
            if _name not in table.proxies:
                printer.line(str(proxy))
            for name, named in table.proxies.items():
                named.disable()
                printer.line(str(named.proxy) if name == _name else f"{name}:\n{named.proxy}")
        return ANSWERED

    def failed(failure: Failure) -> int | Failure:
        reason = failure.value
        if isinstance(reason, defer.CancelledError):
            return ANSWERED
        if isinstance(reason, CannotPrint):
            return reason.complain()
        if isinstance(reason, error.CannotListenError):
            complain(f"cannot listen on {formatAddress(options.listen)}: {reason.socketError.strerror}")
            return WRONG_INPUT
        if isinstance(reason, (error.DNSLookupError, EchoError, ValueError)):
            complain(str(reason.args[0]))
            return WRONG_INPUT
        return failure

    work = defer.Deferred.fromCoroutine(run())
    work.addErrback(failed)
    return work
