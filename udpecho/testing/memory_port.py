"""A UDP port of a host in memory. It behaves as a L{DatagramPort <udpecho.net.port.DatagramPort>} on Linux does."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IMulticastTransport
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress, isGroup
from udpecho.errors import EchoError, unreachable
from udpecho.interfaces import IBatchReceiver, IDatagramTransport, SendCallback
from udpecho.net.call_queue import CallQueue
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.network_errors import notifyError
from udpecho.net.options import PortOptions
from udpecho.net.reader import Handover
from udpecho.net.sources import Arrival, Sources
from udpecho.net.stock import ProtocolAttribute
from udpecho.testing.memory_addresses import WILDCARDS, canonical, isLoopback, unmapped
from udpecho.testing.memory_groups import MemoryGroups
from udpecho.testing.memory_paths import Known, Path, longest
from udpecho.testing.memory_reading import ReadingPort
from udpecho.testing.path_mtu import PMTUDISC_OMIT, PMTUDISC_WANT, Parts

#: How a datagram came that is no reply.
_unasked = Arrival()


class Host(Protocol):
    """What a port needs of its host."""

    name: str

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> IDelayedCall:
        """Call something later, as C{IReactorTime} has it."""

    def bind(self, port: MemoryPort) -> int:
        """Give a port its number.

        @raise OSError: as C{bind(2)} does.
        @raise OverflowError: if C{port} has no number of 16 bits, as a socket does.
        """

    def unbind(self, port: MemoryPort) -> None:
        """Free a port's number."""

    def owns(self, address: str) -> bool:
        """Whether an IP address is the host's."""

    def sourceFor(self, destination: str) -> str:
        """The address that the routing table would choose to send from."""

    def reachable(self, destination: str) -> bool:
        """Whether there is a route to an address."""

    def longestTo(self, destination: str) -> int:
        """The longest payload that is sent to an address whatever the links are, in bytes."""

    def changed(self) -> None:
        """A port receives other datagrams than before: from a peer only, or of a group."""

    def partsFor(self, port: MemoryPort, size: int, destination: str) -> Parts | None:
        """How a payload of C{size} bytes is sent, C{None} if it is too long for the path."""

    def report(self, report: Any) -> None:
        """ICMP reports something about a datagram of one of its ports."""

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination; IPv4 addresses are plain here, not IPv4-mapped."""

    def notSent(self, number: int, datagram: bytes, source: DatagramAddress, destination: DatagramAddress) -> None:
        """The system refuses to send a datagram, with an error number."""


@implementer(IListeningPort, IDatagramTransport, IMulticastTransport)
class MemoryPort(MemoryGroups, ReadingPort, ProtocolAttribute):
    """A UDP port of a L{MemoryHost <udpecho.testing.memory_host.MemoryHost>}.

    @ivar dropped: how many datagrams this port dropped by reason: C{truncated}, C{send_failed}, C{loop_guard}.
    @ivar hopLimit: the time to live or hop limit of what it sends to one host (C{IP_TTL} in C{ip(7)}).
    @ivar countsHops: whether it hands over the hop limit of each datagram, so that the reply has one less (L{PortOptions
        <udpecho.net.options.PortOptions>}).
    @ivar ecn: the ECN codepoint of what it sends, 0 to 3 (RFC 3168; C{IP_TOS} in C{ip(7)}).
    @ivar reportsECN: whether addresses of datagrams have that of each (C{IP_RECVTOS}).
    @ivar mtuDiscovery: what it does about paths that carry less, a number as of C{IP_MTU_DISCOVER} in C{ip(7)}
        (L{udpecho.testing.path_mtu}).
    @ivar held: the bytes that it has sent and that have not arrived yet.
    @ivar peer: the peer in connected mode, else C{None}.
    @ivar writeRaises: whether C{write} raises what the host rejects; else that is only counted.
    """

    host: Host

    def __init__(
        self,
        host: Host,
        port: int,
        protocol: DatagramProtocol,
        interface: str,
        maxPacketSize: int,
        listenMultiple: bool = False,
        ipv6Only: bool = False,
    ) -> None:
        """Use C{listenUDP} or C{listenMulticast} of the host.

        @raise error.InvalidAddressError: if C{interface} is not an IP address.
        """
        interface = interface or "0.0.0.0"
        if not isIPAddress(interface) and not isIPv6Address(interface):
            raise error.InvalidAddressError(interface, "not an IPv4 or IPv6 address.")
        self.dropped: Counter[str] = Counter()
        self.protocol = protocol
        self.connected = False
        self.host = host
        self.port = self.number = port
        self.maxPacketSize = maxPacketSize
        self.interface = canonical(interface)
        self._wildcard = unmapped(self.interface) in WILDCARDS
        self.listenMultiple = listenMultiple
        self.ipv6Only = ipv6Only
        self.peer: DatagramAddress | None = None
        self._broadcastAllowed = False
        MemoryGroups.__init__(self)
        ReadingPort.__init__(self)
        self.hopLimit = 64
        self.ecn = 0
        self.reportsECN = False
        # As DatagramPort: for what is sent back in batches, nobody is notified of a path that carries less.
        omits = IBatchReceiver.providedBy(protocol) and not self._ipv6
        self.mtuDiscovery = PMTUDISC_OMIT if omits else PMTUDISC_WANT
        self.countsHops = PortOptions().countsHops(protocol)
        self.writeRaises = True
        self.held = 0
        self._sources = Sources(protocol)
        self._handover = Handover(protocol, maxPacketSize, self.dropped, self._sources)
        self._having = (self._handover,)
        self._calls = CallQueue()
        self._stopped: list[defer.Deferred[None]] = []
        self._closing = SingleCall(host, self.abort)
        self._paths: Known[object, Path] = Known()

    def __repr__(self) -> str:
        return f"<MemoryPort {formatAddress((self.interface, self.number))} of {self.host.name}>"

    @property
    def _ipv6(self) -> bool:
        return ":" in self.interface

    # IListeningPort

    def startListening(self) -> None:
        """Bind the address. What C{startProtocol} raises is raised here, and nothing is left open then.

        @raise error.CannotListenError: if it is not the host's, or taken.
        """
        try:
            self.number = self.host.bind(self)
        except OSError as e:
            raise error.CannotListenError(self.interface, self.number, e) from None
        self.connected = True
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            self.abort()
            raise
        if not self.connected and getattr(self.protocol, "numPorts", False):
            # Closed by startProtocol, before it could be stopped.
            self._calls.call(self.protocol.doStop)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address."""
        return (IPv6Address if self._ipv6 else IPv4Address)("UDP", self.interface, self.number)

    def stopListening(self) -> defer.Deferred[None]:
        """Receive nothing more, and stop in the next turn. May be called twice."""
        if not self.connected:
            return defer.succeed(None)
        stopped: defer.Deferred[None] = defer.Deferred()
        self._stopped.append(stopped)
        self._closing.schedule()
        return stopped

    def abort(self) -> None:
        """@see: L{IDatagramTransport.abort}"""
        self._closing.cancel()
        if self.connected:
            self.connected = False
            self.forgetPaths()
            self.host.unbind(self)
            if getattr(self.protocol, "numPorts", True):
                self._calls.call(self.protocol.doStop)
        # A program may go on inside such a callback, and find that the port works as outside of one.
        calls = CallQueue()
        calls.addResults(self._stopped, None)
        calls.run()

    # IUDPTransport

    def connect(self, host: str, port: int) -> None:
        """Exchange datagrams with one peer only; a port on a wildcard address gets the address that reaches the peer, as after
        C{connect(2)}.

        @raise OSError: if there is no route to the host.
        """
        if self.peer is not None:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        self._checkHost(host, "connect()")
        peer = self._concrete(host, port)
        number = self._noRoute(unmapped(peer.host))
        if number:
            raise OSError(number, os.strerror(number))
        self.peer = peer
        if self._wildcard:
            source = self.host.sourceFor(unmapped(peer.host))
            self.interface = f"::ffff:{source}" if self._ipv6 and ":" not in source else source
            self._wildcard = False
        self.forgetPaths()
        self.host.changed()

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send a datagram.

        @raise error.MessageLengthError: if no datagram can be this long.
        @raise error.InvalidAddressError: if C{addr} is not an address of this port's family, or not the peer's.
        @raise OSError: if the host rejects it, as L{DatagramPort.write <udpecho.net.port.DatagramPort.write>} does; not for an
            address that no host has: on most networks nobody knows that.
        """
        number = self.send(packet, addr)
        if number == errno.EMSGSIZE:
            raise error.MessageLengthError("message too long")
        if number not in (0, errno.EBADF, errno.ENETUNREACH) and self.peer is None and self.writeRaises:
            raise OSError(number, os.strerror(number))

    def writeSequence(self, seq: list[bytes], addr: tuple[str, int] | None = None) -> None:
        """Send a datagram made of parts."""
        self.write(b"".join(seq), addr)

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: SendCallback | None = None) -> int:
        """@see: L{IDatagramTransport.send}. The send queue in memory is never full."""
        if type(datagram) is not bytes:
            # As the socket does: any buffer, as it is now.
            datagram = bytes(memoryview(datagram))
        asked: Arrival | DatagramAddress = _unasked
        if type(address) is tuple:
            source = self._sources.find(address)
            asked = _unasked if source is None else source.arrival
        elif isinstance(address, DatagramAddress):
            asked = address
        elif address is not None:
            address = (address[0], address[1])
        key = (address, asked.localHost if asked.unicast else None)
        path = self._paths.get(key)
        if path is None or len(datagram) > path.longest:
            destination = self._destination(address)
            number = self._refusal(datagram, destination)
            if number:
                path = self._findPath(asked, destination)
                self.host.notSent(number, datagram, path.source, path.destination)
                self._refused(number, callback)
                return number
            path = self._paths.keep(key, self._findPath(asked, destination))
        hopLimit, own = asked.hopLimit, self.ttl if path.isGroup else self.hopLimit
        self.host.carry(self, datagram, path.source, path.destination, own if hopLimit is None else max(1, hopLimit - 1))
        if callback is not None:
            # It is on its way, whatever the callback does.
            self._calls.call(callback, None)
        return 0

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Set whether this port may send to the broadcast address."""
        self._broadcastAllowed = enabled
        self.forgetPaths()

    def getBroadcastAllowed(self) -> bool:
        """Whether it may."""
        return self._broadcastAllowed

    def _refused(self, number: int, callback: SendCallback | None) -> None:
        self.dropped["send_failed"] += 1
        if callback is not None:
            self._calls.call(callback, "send_failed")
        if self.peer is not None and number != errno.EMSGSIZE:
            self.host.callLater(0, self.networkError, unreachable(number, str(self.peer)))

    def _findPath(self, asked: Arrival | DatagramAddress, destination: DatagramAddress) -> Path:
        target = unmapped(destination.host)
        source = self.interface
        if self._wildcard:
            source = (asked.localHost if asked.unicast else None) or self.host.sourceFor(target)
        return Path.between((unmapped(source), self.number), (target, destination.port), self.host.longestTo(target))

    def _refusal(self, datagram: bytes, destination: DatagramAddress) -> int:
        """The error number with which the send fails on Linux, or 0."""
        if not self.connected:
            return errno.EBADF
        if len(datagram) > longest(unmapped(destination.host)):
            return errno.EMSGSIZE
        if not destination.port:
            return errno.EINVAL
        if destination.host == "255.255.255.255":
            return 0 if self._broadcastAllowed else errno.EACCES
        target = unmapped(destination.host)
        number = self._noRoute(target)
        if not number and self.host.partsFor(self, len(datagram), target) is None:
            return errno.EMSGSIZE
        return number

    def _noRoute(self, destination: str) -> int:
        """The error number if there is no route from the bound address, or 0."""
        source = unmapped(self.interface)
        if not self._wildcard and (":" in source) != (":" in destination):
            return errno.EAFNOSUPPORT
        gone = not (self._wildcard or self._ipv6 or self.host.owns(source) or isGroup(source))
        if gone or not self.host.reachable(destination):
            return errno.ENETUNREACH
        if isLoopback(source) and not self.host.owns(destination) and not isGroup(destination):
            return errno.EINVAL
        return 0

    def _destination(self, address: tuple[str, int] | None) -> DatagramAddress:
        if self.peer is not None:
            if address is not None and address != self.peer and self._concrete(*address) != self.peer:
                raise error.InvalidAddressError(address[0], f"connected to {self.peer}")
            return self.peer
        if address is None:
            raise error.InvalidAddressError("", "an unconnected port needs an address to write to")
        host = "255.255.255.255" if address[0] == "<broadcast>" and not self._ipv6 else address[0]
        self._checkHost(host, "write()")
        return self._concrete(host, address[1])

    def _concrete(self, host: str, port: int) -> DatagramAddress:
        """An address as the system uses it: the unspecified address is this machine."""
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        host = canonical(host)
        if host == "0.0.0.0":
            host = "127.0.0.1" if self._wildcard else self.interface
        elif host == "::":
            host = "::ffff:127.0.0.1" if self.interface.startswith("::ffff:") else "::1"
        return DatagramAddress((host, port))

    def _checkHost(self, host: str, what: str) -> None:
        if not isIPAddress(host) and not isIPv6Address(host):
            raise error.InvalidAddressError(host, f"{what} only accepts IP addresses, not hostnames")
        if isIPv6Address(host) != self._ipv6:
            own, other = ("IPv6", "IPv4") if self._ipv6 else ("IPv4", "IPv6")
            raise error.InvalidAddressError(host, f"{own} port {what} called with {other} address")

    # Called by the host and the network

    def forgetPaths(self) -> None:
        """Find out again where datagrams go: the addresses of this port, or of hosts, have changed."""
        self._paths.clear()

    def score(self, source: DatagramAddress, destination: DatagramAddress) -> int:
        """How well this port matches a datagram, as C{compute_score} of Linux's C{net/ipv4/udp.c}; 0 if it does not."""
        host = self._peerView(destination.host)
        if host is None or not (self._wildcard or self.interface == host):
            return 0
        score = 1 + (self.interface == host) + (not self._ipv6 or ":" in destination.host)
        if self.peer is not None:
            if (self._peerView(source.host), source.port) != self.peer:
                return 0
            score += 4
        return score

    def _peerView(self, host: str) -> str | None:
        """An address as this port's socket writes it, C{None} if the socket does not have that family."""
        if not self._ipv6:
            return None if ":" in host else host
        mapped = self.interface.startswith("::ffff:")
        if ":" in host:
            return None if mapped else host
        return f"::ffff:{host}" if mapped or (self._wildcard and not self.ipv6Only) else None

    def vanish(self) -> None:
        """The host has crashed: nobody is notified."""
        self._closing.cancel()
        self.connected = False
        self.forgetPaths()
        self._stopped.clear()

    def receive(
        self, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int, ecn: int = 0
    ) -> None:
        """A datagram arrives."""
        if not self.connected or self._stopped:
            return
        if self.isWaiting:
            self.wait(datagram, source, destination, hopLimit, ecn)
            return
        key = (source, destination, hopLimit if self.countsHops else None, ecn if self.reportsECN else None)
        address, reason = self._sources.usual.get(key), None
        if address is None:
            name = self._peerView(source.host) or source.host, source.port
            arrival = Arrival(self._peerView(destination.host), not isGroup(destination.host), key[2], ecn=key[3])
            reason = arrival.reason
            address = self._sources.handOver(key, name, arrival, reason is None)
        self._handover.deliver(datagram, address, reason)

    def networkError(self, reason: EchoError) -> None:
        """An earlier datagram did not arrive."""
        if self.connected and not self._stopped:
            notifyError(self.protocol, reason)
