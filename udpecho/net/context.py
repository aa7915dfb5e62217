"""What the parts of a port share."""

from __future__ import annotations

import socket
from collections import Counter

from twisted.internet.protocol import DatagramProtocol

from udpecho.interfaces import Reactor
from udpecho.net.endpoints import Endpoints
from udpecho.net.options import PortOptions


class PortContext:
    """
    One for each port.

    @ivar socket: the socket, set when it is open.
    @ivar reactor: an C{IReactorTime} provider.
    @ivar protocol: the protocol.
    @ivar maxPacketSize: the longest datagram to hand over, in bytes.
    @ivar options: how to receive and send.
    @ivar endpoints: the addresses of both ends.
    @ivar dropped: how many datagrams were dropped, by reason.
    """

    socket: socket.socket

    def __init__(
        self, reactor: Reactor, protocol: DatagramProtocol, family: int, maxPacketSize: int, options: PortOptions
    ) -> None:
        self.reactor = reactor
        self.protocol = protocol
        self.maxPacketSize = maxPacketSize
        self.options = options
        self.endpoints = Endpoints(family)
        self.dropped: Counter[str] = Counter()
