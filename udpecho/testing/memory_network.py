"""A network in memory: hosts that are reactors, on one clock, with UDP that behaves as Linux's."""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred

from udpecho.addresses import DatagramAddress
from udpecho.errors import unreachable
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import DELIVERED, TOO_LONG, Decider, checkDecider
from udpecho.faults.delay_line import HeldBytes
from udpecho.faults.journal import Journal
from udpecho.testing.clock import MAX_EVENTS
from udpecho.testing.events import Event
from udpecho.testing.flight import tooLong
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_port import MemoryPort
from udpecho.testing.segment_network import SegmentNetwork
from udpecho.testing.trace import IN_FLIGHT, NO_BUFFER, Trace, TraceEntry

#: How many bytes may be in flight in a network.
MAX_IN_FLIGHT = 256 * 2**20
#: How long L{MemoryNetwork.runUntil} waits by default, in seconds of the network.
TIMEOUT = 3600.0

_T = TypeVar("_T")


class MemoryNetwork(SegmentNetwork):
    """Hosts on one clock, and links between them with faults.

    @ivar clock: the clock of all hosts.
    @ivar hosts: the hosts by name.
    @ivar trace: every datagram that was sent.
    @ivar journal: what was decided about each datagram, after L{record} or L{replay}, else C{None}.
    """

    def __init__(self, plan: Decider | None = None, latency: float = 0.0) -> None:
        """@param plan: the faults of all links without a plan of their own, as of one link that they share; by default none.
        @param latency: the delay of each datagram between two hosts in addition to that of a plan, in seconds.
        """
        super().__init__()
        self._plan, self._latency = None, 0.0
        self.plan, self.latency = plan, latency
        self.hosts: dict[str, MemoryHost] = {}
        self.trace = Trace()
        self.journal: Journal | None = None
        self._plans: dict[tuple[object, object], Decider | None] = {}
        self.inFlight = HeldBytes(MAX_IN_FLIGHT)

    def host(self, name: str, *addresses: str) -> MemoryHost:
        """Add a host.

        @param name: the name that the other hosts resolve.
        @param addresses: its IP addresses, in addition to C{127.0.0.0/8} and C{::1}.
        @raise ValueError: if the name or an address is taken, or an address is not one of a single host.
        """
        return self.addHost(self.realm, name, addresses)

    def setPlan(self, source: MemoryHost, destination: MemoryHost, plan: Decider) -> None:
        """Set the faults of one direction between two hosts, or of a host's loopback.

        @raise ValueError: if one is not a host of this network.
        @raise TypeError: if the plan is none.
        """
        self.checkNodes(source, destination)
        checkDecider("plan", plan)
        self.setPlanOf(source, destination, plan)

    def record(self) -> Journal:
        """Record what is decided about each datagram from now on. A failing test prints it, and L{replay} repeats it."""
        self.journal = Journal()
        return self.journal

    def replay(self, text: str) -> None:
        """Repeat recorded decisions, whatever the plans are. Datagrams without one are delivered at once.

        @param text: the printed decisions, one a line, as in C{client > server 2: lost}: the third datagram is lost.
        @raise ValueError: if a line is not a decision.
        """
        self.journal = Journal.fromString(text)

    def advance(self, seconds: float, limit: int = MAX_EVENTS) -> None:
        """Advance the clock by seconds, and do everything that is due meanwhile, in its order.

        @see: L{NetworkClock.advance}
        """
        self.clock.advance(seconds, limit)

    def step(self) -> Event | None:
        """Let the next thing happen: a timer, or a datagram that arrives.

        @see: L{NetworkClock.step}
        """
        return self.clock.step()

    def runUntil(
        self, deferred: Deferred[_T] | Coroutine[Deferred[Any], Any, _T], timeout: float = TIMEOUT, limit: int = MAX_EVENTS
    ) -> _T:
        """Run until a Deferred fires or a coroutine returns, and return its result or raise its failure.

        @see: L{NetworkClock.runUntil}
        """
        return self.clock.runUntil(deferred, timeout, limit)

    def runUntilIdle(self, limit: int = MAX_EVENTS) -> None:
        """Run until no datagram is in flight and no timer is due at that time. Timers for later are left to come.

        @see: L{NetworkClock.runUntilIdle}
        """
        self.clock.runUntilIdle(limit)

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination, through the faults of the link."""
        if sender.ecn or not self.isPlain:
            self.send(sender, datagram, source, destination, hopLimit)
            return
        now, origin = self.clock.rightNow, sender.host
        for node in self.receiversOf(sender, destination[0], hopLimit):
            # A network with NATs is not plain.
            host = cast(MemoryHost, node)
            entry = TraceEntry(now, source, destination, len(datagram), IN_FLIGHT, datagram, origin.name, host.name)
            self.trace.append(entry)
            latency = 0.0 if host is origin else self._latency
            plan = self._plans.get((origin, host), self._plan)
            if plan is None and self.journal is None:
                self._depart(latency, sender, host, datagram, entry, hopLimit)
                continue
            seen = Datagram(datagram, source, destination, now, f"{origin.name} > {host.name}")
            decision, arrivals = self.decide(plan, seen)
            if decision.reasons != (DELIVERED,):
                entry.outcome = ",".join(decision.reasons)
            if TOO_LONG in decision.reasons:
                report = tooLong(destination, getattr(plan, "mtu", None))
                self.clock.fly(latency, origin, self.notify, sender, destination, report)
            for delay, arrived in arrivals:
                self._depart(latency + delay, sender, host, arrived, entry, decision.hopsOf(hopLimit))

    def _depart(
        self, delay: float, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int
    ) -> None:
        if self.inFlight.take(sender, len(datagram)):
            self.clock.fly(delay, host, self._arrive, sender, host, datagram, entry, hopLimit)
        else:
            entry.addOutcome(NO_BUFFER)

    def _arrive(self, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int) -> None:
        self.inFlight.give(sender, len(datagram))
        if not self.isPlain:
            self.resume(sender, host, datagram, entry, hopLimit)
            return
        source, destination = entry.source, entry.destination
        if not self.handOver(host, datagram, source, destination, hopLimit, entry):
            self._sendBack(host, sender, source, destination)

    def _sendBack(self, host: MemoryHost, sender: MemoryPort, source: DatagramAddress, destination: DatagramAddress) -> None:
        """Send a refusal, through the faults of the opposite direction: it may be late, or lost."""
        plan = self._plans.get((host, sender.host), self._plan)
        delay = 0.0
        if plan is not None or self.journal is not None:
            seen = Datagram(b"", destination, source, self.clock.rightNow, f"{host.name} > {sender.host.name}")
            _, arrivals = self.decide(plan, seen, refusal=True)
            if not arrivals:
                return
            delay = arrivals[0].delay
        latency = 0.0 if host is sender.host else self._latency
        refusal = unreachable(errno.ECONNREFUSED, str(destination))
        self.clock.fly(latency + delay, sender.host, self.notify, sender, destination, refusal)
