"""
The C{udpecho} command.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho._version import __version__
from udpecho.addresses import formatAddress, parseAddress, parseLocalAddress
from udpecho.arguments import parsePayloadSize, parseSeconds
from udpecho.client import TIMEOUT
from udpecho.errors import HostUnreachable, MessageTooLong, PortUnreachable, ResponseTimeout
from udpecho.inputs import InputReader
from udpecho.transfer import Sums, Transfer, explain

# Exit statuses.
ANSWERED = 0
UNANSWERED = 1
WRONG_INPUT = 2
UNREACHABLE = 3
#: Killed by a signal: this and the signal's number, as shells have it; 130 for an interrupt.
SIGNALLED = 128

_T = TypeVar("_T")


class _Parser(argparse.ArgumentParser):
    """
    Says what was wrong in one line.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _value(parser: Callable[[str], _T]) -> Callable[[str], _T]:
    """
    Let argparse print a parser's own sentence.
    """

    def parse(text: str) -> _T:
        try:
            return parser(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return parse


def _makeParser() -> argparse.ArgumentParser:
    parser = _Parser(prog="udpecho", description="UDP echo: see whether datagrams get through, and back.")
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
        "peer", metavar="HOST:PORT", type=_value(parseAddress), help="the server; [ADDR]:PORT for an IPv6 address"
    )
    send.add_argument("file", metavar="FILE", nargs="?", default="-", help="what to send; - is standard input, the default")
    send.add_argument(
        "-t",
        "--timeout",
        type=_value(parseSeconds),
        default=TIMEOUT,
        help="how long to wait for each reply, as in 5 or 500ms [%(default)g]",
    )
    send.add_argument(
        "-c",
        "--chunk",
        metavar="N",
        type=_value(lambda text: parsePayloadSize(text, lowest=1)),
        help="send datagrams of N bytes, each when the one before is answered or given up",
    )
    send.add_argument(
        "-b", "--bind", metavar="ADDR", type=_value(parseLocalAddress), help="the local address to send from, ADDR or ADDR:PORT"
    )
    send.add_argument("--no-verify", action="store_true", help="take the first datagram from the server, whatever is in it")
    send.set_defaults(run=_send)
    return parser


class _CannotPrint(Exception):
    """
    Standard output does not take the results.
    """

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


class _Printer:
    """
    Prints what happens: results to standard output, everything else to standard error.
    """

    def written(self, size: int) -> None:
        self._print(f"packet-written: bytes={size}")

    def received(self, size: int, peer: tuple[str, int]) -> None:
        self._print(f"packet-received: bytes={size} from={formatAddress(peer)}")

    def unanswered(self, reason: ResponseTimeout) -> None:
        _complain(str(reason))

    def _print(self, line: str) -> None:
        try:
            print(line, flush=True)
        except OSError as e:
            # Python is not to try, and complain, again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise _CannotPrint(e) from None


def _complain(sentence: str) -> None:
    # Without one, print would take standard output instead.
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"udpecho: {sentence}", file=sys.stderr, flush=True)


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
        _complain("cannot read standard input: it is closed; name a FILE, or /dev/null to send an empty datagram")
        return defer.succeed(WRONG_INPUT)
    try:
        descriptor = 0 if options.file == "-" else _open(options.file)
    except OSError as e:
        _complain(f"cannot read {options.file}: {e.strerror}")
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
        if isinstance(reason, _CannotPrint):
            # That nobody reads on is no news to who has stopped reading.
            if not isinstance(reason.reason, BrokenPipeError):
                _complain(f"cannot write to standard output: {reason.reason.strerror}")
            return UNANSWERED
        sentence = explain(reason, "standard input" if options.file == "-" else options.file)
        if sentence is None:
            return failure
        _complain(sentence)
        if isinstance(reason, (PortUnreachable, HostUnreachable)):
            return UNREACHABLE
        # The other ways it can fail are those of the input and of the addresses; that a look-up does not end is none of them.
        return WRONG_INPUT if isinstance(reason, (MessageTooLong, OSError, ValueError, error.CannotListenError)) else UNANSWERED

    def sumUp(status: int) -> int:
        if options.chunk is not None:
            _complain(str(transfer.sums))
        if descriptor:
            os.close(descriptor)
        return status

    work = defer.Deferred.fromCoroutine(transfer.run(reactor, source.read, _Printer()))
    return work.addCallbacks(over, failed).addCallback(sumUp)


def _runReactor(start: Callable[[Any], defer.Deferred[int]]) -> int:
    """
    Run the reactor until a Deferred fires, or a signal comes.

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
    return _runReactor(lambda reactor: options.run(reactor, options))
