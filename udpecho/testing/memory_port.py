"""A UDP port of a host in memory. It behaves as a L{DatagramPort <udpecho.net.port.DatagramPort>} on Linux does."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IMulticastTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress, formatAddress, isGroup
from udpecho.errors import EchoError, unreachable
from udpecho.interfaces import IDatagramTransport, IDropReceiver, SendCallback
from udpecho.net.network_errors import notifyError
from udpecho.net.sender import notifySent

if TYPE_CHECKING:
    from udpecho.testing.memory_network import MemoryHost

_wildcards = ("0.0.0.0", "::")

_log = Logger()


@implementer(IListeningPort, IDatagramTransport, IMulticastTransport)
class MemoryPort:
    """
    A UDP port of a L{MemoryHost <udpecho.testing.memory_network.MemoryHost>}.

    @ivar dropped: how many datagrams this port dropped by reason: C{truncated}, C{send_failed}.
    """

    def __init__(
        self,
        host: MemoryHost,
        port: int,
        protocol: DatagramProtocol,
        interface: str,
        maxPacketSize: int,
        listenMultiple: bool = False,
        ipv6Only: bool = False,
    ) -> None:
        """
        Use C{listenUDP} or C{listenMulticast} of the host.

        @raise error.InvalidAddressError: if C{interface} is not an IP address.
        """
        interface = interface or "0.0.0.0"
        if not isIPAddress(interface) and not isIPv6Address(interface):
            raise error.InvalidAddressError(interface, "not an IPv4 or IPv6 address.")
        self.dropped: Counter[str] = Counter()
        self.protocol = protocol
        self.connected = False
        self._host = host
        self._number = port
        self._interface = canonical(interface)
        self._wildcard = unmapped(self._interface) in _wildcards
        self._maxPacketSize = maxPacketSize
        self._listenMultiple = listenMultiple
        self._ipv6Only = ipv6Only
        self._peer: DatagramAddress | None = None
        self._broadcastAllowed = False
        self._groups: set[str] = set()
        self._outgoingInterface = self._interface
        self._ttl = 1
        self._loopback = True
        self._stopped: list[defer.Deferred[None]] = []
        self._closing: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<MemoryPort {formatAddress((self._interface, self._number))} of {self._host.name}>"

    @property
    def _ipv6(self) -> bool:
        return ":" in self._interface

    # IListeningPort

    def startListening(self) -> None:
        """
        Bind the address.

        @raise error.CannotListenError: if it is not the host's, or taken.
        """
        try:
            self._number = self._host._bind(self)
        except OSError as e:
            raise error.CannotListenError(self._interface, self._number, e) from None
        self.connected = True
        self.protocol.makeConnection(self)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address."""
        return (IPv6Address if self._ipv6 else IPv4Address)("UDP", self._interface, self._number)

    def stopListening(self) -> defer.Deferred[None]:
        """Hear nothing more, and stop in the next turn. May be called twice."""
        if not self.connected:
            return defer.succeed(None)
        stopped: defer.Deferred[None] = defer.Deferred()
        self._stopped.append(stopped)
        if self._closing is None:
            self._closing = self._host.callLater(0, self.abort)
        return stopped

    def abort(self) -> None:
        """
        Stop at once.

        @see: L{IDatagramTransport.abort}
        """
        closing, self._closing = self._closing, None
        if closing is not None and closing.active():
            closing.cancel()
        if self.connected:
            self.connected = False
            self._host._unbind(self)
            try:
                self.protocol.doStop()
            except Exception:
                _log.failure("Unhandled error in stopProtocol of {protocol}", protocol=self.protocol)
        stopped, self._stopped = self._stopped, []
        for done in stopped:
            done.callback(None)

    # IUDPTransport

    def connect(self, host: str, port: int) -> None:
        """
        Exchange datagrams with one peer only from now on; a port on a wildcard has the one address from then on that reaches
        the peer, as the system has it after C{connect(2)}.

        @raise OSError: if there is no route to the host.
        """
        if self._peer is not None:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        self._checkHost(host, "connect()")
        peer = self._concrete(host, port)
        number = self._noRoute(unmapped(peer.host))
        if number:
            raise OSError(number, os.strerror(number))
        self._peer = peer
        if self._wildcard:
            source = self._host._sourceFor(unmapped(peer.host))
            self._interface = f"::ffff:{source}" if self._ipv6 and ":" not in source else source
            self._wildcard = False

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """
        Send a datagram.

        @raise error.MessageLengthError: if no datagram can be this long.
        @raise error.InvalidAddressError: if C{addr} is not an address of this port's family, or not the peer's.
        """
        if self._send(packet, addr, lambda _: None) == errno.EMSGSIZE:
            raise error.MessageLengthError("message too long")

    def writeSequence(self, seq: list[bytes], addr: tuple[str, int] | None = None) -> None:
        """Send a datagram made of parts."""
        self.write(b"".join(seq), addr)

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> None:
        """
        Send a datagram and learn what became of it: the send queue in memory is never full.

        @see: L{IDatagramTransport.send}
        """
        self._send(datagram, address, callback)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Set whether this port may send to the broadcast address."""
        self._broadcastAllowed = enabled

    def getBroadcastAllowed(self) -> bool:
        """Whether it may."""
        return self._broadcastAllowed

    def _send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback) -> int:
        if type(datagram) is not bytes:
            # As the socket does: any buffer, as it is now.
            datagram = bytes(memoryview(datagram))
        destination = self._destination(address)
        number = self._refusal(datagram, destination)
        if number:
            self.dropped["send_failed"] += 1
            notifySent(callback, "send_failed")
            if self._peer is not None and number != errno.EMSGSIZE:
                self._host.callLater(0, self._hear, unreachable(number, str(self._peer)))
            return number
        notifySent(callback, None)
        target = unmapped(destination.host)
        source = self._interface
        if self._wildcard:
            asked = address.localHost if isinstance(address, DatagramAddress) and address.unicast else None
            source = asked or self._host._sourceFor(target)
        self._host.network._carry(
            self,
            datagram,
            DatagramAddress((unmapped(source), self._number)),
            destination if target is destination.host else DatagramAddress((target, destination.port)),
        )
        return 0

    def _refusal(self, datagram: bytes, destination: DatagramAddress) -> int:
        """@return: the error number that Linux would fail the send with, or 0."""
        if not self.connected:
            return errno.EBADF
        if len(datagram) > (MAX_PAYLOAD_IPV6 if ":" in unmapped(destination.host) else MAX_PAYLOAD_IPV4):
            return errno.EMSGSIZE
        if not destination.port:
            return errno.EINVAL
        if destination.host == "255.255.255.255":
            return 0 if self._broadcastAllowed else errno.EACCES
        return self._noRoute(unmapped(destination.host))

    def _noRoute(self, destination: str) -> int:
        """@return: the error number of having no way to a host from the bound address, or 0."""
        source = unmapped(self._interface)
        if not self._wildcard and (":" in source) != (":" in destination):
            return errno.EAFNOSUPPORT
        if not self._host.network._reachable(self._host, destination):
            return errno.ENETUNREACH
        if isLoopback(source) and not self._host._owns(destination) and not isGroup(destination):
            return errno.EINVAL
        return 0

    def _destination(self, address: tuple[str, int] | None) -> DatagramAddress:
        if self._peer is not None:
            if address is not None and address != self._peer and self._concrete(*address) != self._peer:
                raise error.InvalidAddressError(address[0], f"connected to {self._peer}")
            return self._peer
        if address is None:
            raise error.InvalidAddressError("", "an unconnected port must be told where to write to")
        host = "255.255.255.255" if address[0] == "<broadcast>" and not self._ipv6 else address[0]
        self._checkHost(host, "write()")
        return self._concrete(host, address[1])

    def _concrete(self, host: str, port: int) -> DatagramAddress:
        """The address that the system makes of one: the unspecified address is this machine."""
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        host = canonical(host)
        if host == "0.0.0.0":
            host = "127.0.0.1" if self._wildcard else self._interface
        elif host == "::":
            host = "::ffff:127.0.0.1" if self._interface.startswith("::ffff:") else "::1"
        return DatagramAddress((host, port))

    def _checkHost(self, host: str, what: str) -> None:
        if not isIPAddress(host) and not isIPv6Address(host):
            raise error.InvalidAddressError(host, f"{what} only accepts IP addresses, not hostnames")
        if isIPv6Address(host) != self._ipv6:
            own, other = ("IPv6", "IPv4") if self._ipv6 else ("IPv4", "IPv6")
            raise error.InvalidAddressError(host, f"{own} port {what} called with {other} address")

    # What the network brings

    def _score(self, source: DatagramAddress, destination: DatagramAddress) -> int:
        """How well this port fits a datagram, as C{compute_score} of Linux's C{net/ipv4/udp.c} has it; 0 if it does not."""
        host = self._peerView(destination.host)
        if host is None or not (self._wildcard or self._interface == host):
            return 0
        score = 1 + (self._interface == host) + (not self._ipv6 or ":" in destination.host)
        if self._peer is not None:
            if (self._peerView(source.host), source.port) != self._peer:
                return 0
            score += 4
        return score

    def _peerView(self, host: str) -> str | None:
        """How this port's socket writes an address, C{None} if it has nothing to do with that family."""
        if not self._ipv6:
            return None if ":" in host else host
        mapped = self._interface.startswith("::ffff:")
        if ":" in host:
            return None if mapped else host
        return f"::ffff:{host}" if mapped or (self._wildcard and not self._ipv6Only) else None

    def _receive(self, datagram: bytes, source: DatagramAddress, destination: DatagramAddress) -> None:
        if not self.connected or self._stopped:
            return
        address = DatagramAddress((self._peerView(source.host) or source.host, source.port))
        address.localHost = self._peerView(destination.host)
        address.unicast = not isGroup(destination.host)
        if len(datagram) > self._maxPacketSize:
            self.dropped["truncated"] += 1
            if IDropReceiver.providedBy(self.protocol):
                self.protocol.datagramDropped("truncated", self._maxPacketSize + 1, address)
            return
        try:
            self.protocol.datagramReceived(datagram, address)
        except Exception:
            _log.failure("Unhandled error in datagramReceived of {protocol}", protocol=self.protocol)

    def _hear(self, reason: EchoError) -> None:
        """The network says that an earlier datagram did not arrive."""
        if not self.connected or self._stopped:
            return
        notifyError(self.protocol, reason)

    # IMulticastTransport

    def joinGroup(self, addr: str, interface: str = "") -> defer.Deferred[None]:
        """
        Hear what is sent to a group from now on.

        @return: fires at once; fails with C{error.MulticastJoinError} if C{addr} is not a group, or joined already.
        """
        if not (isIPAddress(addr) or isIPv6Address(addr)) or not ipaddress.ip_address(addr).is_multicast:
            return defer.fail(error.MulticastJoinError(addr, interface, "not a multicast address"))
        if canonical(addr) in self._groups:
            return defer.fail(error.MulticastJoinError(addr, interface, errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        self._groups.add(canonical(addr))
        return defer.succeed(None)

    def leaveGroup(self, addr: str, interface: str = "") -> defer.Deferred[None]:
        """
        Hear it no more.

        @return: fires at once; fails with C{error.MulticastJoinError} if it was not joined.
        """
        if not (isIPAddress(addr) or isIPv6Address(addr)) or canonical(addr) not in self._groups:
            number = errno.EADDRNOTAVAIL
            return defer.fail(error.MulticastJoinError(addr, interface, number, os.strerror(number)))
        self._groups.remove(canonical(addr))
        return defer.succeed(None)

    def getOutgoingInterface(self) -> str | int:
        """The interface that datagrams to groups leave by."""
        return self._outgoingInterface

    def setOutgoingInterface(self, addr: str | int) -> defer.Deferred[Any]:
        """Set it: noted, and of no effect, since a host in memory has but one."""
        self._outgoingInterface = str(addr)
        return defer.succeed(self._outgoingInterface)

    def getLoopbackMode(self) -> bool:
        """Whether the host itself hears what it sends to groups it is in."""
        return self._loopback

    def setLoopbackMode(self, mode: bool) -> None:
        """Set whether it does."""
        self._loopback = bool(mode)

    def getTTL(self) -> int:
        """The time to live of datagrams to groups."""
        return self._ttl

    def setTTL(self, ttl: int) -> None:
        """Set it: noted, and of no effect, since there are no routers."""
        self._ttl = ttl


@lru_cache(4096)
def canonical(address: str) -> str:
    """
    Write an IP address in the one way that all its spellings share, which is the system's.

    @raise ValueError: if it is none.
    """
    host, percent, scope = address.partition("%")
    # Not ipaddress: how it writes IPv4-mapped addresses depends on Python's version.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, host)) + percent + scope
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


@lru_cache(4096)
def unmapped(address: str) -> str:
    """The IPv4 address in an IPv4-mapped IPv6 one; others as they are."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if address.startswith("::ffff:") else None
    return address if mapped is None else str(mapped)


@lru_cache(4096)
def isLoopback(host: str) -> bool:
    """Whether an address is one that each host has for itself alone."""
    return ipaddress.ip_address(host).is_loopback
