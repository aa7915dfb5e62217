"""The links and NATs of a network in memory, and partitions of it.

As long as there are only hosts, the network itself carries datagrams from one to the other. From the first link, NAT or crash
on, each datagram is a L{Flight}, which goes from node to node.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, isGroup
from udpecho.errors import EchoError, unreachable
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import AT_ONCE, Arrival, Decider, Decision, checkDecider, decideOn
from udpecho.faults.delay_line import HeldBytes
from udpecho.faults.journal import Journal
from udpecho.faults.models import checkSeconds
from udpecho.testing.flight import Flight, Node, Report, Step
from udpecho.testing.links import Link, LinkDirection
from udpecho.testing.mappings import NATBehavior
from udpecho.testing.memory_addresses import isLoopback, unmapped
from udpecho.testing.memory_host import HostNetwork, MemoryHost
from udpecho.testing.memory_port import Host, MemoryPort
from udpecho.testing.nat import NAT, checkOutside
from udpecho.testing.path_mtu import effective
from udpecho.testing.programs import Programs
from udpecho.testing.realm import Member, Realm
from udpecho.testing.trace import ARRIVED, IN_FLIGHT, NO_HOST, NOBODY_LISTENS, PLAN_FAILED, REFUSED, Trace, TraceEntry

_failed = Decision((PLAN_FAILED,), ())

_log = Logger()


class LinkedNetwork(Programs[MemoryHost]):
    """What a L{MemoryNetwork <udpecho.testing.memory_network.MemoryNetwork>} has in addition to hosts.

    @ivar isPlain: whether there are only hosts, and all of them run.
    @ivar realm: the addresses, without those behind NATs.
    @ivar nats: the NATs by name.
    """

    hosts: dict[str, MemoryHost]
    trace: Trace
    journal: Journal | None
    inFlight: HeldBytes
    _plan: Decider | None
    _latency: float
    _plans: dict[tuple[object, object], Decider | None]

    def __init__(self) -> None:
        super().__init__()
        self.isPlain = True
        self.realm = Realm()
        self.nats: dict[str, NAT] = {}
        self._directions: dict[tuple[Node, Node], LinkDirection] = {}
        self._groups: list[set[Node]] = []

    @property
    def plan(self) -> Decider | None:
        """The faults of all links that have no plan of their own, as of one link that they share; C{None} for none. What is
        set concerns what is sent from then on.

        @raise TypeError: on setting something that is no plan.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: Decider | None) -> None:
        checkDecider("plan", plan)
        self._plan = plan

    @property
    def latency(self) -> float:
        """The delay of each datagram between two hosts in addition to that of a plan, in seconds; as L{plan}, for all links
        that have none of their own.

        @raise ValueError: on setting a number that is negative or not finite.
        """
        return self._latency

    @latency.setter
    def latency(self, latency: float) -> None:
        checkSeconds("latency", latency)
        self._latency = latency

    def planOf(self, source: Node, destination: Node) -> Decider | None:
        """The faults of one direction of a link."""
        # Those of the network are of the way between sites: at home there are none.
        return self._plans.get((source, destination), None if self._isInside(source, destination) else self._plan)

    def setPlanOf(self, source: Node, destination: Node, plan: Decider | None) -> None:
        """Set them."""
        self._plans[source, destination] = plan

    def latencyOf(self, source: Node, destination: Node) -> float:
        """The delay of one direction of a link that has none of its own, in seconds."""
        return 0.0 if source is destination or self._isInside(source, destination) else self._latency

    def checkNodes(self, *nodes: Any) -> None:
        """@raise ValueError: if one is not a host or a NAT of this network: its name, for example."""
        for node in nodes:
            name = getattr(node, "name", "")
            if node is not self.hosts.get(name, self.nats.get(name)) or node is None:
                raise ValueError(f"node must be a host or a NAT of this network, got {node!r}")

    def link(self, one: Member, other: Member) -> Link:
        """The link between two hosts, a host and its NAT, or a NAT and what is outside of it.

        @raise ValueError: if one is not of this network, or the way from one to the other leads through a NAT.
        """
        self.checkNodes(one, other)
        if one.realm is not other.realm and one.realm.gateway is not other and other.realm.gateway is not one:
            raise ValueError(f"link must join neighbors, got {one!r} and {other!r}, which have a NAT between them")
        return Link(self.direction(one, other), self.direction(other, one))

    def change(self) -> None:
        """There is more than hosts that run, or their addresses or cables have changed: find out again where datagrams go."""
        self.isPlain = False
        for host in self.hosts.values():
            host.forgetPaths()

    def direction(self, source: Member, destination: Member) -> LinkDirection:
        """The direction of the link between two neighbors."""
        found = self._directions.get((source, destination))
        if found is None:
            self.change()
            found = self._directions[source, destination] = LinkDirection(self, source, destination)
            found.opposite = self.direction(destination, source)
        return found

    def _isInside(self, source: Node, destination: Node) -> bool:
        """Whether a link is behind a NAT."""
        return source.realm is not self.realm or destination.realm is not self.realm

    def at(self, seconds: float, action: Callable[[], object]) -> IDelayedCall:
        """Do something at a time on the network's clock: C{network.at(5.0, link.cut)}.

        @raise ValueError: if the time is over.
        """
        checkSeconds("time", seconds)
        if not callable(action):
            raise TypeError(f"action must be callable, got {action!r}")
        if seconds < self.clock.rightNow:
            raise ValueError(f"time must be {self.clock.rightNow:g} s, which it is now, or later, got {seconds:g} s")
        return self.clock.callLater(seconds - self.clock.rightNow, action)

    def partition(self, *groups: Iterable[Node]) -> None:
        """Let hosts and NATs reach only those that are in a group with them. Who is in several groups reaches all of these; who
        is in none is in one more group, of all such.

        @param groups: lists of hosts and NATs.
        @raise ValueError: if one is not of this network.
        """
        for group in groups:
            if not isinstance(group, Iterable):
                raise TypeError(f"group must be a list of hosts and NATs, got {group!r}")
        sets = [set(group) for group in groups]
        for each in sets:
            self.checkNodes(*each)
        self.change()
        self._groups = sets

    def heal(self) -> None:
        """End the partition. Links that are cut stay so."""
        self._groups = []

    def areSeparated(self, one: Node, other: Node) -> bool:
        """Whether a partition is between two nodes."""
        if not self._groups or one is other or any(one in group and other in group for group in self._groups):
            return False
        return any(one in group or other in group for group in self._groups)

    def nat(self, name: str, address: str, behavior: NATBehavior | None = None) -> NAT:
        """Add a NAT; its method C{host} adds hosts behind it.

        @param name: its name.
        @param address: its IPv4 address outside.
        @raise ValueError: if the name or the address is taken, or it is not an address of a NAT.
        """
        return self.addNAT(self.realm, name, address, behavior or NATBehavior())

    def addNAT(self, realm: Realm, name: str, address: str, behavior: NATBehavior) -> NAT:
        """Add a NAT to a realm."""
        self.checkName(name)
        if not isinstance(behavior, NATBehavior):
            raise TypeError(f"behavior must be a NATBehavior, got {behavior!r}")
        own = checkOutside(realm, name, address)
        self.change()
        nat = self.nats[name] = NAT(self, realm, name, own, behavior)
        return nat

    def addHost(self, realm: Realm, name: str, addresses: tuple[str, ...]) -> MemoryHost:
        """Add a host to a realm."""
        self.checkName(name)
        own = realm.check(name, addresses)
        host = MemoryHost(cast(HostNetwork, self), name, own, realm)
        self.hosts[name] = host
        for address in own:
            realm.add(address, host)
        return host

    def checkName(self, name: str) -> None:
        """@raise ValueError: if a host or a NAT has a name already, or it is none."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"name of a host must be a string that is not empty, got {name!r}")
        if name in self.hosts or name in self.nats:
            raise ValueError(f"name of a host must be new, got {name!r} again")

    def addressesOf(self, name: str) -> list[str]:
        """The addresses of a host or a NAT by its name, none of an unknown one."""
        if name in self.nats:
            return [self.nats[name].address]
        return self.hosts[name].addresses if name in self.hosts else []

    def nextHop(self, source: Host, address: str) -> Member | None:
        """The node to send to for an address."""
        host = cast(MemoryHost, source)
        # No realm has loopback addresses, and few datagrams are for them.
        return host.realm.nextHop(address) or (host if isLoopback(address) else None)

    def reachable(self, source: Host, address: str) -> bool:
        """Whether there is a route from a host to an address."""
        host = self.hosts[source.name]
        if host.owns(address):
            return True
        return host.isAttached and (isGroup(address) or host.realm.isRoutable(address))

    def receiversOf(self, sender: MemoryPort, destination: str, hopLimit: int) -> list[Member]:
        """The nodes that a datagram is for: the next one on its way, or all that may be in a group."""
        found = self.nextHop(sender.host, destination)
        if found is not None or not isGroup(destination):
            return [] if found is None else [found]
        realm = cast(MemoryHost, sender.host).realm
        loops = sender.loopback or destination == "255.255.255.255"
        hosts = [host for host in self.hosts.values() if host.realm is realm]
        return [host for host in hosts if (loops if host is sender.host else hopLimit)]

    def send(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Send a datagram hop by hop."""
        host = self.hosts[sender.host.name]
        nodes: list[Member | None] = [*self.receiversOf(sender, destination.host, hopLimit)]
        for node in nodes or [None]:
            direction = None if node is None else self.direction(host, node)
            if direction is not None and direction.hops and destination.host == "255.255.255.255":
                # Routers do not pass it on (RFC 919 section 7).
                continue
            size, receiver = len(datagram), "" if node is None else node.name
            entry = TraceEntry(self.clock.rightNow, source, destination, size, IN_FLIGHT, datagram, host.name, receiver)
            self.trace.append(entry)
            flight = Flight(sender, datagram, source, destination, hopLimit, entry)
            if direction is None:
                flight.lose(NO_HOST)
                continue
            flight.ecn = sender.ecn
            flight.parts = host.partsFor(sender, len(datagram), destination.host) or flight.parts
            direction.enter(flight)

    def notSent(
        self, sender: Host, number: int, datagram: bytes, source: DatagramAddress, destination: DatagramAddress
    ) -> None:
        """The sender's host refuses to send a datagram, with an error number: the trace has why."""
        # The others are calls that no system takes for datagrams: of a closed port, to no port, from a loopback address.
        if number not in (errno.EBADF, errno.EINVAL):
            outcome = "no route" if number == errno.ENETUNREACH else f"not sent: {os.strerror(number)}"
            size = len(datagram)
            self.trace.append(TraceEntry(self.clock.rightNow, source, destination, size, outcome, datagram, sender.name))

    def resume(self, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int) -> None:
        """A datagram arrives that was sent while the network was plain."""
        flight = Flight(sender, datagram, entry.source, entry.destination, hopLimit, entry)
        direction = self.direction(self.hosts[sender.host.name], host)
        flight.trail = (Step(direction, None),)
        direction.leave(flight)

    def deliver(self, host: MemoryHost, flight: Flight) -> None:
        """A datagram has arrived at its host."""
        flight.entry.receiver = host.name
        if not self.handOver(
            host, flight.datagram, flight.source, flight.destination, flight.hopLimit, flight.entry, flight.ecn
        ):
            Report(flight, unreachable(errno.ECONNREFUSED, str(flight.sentTo))).goBack()

    def handOver(
        self,
        host: MemoryHost,
        datagram: bytes,
        source: DatagramAddress,
        destination: DatagramAddress,
        hopLimit: int,
        entry: TraceEntry,
        ecn: int = 0,
    ) -> bool:
        """Hand over a datagram that has arrived at its host.

        @return: C{False} if the host refuses it.
        """
        receivers, at = host.receivers(source, destination)
        if receivers:
            entry.arrive(self.clock.rightNow, ARRIVED, datagram, at)
            for receiver in receivers:
                receiver.receive(datagram, source, destination, hopLimit, ecn)
            return True
        refused = not isGroup(destination.host)
        entry.arrive(self.clock.rightNow, REFUSED if refused else NOBODY_LISTENS, datagram, ())
        return not refused

    def decide(self, plan: Decider | None, datagram: Datagram, refusal: bool = False) -> tuple[Decision, list[Arrival]]:
        """Decide about a datagram, or about what ICMP reports. If the plan raises, it is lost: the sender is not to blame.

        @return: the decision, and what arrives.
        """
        try:
            if self.journal is not None:
                decision = self.journal.decide(plan, datagram, refusal)
            elif plan is None:
                decision = AT_ONCE
            elif refusal:
                decision = plan.decide(0, datagram.time)
            else:
                decision = decideOn(plan, datagram)
            return decision, decision.apply(datagram.payload)
        except Exception:
            _log.failure("Unhandled error in the plan {plan}", plan=plan)
            return _failed, []

    def notify(self, sender: MemoryPort, destination: DatagramAddress, reason: EchoError) -> None:
        """A report has arrived at the sender of a datagram."""
        # Only a connected socket is notified, and only of its own peer.
        peer = sender.peer
        if peer is not None and (unmapped(peer.host), peer.port) == destination:
            sender.networkError(reason)

    def interfaceMTU(self, host: MemoryHost, destination: str) -> int | None:
        """The MTU of the interface to a destination in bytes, C{None} for no limit: the host does not know that of a router."""
        node = None if isGroup(destination) else self.nextHop(host, destination)
        direction = None if node is None else self.direction(host, node)
        if direction is None or direction.mtu is None or direction.hops:
            return None
        return effective(direction.mtu, ":" in destination)
