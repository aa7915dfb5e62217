"""What the parts of a port share, such as the addresses of both ends and what an address means to C{sendmsg(2)}."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple, cast

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import DatagramProtocol

from udpecho.addresses import DatagramAddress, formatAddress, plainAddress
from udpecho.interfaces import Reactor
from udpecho.net.call_queue import CallQueue
from udpecho.net.connection import Renewal
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.adopted import resetOptions
from udpecho.net.options import PortOptions
from udpecho.net.sockets import datagramAddress, socketAddress
from udpecho.net.sources import Arrival, Source, Sources
from udpecho.net.turn import TurnBudget

_Socket = socket.socket
#: Seconds from one time that the options of an adopted socket are set again to the next.
_restorePause = 0.1

#: How many addresses that nothing came from are known to be right.
_checked = 4096


class Destination(NamedTuple):
    """How to send to an address.

    @ivar name: the socket address, C{None} on a connected socket.
    @ivar ancillary: the control messages to send with.
    @ivar answerable: whether all is known that this needs.
    @ivar source: what was remembered of the address, if anything was.
    """

    name: tuple[Any, ...] | None
    ancillary: cmsg.Ancillary
    answerable: bool = True
    source: Source | None = None


class WrongDestination(error.InvalidAddressError, AssertionError):
    """C{write} was called without an address on an unconnected port, or with another one than the peer's on a connected port.
    The stock port has an C{assert} there.
    """


class Endpoints:
    """The addresses of a port.

    @ivar boundHost: the local address that all datagrams are sent to, C{None} on a wildcard bind.
    @ivar peer: the peer in connected mode, else C{None}.
    @ivar pktinfo: whether the kernel reports the local address of each datagram, because a reply needs it.
    @ivar hopLimits: whether the kernel reports the hop limit of each datagram, because a reply needs it.
    """

    def __init__(self, family: int, sources: Sources) -> None:
        """@param sources: what is known of those that datagrams came from."""
        self.family = family
        self.sources = sources
        self.boundHost: str | None = None
        self.peer: DatagramAddress | None = None
        self.pktinfo = self.hopLimits = False
        self._boundName: tuple[Any, ...] = ()
        self._peerNames: tuple[tuple[str, int] | None, ...] = ()
        self._unscoped = lru_cache(_checked)(self._plain)

    def bound(self, sock: socket.socket) -> None:
        """Read the local address. It is read once: a later reader gets it even when the system is short of memory.

        @raise OSError: if the system rejects it.
        """
        self._boundName = sock.getsockname()
        host = self._boundName[0]
        self.boundHost = None if host in ("0.0.0.0", "::", "::ffff:0.0.0.0") else host.partition("%")[0]

    def connected(self, sock: socket.socket, address: tuple[str, int] | None = None) -> None:
        """Read the addresses of a connected socket; connecting chooses the local one of a socket that was bound to all.

        @param address: what the user calls the peer.
        """
        self.peer = datagramAddress(sock.getpeername())
        # How to send to others, and what they needed, is no matter any more.
        self.sources.clear()
        self._peerNames = (None, self.peer, plainAddress(self.peer), address)
        self._boundName = sock.getsockname()

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address; for link-local IPv6 with its scope."""
        kind = IPv4Address if self.family == socket.AF_INET else IPv6Address
        return kind("UDP", *self._boundName)

    def isPeer(self, address: tuple[str, int]) -> bool:
        """Whether the source of a datagram is the peer of a connected port."""
        return self.peer is not None and plainAddress(address) == plainAddress(self.peer)

    def arrival(self, controls: cmsg.Controls) -> Arrival:
        """What the control messages of a datagram say about it."""
        return Arrival(
            controls.local or self.boundHost,
            controls.unicast,
            controls.hopLimit if self.hopLimits else None,
            controls.interface,
            controls.isKnown(self.pktinfo, self.hopLimits),
        )

    def destination(self, address: tuple[str, int] | None) -> Destination:
        """How to send to an address.

        @raise error.InvalidAddressError: if it is not of the port's family.
        @raise WrongDestination: if it is not the peer's in connected mode, or missing else.
        """
        if self.peer is not None and address not in self._peerNames:
            assert address is not None
            raise WrongDestination(address[0], f"must be the connected peer {formatAddress(self.peer)}")
        if isinstance(address, DatagramAddress):
            return self._reply(address, address)
        if address is None:
            if self.peer is None:
                raise WrongDestination("", "must be an address on an unconnected port")
            return _toPeer
        if type(address) is not tuple:
            address = cast("tuple[str, int]", tuple(address))
        source = self.sources.find(address)
        if source is not None:
            if source.destination is None:
                source.destination = self._reply(address, source.arrival)._replace(source=source)
            return cast(Destination, source.destination)
        if self.peer is not None:
            return _toPeer
        host = address[0]
        # The interfaces that scopes name come and go.
        return self._unscoped(address) if isinstance(host, str) and "%" not in host else self._plain(address)

    def _reply(self, address: tuple[str, int], arrival: Arrival | DatagramAddress) -> Destination:
        """How to send back to where a datagram came from."""
        host, hopLimit = address[0], arrival.hopLimit
        if self.peer is not None:
            ancillary = [] if hopLimit is None else self._controls(self.peer.host, None, hopLimit)
            return Destination(None, ancillary, arrival.answerable)
        name = self._name(address)
        source = arrival.localHost if self.pktinfo and arrival.unicast else None
        if source is None and hopLimit is None:
            return Destination(name, [], arrival.answerable)
        interface = cmsg.replyInterface(source, host, arrival.interface)
        return Destination(name, self._controls(host, source, hopLimit, interface), arrival.answerable)

    def _plain(self, address: tuple[str, int]) -> Destination:
        return Destination(self._name(address), [])

    def _name(self, address: tuple[str, int]) -> tuple[Any, ...]:
        host, isIPv6 = address[0], self.family == socket.AF_INET6
        if isinstance(address, DatagramAddress):
            if (":" in host) != isIPv6:
                self.checkHost(host)
            return (*address, 0, address.scopeID) if isIPv6 else tuple(address)
        if host != "<broadcast>" or isIPv6:
            self.checkHost(host)
        return socketAddress(*address)

    def _controls(self, host: str, source: str | None, hopLimit: int | None, interface: int = 0) -> cmsg.Ancillary:
        # A socket for both families sends IPv4 with the control messages of IPv4.
        isIPv6 = ":" in host and "." not in host
        return cmsg.replyControls(isIPv6, source, None if hopLimit is None else max(1, hopLimit - 1), 0, interface)

    def checkHost(self, host: str) -> None:
        """@raise error.InvalidAddressError: if C{host} is not an IP address of the port's family."""
        family, isAddress = ("IPv4", isIPAddress) if self.family == socket.AF_INET else ("IPv6", isIPv6Address)
        if not isAddress(host):
            raise error.InvalidAddressError(host, f"must be an {family} address")


#: On a connected socket.
_toPeer = Destination(None, [])


@dataclass
class PortContext:
    """What the parts of one port share.

    @ivar maxPacketSize: the longest datagram to hand over, in bytes.
    @ivar dropped: how many datagrams were dropped, by reason.
    @ivar adopted: whether another program has made the socket: it may have it still, and change its options.
    @ivar restore: sets all options of an adopted socket that is not connected.
    @ivar renewal: keeps the choices of C{connect(2)} up to date, on a port that L{dial <udpecho.net.open.dial>} has opened.
    @ivar socket: the socket, set when it is open.
    @ivar turn: the time that the port shares with the others of its reactor once it is open.
    @ivar calls: the calls of callbacks.
    """

    reactor: Reactor
    protocol: DatagramProtocol
    endpoints: Endpoints
    maxPacketSize: int
    options: PortOptions
    adopted: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    restore: Callable[[], None] | None = None
    renewal: Renewal | None = None
    calls: CallQueue = field(default_factory=CallQueue)
    socket: socket.socket = field(init=False)
    turn: TurnBudget = field(init=False)
    _restoreAfter: float = -inf

    def __post_init__(self) -> None:
        self.turn = TurnBudget(self.reactor)

    def opened(self, sock: _Socket) -> None:
        """The port has got its socket."""
        self.socket = sock
        if self.adopted and sockopt.available:
            resetOptions(sock)

    def restoreOptions(self) -> None:
        """Set the options of an adopted socket again: they are not what they were."""
        if self.restore is not None and self.endpoints.peer is None and self.reactor.seconds() >= self._restoreAfter:
            self._restoreAfter = self.reactor.seconds() + _restorePause
            self.restore()
