"""A network in memory: hosts that are reactors, on one clock, with UDP that behaves as Linux's does."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorMulticast,
    IReactorPluggableNameResolver,
    IReactorTime,
    IReactorUDP,
    IResolutionReceiver,
)
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress, isGroup
from udpecho.errors import EchoError, MessageTooLong, unreachable
from udpecho.faults.decision import DELIVERED, TOO_LONG, Decider, Delivery
from udpecho.interfaces import IDatagramReactor
from udpecho.testing.clock import NetworkClock
from udpecho.testing.memory_port import MemoryPort, canonical, isLoopback, unmapped

#: The range that Linux takes ephemeral ports from (C{ip_local_port_range} in C{ip(7)}).
_ephemeral = range(32768, 61000)
#: How far apart hosts begin in it; no divisor of its length.
_ephemeralStep = 1009

_onItsWay = "on its way"
_outcomes = ("delivered", "refused", "nobody listens")


@dataclass
class TraceEntry:
    """
    One datagram as the network saw it.

    @ivar time: when it was sent, in seconds on the network's clock.
    @ivar source: where it came from.
    @ivar destination: where it was to go.
    @ivar size: its payload in bytes.
    @ivar fate: what became of it.
    """

    time: float
    source: tuple[str, int]
    destination: tuple[str, int]
    size: int
    fate: str


class Trace(list[TraceEntry]):
    """The datagrams of a network, in the order of sending; C{str()} aligns them."""

    def __str__(self) -> str:
        rows = [(f"{e.time:.6f}", formatAddress(e.source), formatAddress(e.destination), str(e.size), e.fate) for e in self]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        return "\n".join(
            f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}} > {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}} B  {row[4]}"
            for row in rows
        )


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing is under way: names are resolved at once."""
        raise NotImplementedError


@implementer(IHostnameResolver)
class _Resolver:
    """Knows the hosts of a network by their names."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName) or isIPv6Address(hostName):
            addresses = [hostName]
        elif hostName == "localhost":
            addresses = ["127.0.0.1", "::1"]
        else:
            host = self._network.hosts.get(hostName)
            addresses = [] if host is None else host.addresses
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            if addressTypes is None or kind in addressTypes:
                resolutionReceiver.addressResolved(kind("UDP" if transportSemantics == "UDP" else "TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class MemoryNetwork:
    """
    Hosts on one clock, and what the links between them do to datagrams.

    @ivar clock: the time of all hosts; advance it.
    @ivar hosts: the hosts by name.
    @ivar trace: every datagram that was sent.
    """

    def __init__(self, plan: Decider | None = None, latency: float = 0.0) -> None:
        """
        @param plan: the faults of all links that have no plan of their own, as one link that they share; by default none.
        @param latency: seconds that each datagram between two hosts takes beside what a plan says.
        """
        self.clock = NetworkClock()
        self.hosts: dict[str, MemoryHost] = {}
        self.trace = Trace()
        self._plan = plan
        self._latency = latency
        self._plans: dict[tuple[MemoryHost, MemoryHost], Decider] = {}
        self._byAddress: dict[str, MemoryHost] = {}

    def host(self, name: str, *addresses: str) -> MemoryHost:
        """
        Add a host.

        @param name: what the other hosts resolve it by.
        @param addresses: its IP addresses, beside C{127.0.0.0/8} and C{::1}, which every host has.

        @raise ValueError: if the name or an address is taken, or is none.
        """
        own = [canonical(address) for address in addresses]
        if name in self.hosts:
            raise ValueError(f"there is a host {name!r} already: give this one another name")
        for address in own:
            if address in self._byAddress or own.count(address) > 1 or isLoopback(unmapped(address)):
                raise ValueError(f"{address} is taken: give {name!r} another address")
            if address in ("0.0.0.0", "::") or isGroup(address) or address != unmapped(address):
                raise ValueError(f"{address} is not the address of one host: give {name!r} another")
        host = MemoryHost(self, name, own)
        self.hosts[name] = host
        for address in own:
            self._byAddress[address] = host
        return host

    def setPlan(self, source: MemoryHost, destination: MemoryHost, plan: Decider) -> None:
        """Give one direction between two hosts, or of a host's loopback, its own faults."""
        self._plans[source, destination] = plan

    def advance(self, seconds: float) -> None:
        """Let time pass, for all hosts, with everything that happens meanwhile in its order."""
        self.clock.advance(seconds)

    def _hostOf(self, source: MemoryHost, address: str) -> MemoryHost | None:
        return source if isLoopback(address) else self._byAddress.get(address)

    def _reachable(self, source: MemoryHost, address: str) -> bool:
        return self._hostOf(source, address) is not None or isGroup(address)

    def _carry(self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress) -> None:
        """
        Bring a datagram to whom it is for, through the faults of the link; IPv4 addresses are plain here, not IPv4-mapped.
        """
        if isGroup(destination.host):
            hears = sender._loopback or destination.host == "255.255.255.255"
            hosts = [host for host in self.hosts.values() if hears or host is not sender._host]
        else:
            found = self._hostOf(sender._host, destination.host)
            hosts = [] if found is None else [found]
        for host in hosts:
            entry = TraceEntry(self.clock.rightNow, source, destination, len(datagram), _onItsWay)
            self.trace.append(entry)
            plan = self._plans.get((sender._host, host), self._plan)
            if plan is None:
                deliveries = [Delivery(0.0, datagram)]
            else:
                decision = plan.decide(len(datagram), self.clock.rightNow)
                deliveries = decision.apply(datagram)
                if decision.reasons != (DELIVERED,):
                    entry.fate = ",".join(decision.reasons)
            latency = 0.0 if host is sender._host else self._latency
            if plan is not None and TOO_LONG in decision.reasons:
                self.clock.fly(latency, self._tellTooLong, sender, destination, getattr(plan, "mtu", None))
            for delivery in deliveries:
                delay = latency + delivery.delay
                self.clock.fly(delay, self._arrive, sender, host, delivery.datagram, source, destination, entry)

    def _tellTooLong(self, sender: MemoryPort, destination: DatagramAddress, limit: int | None) -> None:
        """Say what a router says (ICMP fragmentation needed): to a connected socket, of its own peer."""
        known = "as much" if limit is None else f"more than {limit} bytes"
        message = f"the path to {destination} does not carry {known}"
        self._tell(sender, destination, MessageTooLong(message, errno.EMSGSIZE, limit))

    def _arrive(
        self,
        sender: MemoryPort,
        host: MemoryHost,
        datagram: bytes,
        source: DatagramAddress,
        destination: DatagramAddress,
        entry: TraceEntry,
    ) -> None:
        receivers = host._receivers(source, destination)
        refused = not receivers and not isGroup(destination.host)
        outcome = "refused" if refused else "delivered" if receivers else "nobody listens"
        if entry.fate == _onItsWay:
            entry.fate = outcome
        else:
            # The faults come first, then each arrival.
            entry.fate += f"{', ' if entry.fate.endswith(_outcomes) else ': '}{outcome}"
        for receiver in receivers:
            receiver._receive(datagram, source, destination)
        if refused:
            self._sendBack(host, sender, destination)

    def _sendBack(self, host: MemoryHost, sender: MemoryPort, destination: DatagramAddress) -> None:
        """Send a refusal, through the faults of the way back: it may be late, or lost."""
        plan = self._plans.get((host, sender._host), self._plan)
        delays = (0.0,) if plan is None else plan.decide(0, self.clock.rightNow).delays
        if delays:
            latency = 0.0 if host is sender._host else self._latency
            self.clock.fly(latency + min(delays), self._refuse, sender, destination)

    def _refuse(self, sender: MemoryPort, destination: DatagramAddress) -> None:
        self._tell(sender, destination, unreachable(errno.ECONNREFUSED, str(destination)))

    def _tell(self, sender: MemoryPort, destination: DatagramAddress, reason: EchoError) -> None:
        # Only a connected socket hears of it, and only of its own peer.
        peer = sender._peer
        if peer is not None and (unmapped(peer.host), peer.port) == destination:
            sender._hear(reason)


@implementer(IDatagramReactor, IReactorUDP, IReactorTime, IReactorPluggableNameResolver, IReactorMulticast)
class MemoryHost:
    """
    A host of a L{MemoryNetwork}, which is a reactor for UDP code.

    @ivar network: the network.
    @ivar name: its name.
    @ivar addresses: its addresses, without those of loopback.
    @ivar nameResolver: resolves the names of the network's hosts.
    """

    running = True

    def __init__(self, network: MemoryNetwork, name: str, addresses: list[str]) -> None:
        """Use L{MemoryNetwork.host}."""
        self.network = network
        self.name = name
        self.addresses = addresses
        self.nameResolver: IHostnameResolver = _Resolver(network)
        self._byNumber: dict[int, list[MemoryPort]] = {}
        # As on real hosts, two of them seldom choose the same number at the same time.
        self._ephemeral = _ephemeralStep * len(network.hosts)

    def __repr__(self) -> str:
        return f"<MemoryHost {self.name}>"

    # IReactorTime

    def seconds(self) -> float:
        """The time on the network's clock."""
        return self.network.clock.rightNow

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> IDelayedCall:
        """Call something later on the network's clock."""
        return self.network.clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The delayed calls of all hosts; datagrams on their way are none."""
        return self.network.clock.getDelayedCalls()

    # IReactorUDP

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192) -> MemoryPort:
        """
        Listen on this host.

        @raise error.CannotListenError: if the address is not this host's, or taken.
        """
        listening = MemoryPort(self, port, protocol, interface, maxPacketSize)
        listening.startListening()
        return listening

    # IDatagramReactor

    def listenDatagrams(
        self, port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int, ipv6Only: bool
    ) -> MemoryPort:
        """
        Listen on this host.

        @see: L{IDatagramReactor.listenDatagrams}
        """
        listening = MemoryPort(self, port, protocol, interface, maxPacketSize, ipv6Only=ipv6Only)
        listening.startListening()
        return listening

    # IReactorMulticast

    def listenMulticast(
        self,
        port: int,
        protocol: DatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> MemoryPort:
        """
        Listen on this host, for groups too.

        @param listenMultiple: let others that say the same listen on the same address.
        """
        listening = MemoryPort(self, port, protocol, interface, maxPacketSize, listenMultiple)
        listening.startListening()
        return listening

    # IReactorPluggableNameResolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """
        Use another resolver from now on.

        @return: the one before.
        """
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    # What ports need

    def _owns(self, address: str) -> bool:
        return isLoopback(address) or address in self.addresses

    def _sourceFor(self, destination: str) -> str:
        """The address that the routing table would choose to send from."""
        if isLoopback(destination):
            return "::1" if ":" in destination else "127.0.0.1"
        if destination in self.addresses:
            return destination
        for address in self.addresses:
            if (":" in address) == (":" in destination):
                return address
        return "::" if ":" in destination else "0.0.0.0"

    def _bind(self, port: MemoryPort) -> int:
        """
        Give a port its number.

        @raise OSError: as C{bind(2)} does.
        @raise OverflowError: if C{port} asks for what is no port number, as a socket does.
        """
        if not 0 <= port._number <= 65535:
            raise OverflowError("bind(): port must be 0-65535.")
        address = ipaddress.ip_address(unmapped(port._interface))
        if not (address.is_unspecified or address.is_multicast or self._owns(str(address))):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if port._number:
            number = port._number
            if not self._isFree(port, number):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        else:
            for _ in _ephemeral:
                number = _ephemeral[self._ephemeral % len(_ephemeral)]
                self._ephemeral += 1
                if self._isFree(port, number):
                    break
            else:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._byNumber.setdefault(number, []).append(port)
        return number

    def _isFree(self, port: MemoryPort, number: int) -> bool:
        """Whether no other port stands in the way: on the same address, or a wildcard's family."""
        return all(
            (port._listenMultiple and other._listenMultiple) or not _overlap(port, other)
            for other in self._byNumber.get(number, ())
        )

    def _unbind(self, port: MemoryPort) -> None:
        ports = self._byNumber[port._number]
        ports.remove(port)
        if not ports:
            del self._byNumber[port._number]

    def _receivers(self, source: DatagramAddress, destination: DatagramAddress) -> list[MemoryPort]:
        """The ports that a datagram is for: the one that fits it best, or all that are in its group."""
        ports = self._byNumber.get(destination.port, [])
        if isGroup(destination.host):
            # As on Linux (IP_MULTICAST_ALL in ip(7)), it is enough that somebody on this host has joined.
            if destination.host != "255.255.255.255" and not self._hasJoined(destination.host):
                return []
            return [port for port in ports if port._score(source, destination)]
        best: list[MemoryPort] = []
        most = 0
        for port in ports:
            score = port._score(source, destination)
            if score > most:
                best, most = [port], score
        return best

    def _hasJoined(self, group: str) -> bool:
        return any(group in port._groups for ports in self._byNumber.values() for port in ports)


def _overlap(first: MemoryPort, second: MemoryPort) -> bool:
    """Whether the bound addresses of two ports cannot have the same port number."""
    one, other = unmapped(first._interface), unmapped(second._interface)
    if (":" in one) != (":" in other):
        # The one of IPv6 has all of IPv4 in it, unless it says otherwise.
        wide = first if ":" in one else second
        return wide._interface == "::" and not wide._ipv6Only
    return one == other or "0.0.0.0" in (one, other) or "::" in (one, other)
