"""Links between hosts and NATs of a network in memory: each direction has faults, a delay, an MTU and routers of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from udpecho.addresses import DatagramAddress
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import CONGESTED, TOO_LONG, Arrival, Decider, Decision, checkDecider, shareHops
from udpecho.faults.delay_line import HeldBytes
from udpecho.faults.models import checkSeconds
from udpecho.testing.clock import NetworkClock
from udpecho.testing.flight import CE, Flight, Node, Report, Step
from udpecho.testing.path_mtu import MIN_MTU_IPV4, askEach, effective, headers
from udpecho.testing.trace import LINK_CUT, NO_BUFFER, PARTITIONED


class LinkNetwork(Protocol):
    """What a link needs of its network."""

    clock: NetworkClock
    inFlight: HeldBytes

    def areSeparated(self, one: Node, other: Node) -> bool:
        """Whether a partition is between two nodes."""

    def planOf(self, source: Node, destination: Node) -> Decider | None:
        """The faults of one direction of a link."""

    def setPlanOf(self, source: Node, destination: Node, plan: Decider | None) -> None:
        """Set them."""

    def latencyOf(self, source: Node, destination: Node) -> float:
        """The delay of one direction of a link that has none of its own, in seconds."""

    def decide(self, plan: Decider | None, datagram: Datagram, refusal: bool = False) -> tuple[Decision, list[Arrival]]:
        """Decide about a datagram, or about what ICMP reports."""


class Cargo(Protocol):
    """What a link carries: a datagram or a report about one."""

    def arrive(self, node: Node) -> None:
        """It has arrived."""

    def lose(self, reason: str) -> None:
        """It will not."""


def _checkMTU(value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < MIN_MTU_IPV4):
        raise ValueError(f"mtu must be {MIN_MTU_IPV4} bytes or more, or None, got {value!r}")


def _checkHops(value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError(f"hops must be 0 to 255 routers, got {value!r}")


class LinkDirection:
    """One direction of a link.

    @ivar source: the node that sends.
    @ivar destination: the node that receives.
    @ivar mtu: the longest datagram that it carries, in bytes with the IP header, C{None} for any. Without routers it is also
        the MTU of the interface of the sender, and known to it.
    @ivar hops: how many routers are on it. A datagram needs a hop limit that is higher.
    @ivar reports: whether its routers report by ICMP what they cannot pass on. Firewalls often keep these reports back.
    """

    def __init__(self, network: LinkNetwork, source: Node, destination: Node) -> None:
        """Use C{MemoryNetwork.link}."""
        self.source = source
        self.destination = destination
        self.mtu: int | None = None
        self.hops = 0
        self.reports = True
        self.isCut = False
        self.opposite = self
        self._network = network
        self._latency: float | None = None
        self._held: list[Cargo] | None = None

    def __repr__(self) -> str:
        return f"<LinkDirection {self.source.name} > {self.destination.name}>"

    @property
    def plan(self) -> Decider | None:
        """Its faults, C{None} for none; those of the network if it has none of its own."""
        return self._network.planOf(self.source, self.destination)

    @plan.setter
    def plan(self, plan: Decider | None) -> None:
        self._network.setPlanOf(self.source, self.destination, plan)

    @property
    def latency(self) -> float:
        """The delay of each datagram in addition to that of the plan, in seconds; the network's if it has none of its own."""
        return self._network.latencyOf(self.source, self.destination) if self._latency is None else self._latency

    @latency.setter
    def latency(self, latency: float) -> None:
        self._latency = latency

    def set(self, **settings: Any) -> None:
        """Change C{plan}, C{latency}, C{mtu}, C{hops} or C{reports}, all of those given or none.

        @raise ValueError: if one is out of its range.
        @raise TypeError: if there is no such setting.
        """
        checks: dict[str, Callable[[Any], None]] = {
            "plan": lambda value: checkDecider("plan", value),
            "latency": lambda value: checkSeconds("latency", value),
            "mtu": _checkMTU,
            "hops": _checkHops,
            "reports": lambda _: None,
        }
        for name, value in settings.items():
            if name not in checks:
                raise TypeError(f"setting of a link must be one of {', '.join(checks)}, got {name!r}")
            checks[name](value)
        for name, value in settings.items():
            setattr(self, name, value)

    def cut(self) -> None:
        """Lose all that is sent, and all that would arrive."""
        self.isCut = True

    def restore(self) -> None:
        """Carry datagrams again."""
        self.isCut = False

    def hold(self) -> None:
        """Keep all that would arrive, until L{release}."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Let what was held arrive, in its order."""
        held, self._held = self._held or (), None
        for cargo in held:
            self._network.clock.fly(0.0, self.destination, self.leave, cargo)

    def enter(self, flight: Flight, crossing: Any = None) -> None:
        """Send a datagram over the link.

        @param crossing: what the NAT that sends it has made of it.
        """
        reason = self._obstacle()
        if reason is not None:
            flight.lose(reason)
            return
        flight.trail = (*flight.trail, Step(self, crossing))
        if flight.hopLimit <= self.hops and self.hops:
            self._reportFromMiddle(flight, flight.expire())
            return
        flight.hopLimit -= self.hops
        mtu = None if self.mtu is None else effective(self.mtu, flight.isIPv6)
        if mtu is not None and not flight.fit(mtu):
            flight.lose(TOO_LONG)
            self._reportFromMiddle(flight, flight.reportTooLong(mtu - headers(flight.isIPv6), mtu))
            return
        self._decide(flight)

    def _decide(self, flight: Flight) -> None:
        """Let the plan decide what arrives, and when."""
        if flight.parts.largest is None:
            reasons, arrivals = self._ask(flight)(flight.datagram)
        else:
            reasons, arrivals = askEach(self._ask(flight), flight.datagram, flight.isIPv6, flight.parts.largest)
        if CONGESTED in reasons and flight.ecn:
            flight.ecn = CE
        flight.entry.addFaults(reasons)
        if TOO_LONG in reasons:
            self._reportFromMiddle(flight, flight.reportTooLong(getattr(self.plan, "mtu", None)))
        hopLimit = shareHops(flight.hopLimit, len(arrivals))
        for delay, datagram in arrivals:
            copy = flight.copy(datagram, hopLimit)
            if copy.take(self._network.inFlight):
                self._fly(copy, delay)
            else:
                copy.lose(NO_BUFFER)

    def _ask(self, flight: Flight) -> Callable[[bytes], tuple[tuple[str, ...], list[Arrival]]]:
        plan = self.plan

        def ask(payload: bytes) -> tuple[tuple[str, ...], list[Arrival]]:
            decision, arrivals = self._network.decide(plan, self._seen(payload, flight.source, flight.destination))
            return decision.reasons, arrivals

        return ask

    def _seen(self, payload: bytes, source: DatagramAddress, destination: DatagramAddress) -> Datagram:
        """A datagram as rules see it."""
        return Datagram(
            payload, source, destination, self._network.clock.rightNow, f"{self.source.name} > {self.destination.name}"
        )

    def carryBack(self, report: Report) -> None:
        """Bring a report to the node that the datagram came from, over the opposite direction: it may be late, or lost."""
        self.opposite.enterReport(report)

    def enterReport(self, report: Report) -> None:
        """Send a report over the link."""
        if self._obstacle() is not None:
            return
        _, arrivals = self._network.decide(self.plan, self._seen(b"", report.sentTo, report.sentFrom), refusal=True)
        if arrivals:
            self._fly(report, arrivals[0].delay)

    def leave(self, cargo: Cargo) -> None:
        """It is at the end of the link."""
        if self._held is not None:
            self._held.append(cargo)
            return
        reason = self._obstacle()
        if reason is not None:
            cargo.lose(reason)
        else:
            cargo.arrive(self.destination)

    def _fly(self, cargo: Cargo, delay: float) -> None:
        self._network.clock.fly(self.latency + delay, self.destination, self.leave, cargo)

    def _reportFromMiddle(self, flight: Flight, report: Report) -> None:
        """A router on the link reports: from half the way, and so after one latency."""
        report.nextLeg()
        if self.reports and not flight.isToGroup:
            self._network.clock.fly(self.latency, self.source, report.arrive, self.source)

    def _obstacle(self) -> str | None:
        if self.isCut:
            return LINK_CUT
        return PARTITIONED if self._network.areSeparated(self.source, self.destination) else None


class Link:
    """A link between two nodes. What is done to it is done to both directions; L{to} has one of them."""

    def __init__(self, there: LinkDirection, back: LinkDirection) -> None:
        """Use C{MemoryNetwork.link}."""
        there.opposite, back.opposite = back, there
        self._directions = (there,) if there is back else (there, back)

    def __repr__(self) -> str:
        first = self._directions[0]
        return f"<Link {first.source.name} - {first.destination.name}>"

    def to(self, node: Node) -> LinkDirection:
        """The direction to one of its nodes.

        @raise ValueError: if the link does not join it.
        """
        for direction in self._directions:
            if direction.destination is node:
                return direction
        raise ValueError(f"node must be one of {self!r}, got {node!r}")

    def set(self, **settings: Any) -> None:
        """@see: L{LinkDirection.set}"""
        for direction in self._directions:
            direction.set(**settings)

    def cut(self) -> None:
        """Lose all that is sent, and all that would arrive."""
        for direction in self._directions:
            direction.cut()

    def restore(self) -> None:
        """Carry datagrams again."""
        for direction in self._directions:
            direction.restore()

    def hold(self) -> None:
        """Keep all that would arrive, until L{release}."""
        for direction in self._directions:
            direction.hold()

    def release(self) -> None:
        """Let what was held arrive, in its order."""
        for direction in self._directions:
            direction.release()
