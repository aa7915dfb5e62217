"""A real UDP proxy, on real sockets, that injects faults between any two programs."""

from __future__ import annotations

import os
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, cast

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import NO_DESCRIPTOR, EchoError
from udpecho.faults.decision import Decider, Decision
from udpecho.faults.plan import FaultPlan
from udpecho.faults.upstream import Upstream
from udpecho.interfaces import IDropReceiver, INetworkErrorReceiver, Reactor
from udpecho.net.linux import icmp, sockopt
from udpecho.net.open import dial, listen
from udpecho.net.port import DatagramPort

#: Seconds without a datagram in either direction after which a client is forgotten.
IDLE_TIMEOUT = 60.0
#: How many clients are known at a time.
MAX_CLIENTS = 1024

#: Bytes of receive buffer to request, so that many datagrams at once are not the proxy's own loss.
_RECEIVE_BUFFER = 2**22
#: How many delayed datagrams may wait.
_MAX_HELD = 100_000
#: How many datagrams of a client may wait for the lookup of the upstream's name.
_MAX_WAITING = 64
#: Seconds with datagrams up and none down after which the name of the upstream is looked up again for a client.
_QUIET = 2.0
#: A client that has been idle for so many seconds may be forgotten when descriptors are needed.
_DISPENSABLE = 1.0
#: Seconds between two warnings of a kind.
_WARN_INTERVAL = 10.0

_log = Logger()

#: Called for each datagram, with the direction, the client, the size in bytes and the decision.
Watcher = Callable[[str, DatagramAddress, int, Decision], None]


class DelayLine:
    """Calls functions at their times, in seconds, and in the order of addition where these are equal: a reactor's delayed calls
    promise no order among equals.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._held: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, due: float, release: Callable[[], None]) -> None:
        """Call C{release} at the time C{due}."""
        heappush(self._held, (due, next(self._order), release))
        if self._held[0][0] == due:
            self._setWake()

    def releaseDue(self) -> None:
        """Call the functions that are due: the reactor may be late."""
        if self._held and self._held[0][0] <= self._clock.seconds():
            self._release()

    def close(self) -> list[Callable[[], None]]:
        """Call nothing any more, and return the functions that were waiting, in their order."""
        held = [heappop(self._held)[2] for _ in range(len(self._held))]
        self._setWake()
        return held

    def _setWake(self) -> None:
        if self._wake is not None and self._wake.active():
            self._wake.cancel()
        self._wake = None
        if self._held:
            self._wake = self._clock.callLater(max(0.0, self._held[0][0] - self._clock.seconds()), self._release)

    def _release(self) -> None:
        now = self._clock.seconds()
        try:
            while self._held and self._held[0][0] <= now:
                heappop(self._held)[2]()
        finally:
            self._setWake()


@dataclass(eq=False)
class _Direction:
    """One direction through the proxy. C{outcomes} counts datagrams."""

    name: str
    plan: Decider
    datagrams: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


@implementer(INetworkErrorReceiver)
@dataclass(eq=False, repr=False)
class _Client(DatagramProtocol):
    """One client of the proxy: the protocol of its own socket to the upstream.

    @ivar lastReceived: when a datagram last came from the upstream, or the client opened its socket.
    @ivar waiting: what waits for a lookup, C{None} if there is none.
    @ivar lost: what its datagrams count as while there is no socket.
    """

    noisy = False

    proxy: FaultProxy
    address: DatagramAddress
    lastSize: int = 0
    lastSeen: float = 0.0
    lastReceived: float = 0.0
    port: DatagramPort | None = None
    peer: DatagramAddress | None = None
    hops: int | None = None
    waiting: list[bytes] | None = None
    lost: str = "own_loss"

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.lastReceived = self.proxy._now()
        self.proxy._touch(self)
        self.proxy._pass(self.proxy.down, self, datagram)

    def connectionRefused(self) -> None:
        self.proxy._refused(self)

    def networkError(self, reason: EchoError) -> None:
        # No port unreachable for the client: it sees no reply, as it would without the proxy.
        self.proxy.up.outcomes["unreachable"] += 1

    def limitHops(self, sock: socket.socket) -> None:
        """Send with one hop less than the client did, as a router does: what goes round through several proxies ends."""
        if self.hops is not None:
            sockopt.setHopLimit(sock, self.hops - 1)


@implementer(IDropReceiver)
class FaultProxy(DatagramProtocol):
    """Passes datagrams between clients and one upstream, with the faults of a plan in each direction.

    Each client has a socket of its own to the upstream, so that the upstream sees different clients. The plans may be changed
    (L{FaultPlan.change}) or replaced at any time.

    @ivar upstream: the upstream's addresses, and the lookups of its name.
    @ivar up: the direction from the clients: its C{plan}, and its C{outcomes}, counted. In addition to those of the plan,
        C{own_loss} counts what the proxy could not send, and what the kernel dropped from the receive queues of closed sockets;
        C{no_socket} what had no socket because there was no descriptor left; C{loop_guard} what would have gone to the proxy
        itself, or had no hop left (RFC 791 section 3.2).
    @ivar down: the direction to the clients.
    @ivar refusals: how often the upstream refused a client, several at once being one; C{refusalsPassed} of these were passed
        back by ICMP, for which the process must be allowed to open raw sockets.
    """

    noisy = False

    def __init__(
        self,
        reactor: Reactor,
        upstream: tuple[str, int],
        up: Decider | None = None,
        down: Decider | None = None,
        idleTimeout: float = IDLE_TIMEOUT,
        maxClients: int = MAX_CLIENTS,
        watcher: Watcher | None = None,
    ) -> None:
        """@param reactor: an C{IReactorFDSet} and C{IReactorTime}.
        @param upstream: the host and port that the clients' datagrams go to; a name is looked up again for new clients.
        @param up: the faults of the direction from the clients; by default none.
        @param down: the faults of the direction to the clients; by default none.
        @param idleTimeout: seconds without a datagram after which a client is forgotten.
        @param maxClients: how many clients may be known; for one more, the longest idle one is forgotten.
        @param watcher: called for each datagram.
        """
        self.up = _Direction("up", FaultPlan() if up is None else up)
        self.down = _Direction("down", FaultPlan() if down is None else down)
        self.refusals = 0
        self.refusalsPassed = 0
        self._reactor = reactor
        self._clock = IReactorTime(reactor)
        self.upstream = Upstream(reactor, upstream)
        self._idleTimeout = idleTimeout
        self._maxClients = maxClients
        self._watcher = watcher
        self._line = DelayLine(self._clock)
        # In the order of their last datagram.
        self._clients: OrderedDict[DatagramAddress, _Client] = OrderedDict()
        self._sweep: IDelayedCall | None = None
        self._port: IListeningPort | None = None
        self._warned: dict[str, float] = {}

    @property
    def address(self) -> tuple[str, int]:
        """The address that the clients send to, a C{(host, port)} pair."""
        host = cast(Any, cast(IListeningPort, self._port).getHost())
        return host.host, host.port

    @property
    def clients(self) -> int:
        """How many clients are known."""
        return len(self._clients)

    def start(self, port: int = 0, interface: str = "127.0.0.1") -> None:
        """Listen for clients.

        @raise error.CannotListenError: if the system refuses the address.
        @raise ValueError: if the upstream is the proxy itself, which would send each datagram to itself without end.
        """
        self._port = listen(self._reactor, port, self, interface, receiveBuffer=_RECEIVE_BUFFER, decrementHopLimit=True)
        for upstream in self.upstream.addresses[:1]:
            if self.upstream.isProxy(upstream, self.address):
                self.stop()
                raise ValueError(f"upstream must not be the proxy itself, got {formatAddress(upstream)}")

    def stop(self) -> None:
        """Stop at once. Delayed datagrams are lost, and counted as C{own_loss}. May be called twice."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self.upstream.close()
        for client in list(self._clients.values()):
            self._forget(client)
        port, self._port = self._port, None
        if port is not None:
            _close(cast(DatagramPort, port), self.up)
        for send in self._line.close():
            # Counts, now that there is no socket.
            send()

    # From the clients

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from a client."""
        address = cast(DatagramAddress, addr)
        client = self._clients.get(address)
        if client is None:
            while len(self._clients) >= self._maxClients:
                self._forget(next(iter(self._clients.values())))
            client = self._clients[address] = _Client(self, address)
        # Replies leave from the address that the client sent to last.
        client.address = address
        self._touch(client)
        if client.port is None:
            self._open(client)
        elif self._now() - client.lastReceived >= _QUIET and not self.upstream.current:
            client.lastReceived = self._now()
            self.upstream.lookUp().addCallbacks(lambda _: self._leave(client, client.peer in self.upstream.addresses), _ignore)
        if client.port is not None and client.hops != address.hopLimit:
            client.hops = address.hopLimit
            client.limitHops(client.port.socket)
        client.lastSize = len(datagram)
        self._pass(self.up, client, datagram)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """A datagram from a client had no hop left."""
        self.up.datagrams += 1
        self.up.outcomes[reason] += 1

    def _open(self, client: _Client) -> None:
        """Open a client's socket. If that fails, its datagrams are counted when they are sent, and the next one tries again."""
        if client.waiting is not None:
            return
        if self.upstream.current:
            self._dial(client)
            return
        waiting = client.waiting = []

        def lookedUp(result: Failure | None) -> None:
            client.waiting = None
            if result is not None:
                if not result.check(defer.CancelledError):
                    self._warn("name", str(result.value))
            elif self._clients.get(client.address) is client:
                self._dial(client)
            for datagram in waiting:
                self._send(self.up, client, datagram)

        self.upstream.lookUp().addBoth(lookedUp)

    def _dial(self, client: _Client) -> None:
        peer = self.upstream.address
        client.lost = "own_loss"
        if peer is None:
            return
        if self.upstream.isProxy(peer, self.address):
            # An address may become this machine's own at any time.
            client.lost = "loop_guard"
            self._warn("loop", f"upstream must not be the proxy itself, got {formatAddress(peer)}")
            return
        client.hops = client.address.hopLimit
        try:
            try:
                client.port = dial(self._reactor, client, peer, None, _RECEIVE_BUFFER, client.limitHops)
            except OSError as e:
                oldest = next(iter(self._clients.values()))
                if e.errno not in NO_DESCRIPTOR or oldest.port is None or self._now() - oldest.lastSeen < _DISPENSABLE:
                    raise
                self._forget(oldest)
                client.port = dial(self._reactor, client, peer, None, _RECEIVE_BUFFER, client.limitHops)
        except OSError as e:
            if e.errno in NO_DESCRIPTOR:
                client.lost = "no_socket"
            self._warn("socket", f"cannot open a socket for {client.address}: {os.strerror(e.errno or 0)}")
            return
        client.peer = peer
        client.lastReceived = self._now()

    def _now(self) -> float:
        return self._clock.seconds()

    def _warn(self, kind: str, sentence: str) -> None:
        """Log a warning, each kind at most so often."""
        now = self._now()
        if now - self._warned.get(kind, -_WARN_INTERVAL) >= _WARN_INTERVAL:
            self._warned[kind] = now
            _log.warn("{sentence}", sentence=sentence)

    def _leave(self, client: _Client, stays: bool) -> None:
        """Close a client's socket, so that its next datagram opens one to the upstream's present address."""
        if not stays and client.port is not None:
            _close(client.port, self.down)
            client.port = None

    def _touch(self, client: _Client) -> None:
        client.lastSeen = max(client.lastSeen, self._now())
        self._clients.move_to_end(client.address)
        if self._sweep is None:
            self._sweep = self._clock.callLater(self._idleTimeout, self._forgetIdle)

    def _forgetIdle(self) -> None:
        self._sweep = None
        now = self._now()
        while self._clients:
            oldest = next(iter(self._clients.values()))
            left = oldest.lastSeen + self._idleTimeout - now
            if left > 0:
                self._sweep = self._clock.callLater(left, self._forgetIdle)
                return
            self._forget(oldest)

    def _forget(self, client: _Client) -> None:
        del self._clients[client.address]
        self._leave(client, False)

    # From the upstream

    def _refused(self, client: _Client) -> None:
        self.refusals += 1
        host, port = self.address
        local = client.address.localHost or host
        if icmp.refuse(client.address, (local, port), client.lastSize):
            self.refusalsPassed += 1
        if client.peer is not None and self.upstream.refused(client.peer):
            self._leave(client, False)

    # Either way

    def _pass(self, direction: _Direction, client: _Client, datagram: bytes) -> None:
        self._line.releaseDue()
        now = self._now()
        decision = direction.plan.decide(len(datagram), now)
        direction.datagrams += 1
        for reason in decision.reasons:
            direction.outcomes[reason] += 1
        if self._watcher is not None:
            self._watcher(direction.name, client.address, len(datagram), decision)
        for delivery in decision.apply(datagram):
            # The watcher may have stopped the proxy.
            if delivery.delay and self._port is not None:
                if len(self._line) >= _MAX_HELD:
                    direction.outcomes["own_loss"] += 1
                    continue
                due = now + delivery.delay
                # A client with a delayed datagram is not idle.
                client.lastSeen = max(client.lastSeen, due)
                self._line.hold(due, partial(self._send, direction, client, delivery.datagram))
            else:
                self._send(direction, client, delivery.datagram)

    def _send(self, direction: _Direction, client: _Client, datagram: bytes) -> None:
        def sent(reason: str | None) -> None:
            if reason is not None:
                direction.outcomes["own_loss"] += 1

        if direction is self.down:
            if self._port is None:
                sent("stopped")
            else:
                cast(Any, self._port).send(datagram, client.address, sent)
        elif client.port is not None:
            client.port.send(datagram, None, sent)
        elif client.waiting is not None and len(client.waiting) < _MAX_WAITING:
            client.waiting.append(datagram)
        else:
            direction.outcomes[client.lost] += 1

    def __str__(self) -> str:
        lines = []
        for direction in (self.up, self.down):
            outcomes = [f"{outcome}={count}" for outcome, count in sorted(direction.outcomes.items()) if count]
            lines.append(" ".join([f"{direction.name}: datagrams={direction.datagrams}", *outcomes]))
        lines.append(f"refusals={self.refusals} passed-back={self.refusalsPassed}")
        return "\n".join(lines)


def _close(port: DatagramPort, direction: _Direction) -> None:
    """Close a socket, and count what the kernel dropped from its receive queue."""
    direction.outcomes["own_loss"] += port.getKernelDrops() or 0
    port.abort()


def _ignore(failure: Failure) -> None:
    """A lookup has failed."""
