"""What carries the datagrams of a proxy, with the faults that its plans decide about."""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.faults.decision import Arrival, Decision, Direction
from udpecho.faults.delay_line import DelayLine, HeldBytes
from udpecho.faults.proxy_client import OtherPort, ProxyClient
from udpecho.faults.proxy_options import Watcher
from udpecho.faults.upstream import Upstream
from udpecho.net.port import DatagramPort
from udpecho.net.sockets import MAX_DATAGRAM

#: How many datagrams of a client may wait for the lookup of the upstream's name.
_maxWaiting = 64

_log = Logger()


class Carrier:
    """Carries datagrams in both directions, now or after their delays.

    @ivar port: what sends to the clients, C{None} while the proxy is stopped.
    @ivar line: the datagrams that are delayed.
    """

    def __init__(self, clock: IReactorTime, up: Direction, upstream: Upstream, maxHeld: int, watcher: Watcher | None) -> None:
        """@param up: the direction from the clients; any other is to them.
        @param maxHeld: how many bytes may wait.
        @param watcher: called for each datagram.
        """
        self.port: DatagramPort | None = None
        self.line = DelayLine(clock)
        self._clock = clock
        self._up = up
        self._upstream = upstream
        self._held = HeldBytes(maxHeld)
        self._watcher = watcher

    def now(self) -> float:
        """The time, in seconds."""
        return self._clock.seconds()

    def isFree(self, client: ProxyClient) -> bool:
        """Whether nobody has to see a client's datagrams, and none that is delayed is to go first."""
        return self._watcher is None and not self.line.late and self._held.mayTake(client, MAX_DATAGRAM)

    def carry(
        self, direction: Direction, client: ProxyClient, datagram: bytes, hopLimit: int | None, other: OtherPort | None
    ) -> None:
        """Let the plan decide about a datagram, and send it, once or more often, or not at all.

        @param other: the port of the upstream, if it is not its own.
        """
        now = self._clock.seconds()
        server = (other.address if other is not None else client.peer or self._upstream.address) or ("", 0)
        ends = (client.address, server) if direction is self._up else (server, client.address)
        decision, arrivals = direction.decide(datagram, now, *ends)
        hops = None if hopLimit is None else decision.hopsOf(hopLimit)
        if direction is self._up:
            client.hops = hops
        if self._watcher is not None:
            try:
                self._watcher(direction.name, client.address, len(datagram), decision)
            except Exception:
                _log.failure("Unhandled error in the watcher of a proxy")
        self._carry(direction, client, arrivals, now, hops, other)

    def follow(
        self, direction: Direction, client: ProxyClient, datagram: bytes, hopLimit: int | None, decision: Decision
    ) -> None:
        """Do what a plan has decided about a datagram between a client and the upstream's own port."""
        arrivals = direction.follow(decision, datagram)
        hops = None if hopLimit is None else decision.hopsOf(hopLimit)
        if direction is self._up:
            client.hops = hops
        self._carry(direction, client, arrivals, self._clock.seconds(), hops, None)

    def _carry(
        self,
        direction: Direction,
        client: ProxyClient,
        arrivals: list[Arrival],
        now: float,
        hops: int | None,
        other: OtherPort | None,
    ) -> None:
        for delay, arrived in arrivals:
            if hops is not None and hops < 2:
                direction.outcomes["loop_guard"] += 1
            elif not self._held.take(client, len(arrived)):
                direction.outcomes["held_full"] += 1
            elif self.port is not None and (delay or self.line.late):
                self.line.hold(now + delay, partial(self.send, direction, client, arrived, hops, other))
            else:
                self.send(direction, client, arrived, hops, other)

    def send(
        self, direction: Direction, client: ProxyClient, datagram: bytes, hops: int | None, other: OtherPort | None = None
    ) -> None:
        """Send what has waited."""

        def lost(outcome: str) -> None:
            self._held.give(client, len(datagram))
            direction.outcomes[outcome] += 1

        def sent(reason: str | None) -> None:
            if reason is None:
                self._held.give(client, len(datagram))
            else:
                lost("own_loss")

        port: DatagramPort | None
        address: DatagramAddress | None
        if direction is not self._up:
            port, address = (self.port, client.address) if other is None else (other.port, other.peer)
        else:
            port, address = (client.port, client.peer) if other is None else (client.companion, other.address)
        if port is not None and address is not None:
            port.send(datagram, address.withHops(hops), sent)
        elif direction is self._up and client.waiting is not None and len(client.waiting) < _maxWaiting:
            client.waiting.append((datagram, hops))
        else:
            lost(client.lost if direction is self._up else "own_loss")
