"""A NAT in a network in memory: hosts behind it share its address outside (RFC 4787)."""

from __future__ import annotations

from typing import Protocol

from udpecho.addresses import DatagramAddress
from udpecho.testing.clock import NetworkClock
from udpecho.testing.flight import Flight
from udpecho.testing.links import LinkDirection
from udpecho.testing.mappings import Mapping, Mappings, NATBehavior
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.realm import Member, Realm
from udpecho.testing.trace import HOST_DOWN, NAT_DROPPED, NO_HOST


class NATNetwork(Protocol):
    """What a NAT needs of its network."""

    clock: NetworkClock

    def direction(self, source: Member, destination: Member) -> LinkDirection:
        """The direction of the link between two nodes."""

    def addHost(self, realm: Realm, name: str, addresses: tuple[str, ...]) -> MemoryHost:
        """Add a host to a realm."""

    def addNAT(self, realm: Realm, name: str, address: str, behavior: NATBehavior) -> NAT:
        """Add a NAT to a realm."""


class _Translated:
    """A datagram for which a NAT has a mapping."""

    def __init__(self, nat: NAT, mapping: Mapping | None) -> None:
        self._nat, self._mapping = nat, mapping

    def isOpen(self) -> bool:
        """Whether the NAT knows the mapping still."""
        return self._nat.isUp and (self._mapping is None or self._nat.mappings.isAlive(self._mapping, self._nat.now))


class NAT:
    """A router that translates the IPv4 addresses of the hosts behind it. IPv6 it passes on as it is. Each datagram has one hop
    less behind it.

    @ivar name: its name.
    @ivar realm: the realm outside.
    @ivar inside: the realm of the hosts behind it.
    @ivar address: its address outside.
    @ivar mappings: the mappings that it has at present.
    @ivar isUp: whether it runs.
    """

    def __init__(self, network: NATNetwork, realm: Realm, name: str, address: str, behavior: NATBehavior) -> None:
        """Use C{MemoryNetwork.nat}."""
        self.name = name
        self.realm = realm
        self.inside = Realm(self)
        self.address = address
        self.mappings = Mappings(behavior)
        self.isUp = True
        self._network = network
        realm.add(address, self)

    def __repr__(self) -> str:
        return f"<NAT {self.name}>"

    @property
    def now(self) -> float:
        """The time on the network's clock."""
        return self._network.clock.rightNow

    def host(self, name: str, *addresses: str) -> MemoryHost:
        """Add a host behind it. @see: C{MemoryNetwork.host}"""
        return self._network.addHost(self.inside, name, addresses)

    def nat(self, name: str, address: str, behavior: NATBehavior | None = None) -> NAT:
        """Add another NAT behind it, as those of a provider and of a home are. @see: C{MemoryNetwork.nat}"""
        return self._network.addNAT(self.inside, name, address, behavior or NATBehavior())

    def forward(self, port: int, host: MemoryHost, hostPort: int) -> None:
        """Pass what comes for a port outside on to a port of a host behind it, whoever sends it.

        @raise ValueError: if C{port} is no number of a port, or is taken, or the host is not behind this NAT.
        """
        address = next((address for address in host.addresses if ":" not in address), None)
        if host.realm is not self.inside or address is None:
            raise ValueError(f"host must have an IPv4 address behind {self.name}, got {host!r}")
        self.mappings.forward(port, (address, hostPort))

    def rebind(self) -> None:
        """Forget the mappings, and give each endpoint another port when it sends again: peers see a new source."""
        self.mappings.rebind()

    def setAddress(self, address: str) -> None:
        """Get another address outside, as from a provider each night. The mappings are forgotten.

        @raise ValueError: if it is taken, or not of IPv4.
        """
        own = checkOutside(self.realm, self.name, address)
        self.realm.remove(self.address)
        self.address = own
        self.realm.add(own, self)
        self.mappings.forget()

    def crash(self) -> None:
        """Stop, and forget the mappings, until L{restart}."""
        self.isUp = False
        self.mappings.forget()

    def restart(self) -> None:
        """Run again."""
        self.isUp = True

    def arrive(self, flight: Flight) -> None:
        """@see: L{Node.arrive}"""
        if not self.isUp:
            flight.lose(HOST_DOWN)
            return
        if flight.hopLimit < 2:
            flight.expire().goBack()
            return
        flight.hopLimit -= 1
        fromInside = flight.trail[-1].leg.source.realm is self.inside
        if flight.isIPv6:
            self._pass(flight, None)
        elif fromInside:
            self._outbound(flight)
        else:
            self._inbound(flight)

    def _outbound(self, flight: Flight) -> None:
        hairpin = flight.destination.host == self.address
        mapping = None
        if self.mappings.behavior.hairpin or not hairpin:
            mapping = self.mappings.outbound(flight.source, flight.destination, self.now)
        if mapping is None:
            flight.lose(NAT_DROPPED)
            return
        flight.source = DatagramAddress((self.address, mapping.port))
        if hairpin:
            self._inbound(flight)
        else:
            self._pass(flight, mapping)

    def _inbound(self, flight: Flight) -> None:
        mapping = self.mappings.inbound(flight.destination.port, flight.source, self.now)
        if mapping is None:
            flight.lose(NAT_DROPPED)
            return
        flight.destination = DatagramAddress(mapping.inside)
        self._pass(flight, mapping)

    def _pass(self, flight: Flight, mapping: Mapping | None) -> None:
        address = flight.destination.host
        node = (self.inside if address in self.inside else self.realm).nextHop(address)
        if node is None or node is self:
            flight.lose(NO_HOST)
        else:
            self._network.direction(self, node).enter(flight, _Translated(self, mapping))


def checkOutside(realm: Realm, name: str, address: str) -> str:
    """Check the address of a NAT outside.

    @return: it, in the system's spelling.
    @raise ValueError: if it is taken, or not of IPv4.
    """
    (own,) = realm.check(name, [address])
    if ":" in own:
        raise ValueError(f"address of a NAT must be of IPv4, got {address!r}")
    return own
