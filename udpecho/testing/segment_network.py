"""How TCP segments cross a network in memory: as datagrams do, but not in the trace, and nobody reports about them."""

from __future__ import annotations

from typing import Any, cast

from udpecho.addresses import DatagramAddress
from udpecho.faults.datagram import Datagram
from udpecho.testing.flight import Flight, Step
from udpecho.testing.linked_network import LinkedNetwork
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_segments import SEGMENT, Segment
from udpecho.testing.path_mtu import effective
from udpecho.testing.trace import IN_FLIGHT, TraceEntry

#: How many routers may pass a segment on, and one: what Linux begins with (C{ip_default_ttl} in C{ip(7)}).
_HOP_LIMIT = 64
#: The bytes of the headers of TCP and IPv4, and of TCP and IPv6.
_HEADERS_IPV4, _HEADERS_IPV6 = 40, 60


class _Sender:
    """In place of the port that has sent a datagram. What is lost TCP sends again, whatever ICMP reports."""

    held = 0

    def __init__(self) -> None:
        self.host = self

    def report(self, report: object) -> None:
        """Nobody is interested."""


class SegmentFlight(Flight):
    """A TCP segment on its way."""

    def __init__(self, segment: Segment, time: float, sender: _Sender | None = None) -> None:
        """@param time: when it was sent, in seconds on the network's clock."""
        source, destination = DatagramAddress(segment.source), DatagramAddress(segment.destination)
        entry = TraceEntry(time, source, destination, len(segment.data), IN_FLIGHT)
        super().__init__(cast(Any, sender or _Sender()), segment.data, source, destination, _HOP_LIMIT, entry)
        self._segment = segment

    def copy(self, datagram: bytes, hopLimit: int) -> Flight:
        """One arrival of it."""
        copy = SegmentFlight(self._segment, self.entry.time, cast(Any, self.sender))
        copy.datagram, copy.hopLimit = datagram, hopLimit
        copy.source, copy.destination = self.source, self.destination
        copy.parts, copy.trail = self.parts, self.trail
        return copy

    @property
    def segment(self) -> Segment | None:
        """The segment, with the addresses that NATs have given it; C{None} if it is corrupted, which its checksum shows."""
        if self.datagram != self._segment.data:
            return None
        return self._segment._replace(source=(*self.source,), destination=(*self.destination,))


class SegmentNetwork(LinkedNetwork):
    """A network that carries TCP segments, too."""

    def carrySegment(self, source: MemoryHost, segment: Segment) -> None:
        """Bring a segment to its destination, through the faults of the links."""
        node = self.nextHop(source, segment.destination[0])
        if node is None or not self.reachable(source, segment.destination[0]):
            return
        if not self.isPlain:
            self.direction(source, node).enter(SegmentFlight(segment, self.clock.rightNow))
            return
        # A network with NATs is not plain.
        host = cast(MemoryHost, node)
        latency = 0.0 if host is source else self._latency
        plan = self._plans.get((source, host), self._plan)
        if plan is None and self.journal is None:
            self.clock.fly(latency, host, self._arriveSegment, source, host, segment)
            return
        link = f"{source.name} > {host.name}"
        seen = Datagram(segment.data, segment.source, segment.destination, self.clock.rightNow, link)
        _, arrivals = self.decide(plan, seen)
        for delay, arrived in arrivals:
            if arrived == segment.data:
                self.clock.fly(latency + delay, host, self._arriveSegment, source, host, segment)

    def _arriveSegment(self, source: MemoryHost, host: MemoryHost, segment: Segment) -> None:
        """A segment arrives that was sent while the network was plain."""
        if self.isPlain:
            host.arriveSegment(segment)
            return
        flight = SegmentFlight(segment, self.clock.rightNow)
        direction = self.direction(source, host)
        flight.trail = (Step(direction, None),)
        direction.leave(flight)

    def deliver(self, host: MemoryHost, flight: Flight) -> None:
        """A datagram or a segment has arrived at its host."""
        if not isinstance(flight, SegmentFlight):
            super().deliver(host, flight)
        elif flight.segment is not None:
            host.arriveSegment(flight.segment)

    def segmentSize(self, source: MemoryHost, address: str) -> int:
        """The longest payload of a segment that the first link on the way from a host to an address carries, in bytes."""
        node = self.nextHop(source, address)
        if node is None:
            return SEGMENT
        direction = None if self.isPlain else self.direction(source, node)
        size = min(SEGMENT, getattr(self.planOf(source, node), "mtu", None) or SEGMENT)
        if direction is not None and direction.mtu is not None:
            ipv6 = ":" in address
            size = min(size, max(1, effective(direction.mtu, ipv6) - (_HEADERS_IPV6 if ipv6 else _HEADERS_IPV4)))
        return size
