"""A network in memory: hosts that are reactors, on one clock, with UDP that behaves as Linux's."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice

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
from twisted.logger import Logger
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress, isGroup
from udpecho.errors import EchoError, MessageTooLong, unreachable
from udpecho.faults.decision import DELIVERED, TOO_LONG, Decider, Replay
from udpecho.faults.delay_line import HeldBytes
from udpecho.interfaces import IDatagramReactor
from udpecho.net.options import PortOptions
from udpecho.testing.clock import NetworkClock
from udpecho.testing.memory_port import Host, MemoryPort, canonical, isLoopback, unmapped

#: The range that Linux takes ephemeral ports from (C{ip_local_port_range} in C{ip(7)}).
_ephemeral = range(32768, 61000)
#: The distance between the first ports of two hosts; no divisor of the range's length.
_ephemeralStep = 1009

_inFlight = "in flight"
_outcomes = ("delivered", "refused", "nobody listens", "no buffer")

#: How many bytes may be in flight in a network.
MAX_IN_FLIGHT = 256 * 2**20

_log = Logger()


@dataclass
class TraceEntry:
    """One datagram.

    @ivar time: when it was sent, in seconds on the network's clock.
    @ivar size: its payload in bytes.
    @ivar outcome: its faults and arrivals, as text.
    """

    time: float
    source: DatagramAddress
    destination: DatagramAddress
    size: int
    outcome: str

    def addOutcome(self, outcome: str) -> None:
        """Add that of one arrival. The faults come first, then each arrival."""
        if self.outcome == _inFlight:
            self.outcome = outcome
        else:
            self.outcome += f"{', ' if self.outcome.endswith(_outcomes) else ': '}{outcome}"


class Trace(list[TraceEntry]):
    """The datagrams of a network, in the order of sending; C{str()} aligns them."""

    def __str__(self) -> str:
        rows = [(f"{e.time:.6f}", formatAddress(e.source), formatAddress(e.destination), str(e.size), e.outcome) for e in self]
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
        # Names are resolved at once.
        raise NotImplementedError


@implementer(IHostnameResolver)
class _Resolver:
    """Resolves the names of a network's hosts."""

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
    """Hosts on one clock, and links between them with faults.

    @ivar clock: the clock of all hosts.
    @ivar hosts: the hosts by name.
    @ivar trace: every datagram that was sent.
    """

    def __init__(self, plan: Decider | None = None, latency: float = 0.0) -> None:
        """@param plan: the faults of all links without a plan of their own, as of one link that they share; by default none.
        @param latency: the delay of each datagram between two hosts in addition to that of a plan, in seconds.
        """
        self.clock = NetworkClock()
        self.hosts: dict[str, MemoryHost] = {}
        self.trace = Trace()
        # Without decisions to repeat, it delivers all at once.
        self._plan = Replay("") if plan is None else plan
        self._latency = latency
        self._plans: dict[tuple[Host, Host], Decider] = {}
        self._byAddress: dict[str, MemoryHost] = {}
        self._inFlight = HeldBytes(MAX_IN_FLIGHT)

    def host(self, name: str, *addresses: str) -> MemoryHost:
        """Add a host.

        @param name: the name that the other hosts resolve.
        @param addresses: its IP addresses, in addition to C{127.0.0.0/8} and C{::1}.
        @raise ValueError: if the name or an address is taken, or an address is not one of a single host.
        """
        own = [canonical(address) for address in addresses]
        if name in self.hosts:
            raise ValueError(f"name of a host must be new, got {name!r} again")
        for address in own:
            if address in self._byAddress or own.count(address) > 1 or isLoopback(unmapped(address)):
                raise ValueError(f"address of {name!r} must be its own, got {address}, which is taken")
            if address in ("0.0.0.0", "::") or isGroup(address) or address != unmapped(address):
                raise ValueError(f"address of {name!r} must be that of a single host, got {address}")
        host = MemoryHost(self, name, own)
        self.hosts[name] = host
        for address in own:
            self._byAddress[address] = host
        return host

    def setPlan(self, source: MemoryHost, destination: MemoryHost, plan: Decider) -> None:
        """Set the faults of one direction between two hosts, or of a host's loopback."""
        self._plans[source, destination] = plan

    def advance(self, seconds: float) -> None:
        """Advance the clock by seconds, and do everything that is due meanwhile, in its order."""
        self.clock.advance(seconds)

    def _hostOf(self, source: Host, address: str) -> MemoryHost | None:
        return self.hosts[source.name] if isLoopback(address) else self._byAddress.get(address)

    def reachable(self, source: Host, address: str) -> bool:
        """Whether there is a route from a host to an address."""
        return self._hostOf(source, address) is not None or isGroup(address)

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination, through the faults of the link."""
        if isGroup(destination.host):
            loops = sender.loopback or destination.host == "255.255.255.255"
            hosts = [host for host in self.hosts.values() if (loops if host is sender.host else hopLimit)]
        else:
            found = self._hostOf(sender.host, destination.host)
            hosts = [] if found is None else [found]
        for host in hosts:
            entry = TraceEntry(self.clock.rightNow, source, destination, len(datagram), _inFlight)
            self.trace.append(entry)
            plan = self._plans.get((sender.host, host), self._plan)
            try:
                decision = plan.decide(len(datagram), self.clock.rightNow)
                arrivals = decision.apply(datagram)
            except Exception:
                # The sender is not to blame.
                _log.failure("Unhandled error in the plan {plan}", plan=plan)
                entry.outcome = "plan failed"
                continue
            if decision.reasons != (DELIVERED,):
                entry.outcome = ",".join(decision.reasons)
            latency = 0.0 if host is sender.host else self._latency
            if TOO_LONG in decision.reasons:
                self.clock.fly(latency, self._notifyTooLong, sender, destination, getattr(plan, "mtu", None))
            for delay, arrived in arrivals:
                if self._inFlight.take(sender, len(arrived)):
                    self.clock.fly(latency + delay, self._arrive, sender, host, arrived, entry, decision.hopsOf(hopLimit))
                else:
                    entry.addOutcome("no buffer")

    def _notifyTooLong(self, sender: MemoryPort, destination: DatagramAddress, limit: int | None) -> None:
        """What a router sends (ICMP fragmentation needed, RFC 792) reaches a connected socket, about its own peer."""
        known = "as much" if limit is None else f"more than {limit} bytes"
        message = f"the path to {destination} does not carry {known}"
        self._notify(sender, destination, MessageTooLong(message, errno.EMSGSIZE, limit))

    def _arrive(self, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int) -> None:
        self._inFlight.give(sender, len(datagram))
        source, destination = entry.source, entry.destination
        receivers = host._receivers(source, destination)
        refused = not receivers and not isGroup(destination.host)
        entry.addOutcome("refused" if refused else "delivered" if receivers else "nobody listens")
        for receiver in receivers:
            receiver.receive(datagram, source, destination, hopLimit)
        if refused:
            self._sendBack(host, sender, destination)

    def _sendBack(self, host: MemoryHost, sender: MemoryPort, destination: DatagramAddress) -> None:
        """Send a refusal, through the faults of the opposite direction: it may be late, or lost."""
        plan = self._plans.get((host, sender.host), self._plan)
        try:
            arrivals = plan.decide(0, self.clock.rightNow).apply(b"")
        except Exception:
            _log.failure("Unhandled error in the plan {plan}", plan=plan)
            return
        if arrivals:
            latency = 0.0 if host is sender.host else self._latency
            refusal = unreachable(errno.ECONNREFUSED, str(destination))
            self.clock.fly(latency + arrivals[0].delay, self._notify, sender, destination, refusal)

    def _notify(self, sender: MemoryPort, destination: DatagramAddress, reason: EchoError) -> None:
        # Only a connected socket is notified, and only of its own peer.
        peer = sender.peer
        if peer is not None and (unmapped(peer.host), peer.port) == destination:
            sender.networkError(reason)


@implementer(IDatagramReactor, IReactorUDP, IReactorTime, IReactorPluggableNameResolver, IReactorMulticast)
class MemoryHost:
    """A host of a L{MemoryNetwork}, and a reactor for UDP code.

    @ivar addresses: its addresses, without those of loopback.
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
        first = _ephemeralStep * len(network.hosts)
        self._ephemeral = (_ephemeral[place % len(_ephemeral)] for place in count(first))

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
        """The delayed calls of all hosts, without datagrams in flight."""
        return self.network.clock.getDelayedCalls()

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
    ) -> MemoryPort:
        """@see: L{IDatagramReactor.listenDatagrams}"""
        made = MemoryPort(self, port, protocol, interface, maxPacketSize, ipv6Only=ipv6Only)
        made.countsHops = PortOptions(decrementHopLimit=decrementHopLimit).countsHops(protocol)
        return self._listen(made)

    def _listen(self, port: MemoryPort) -> MemoryPort:
        port.startListening()
        return port

    # IReactorPluggableNameResolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Use another resolver, and return the previous one."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    # For the ports: see Host in memory_port

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
        address = ipaddress.ip_address(unmapped(port.interface))
        if not (address.is_unspecified or address.is_multicast or self.owns(str(address))):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        numbers = [port.number] if port.number else islice(self._ephemeral, len(_ephemeral))
        number = next((number for number in numbers if self._isFree(port, number)), None)
        if number is None:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._byNumber.setdefault(number, []).append(port)
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

    def unbind(self, port: MemoryPort) -> None:
        """Free a port's number."""
        ports = self._byNumber[port.number]
        ports.remove(port)
        if not ports:
            del self._byNumber[port.number]

    def _receivers(self, source: DatagramAddress, destination: DatagramAddress) -> list[MemoryPort]:
        """The ports that receive a datagram: the one that matches it best, or all that are in its group."""
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
    """Whether the bound addresses of two ports cannot have the same port number."""
    one, other = unmapped(first.interface), unmapped(second.interface)
    if (":" in one) != (":" in other):
        # An IPv6 wildcard includes all of IPv4, unless it is IPv6 only.
        wide = first if ":" in one else second
        return wide.interface == "::" and not wide.ipv6Only
    return one == other or "0.0.0.0" in (one, other) or "::" in (one, other)
