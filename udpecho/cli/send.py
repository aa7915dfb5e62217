"""C{udpecho send}: the client on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from twisted.internet import defer, error
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.cli.console import ANSWERED, UNANSWERED, UNREACHABLE, WRONG_INPUT, CannotPrint, Printer, complain
from udpecho.client.transfer import Sums, Transfer, failureMessage
from udpecho.errors import HostUnreachable, MessageTooLong, PortUnreachable, ResponseTimeout
from udpecho.net.pipe import InputReader


class _Printer(Printer):
    """Prints what happens: results to standard output, everything else to standard error."""

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
        sentence = failureMessage(reason, "standard input" if options.file == "-" else options.file)
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
