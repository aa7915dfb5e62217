"""What can go wrong with an echo: one class for each case that a caller handles differently."""

from __future__ import annotations

import errno
import os

from twisted.internet import defer, error

#: The errors of a process, or a system, that has as many descriptors as it may have.
NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
#: What this machine has run out of: descriptors or memory. The peer is not the reason.
EXHAUSTED = NO_DESCRIPTOR | {errno.ENOMEM, errno.ENOBUFS}


class EchoError(Exception):
    """The base class of the errors that a datagram may meet.

    @ivar errno: the system's error number, or C{None} if the system reported none.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        """@param message: one sentence for the person who reads it."""
        # Not super(): some subclasses are Twisted's own errors too, whose constructors take other arguments.
        Exception.__init__(self, message)
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


class ResponseTimeout(EchoError, defer.TimeoutError):
    """The deadline passed before the reply came."""


class PortUnreachable(EchoError, error.ConnectionRefusedError):
    """Nothing listens on the peer's port, its host reports (ICMP port unreachable: RFC 792, RFC 4443 section 3.1)."""

    osError = None


class HostUnreachable(EchoError):
    """No datagram gets to the peer's host, a router or this machine reports (ICMP destination unreachable, C{EHOSTUNREACH})."""


class NetworkUnreachable(HostUnreachable):
    """There is no route to the peer's network."""


class MessageTooLong(EchoError, error.MessageLengthError):
    """The payload is longer than UDP, or the path to the peer, can carry.

    @ivar limit: the longest payload that would fit, in bytes, or C{None} if it is not known.
    """

    def __init__(self, message: str, errno: int | None = None, limit: int | None = None) -> None:
        super().__init__(message, errno)
        self.limit = limit


class ClientClosed(EchoError):
    """The client was closed, or lost its transport, before the reply came."""


_networkErrors = frozenset({errno.ENETUNREACH, errno.ENETDOWN})


def unreachable(number: int, peer: str) -> PortUnreachable | HostUnreachable:
    """Make the exception for an error number of a send or of the socket's error queue (C{icmp(7)}, and the kernel's tables
    C{icmp_err_convert} and C{icmpv6_err_convert}).
    """
    # Windows calls it a reset.
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        return PortUnreachable(f"{peer} refused the datagram: nothing listens on that port", number)
    kind = NetworkUnreachable if number in _networkErrors else HostUnreachable
    why = os.strerror(number) if number > 0 else "unknown reason"
    return kind(f"{peer} cannot be reached: {why}", number)
