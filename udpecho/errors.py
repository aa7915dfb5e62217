"""What can go wrong with an echo, one class for each thing a caller would do differently."""

from __future__ import annotations

import errno
import os

from twisted.internet import defer, error


class EchoError(Exception):
    """
    The base of everything that udpecho raises.

    @ivar errno: the system's error number behind this failure, or C{None} where there is none.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        """
        @param message: one sentence for the person who reads it.
        @param errno: the system's error number, if the system refused.
        """
        # Not super(): some subclasses are Twisted's own errors too, whose constructors take other arguments.
        Exception.__init__(self, message)
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


class ResponseTimeout(EchoError, defer.TimeoutError):
    """The deadline passed without the reply."""


class PortUnreachable(EchoError, error.ConnectionRefusedError):
    """The peer's host answered that nothing listens on that port (ICMP port unreachable, RFC 792 and RFC 4443 section 3.1)."""

    osError = None


class HostUnreachable(EchoError):
    """The datagram could not be brought to the peer's host, says a router, the peer's network or this machine."""


class NetworkUnreachable(HostUnreachable):
    """There is no route to the peer's network."""


class MessageTooLong(EchoError, error.MessageLengthError):
    """
    The payload is longer than UDP, or the path to the peer, can carry.

    @ivar limit: how many bytes of payload would fit, or C{None} where that is not known.
    """

    def __init__(self, message: str, errno: int | None = None, limit: int | None = None) -> None:
        """@param limit: how many bytes of payload would fit."""
        super().__init__(message, errno)
        self.limit = limit


class ClientClosed(EchoError):
    """The client was closed, or its transport lost, before the reply came."""


_networkErrors = frozenset({errno.ENETUNREACH, errno.ENETDOWN})


def unreachable(number: int, peer: str) -> PortUnreachable | HostUnreachable:
    """
    Name what the system's error number says about a peer.

    @param number: an error number, as a send or the socket's error queue gave it (C{icmp(7)}, and the kernel's tables
        C{icmp_err_convert} and C{icmpv6_err_convert}).
    @param peer: the peer, as a person would read it.
    """
    # Windows calls it a reset.
    if number in (errno.ECONNREFUSED, errno.ECONNRESET):
        return PortUnreachable(f"{peer} refused the datagram: nothing listens on that port", number)
    kind = NetworkUnreachable if number in _networkErrors else HostUnreachable
    why = os.strerror(number) if number > 0 else "the system does not say why"
    return kind(f"{peer} cannot be reached: {why}", number)
