"""Network errors: from ICMP, or the routing table, to the protocol."""

from __future__ import annotations

import errno
import socket

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, PortUnreachable, unreachable
from udpecho.interfaces import INetworkErrorReceiver, IUndeliveredReceiver
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.endpoints import PortContext
from udpecho.net.linux import errqueue, sockopt

_log = Logger()

#: What ICMP, or the routing table, reports about a peer (C{icmp_err_convert} and C{icmpv6_err_convert} in Linux).
PEER_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPROTO",
    )
    if hasattr(errno, name)
)
#: A socket has few errors queued: a bound for the case that they come faster than they are read.
_errorsPerTurn = 64

_IPV4_AND_UDP_HEADERS = 28
_IPV6_AND_UDP_HEADERS = 48


def connectFailure(number: int, peer: DatagramAddress) -> EchoError:
    """Make the exception for an error number of C{connect(2)}, with a hint where the interface of the peer is missing."""
    failure = unreachable(number, formatAddress(peer))
    if number == errno.EINVAL and not peer.scopeID and peer.host.lower().startswith("fe80:"):
        return HostUnreachable(f"{failure.args[0]} (name its interface, as in {peer.host}%eth0)", number)
    return failure


def notifyError(protocol: DatagramProtocol, reason: EchoError, quoted: bytes = b"") -> None:
    """Notify a protocol of a network error, by whichever method it has for that. What it raises is logged."""
    try:
        if IUndeliveredReceiver.providedBy(protocol):
            protocol.datagramUndelivered(reason, quoted)
        elif isinstance(reason, PortUnreachable):
            protocol.connectionRefused()
        elif INetworkErrorReceiver.providedBy(protocol):
            protocol.networkError(reason)
        elif isinstance(reason, HostUnreachable):
            protocol.connectionRefused()
    except BaseException:
        _log.failure("Unhandled error in {protocol} when notified: {reason}", protocol=protocol, reason=reason)


class NetworkErrors:
    """Collects what the network reports about datagrams that were sent, and notifies the protocol: from the reactor only, never
    from inside C{write}, once of each kind, and in connected mode only, when there is one peer that the errors are about. An
    L{IUndeliveredReceiver} is notified once of each quoted datagram.

    @ivar areWanted: whether the protocol has a method for more than refusals.
    """

    def __init__(self, context: PortContext) -> None:
        self._context = context
        self._endpoints = context.endpoints
        self._found: dict[tuple[int, int, bytes], EchoError] = {}
        self._wantsQuoted = IUndeliveredReceiver.providedBy(context.protocol)
        self.areWanted = self._wantsQuoted or INetworkErrorReceiver.providedBy(context.protocol)
        self._later = SingleCall(context.reactor, self.notify)
        self._closed = False

    def collect(self) -> bool:
        """Take from the system what it has to report about earlier datagrams.

        @return: whether there was anything.
        """
        entries = errqueue.readErrors(self._context.socket, _errorsPerTurn) if sockopt.available else []
        number = self._context.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number and not entries and sockopt.available:
            # It came between the two calls.
            entries = errqueue.readErrors(self._context.socket, _errorsPerTurn)
        if self._endpoints.peer is None:
            # Nothing wakes an unconnected port without a datagram, unless somebody has asked for errors.
            self._context.restoreOptions()
        else:
            for entry in entries:
                self.addError(entry.errno, entry.info, entry.quoted)
            if number and not entries:
                self.addError(number)
        return bool(entries or number)

    def addError(self, number: int, mtu: int = 0, quoted: bytes = b"") -> None:
        """Make an exception of an error number, for the protocol.

        @param mtu: for C{EMSGSIZE} the MTU of the path, in bytes, IP header included; 0 if unknown.
        """
        assert self._endpoints.peer is not None
        peer = formatAddress(self._endpoints.peer)
        quoted = quoted if self._wantsQuoted else b""
        if number == errno.EMSGSIZE:
            headers = _IPV4_AND_UDP_HEADERS if self._endpoints.family == socket.AF_INET else _IPV6_AND_UDP_HEADERS
            limit = mtu - headers if mtu > headers else None
            known = "" if limit is None else f" more than {limit} bytes"
            reason = MessageTooLong(f"the path to {peer} does not carry{known or ' as much'}", number, limit)
            self._found[number, mtu, quoted] = reason
        else:
            self._found[number, 0, quoted] = unreachable(number, peer)

    def notifySoon(self) -> None:
        """Notify the protocol in the next turn, if there is anything."""
        if self._found and not self._closed:
            self._later.schedule()

    def notify(self, unexplained: int = 0) -> None:
        """Notify the protocol, from the reactor only: of C{unexplained}, an error number, if the system has nothing else."""
        self._later.cancel()
        if self._closed:
            return
        # All that is there belongs together; what the protocol sends when it is notified is another matter.
        if not self.collect() and unexplained:
            self.addError(unexplained)
        found, self._found = self._found, {}
        for (_, _, quoted), reason in found.items():
            if self._closed:
                return
            notifyError(self._context.protocol, reason, quoted)

    def close(self) -> None:
        """Notify the protocol of nothing more."""
        self._closed = True
        self._later.cancel()
