"""The options of a L{DatagramPort <udpecho.net.port.DatagramPort>}."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from twisted.internet.protocol import DatagramProtocol

from udpecho.interfaces import IBatchReceiver


@dataclass(frozen=True, kw_only=True)
class PortOptions:
    """How a port receives and sends. Only here are the defaults.

    @ivar writeTimeout: how many seconds a datagram waits while the send queue is full.
    @ivar maxWaiting: how many datagrams may wait for it.
    @ivar receiveBuffer: the receive buffer to request, in bytes (C{SO_RCVBUF} in C{socket(7)}); C{None} for the system's.
    @ivar ipv6Only: keep IPv4 out of a socket bound to C{"::"} (RFC 3493 section 5.3).
    @ivar batches: receive in batches, where the system can.
    @ivar offload: enable GRO, for a protocol that takes batches, unless C{maxPacketSize} is less than UDP's.
    @ivar decrementHopLimit: send replies with a hop limit (IPv4: time to live) one less than that of the request, where the
        system can: an exchange that goes on by itself ends then, as a loop of routers does (RFC 791 section 3.2, RFC 8200
        section 3). C{None} is for a protocol that takes batches, which it sends back.
    @ivar listenMultiple: let other sockets that ask for the same have the same port (C{SO_REUSEADDR}, C{SO_REUSEPORT}): each
        gets what is sent to a group, and one of them what is sent to this host alone.
    @ivar writeRaises: whether C{write} raises C{OSError} for a datagram that the system rejects, as on Twisted's own port; else
        it is only counted.
    """

    writeTimeout: float = 5.0
    maxWaiting: int = 1024
    receiveBuffer: int | None = None
    ipv6Only: bool = False
    batches: bool = True
    offload: bool = True
    decrementHopLimit: bool | None = None
    listenMultiple: bool = False
    writeRaises: bool = True

    def __post_init__(self) -> None:
        """@raise ValueError: if a number is out of its range."""
        if not 0 <= self.writeTimeout < inf:
            raise ValueError(f"writeTimeout must be a finite number of seconds from 0 on, got {self.writeTimeout!r}")
        if self.maxWaiting < 0:
            raise ValueError(f"maxWaiting must be 0 or more datagrams, got {self.maxWaiting!r}")
        if self.receiveBuffer is not None and self.receiveBuffer < 1:
            raise ValueError(f"receiveBuffer must be 1 or more bytes, got {self.receiveBuffer!r}")

    def countsHops(self, protocol: DatagramProtocol) -> bool:
        """Whether the replies of a protocol have one hop less."""
        if self.decrementHopLimit is None:
            return IBatchReceiver.providedBy(protocol)
        return self.decrementHopLimit
