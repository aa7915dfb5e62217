"""Bind all sockets of a service, or none."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeGuard, cast

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from udpecho.addresses import DatagramAddress
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.net.reuseport import SocketGroup
from udpecho.net.sockets import checkAdoptable

#: Where only this machine reaches the server.
LOOPBACK = ("127.0.0.1", "::1")
#: Seconds in which to answer, at the stop, what is already queued.
DRAIN_TIMEOUT = 1.0

_portZeroTries = 10


async def _drain(ports: Sequence[object]) -> bool:
    """@return: whether all is answered that was queued."""
    ours = [port for port in ports if isinstance(port, DatagramPort)]
    # A port that cannot be read any more is closed like the others.
    return all(await defer.gatherResults([port.drain(DRAIN_TIMEOUT).addErrback(lambda _: False) for port in ours]))


def _checkSockets(sockets: Sequence[socket.socket], interfaces: Sequence[str] | None) -> None:
    if interfaces is not None:
        raise ValueError("sockets are bound already: leave the interfaces out")
    if not sockets:
        raise ValueError("there are no sockets to serve on: leave them out to bind some")
    for sock in sockets:
        checkAdoptable(sock)


def _isOpen(port: object) -> TypeGuard[DatagramPort | SocketGroup]:
    """Whether a port has a socket that can be asked."""
    return isinstance(port, SocketGroup) or (isinstance(port, DatagramPort) and bool(port.connected))


def _boundAddress(port: IListeningPort | SocketGroup) -> DatagramAddress:
    host = cast("IPv4Address | IPv6Address", port.getHost())
    address = DatagramAddress((host.host, host.port))
    address.scopeID = int(getattr(host, "scopeID", 0))
    return address


def _isLoopback(host: str) -> bool:
    return host == "::1" or (isIPAddress(host) and host.startswith("127."))


def _hasIPv6Loopback(reactor: IReactorUDP) -> bool:
    """Whether C{::1} can be bound at all on this machine."""
    try:
        port = listen(reactor, 0, DatagramProtocol(), "::1")
    except error.CannotListenError:
        return False
    port.stopListening()
    return True
