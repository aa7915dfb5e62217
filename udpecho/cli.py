"""
The C{udpecho} command.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho._version import __version__
from udpecho.addresses import formatAddress, parseAddress, parseLocalAddress
from udpecho.arguments import parseBytes, parsePayloadSize, parseSeconds, parseShare
from udpecho.client import TIMEOUT
from udpecho.console import (
    ANSWERED,
    SIGNALLED,
    UNANSWERED,
    UNREACHABLE,
    WRONG_INPUT,
    CannotPrint,
    Parser,
    Printer,
    argument,
    complain,
)
from udpecho.errors import HostUnreachable, MessageTooLong, PortUnreachable, ResponseTimeout
from udpecho.inputs import InputReader
from udpecho.ping_cli import addPing
from udpecho.resolution import resolve
from udpecho.testing.faults import Decision, FaultPlan, GilbertElliott, Jitter
from udpecho.testing.proxy import IDLE_TIMEOUT, FaultProxy
from udpecho.transfer import Sums, Transfer, explain


def _makeParser() -> argparse.ArgumentParser:
    parser = Parser(prog="udpecho", description="UDP echo: see whether datagrams get through, and back.")
    parser.add_argument("--version", action="version", version=f"udpecho {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    send = commands.add_parser(
        "send",
        help="send a file or standard input, and wait for the replies",
        description="Send FILE, or standard input, to a UDP echo server, whole or in pieces, and wait for each reply.",
        epilog="Exit status: 0 all answered, 1 something was not, 2 wrong usage or input, 3 refused or unreachable,"
        " 130 interrupted.",
    )
    send.add_argument(
        "peer", metavar="HOST:PORT", type=argument(parseAddress), help="the server; [ADDR]:PORT for an IPv6 address"
    )
    send.add_argument("file", metavar="FILE", nargs="?", default="-", help="what to send; - is standard input, the default")
    send.add_argument(
        "-t",
        "--timeout",
        type=argument(parseSeconds),
        default=TIMEOUT,
        help="how long to wait for each reply, as in 5 or 500ms [%(default)g]",
    )
    send.add_argument(
        "-c",
        "--chunk",
        metavar="N",
        type=argument(lambda text: parsePayloadSize(text, lowest=1)),
        help="send datagrams of N bytes, each when the one before is answered or given up",
    )
    send.add_argument(
        "-b",
        "--bind",
        metavar="ADDR",
        type=argument(parseLocalAddress),
        help="the local address to send from, ADDR or ADDR:PORT",
    )
    send.add_argument("--no-verify", action="store_true", help="take the first datagram from the server, whatever is in it")
    send.set_defaults(run=_send)
    _addProxy(commands)
    addPing(commands)
    return parser


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


class _Printer(Printer):
    """
    Prints what happens: results to standard output, everything else to standard error.
    """

    def written(self, size: int) -> None:
        self.line(f"packet-written: bytes={size}")

    def received(self, size: int, peer: tuple[str, int]) -> None:
        self.line(f"packet-received: bytes={size} from={formatAddress(peer)}")

    def unanswered(self, reason: ResponseTimeout) -> None:
        complain(str(reason))


def _open(path: str) -> int:
    """
    Open a file for reading, and do not wait if it is a pipe that nobody writes to yet: the reactor does.

    @raise OSError: if it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _send(reactor: Any, options: argparse.Namespace) -> defer.Deferred[int]:
    """
    C{udpecho send}.

    @return: fires with the exit status.
    """
    if options.file == "-" and sys.stdin is None:
        # Its number may belong to another descriptor by now.
        complain("cannot read standard input: it is closed; name a FILE, or /dev/null to send an empty datagram")
        return defer.succeed(WRONG_INPUT)
    try:
        descriptor = 0 if options.file == "-" else _open(options.file)
    except OSError as e:
        complain(f"cannot read {options.file}: {e.strerror}")
        return defer.succeed(WRONG_INPUT)
    host, port = options.peer
    transfer = Transfer(host, port, options.timeout, not options.no_verify, options.bind, options.chunk)
    source = InputReader(reactor, descriptor)

    def over(sums: Sums) -> int:
        return ANSWERED if sums.answered == sums.sent else UNANSWERED

    def failed(failure: Failure) -> int | Failure:
        reason = failure.value
        if isinstance(reason, defer.CancelledError):
            return UNANSWERED
        if isinstance(reason, CannotPrint):
            reason.complain()
            return UNANSWERED
        sentence = explain(reason, "standard input" if options.file == "-" else options.file)
        if sentence is None:
            return failure
        complain(sentence)
        if isinstance(reason, (PortUnreachable, HostUnreachable)):
            return UNREACHABLE
        # The other ways it can fail are those of the input and of the addresses; that a look-up does not end is none of them.
        return WRONG_INPUT if isinstance(reason, (MessageTooLong, OSError, ValueError, error.CannotListenError)) else UNANSWERED

    def sumUp(status: int) -> int:
        if options.chunk is not None:
            complain(str(transfer.sums))
        if descriptor:
            os.close(descriptor)
        return status

    work = defer.Deferred.fromCoroutine(transfer.run(reactor, source.read, _Printer()))
    return work.addCallbacks(over, failed).addCallback(sumUp)


def _parseListen(text: str) -> tuple[str, int]:
    """
    Read a local address to listen on, C{ADDR:PORT}.
    """
    host, port = parseLocalAddress(text)
    if host == text or (not port and not text.endswith(":0")):
        raise ValueError(f"{text!r} has no port: write ADDR:PORT, as in 127.0.0.1:9000; port 0 is any free one")
    return host, port


def _parseBurst(text: str) -> GilbertElliott:
    """
    Read the parameters of bursty loss.
    """
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


def _runReactor(start: Callable[[Any], defer.Deferred[int]], interrupted: int | None = None) -> int:
    """
    Run the reactor until a Deferred fires, or a signal comes.

    @param interrupted: the signal by which a person ends the command in good order, so that its own status stands.

    @return: the exit status.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    status = UNANSWERED
    over = False
    work: defer.Deferred[int] = defer.Deferred()

    def finished(result: int | Failure) -> None:
        nonlocal status, over
        over = True
        if isinstance(result, Failure):
            result.printTraceback()
        elif status < SIGNALLED:
            status = result
        pool = reactor.threadpool
        if pool is not None and pool.working:
            # A look-up that nobody waits for any more: the reactor would, for as long as it takes.
            sys.stdout.flush()
            os._exit(status)
        reactor.stop()

    def catchSignals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: reactor.callFromThread(interrupt, number))

    def begin() -> None:
        nonlocal work
        # The reactor has taken one of them for itself meanwhile.
        catchSignals()
        work = start(reactor)
        work.addBoth(finished)

    def interrupt(number: int) -> None:
        nonlocal status
        if number != interrupted:
            status = SIGNALLED + number
        if not over:
            work.cancel()

    catchSignals()
    reactor.callWhenRunning(begin)
    reactor.run()
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @param arguments: what was written after C{udpecho}; by default that of this process.

    @return: the exit status.
    """
    parser = _makeParser()
    # argparse takes an optional operand where the first one stands, or nowhere: FILE may come after an option too.
    options, others = parser.parse_known_args(arguments)
    if len(others) == 1 and not others[0].startswith("-") and getattr(options, "file", None) == "-":
        options.file = others.pop()
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return _runReactor(lambda reactor: options.run(reactor, options), getattr(options, "interrupted", None))
