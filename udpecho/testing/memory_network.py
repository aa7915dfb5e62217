"""A network in memory: hosts that are reactors, on one clock, with UDP that behaves as Linux's."""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, isGroup
from udpecho.errors import EchoError, MessageTooLong, unreachable
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import AT_ONCE, DELIVERED, TOO_LONG, Decider, Decision, decideOn
from udpecho.faults.delay_line import HeldBytes
from udpecho.faults.journal import Journal
from udpecho.testing.clock import MAX_EVENTS, NetworkClock
from udpecho.testing.events import Event
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_port import Host, MemoryPort, canonical, isLoopback, unmapped
from udpecho.testing.trace import IN_FLIGHT, Trace, TraceEntry

#: How many bytes may be in flight in a network.
MAX_IN_FLIGHT = 256 * 2**20
#: How long L{MemoryNetwork.runUntil} waits by default, in seconds of the network.
TIMEOUT = 3600.0

_T = TypeVar("_T")

_log = Logger()


class MemoryNetwork:
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
        self.clock = NetworkClock()
        self.hosts: dict[str, MemoryHost] = {}
        self.trace = Trace()
        self.journal: Journal | None = None
        self._plan = plan
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

    def forgetPaths(self) -> None:
        """Find out again where datagrams go. Call this after a change of the addresses of hosts."""
        for host in self.hosts.values():
            host.forgetPaths()

    def setPlan(self, source: MemoryHost, destination: MemoryHost, plan: Decider) -> None:
        """Set the faults of one direction between two hosts, or of a host's loopback."""
        self._plans[source, destination] = plan

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

    def _hostOf(self, source: Host, address: str) -> MemoryHost | None:
        return self.hosts[source.name] if isLoopback(address) else self._byAddress.get(address)

    def addressesOf(self, name: str) -> Sequence[str]:
        """The addresses of a host by its name, none of an unknown one."""
        host = self.hosts.get(name)
        return () if host is None else host.addresses

    def reachable(self, source: Host, address: str) -> bool:
        """Whether there is a route from a host to an address."""
        return self._hostOf(source, address) is not None or isGroup(address)

    def notSent(
        self, sender: Host, number: int, datagram: bytes, source: DatagramAddress, destination: DatagramAddress
    ) -> None:
        """The sender's host refuses to send a datagram, with an error number: the trace has why."""
        # The others are calls that no system takes for datagrams: of a closed port, to no port, from a loopback address.
        if number not in (errno.EBADF, errno.EINVAL):
            outcome = "no route" if number == errno.ENETUNREACH else f"not sent: {os.strerror(number)}"
            size = len(datagram)
            self.trace.append(TraceEntry(self.clock.rightNow, source, destination, size, outcome, datagram, sender.name))

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination, through the faults of the link."""
        now, origin = self.clock.rightNow, sender.host
        for host in self._hostsFor(sender, destination[0], hopLimit):
            entry = TraceEntry(now, source, destination, len(datagram), IN_FLIGHT, datagram, origin.name, host.name)
            self.trace.append(entry)
            latency = 0.0 if host is origin else self._latency
            plan = self._plans.get((origin, host), self._plan)
            if plan is None and self.journal is None:
                self._depart(latency, sender, host, datagram, entry, hopLimit)
                continue
            try:
                decision = self._decide(plan, origin, host, datagram, source, destination)
                arrivals = decision.apply(datagram)
            except Exception:
                # The sender is not to blame.
                _log.failure("Unhandled error in the plan {plan}", plan=plan)
                entry.outcome = "plan failed"
                continue
            if decision.reasons != (DELIVERED,):
                entry.outcome = ",".join(decision.reasons)
            if TOO_LONG in decision.reasons:
                self.clock.fly(latency, origin, self._notifyTooLong, sender, destination, getattr(plan, "mtu", None))
            for delay, arrived in arrivals:
                self._depart(latency + delay, sender, host, arrived, entry, decision.hopsOf(hopLimit))

    def _hostsFor(self, sender: MemoryPort, address: str, hopLimit: int) -> Sequence[MemoryHost]:
        """The hosts that a datagram is sent to."""
        if isGroup(address):
            loops = sender.loopback or address == "255.255.255.255"
            return [host for host in self.hosts.values() if (loops if host is sender.host else hopLimit)]
        found = self._hostOf(sender.host, address)
        return () if found is None else (found,)

    def _depart(
        self, delay: float, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int
    ) -> None:
        if self._inFlight.take(sender, len(datagram)):
            self.clock.fly(delay, host, self._arrive, sender, host, datagram, entry, hopLimit)
        else:
            entry.addOutcome("no buffer")

    def _decide(
        self,
        plan: Decider | None,
        sender: Host,
        receiver: Host,
        payload: bytes,
        source: DatagramAddress,
        destination: DatagramAddress,
        refusal: bool = False,
    ) -> Decision:
        """Decide about a datagram on the link between two hosts, or about a refusal by ICMP."""
        if self.journal is None and plan is not None and (refusal or not hasattr(plan, "decideDatagram")):
            return plan.decide(len(payload), self.clock.rightNow)
        datagram = Datagram(payload, source, destination, self.clock.rightNow, f"{sender.name} > {receiver.name}")
        if self.journal is None:
            return AT_ONCE if plan is None else decideOn(plan, datagram)
        return self.journal.decide(plan, datagram, refusal)

    def _notifyTooLong(self, sender: MemoryPort, destination: DatagramAddress, limit: int | None) -> None:
        """What a router sends (ICMP fragmentation needed, RFC 792) reaches a connected socket, about its own peer."""
        known = "as much" if limit is None else f"more than {limit} bytes"
        message = f"the path to {destination} does not carry {known}"
        self._notify(sender, destination, MessageTooLong(message, errno.EMSGSIZE, limit))

    def _arrive(self, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int) -> None:
        self._inFlight.give(sender, len(datagram))
        source, destination = entry.source, entry.destination
        receivers = host.receivers(source, destination)
        if receivers:
            entry.arrive(self.clock.rightNow, "delivered", datagram, receivers)
            for receiver in receivers:
                receiver.receive(datagram, source, destination, hopLimit)
        elif isGroup(destination.host):
            entry.arrive(self.clock.rightNow, "nobody listens", datagram, ())
        else:
            entry.arrive(self.clock.rightNow, "refused", datagram, ())
            self._sendBack(host, sender, source, destination)

    def _sendBack(self, host: MemoryHost, sender: MemoryPort, source: DatagramAddress, destination: DatagramAddress) -> None:
        """Send a refusal, through the faults of the opposite direction: it may be late, or lost."""
        plan = self._plans.get((host, sender.host), self._plan)
        delay = 0.0
        if plan is not None or self.journal is not None:
            try:
                arrivals = self._decide(plan, host, sender.host, b"", destination, source, refusal=True).apply(b"")
            except Exception:
                _log.failure("Unhandled error in the plan {plan}", plan=plan)
                return
            if not arrivals:
                return
            delay = arrivals[0].delay
        latency = 0.0 if host is sender.host else self._latency
        refusal = unreachable(errno.ECONNREFUSED, str(destination))
        self.clock.fly(latency + delay, sender.host, self._notify, sender, destination, refusal)

    def _notify(self, sender: MemoryPort, destination: DatagramAddress, reason: EchoError) -> None:
        # Only a connected socket is notified, and only of its own peer.
        peer = sender.peer
        if peer is not None and (unmapped(peer.host), peer.port) == destination:
            sender.networkError(reason)
