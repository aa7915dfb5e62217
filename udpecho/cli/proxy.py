"""C{udpecho proxy}: a UDP proxy that injects faults."""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.cli.console import ANSWERED, UNANSWERED, WRONG_INPUT, CannotPrint, argument, complain
from udpecho.cli.send import _Printer
from udpecho.client.protocol import TIMEOUT
from udpecho.errors import ResponseTimeout
from udpecho.faults.decision import Decision
from udpecho.faults.models import GilbertElliott, Jitter
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import IDLE_TIMEOUT, FaultProxy
from udpecho.net.resolver import resolve
from udpecho.parsing import parseAddress, parseBytes, parseLocalAddress, parsePayloadSize, parseSeconds, parseShare


def _addProxy(commands: Any) -> None:
    proxy = commands.add_parser(
        "proxy",
        help="pass datagrams between two programs, with faults",
        description="Pass datagrams between clients and an upstream server, and do to them what a bad network does.",
        epilog="Shares are percentages (10%) or numbers from 0 to 1, times are seconds or have a unit (50ms). The sums are"
        " printed at the end (interrupt it).",
    )
    proxy.add_argument(
        "listen", metavar="LISTEN", type=argument(_parseListen), help="where the clients send to, ADDR:PORT; port 0 is any"
    )
    proxy.add_argument("upstream", metavar="UPSTREAM", type=argument(parseAddress), help="where to pass it to, HOST:PORT")
    share, seconds = argument(parseShare), argument(parseSeconds)
    for name, meaning in (
        ("loss", "share of datagrams that is lost"),
        ("duplicate", "share that arrives twice"),
        ("reorder", "share that is held back, so that others overtake it"),
        ("corrupt", "share in which a bit is flipped"),
        ("truncate", "share whose end is cut off"),
    ):
        proxy.add_argument(f"--{name}", metavar="SHARE", type=share, default=0.0, help=meaning)
    proxy.add_argument(
        "--burst",
        metavar="P,R[,K,H]",
        type=argument(_parseBurst),
        help="bursty loss (Gilbert-Elliott): the chances to go bad, to recover, and to get through when good and when bad",
    )
    proxy.add_argument("--delay", metavar="TIME", type=seconds, default=0.0, help="how long each takes")
    proxy.add_argument("--jitter", metavar="TIME", type=seconds, default=0.0, help="how much longer at random")
    proxy.add_argument(
        "--jitter-shape", choices=["uniform", "normal", "exponential"], default="uniform", help="how that is spread [uniform]"
    )
    proxy.add_argument(
        "--reorder-delay", metavar="TIME", type=seconds, default=0.01, help="how long those are held back [10ms]"
    )
    proxy.add_argument(
        "--rate", metavar="BYTES", type=argument(parseBytes), help="how many bytes a second get through, as in 64k"
    )
    proxy.add_argument(
        "--queue", metavar="BYTES", type=argument(parseBytes), default=65536, help="how many may wait for it [64k]"
    )
    proxy.add_argument("--mtu", metavar="BYTES", type=argument(parsePayloadSize), help="the longest payload that gets through")
    proxy.add_argument("--direction", choices=["both", "up", "down"], default="both", help="which way the faults are [both]")
    proxy.add_argument("--seed", default="0", help="what the faults are drawn from; the same seed, the same faults [0]")
    proxy.add_argument(
        "--idle-timeout", metavar="TIME", type=seconds, default=IDLE_TIMEOUT, help="forget a client after [%(default)g s]"
    )
    proxy.add_argument("-v", "--verbose", action="store_true", help="print what happens to each datagram")
    proxy.set_defaults(run=_proxy)


def _parseListen(text: str) -> tuple[str, int]:
    """Read a local address to listen on, C{ADDR:PORT}."""
    host, port = parseLocalAddress(text)
    if host == text or (not port and not text.endswith(":0")):
        raise ValueError(f"{text!r} has no port: write ADDR:PORT, as in 127.0.0.1:9000; port 0 is any free one")
    return host, port


def _parseBurst(text: str) -> GilbertElliott:
    """Read the parameters of bursty loss."""
    values = [parseShare(value) for value in text.split(",")]
    if len(values) not in (2, 4):
        raise ValueError(f"{text!r} is not a bursty loss: two shares P,R are, as in 1%,25%, or four P,R,K,H")
    return GilbertElliott(*values)


def _proxy(reactor: Any, options: argparse.Namespace) -> defer.Deferred[int]:
    """
    C{udpecho proxy}: runs until it is interrupted.

    @return: fires with the exit status.
    """
    plans = {
        direction: FaultPlan(
            f"{options.seed} {direction}",
            loss=options.loss,
            burst=options.burst,
            duplicate=options.duplicate,
            reorder=options.reorder,
            corrupt=options.corrupt,
            truncate=options.truncate,
            delay=options.delay,
            jitter=Jitter(options.jitter, options.jitter_shape),
            reorderDelay=options.reorder_delay,
            rate=options.rate,
            queue=options.queue,
            mtu=options.mtu,
        )
        for direction in ("up", "down")
        if options.direction in ("both", direction)
    }

    printer = _Printer()
    over: defer.Deferred[None] = defer.Deferred()

    def watch(direction: str, client: tuple[str, int], size: int, decision: Decision) -> None:
        try:
            printer.line(f"{direction}: bytes={size} client={formatAddress(client)} {decision}")
        except CannotPrint as e:
            if not over.called:
                over.errback(e)

    async def run() -> int:
        host, port = options.upstream
        address = (await resolve(reactor, host, port, TIMEOUT))[0]
        watcher = watch if options.verbose else None
        proxy = FaultProxy(reactor, address, plans.get("up"), plans.get("down"), options.idle_timeout, watcher=watcher)
        proxy.start(options.listen[1], options.listen[0])
        complain(f"passing datagrams from {formatAddress(proxy.address)} to {formatAddress(address)}")
        try:
            await over
        finally:
            proxy.stop()
            printer.line(str(proxy))
        return ANSWERED

    def failed(failure: Failure) -> int | Failure:
        reason = failure.value
        if isinstance(reason, defer.CancelledError):
            return ANSWERED
        if isinstance(reason, CannotPrint):
            reason.complain()
            return UNANSWERED
        if isinstance(reason, error.CannotListenError):
            complain(f"cannot listen on {formatAddress(options.listen)}: {reason.socketError.strerror}")
            return WRONG_INPUT
        if isinstance(reason, (error.DNSLookupError, ResponseTimeout, ValueError)):
            complain(str(reason.args[0]))
            return WRONG_INPUT
        return failure

    work = defer.Deferred.fromCoroutine(run())
    work.addErrback(failed)
    return work
