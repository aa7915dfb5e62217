"""A host of a network in memory: a reactor for UDP code."""

from __future__ import annotations

import errno
import ipaddress
import math
import os
from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorMulticast, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, isGroup
from udpecho.interfaces import IDatagramReactor
from udpecho.net.options import PortOptions
from udpecho.testing.lifecycle import HostLife
from udpecho.testing.memory_addresses import EPHEMERAL, isLoopback, overlap, unmapped
from udpecho.testing.memory_core import MemoryCore
from udpecho.testing.memory_paths import Known, longest
from udpecho.testing.memory_port import Host, MemoryPort
from udpecho.testing.memory_tcp import MemoryTCP, TCPNetwork
from udpecho.testing.realm import Realm
from udpecho.testing.skew import HostCall, HostClock

#: The distance between the first ports of two hosts; no divisor of the range's length.
_ephemeralStep = 1009


class Receivers(NamedTuple):
    """The ports that receive a datagram.

    @ivar at: their addresses, for the trace: it is kept for long, and a closed port holds its protocol.
    """

    ports: list[MemoryPort]
    at: list[tuple[str, int]]


class HostNetwork(TCPNetwork, Protocol):
    """What a host needs of its network."""

    hosts: dict[str, MemoryHost]
    isPlain: bool

    def reachable(self, source: Host, address: str) -> bool:
        """Whether there is a route from a host to an address."""

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination."""

    def notSent(
        self, sender: Host, number: int, datagram: bytes, source: DatagramAddress, destination: DatagramAddress
    ) -> None:
        """The sender's host refuses to send a datagram, with an error number."""


@implementer(IDatagramReactor, IReactorUDP, IReactorMulticast)
class MemoryHost(HostLife, MemoryTCP):
    """A host of a L{MemoryNetwork <udpecho.testing.memory_network.MemoryNetwork>}, and a reactor for UDP code.

    @ivar running: whether its program runs.
    """

    def __init__(self, network: HostNetwork, name: str, addresses: list[str], realm: Realm) -> None:
        """Use C{MemoryNetwork.host}."""
        HostLife.__init__(self, name, addresses, realm, HostClock(network.clock))
        MemoryTCP.__init__(self, network)
        self.network: HostNetwork = network
        self._byNumber: dict[int, list[MemoryPort]] = {}
        self._matching: Known[tuple[DatagramAddress, DatagramAddress], Receivers] = Known()
        # As on real hosts, two of them seldom choose the same number at the same time.
        first = _ephemeralStep * len(network.hosts)
        self._ephemeral = (EPHEMERAL[place % len(EPHEMERAL)] for place in count(first))

    def __repr__(self) -> str:
        return f"<MemoryHost {self.name}>"

    # IReactorTime

    def seconds(self) -> float:
        """The time on this host's clock."""
        return self.clock.seconds()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> Any:
        """Call something later on this host's clock; never if this host has stopped."""
        clock = self.clock
        due = (delay if clock.isExact else clock.delayOf(delay)) if self.running else math.inf
        call = self.network.clock.schedule(self, due, callable, args, kw)
        return call if clock.isExact else HostCall(clock, call)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The delayed calls of this host."""
        calls = self.network.clock.callsOf(self)
        return calls if self.clock.isExact else [HostCall(self.clock, call) for call in calls]

    # What happens to it

    def crash(self) -> None:
        """@see: L{HostLife.crash}"""
        HostLife.crash(self)
        self.vanishStreams()
        self.end()

    def restart(self) -> None:
        """@see: L{HostLife.restart}"""
        self.crash()
        MemoryCore.__init__(self, self.network)
        self.start()

    # IReactorUDP, IReactorMulticast, IDatagramReactor

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192) -> MemoryPort:
        """Listen on this host.

        @raise error.CannotListenError: if the address is not this host's, or taken.
        """
        return self._listen(MemoryPort(self, port, protocol, interface, maxPacketSize))

    def listenMulticast(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> MemoryPort:
        """Listen on this host, for groups too, and on the address of other ports with C{listenMultiple}."""
        return self._listen(MemoryPort(self, port, protocol, interface, maxPacketSize, listenMultiple))

    def listenDatagrams(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str,
        maxPacketSize: int,
        ipv6Only: bool,
        decrementHopLimit: bool | None = None,
        listenMultiple: bool = False,
        writeRaises: bool = True,
    ) -> MemoryPort:
        """@see: L{IDatagramReactor.listenDatagrams}"""
        made = MemoryPort(self, port, protocol, interface, maxPacketSize, listenMultiple, ipv6Only)
        made.writeRaises = writeRaises
        made.countsHops = PortOptions(decrementHopLimit=decrementHopLimit).countsHops(protocol)
        return self._listen(made)

    def _listen(self, port: MemoryPort) -> MemoryPort:
        port.startListening()
        return port

    def disconnectAll(self) -> None:
        """Close all that is open, as the end of a program does."""
        super().disconnectAll()
        for port in [port for ports in self._byNumber.values() for port in ports]:
            port.abort()

    # For the ports: see Host in memory_port

    def longestTo(self, destination: str) -> int:
        """The longest payload that is sent to an address whatever the links are, in bytes."""
        return longest(destination) if self.network.isPlain else 0

    def owns(self, address: str) -> bool:
        """Whether an IP address is the host's."""
        return isLoopback(address) or address in self.addresses

    def sourceFor(self, destination: str) -> str:
        """The address that the routing table would choose to send from."""
        if isLoopback(destination):
            return "::1" if ":" in destination else "127.0.0.1"
        if destination in self.addresses:
            return destination
        for address in self.addresses:
            if (":" in address) == (":" in destination):
                return address
        return "::" if ":" in destination else "0.0.0.0"

    def bind(self, port: MemoryPort) -> int:
        """Give a port its number."""
        if not 0 <= port.number <= 65535:
            raise OverflowError("bind(): port must be 0-65535.")
        if not self.isUp:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        address = ipaddress.ip_address(unmapped(port.interface))
        if not (address.is_unspecified or address.is_multicast or self.owns(str(address))):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        numbers = [port.number] if port.number else islice(self._ephemeral, len(EPHEMERAL))
        number = next((number for number in numbers if self._isFree(port, number)), None)
        if number is None:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._byNumber.setdefault(number, []).append(port)
        self.changed()
        return number

    def _isFree(self, port: MemoryPort, number: int) -> bool:
        """Whether no other port has the number on the same address, or on a wildcard address of its family."""
        return all(
            (port.listenMultiple and other.listenMultiple) or not _overlap(port, other)
            for other in self._byNumber.get(number, ())
        )

    def reachable(self, destination: str) -> bool:
        """Whether there is a route to an address."""
        return self.network.reachable(self, destination)

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination."""
        self.network.carry(sender, datagram, source, destination, hopLimit)

    def notSent(self, number: int, datagram: bytes, source: DatagramAddress, destination: DatagramAddress) -> None:
        """The host refuses to send a datagram, with an error number."""
        self.network.notSent(self, number, datagram, source, destination)

    def unbind(self, port: MemoryPort) -> None:
        """Free a port's number."""
        ports = self._byNumber[port.number]
        ports.remove(port)
        if not ports:
            del self._byNumber[port.number]
        self.changed()

    def changed(self) -> None:
        """Find out again which ports receive what: they, or the addresses of this host, have changed."""
        self._matching.clear()

    def forgetPaths(self) -> None:
        """Find out again where datagrams go: the addresses of hosts have changed."""
        self.changed()
        for ports in self._byNumber.values():
            for port in ports:
                port.forgetPaths()

    def receivers(self, source: DatagramAddress, destination: DatagramAddress) -> Receivers:
        """The ports that receive a datagram: the one that matches it best, or all that are in its group."""
        key = (source, destination)
        found = self._matching.get(key)
        if found is None:
            ports = self._findReceivers(source, destination)
            at = [(port.interface, port.number) for port in ports]
            found = self._matching.keep(key, Receivers(ports, at))
        return found

    def _findReceivers(self, source: DatagramAddress, destination: DatagramAddress) -> list[MemoryPort]:
        ports = self._byNumber.get(destination.port, ())
        scores = {port: score for port in ports if (score := port.score(source, destination))}
        if isGroup(destination.host):
            # As on Linux (IP_MULTICAST_ALL in ip(7)), it is enough that one port of this host has joined.
            joined = any(destination.host in port.groups for ports in self._byNumber.values() for port in ports)
            if destination.host != "255.255.255.255" and not joined:
                return []
            return list(scores)
        return [max(scores, key=scores.__getitem__)] if scores else []


def _overlap(first: MemoryPort, second: MemoryPort) -> bool:
    """Whether two ports cannot have the same number."""
    one, other = unmapped(first.interface), unmapped(second.interface)
    return overlap(one, other, not (first if ":" in one else second).ipv6Only)
