"""A real UDP proxy, on real sockets, that injects faults between any two programs."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import NO_DESCRIPTOR, EchoError
from udpecho.faults.decision import Decider, Decision, Direction
from udpecho.faults.delay_line import DelayLine, HeldBytes
from udpecho.faults.models import checkLeast
from udpecho.faults.plan import FaultPlan
from udpecho.faults.upstream import Upstream
from udpecho.interfaces import IDatagramAddressReceiver, IDropReceiver, INetworkErrorReceiver, Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.linux import icmp
from udpecho.net.open import dial, listen
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort

#: Seconds without a datagram in either direction after which a client is forgotten.
IDLE_TIMEOUT = 60.0
#: How many clients are known at a time.
MAX_CLIENTS = 1024
#: How many bytes may wait in a proxy, for their time, for a lookup, or for a full send queue.
MAX_HELD = 64 * 2**20

#: Bytes of receive buffer to request, so that many datagrams at once are not the proxy's own loss.
_RECEIVE_BUFFER = 2**22
#: How many datagrams of a client may wait for the lookup of the upstream's name.
_MAX_WAITING = 64
#: Seconds with datagrams up and none down after which the name of the upstream is looked up again for a client.
_QUIET = 2.0
#: A client that has been idle for so many seconds may be forgotten when descriptors are needed.
_DISPENSABLE = 1.0
#: Seconds between two warnings of a kind.
_WARN_INTERVAL = 10.0
#: Echo, daytime, QOTD, chargen and time answer whatever comes (RFC 862, 867, 865, 864, 868), and send nothing by themselves.
_ANSWERING_PORTS = frozenset({7, 13, 17, 19, 37})

#: Of the clients' sockets. What waits for them is in L{HeldBytes}, too.
_upward = PortOptions(decrementHopLimit=True)

_log = Logger()

#: Called for each datagram, with the direction, the client, the size in bytes and the decision.
Watcher = Callable[[str, DatagramAddress, int, Decision], None]


@implementer(IDatagramAddressReceiver, INetworkErrorReceiver, IDropReceiver)
@dataclass(eq=False, repr=False)
class _Client(DatagramProtocol):
    """One client of the proxy: the protocol of its own socket to the upstream.

    @ivar lastReceived: when a datagram last came from the upstream, or the client opened its socket.
    @ivar known: whether it has sent again after it got a reply, which a forged source does not.
    @ivar held: the bytes of its datagrams that wait.
    @ivar hops: what its last datagram had left of its hop limit.
    @ivar waiting: what waits for a lookup, C{None} if there is none.
    @ivar lost: what its datagrams count as while there is no socket.
    """

    noisy = False

    proxy: FaultProxy
    address: DatagramAddress
    lastSize: int = 0
    lastSeen: float = 0.0
    lastReceived: float = 0.0
    answered: bool = False
    known: bool = False
    held: int = 0
    port: DatagramPort | None = None
    peer: DatagramAddress | None = None
    hops: int | None = None
    waiting: list[tuple[bytes, int | None]] | None = None
    lost: str = "own_loss"

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.lastReceived = self.proxy._now()
        self.answered = True
        self.proxy._touch(self)
        # Not more than the client's datagram had left: the upstream begins anew, and the client may be another proxy.
        hops = [hops for hops in (cast(DatagramAddress, addr).hopLimit, self.hops) if hops is not None]
        self.proxy._pass(self.proxy.down, self, datagram, min(hops, default=None))

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        self.proxy.down.drop(reason)

    def connectionRefused(self) -> None:
        self.proxy._refused(self)

    def networkError(self, reason: EchoError) -> None:
        # No port unreachable for the client: it sees no reply, as it would without the proxy.
        self.proxy.up.outcomes["unreachable"] += 1


@implementer(IDatagramAddressReceiver, IDropReceiver)
class FaultProxy(DatagramProtocol):
    """Passes datagrams between clients and one upstream, with the faults of a plan in each direction.

    Each client has a socket of its own to the upstream, so that the upstream sees different clients. The plans may be changed
    (L{FaultPlan.change}) or replaced at any time, by L{rules <udpecho.faults.rules.Rules>} too.

    As a router does, the proxy sends with one hop less than it received, in both directions (RFC 791 section 3.2): what goes
    round through several proxies and servers ends. The copies of a duplicated datagram share its hops, so that they end, too.

    @ivar upstream: the upstream's addresses, and the lookups of its name.
    @ivar up: the direction from the clients: its C{plan}, and its C{outcomes}, counted. In addition to those of the plan,
        C{own_loss} counts what the proxy could not send, and what the kernel dropped from the receive queues of closed sockets;
        C{held_full} what could not wait because too much waits; C{no_socket} what had no socket because there was no descriptor
        left; C{loop_guard} what had no hop left, or came from the upstream's own address, from the proxy's, or from a port
        where everything is answered, and would go round.
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
        maxHeld: int = MAX_HELD,
    ) -> None:
        """@param reactor: an C{IReactorFDSet} and C{IReactorTime}.
        @param upstream: the host and port that the clients' datagrams go to; a name is looked up again for new clients.
        @param up: the faults of the direction from the clients; by default none.
        @param down: the faults of the direction to the clients; by default none.
        @param idleTimeout: seconds without a datagram after which a client is forgotten.
        @param maxClients: how many clients may be known; for one more, the longest idle one is forgotten, first of those that
            have not sent again after a reply.
        @param watcher: called for each datagram.
        @param maxHeld: how many bytes may wait; one client gets half of them at most.
        @raise ValueError: if C{idleTimeout} is less than 1 us, C{maxClients} less than 1, or C{maxHeld} less than 0.
        """
        for name, value, least in (("idleTimeout", idleTimeout, 1e-6), ("maxClients", maxClients, 1), ("maxHeld", maxHeld, 0)):
            checkLeast(name, value, least)
        self._reactor = reactor
        self._clock = IReactorTime(reactor)
        began = self._clock.seconds()
        self.up = Direction("up", FaultPlan() if up is None else up, began)
        self.down = Direction("down", FaultPlan() if down is None else down, began)
        self.refusals = 0
        self.refusalsPassed = 0
        self.upstream = Upstream(reactor, upstream)
        self._idleTimeout = idleTimeout
        self._maxClients = maxClients
        self._watcher = watcher
        self._line = DelayLine(self._clock)
        self._held = HeldBytes(maxHeld)
        self._clients: dict[DatagramAddress, _Client] = {}
        # Those that may be forged and those that are not, each in the order of their last datagram.
        self._orders: tuple[OrderedDict[_Client, None], OrderedDict[_Client, None]] = OrderedDict(), OrderedDict()
        self._sweep = SingleCall(reactor, self._forgetIdle)
        self._port: DatagramPort | None = None
        self._address = "", 0
        self._warned: dict[str, float] = {}

    @property
    def address(self) -> tuple[str, int]:
        """The address that the clients send to, a C{(host, port)} pair.

        @raise RuntimeError: before the start, and after the stop.
        """
        if self._port is None:
            raise RuntimeError("proxy must be started to have an address")
        return self._address

    @property
    def clients(self) -> int:
        """How many clients are known."""
        return len(self._clients)

    def start(self, port: int = 0, interface: str = "127.0.0.1") -> None:
        """Listen for clients.

        @raise error.CannotListenError: if the system refuses the address.
        @raise ValueError: if the upstream is the proxy itself, which would send each datagram to itself without end.
        @raise RuntimeError: if the proxy is started already.
        """
        if self._port is not None:
            raise RuntimeError("proxy must be stopped before it is started again")
        self._port = listen(self._reactor, port, self, interface, receiveBuffer=_RECEIVE_BUFFER, decrementHopLimit=True)
        host = self._port.getHost()
        self._address = host.host, host.port
        for upstream in self.upstream.addresses[:1]:
            if self.upstream.isProxy(upstream, self._address):
                self.stop()
                raise ValueError(f"upstream must not be the proxy itself, got {formatAddress(upstream)}")

    def stop(self) -> None:
        """Stop at once. Delayed datagrams are lost, and counted as C{own_loss}. May be called at any time: twice, before the
        start, from a callback, or when the reactor has ended.
        """
        port, self._port = self._port, None
        self._sweep.cancel()
        self.upstream.close()
        for client in list(self._clients.values()):
            self._forget(client)
        if port is not None:
            _close(port, self.up)
        for send in self._line.close():
            # Counts, now that there is no socket.
            send()

    # From the clients

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from a client."""
        address = cast(DatagramAddress, addr)
        client = self._clients.get(address)
        if self._wouldReturn(address, client is None):
            self.up.drop("loop_guard")
            return
        if client is None:
            while len(self._clients) >= self._maxClients:
                self._forget(self._oldest())
            client = self._clients[address] = _Client(self, address)
        elif client.answered and not client.known:
            self._orders[client.known].pop(client, None)
            client.known = True
        # Replies leave from the address that the client sent to last.
        client.address = address
        client.lastSize = len(datagram)
        self._touch(client)
        if client.port is None:
            self._open(client)
        elif self._now() - client.lastReceived >= _QUIET and not self.upstream.current:
            client.lastReceived = self._now()
            self.upstream.lookUp().addCallbacks(lambda _: self._leave(client, client.peer in self.upstream.addresses), _ignore)
        self._pass(self.up, client, datagram, address.hopLimit)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """A datagram from a client had no hop left, or the proxy was stopped."""
        self.up.drop(reason)

    def _wouldReturn(self, address: DatagramAddress, isNew: bool) -> bool:
        """Whether a source answers the answer: it is the upstream, of which more addresses may be known now, or this proxy."""
        return self.upstream.isSource(address) or (
            isNew and (address.port in _ANSWERING_PORTS or self.upstream.isProxy(address, self._address))
        )

    def _open(self, client: _Client) -> None:
        """Open a client's socket. If that fails, its datagrams are counted when they are sent, and the next one tries again."""
        if client.waiting is not None:
            return
        if self.upstream.current:
            self._dial(client)
            return
        waiting: list[tuple[bytes, int | None]] = []
        client.waiting = waiting

        def lookedUp(result: Failure | None) -> None:
            client.waiting = None
            if result is not None:
                if not result.check(defer.CancelledError):
                    self._warn("name", str(result.value))
            elif self._clients.get(client.address) is client:
                self._dial(client)
            for datagram, hops in waiting:
                self._send(self.up, client, datagram, hops)

        self.upstream.lookUp().addBoth(lookedUp)

    def _dial(self, client: _Client) -> None:
        peer = self.upstream.address
        client.lost = "own_loss"
        if peer is None:
            return
        if self.upstream.isProxy(peer, self._address):
            # An address may become this machine's own at any time.
            client.lost = "loop_guard"
            self._warn("loop", f"upstream must not be the proxy itself, got {formatAddress(peer)}")
            return
        try:
            try:
                client.port = dial(self._reactor, client, peer, receiveBuffer=_RECEIVE_BUFFER, options=_upward)
            except OSError as e:
                oldest = self._oldest()
                if e.errno not in NO_DESCRIPTOR or oldest.port is None or self._now() - oldest.lastSeen < _DISPENSABLE:
                    raise
                self._forget(oldest)
                client.port = dial(self._reactor, client, peer, receiveBuffer=_RECEIVE_BUFFER, options=_upward)
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
        """A client is active, if it is one still."""
        if self._clients.get(client.address) is client:
            client.lastSeen = self._now()
            order = self._orders[client.known]
            order[client] = None
            order.move_to_end(client)
            self._sweep.schedule(self._idleTimeout)

    def _oldest(self) -> _Client:
        """The client to forget first."""
        return next(iter(self._orders[False] or self._orders[True]))

    def _forgetIdle(self) -> None:
        now, following = self._now(), None
        for order in self._orders:
            while order:
                oldest = next(iter(order))
                left = oldest.lastSeen + self._idleTimeout - now
                if left > 0:
                    following = left if following is None else min(left, following)
                    break
                if oldest.held:
                    # A client with a delayed datagram is not idle.
                    self._touch(oldest)
                else:
                    self._forget(oldest)
        if following is not None:
            self._sweep.cancel()
            self._sweep.schedule(following)

    def _forget(self, client: _Client) -> None:
        del self._clients[client.address]
        self._orders[client.known].pop(client, None)
        self._leave(client, False)

    # From the upstream

    def _refused(self, client: _Client) -> None:
        self.refusals += 1
        host, port = self._address
        local = client.address.localHost or host
        if icmp.refuse(client.address, (local, port), client.lastSize):
            self.refusalsPassed += 1
        if client.peer is not None and self.upstream.refused(client.peer):
            self._leave(client, False)

    # Either way

    def _pass(self, direction: Direction, client: _Client, datagram: bytes, hopLimit: int | None) -> None:
        now = self._now()
        server = client.peer or self.upstream.address or ("", 0)
        ends = (client.address, server) if direction is self.up else (server, client.address)
        decision, arrivals = direction.decide(datagram, now, *ends)
        hops = None if hopLimit is None else decision.hopsOf(hopLimit)
        if direction is self.up:
            client.hops = hops
        if self._watcher is not None:
            try:
                self._watcher(direction.name, client.address, len(datagram), decision)
            except Exception:
                _log.failure("Unhandled error in the watcher of a proxy")
        for delay, arrived in arrivals:
            if hops is not None and hops < 2:
                direction.outcomes["loop_guard"] += 1
            elif not self._held.take(client, len(arrived)):
                direction.outcomes["held_full"] += 1
            elif self._port is not None and (delay or self._line.late):
                self._line.hold(now + delay, partial(self._send, direction, client, arrived, hops))
            else:
                self._send(direction, client, arrived, hops)

    def _send(self, direction: Direction, client: _Client, datagram: bytes, hops: int | None) -> None:
        """Send what is held."""

        def lost(outcome: str) -> None:
            self._held.give(client, len(datagram))
            direction.outcomes[outcome] += 1

        def sent(reason: str | None) -> None:
            if reason is None:
                self._held.give(client, len(datagram))
            else:
                lost("own_loss")

        if direction is self.down and self._port is not None:
            self._port.send(datagram, client.address.withHops(hops), sent)
        elif direction is self.up and client.port is not None and client.peer is not None:
            client.port.send(datagram, client.peer.withHops(hops), sent)
        elif direction is self.up and client.waiting is not None and len(client.waiting) < _MAX_WAITING:
            client.waiting.append((datagram, hops))
        else:
            lost(client.lost if direction is self.up else "own_loss")

    def __str__(self) -> str:
        lines = []
        for direction in (self.up, self.down):
            outcomes = [f"{outcome}={count}" for outcome, count in sorted(direction.outcomes.items()) if count]
            lines.append(" ".join([f"{direction.name}: datagrams={direction.datagrams}", *outcomes]))
        lines.append(f"refusals={self.refusals} passed-back={self.refusalsPassed}")
        return "\n".join(lines)


def _close(port: DatagramPort, direction: Direction) -> None:
    """Close a socket, and count what the kernel dropped from its receive queue."""
    direction.outcomes["own_loss"] += port.getKernelDrops() or 0
    port.abort()


def _ignore(failure: Failure) -> None:
    """A lookup has failed."""
