"""What happens to a host of a network in memory: it crashes, restarts, leaves, and gets other addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from udpecho.testing.flight import Flight, Report
from udpecho.testing.memory_addresses import canonical
from udpecho.testing.memory_port import MemoryPort
from udpecho.testing.path_mtu import Parts, PathMTUs, accepts, prepare
from udpecho.testing.realm import Realm
from udpecho.testing.skew import HostClock
from udpecho.testing.trace import HOST_DOWN, HOST_LEFT, NO_HOST


class HostLife:
    """The part of a host that a test acts upon.

    @ivar name: the name that other hosts resolve.
    @ivar addresses: its addresses, without those of loopback.
    @ivar realm: the realm that these are in.
    @ivar isUp: whether it is powered.
    @ivar isAttached: whether it is in the network, with its cable plugged in.
    @ivar pathMTUs: what it knows of the MTUs of its paths.
    """

    network: Any
    _byNumber: dict[int, list[MemoryPort]]

    def __init__(self, name: str, addresses: list[str], realm: Realm, clock: HostClock) -> None:
        self.name = name
        self.addresses = addresses
        self.realm = realm
        self.isUp = True
        self.isAttached = True
        self.pathMTUs = PathMTUs()
        self.clock = clock
        self._starts: list[Callable[[Any], object]] = []

    def onStart(self, start: Callable[[Any], object]) -> None:
        """Start a program: call C{start} with this host, now and after each L{restart}."""
        self._starts.append(start)
        self._run(start)

    def crash(self) -> None:
        """Lose the power: timers and sockets are gone without a word, and what arrives is neither answered nor refused. Names,
        addresses and links stay. What it has sent before is on its way.
        """
        self.network.change()
        self.isUp = False
        for call in self.network.clock.callsOf(self):
            call.cancel()
        for port in [port for ports in self._byNumber.values() for port in ports]:
            port.vanish()
        self._byNumber.clear()
        self.pathMTUs = PathMTUs()

    def restart(self) -> None:
        """Start anew, without what it knew before, and call what was given to L{onStart}. A host that runs crashes first."""
        raise NotImplementedError

    def start(self) -> None:
        """Start again after a crash."""
        self.isUp = True
        for start in self._starts:
            self._run(start)

    def _run(self, start: Callable[[Any], object]) -> None:
        clock = self.network.clock
        owner, clock.owner = clock.owner, self
        try:
            start(self)
        finally:
            clock.owner = owner

    def leave(self) -> None:
        """Pull the cable: programs go on, but what they send to others fails (C{ENETUNREACH}), and nothing arrives."""
        self.isAttached = False
        self.network.change()

    def rejoin(self, *addresses: str) -> None:
        """Plug it in again.

        @param addresses: other addresses, as in another network; by default those that it had.
        @raise ValueError: as L{setAddresses}.
        """
        if addresses:
            self.setAddresses(*addresses)
        self.isAttached = True
        self.network.change()

    def setAddresses(self, *addresses: str) -> None:
        """Change the addresses. Sockets on all addresses go on with the new ones. One that is bound to an address that is gone
        receives nothing, and its sends fail (C{ENETUNREACH}) or, with IPv6, leave with that source, as on Linux.

        @raise ValueError: if an address is taken, or is not one of a single host.
        """
        own = self.addresses
        for address in own:
            self.realm.remove(address)
        try:
            own = self.realm.check(self.name, addresses)
        finally:
            self.addresses = own
            for address in own:
                self.realm.add(address, self)
            self.network.change()

    def addAddress(self, address: str) -> None:
        """Add an address. @see: L{setAddresses}"""
        self.setAddresses(*self.addresses, address)

    def removeAddress(self, address: str) -> None:
        """Remove an address. @see: L{setAddresses}

        @raise ValueError: if it is not one of this host.
        """
        if canonical(address) not in self.addresses:
            raise ValueError(f"address must be one of {self.name!r}, {', '.join(self.addresses) or 'none'}, got {address!r}")
        self.setAddresses(*(other for other in self.addresses if other != canonical(address)))

    def setClock(self, offset: float = 0.0, drift: float = 0.0) -> None:
        """Let the clock of this host go ahead of the network's by C{offset} seconds, and from now on faster than it: a drift of
        1e-4 are 100 microseconds more in each second. Timers that were set before come at the time that they had.

        @raise ValueError: if a number is not finite, or the clock would stand still or go back.
        """
        self.clock.set(offset, drift)

    # For the network

    def arrive(self, flight: Flight) -> None:
        """@see: L{udpecho.testing.flight.Node.arrive}"""
        if not self.isUp:
            flight.lose(HOST_DOWN)
        elif not self.isAttached and flight.trail[-1].leg.source is not self:
            flight.lose(HOST_LEFT)
        elif not flight.isToGroup and not self.owns(flight.destination.host):
            flight.lose(NO_HOST)
        else:
            self.network.deliver(self, flight)

    def owns(self, address: str) -> bool:
        """Whether an IP address is the host's."""
        raise NotImplementedError

    def partsFor(self, port: MemoryPort, size: int, destination: str) -> Parts | None:
        """How a payload of C{size} bytes is sent, C{None} if it is too long for the socket's C{IP_MTU_DISCOVER}."""
        if self.network.isPlain:
            return Parts()
        known = self.pathMTUs.known(destination, self.network.clock.rightNow)
        return prepare(port.mtuDiscovery, ":" in destination, size, self.network.interfaceMTU(self, destination), known)

    def report(self, report: Report) -> None:
        """ICMP reports something about a datagram of one of its ports."""
        if report.mtu is not None:
            ipv6 = ":" in report.sentTo.host
            if not accepts(report.sender.mtuDiscovery, ipv6):
                return
            self.pathMTUs.learn(report.sentTo.host, report.mtu, self.network.clock.rightNow)
        self.network.notify(report.sender, report.sentTo, report.reason)
