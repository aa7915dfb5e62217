"""A network in memory: hosts that are reactors, on one clock, with UDP that behaves as Linux's."""

from __future__ import annotations

import errno

from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, isGroup
from udpecho.errors import MessageTooLong, unreachable
from udpecho.faults.decision import DELIVERED, TOO_LONG, Decider, Replay
from udpecho.faults.delay_line import HeldBytes
from udpecho.testing.clock import NetworkClock
from udpecho.testing.linked_network import LinkedNetwork
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_port import Host, MemoryPort
from udpecho.testing.trace import IN_FLIGHT, Trace, TraceEntry

#: How many bytes may be in flight in a network.
MAX_IN_FLIGHT = 256 * 2**20

_log = Logger()


class MemoryNetwork(LinkedNetwork):
    """Hosts on one clock, and links between them with faults.

    @ivar clock: the clock of all hosts.
    @ivar hosts: the hosts by name.
    @ivar trace: every datagram that was sent.
    """

    def __init__(self, plan: Decider | None = None, latency: float = 0.0) -> None:
        """@param plan: the faults of all links without a plan of their own, as of one link that they share; by default none.
        @param latency: the delay of each datagram between two hosts in addition to that of a plan, in seconds.
        """
        super().__init__()
        self.clock = NetworkClock()
        self.hosts: dict[str, MemoryHost] = {}
        self.trace = Trace()
        # Without decisions to repeat, it delivers all at once.
        self._plan = Replay("") if plan is None else plan
        self._latency = latency
        self._plans: dict[tuple[Host, Host], Decider] = {}
        self.inFlight = HeldBytes(MAX_IN_FLIGHT)

    def host(self, name: str, *addresses: str) -> MemoryHost:
        """Add a host.

        @param name: the name that the other hosts resolve.
        @param addresses: its IP addresses, in addition to C{127.0.0.0/8} and C{::1}.
        @raise ValueError: if the name or an address is taken, or an address is not one of a single host.
        """
        return self.addHost(self.realm, name, addresses)

    def setPlan(self, source: MemoryHost, destination: MemoryHost, plan: Decider) -> None:
        """Set the faults of one direction between two hosts, or of a host's loopback."""
        self._plans[source, destination] = plan
        if not self.isPlain:
            self.direction(source, destination).plan = plan

    def advance(self, seconds: float) -> None:
        """Advance the clock by seconds, and do everything that is due meanwhile, in its order."""
        self.clock.advance(seconds)

    def carry(
        self, sender: MemoryPort, datagram: bytes, source: DatagramAddress, destination: DatagramAddress, hopLimit: int
    ) -> None:
        """Bring a datagram to its destination, through the faults of the link."""
        if sender.ecn or not self.isPlain:
            self.send(sender, datagram, source, destination, hopLimit)
            return
        for host in self.receiversOf(sender, destination.host, hopLimit):
            assert isinstance(host, MemoryHost), "a network with NATs is not plain"
            entry = TraceEntry(self.clock.rightNow, source, destination, len(datagram), IN_FLIGHT)
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
                if self.inFlight.take(sender, len(arrived)):
                    self.clock.fly(latency + delay, self._arrive, sender, host, arrived, entry, decision.hopsOf(hopLimit))
                else:
                    entry.addOutcome("no buffer")

    def _notifyTooLong(self, sender: MemoryPort, destination: DatagramAddress, limit: int | None) -> None:
        """What a router sends (ICMP fragmentation needed, RFC 792) reaches a connected socket, about its own peer."""
        known = "as much" if limit is None else f"more than {limit} bytes"
        message = f"the path to {destination} does not carry {known}"
        self.notify(sender, destination, MessageTooLong(message, errno.EMSGSIZE, limit))

    def _arrive(self, sender: MemoryPort, host: MemoryHost, datagram: bytes, entry: TraceEntry, hopLimit: int) -> None:
        self.inFlight.give(sender, len(datagram))
        if not self.isPlain:
            self.resume(sender, host, datagram, entry, hopLimit)
            return
        self.clock.owner = host
        source, destination = entry.source, entry.destination
        receivers = host.receivers(source, destination)
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
            self.clock.fly(latency + arrivals[0].delay, self.notify, sender, destination, refusal)
