"""Network errors, from ICMP to the protocol."""

from __future__ import annotations

import errno

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.interfaces import INetworkErrorReceiver

_log = Logger()

#: What ICMP, or the routing table, says about a peer (C{icmp_err_convert} and C{icmpv6_err_convert} in Linux).
_peerErrors = frozenset(
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
#: What concerns the one datagram, and says nothing of the peer.
_ofTheDatagram = frozenset({errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM})
#: A socket has few errors to tell of: a bound for the case that they come faster than they are read.
_errorsPerTurn = 64

_IPV4_AND_UDP_HEADERS = 28
_IPV6_AND_UDP_HEADERS = 48


def notifyError(protocol: DatagramProtocol, reason: EchoError) -> None:
    """Tell a protocol what the network said, by whichever method it has for that; what it raises is logged."""
    try:
        if isinstance(reason, PortUnreachable):
            protocol.connectionRefused()
        elif INetworkErrorReceiver.providedBy(protocol):
            protocol.networkError(reason)
        elif isinstance(reason, HostUnreachable):
            protocol.connectionRefused()
    except Exception:
        _log.failure("Unhandled error in {protocol} on being told: {reason}", protocol=protocol, reason=reason)
