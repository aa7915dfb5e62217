"""The C{udpecho} command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from udpecho._version import __version__
from udpecho.cli.console import SIGNALLED, UNANSWERED, Parser, argument
from udpecho.cli.ping.command import addPing
from udpecho.cli.proxy import _addProxy
from udpecho.cli.send import _send
from udpecho.client.protocol import TIMEOUT
from udpecho.parsing import parseAddress, parseLocalAddress, parsePayloadSize, parseSeconds


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
