"""A datagram on its way over the links of a network in memory, and what ICMP reports about it on the way back."""

from __future__ import annotations

import errno
from typing import NamedTuple, Protocol

from udpecho.addresses import DatagramAddress, isGroup
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong
from udpecho.faults.delay_line import HeldBytes
from udpecho.testing.memory_port import MemoryPort
from udpecho.testing.path_mtu import Parts, headers
from udpecho.testing.trace import EXPIRED, TraceEntry

#: Explicit congestion notification (RFC 3168 section 5): not capable of it, capable (two values), congestion experienced.
NOT_ECT, ECT_1, ECT_0, CE = range(4)


class Node(Protocol):
    """What a link joins: a host or a NAT."""

    name: str

    @property
    def realm(self) -> object:
        """The realm that its addresses are in."""

    def arrive(self, flight: Flight) -> None:
        """A datagram arrives, over the last leg of its trail."""


class Crossing(Protocol):
    """What a NAT has made of a datagram."""

    def isOpen(self) -> bool:
        """Whether a report about the datagram gets back through the NAT."""


class Leg(Protocol):
    """One direction of a link."""

    source: Node

    def carryBack(self, report: Report) -> None:
        """Bring a report to the node that the datagram came from."""


class Step(NamedTuple):
    """A leg of a datagram's way.

    @ivar crossing: what the NAT at its beginning has made of the datagram, if there is one.
    """

    leg: Leg
    crossing: Crossing | None


class Flight:
    """A datagram on its way, or one copy of it.

    @ivar source: its source, as the last NAT has translated it.
    @ivar destination: its destination, likewise.
    @ivar sentTo: its destination as the sender wrote it.
    @ivar hopLimit: how many more routers may pass it on, and one.
    @ivar ecn: its ECN codepoint, 0 to 3 (RFC 3168).
    @ivar parts: whether it is in fragments, or may be.
    @ivar trail: the legs of its way so far.
    """

    def __init__(
        self,
        sender: MemoryPort,
        datagram: bytes,
        source: DatagramAddress,
        destination: DatagramAddress,
        hopLimit: int,
        entry: TraceEntry,
    ) -> None:
        self.sender = sender
        self.datagram = datagram
        self.source = source
        self.destination = self.sentTo = destination
        self.hopLimit = hopLimit
        self.ecn = NOT_ECT
        self.entry = entry
        self.parts = Parts()
        self.trail: tuple[Step, ...] = ()
        self._held: HeldBytes | None = None

    @property
    def isIPv6(self) -> bool:
        """Whether it is of IPv6."""
        return ":" in self.destination.host

    @property
    def isToGroup(self) -> bool:
        """Whether it is for a group, or for all: nobody reports about such a datagram (RFC 1122 section 3.2.2)."""
        return isGroup(self.destination.host)

    def copy(self, datagram: bytes, hopLimit: int) -> Flight:
        """One arrival of it."""
        copy = Flight(self.sender, datagram, self.source, self.destination, hopLimit, self.entry)
        copy.sentTo, copy.ecn, copy.parts, copy.trail = self.sentTo, self.ecn, self.parts, self.trail
        return copy

    def take(self, inFlight: HeldBytes) -> bool:
        """Take memory while it is on a link.

        @return: whether there is enough.
        """
        if inFlight.take(self.sender, len(self.datagram)):
            self._held = inFlight
            return True
        return False

    def leave(self) -> None:
        """It is on no link now."""
        if self._held is not None:
            self._held.give(self.sender, len(self.datagram))
            self._held = None

    def arrive(self, node: Node) -> None:
        """The end of a link."""
        self.leave()
        node.arrive(self)

    def lose(self, reason: str) -> None:
        """It gets no farther."""
        self.leave()
        self.entry.addOutcome(reason)

    def fit(self, mtu: int) -> bool:
        """Fragment it for the MTU of a link, if it must and may be.

        @return: whether it gets through.
        """
        size = len(self.datagram) + headers(self.isIPv6)
        if min(size, self.parts.largest or size) > mtu:
            if not self.parts.mayFragment:
                return False
            self.parts = Parts(mtu)
        return True

    def expire(self) -> Report:
        """It has no hop left: what the router reports (RFC 792, RFC 4443 section 3.3), an error of the host on Linux."""
        self.lose(EXPIRED)
        return Report(self, HostUnreachable(f"{self.sentTo} cannot be reached: the hop limit is too low", errno.EHOSTUNREACH))

    def reportTooLong(self, limit: int | None, mtu: int | None = None) -> Report:
        """It is longer than a link carries: what the router reports (RFC 792, RFC 4443 section 3.2).

        @param limit: the longest payload that gets through, in bytes, if it is known.
        @param mtu: the MTU of the link in bytes.
        """
        return Report(self, tooLong(self.sentTo, limit), mtu)


def tooLong(destination: DatagramAddress, limit: int | None) -> MessageTooLong:
    """What ICMP reports of a datagram that is longer than its path carries (RFC 792, "fragmentation needed").

    @param limit: the longest payload that gets through, in bytes, if it is known.
    """
    known = "as much" if limit is None else f"more than {limit} bytes"
    return MessageTooLong(f"the path to {destination} does not carry {known}", errno.EMSGSIZE, limit)


class Report:
    """What ICMP reports about a datagram. It goes back as the datagram came, and each NAT on the way has to know whose it is.

    @ivar mtu: the MTU that a router reports, in bytes.
    """

    def __init__(self, flight: Flight, reason: EchoError, mtu: int | None = None) -> None:
        self.sender = flight.sender
        self.sentFrom, self.sentTo = flight.source, flight.sentTo
        self.reason = reason
        self.mtu = mtu
        self._trail = list(flight.trail)
        self._crossing: Crossing | None = None

    def goBack(self) -> None:
        """Go back over the last leg of the trail."""
        self.nextLeg().carryBack(self)

    def nextLeg(self) -> Leg:
        """Take the last leg off the trail."""
        leg, self._crossing = self._trail.pop()
        return leg

    def arrive(self, node: Node) -> None:
        """The end of a link."""
        if self._crossing is not None and not self._crossing.isOpen():
            return
        if self._trail:
            self.goBack()
        else:
            self.sender.host.report(self)

    def lose(self, reason: str) -> None:
        """It gets no farther; the trace has datagrams only."""
