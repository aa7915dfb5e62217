"""C{udpecho send}: the client on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.cli.console import ANSWERED, UNANSWERED, UNREACHABLE, WRONG_INPUT, CannotPrint, Printer, addArgument, complain
from udpecho.client.protocol import TIMEOUT
from udpecho.client.transfer import Sums, Transfer, failureMessage
from udpecho.errors import HostUnreachable, MessageTooLong, PortUnreachable, ResponseTimeout
from udpecho.interfaces import Reactor
from udpecho.net.pipe import InputReader
from udpecho.parsing import parseAddress, parseLocalAddress, parsePayloadSize, parseSeconds
from udpecho.printing import printable


def addSend(commands: Any) -> None:
    """Add the command to the subparsers of C{udpecho}."""
    parser = commands.add_parser(
        "send",
        help="send a file or standard input, and wait for the replies",
        description="Send FILE, or standard input, to a UDP echo server, whole or in pieces, and wait for each reply.",
        epilog="Exit status: 0 all answered, 1 something was not, 2 wrong usage or input, 3 refused or unreachable,"
        " 130 interrupted, 141 the reader of the output is gone.",
    )
    addArgument(parser, "peer", "HOST:PORT", parseAddress, "the server; [ADDR]:PORT for an IPv6 address")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="the file to send; - is standard input, the default"
    )
    timeout = "how long to wait for each reply, as in 5 or 500ms [%(default)gs]"
    addArgument(parser, "-t --timeout", "TIME", parseSeconds, timeout, TIMEOUT)
    chunk = "send datagrams of N bytes, each after the one before was answered or timed out"
    addArgument(parser, "-c --chunk", "N", lambda text: parsePayloadSize(text, lowest=1), chunk)
    addArgument(parser, "-b --bind", "ADDR", parseLocalAddress, "the local address to send from, ADDR or ADDR:PORT")
    parser.add_argument("--no-verify", action="store_true", help="take the first datagram, whatever its payload")
    parser.set_defaults(run=_send)


class _Report(Printer):
    """Prints what happens: results to standard output, everything else to standard error."""

    def written(self, size: int) -> None:
        self.line(f"packet-written: bytes={size}")

    def received(self, size: int, peer: tuple[str, int]) -> None:
        self.line(f"packet-received: bytes={size} from={formatAddress(peer)}")

    def unanswered(self, reason: ResponseTimeout) -> None:
        complain(str(reason))


def _open(path: str) -> int:
    # If it is a pipe without a writer, the reactor waits for one, not this call.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _send(reactor: Reactor, options: argparse.Namespace) -> defer.Deferred[int]:
    """Run the command. The Deferred fires with the exit status."""
    if options.file == "-" and sys.stdin is None:
        # Its number may belong to another descriptor by now.
        complain("standard input must be open: name a FILE, or /dev/null to send an empty datagram")
        return defer.succeed(WRONG_INPUT)
    name = "standard input" if options.file == "-" else printable(options.file)
    try:
        descriptor = 0 if options.file == "-" else _open(options.file)
    except OSError as e:
        complain(f"cannot read {name}: {e.strerror}")
        return defer.succeed(WRONG_INPUT)
    host, port = options.peer
    transfer = Transfer(host, port, options.timeout, not options.no_verify, options.bind, options.chunk)

    def finish(status: int) -> int:
        if options.chunk is not None:
            complain(str(transfer.sums))
        if descriptor:
            os.close(descriptor)
        return status

    work = defer.Deferred.fromCoroutine(transfer.run(reactor, InputReader(reactor, descriptor).read, _Report()))
    return work.addCallbacks(_statusOf, _statusOfFailure, errbackArgs=(name,)).addCallback(finish)


def _statusOf(sums: Sums) -> int:
    return ANSWERED if sums.answered == sums.sent else UNANSWERED


def _statusOfFailure(failure: Failure, source: str) -> int | Failure:
    reason = failure.value
    if isinstance(reason, defer.CancelledError):
        return UNANSWERED
    if isinstance(reason, CannotPrint):
        return reason.complain()
    message = failureMessage(reason, source)
    if message is None:
        return failure
    complain(message)
    if isinstance(reason, (PortUnreachable, HostUnreachable)):
        return UNREACHABLE
    # The other failures are those of the input and the addresses; only a lookup that timed out is none of these.
    return WRONG_INPUT if isinstance(reason, (MessageTooLong, OSError, ValueError, error.CannotListenError)) else UNANSWERED
