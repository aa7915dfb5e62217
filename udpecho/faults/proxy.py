"""A real UDP proxy, on real sockets, that injects faults between any two programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import NO_DESCRIPTOR
from udpecho.faults.carrier import Carrier
from udpecho.faults.decision import Decider, Direction, checkDecider
from udpecho.faults.idle_order import IdleOrder
from udpecho.faults.models import checkLeast
from udpecho.faults.other_ports import OtherPorts
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy_client import OtherPort, ProxyClient, closePort
from udpecho.faults.proxy_options import IDLE_TIMEOUT, MAX_CLIENTS, MAX_HELD, ProxyOptions, Watcher
from udpecho.faults.shortcut import Shortcut, hasPlan
from udpecho.faults.upstream import Upstream
from udpecho.interfaces import IBatchReceiver, IDatagramBatch, IDropReceiver, Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.linux import icmp
from udpecho.net.open import dial, listen
from udpecho.net.options import PortOptions
from udpecho.net.peer_memory import PeerMemory

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Bytes of receive buffer to request, so that many datagrams at once are not the proxy's own loss.
_RECEIVE_BUFFER = 2**22
#: Seconds with datagrams up and none down after which the name of the upstream is looked up again for a client.
_QUIET = 2.0
#: A client that has been idle for so many seconds may be forgotten when descriptors are needed.
_DISPENSABLE = 1.0
#: Seconds between two warnings of a kind.
_WARN_INTERVAL = 10.0
#: Echo, daytime, QOTD, chargen and time answer whatever comes (RFC 862, 867, 865, 864, 868), and send nothing by themselves.
_ANSWERING_PORTS = frozenset({7, 13, 17, 19, 37})

_log = Logger()


@implementer(IBatchReceiver, IDropReceiver)
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
    @ivar down: the direction to the clients. C{other_port} counts what came from another port of the upstream, without
        C{anyPort}; C{not_allowed} what came from another host.
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
        **options: Unpack[ProxyOptions],
    ) -> None:
        """@param reactor: an C{IReactorFDSet} and C{IReactorTime}.
        @param upstream: the host and port that the clients' datagrams go to; a name is looked up again for new clients.
        @param up: the faults of the direction from the clients; by default none.
        @param down: the faults of the direction to the clients; by default none.
        @param idleTimeout: seconds without a datagram after which a client is forgotten.
        @param maxClients: how many clients may be known; for one more, the longest idle one is forgotten, first of those that
            have not sent again after a reply.
        @param watcher: called for each datagram.
        @param options: see L{ProxyOptions}.
        @raise ValueError: if C{idleTimeout} is less than 1 us, C{maxClients} less than 1, or C{maxHeld} less than 0.
        @raise TypeError: if there is no such option, or no such plan.
        """
        for name in options.keys() - ProxyOptions.__annotations__:
            raise TypeError(f"option must be {' or '.join(ProxyOptions.__annotations__)}, got {name!r}")
        maxHeld = options.get("maxHeld", MAX_HELD)
        for name, value, least in (("idleTimeout", idleTimeout, 1e-6), ("maxClients", maxClients, 1), ("maxHeld", maxHeld, 0)):
            checkLeast(name, value, least)
        for name, plan in (("up", up), ("down", down)):
            checkDecider(name, plan)
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
        self._others = OtherPorts(reactor, self.down, options.get("anyPort", False), self._warn)
        self._carrier = Carrier(self._clock, self.up, self.upstream, maxHeld, watcher)
        self._clients: dict[DatagramAddress, ProxyClient] = {}
        self._order = IdleOrder()
        self._sweep = SingleCall(reactor, self._forgetIdle)
        self._shortcut = Shortcut(self, self._carrier)
        # Of the clients' sockets. What waits for them is in L{HeldBytes}, too.
        self._upward = PortOptions(decrementHopLimit=True, memory=PeerMemory())
        self._sources = self.upstream.addresses
        self._address = "", 0
        self._warned: dict[str, float] = {}

    @property
    def address(self) -> tuple[str, int]:
        """The address that the clients send to, a C{(host, port)} pair.

        @raise RuntimeError: before the start, and after the stop.
        """
        if self._carrier.port is None:
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
        if self._carrier.port is not None:
            raise RuntimeError("proxy must be stopped before it is started again")
        listening = self._carrier.port = listen(
            self._reactor, port, self, interface, receiveBuffer=_RECEIVE_BUFFER, offload=False, decrementHopLimit=True
        )
        host = listening.getHost()
        self._address = host.host, host.port
        for upstream in self.upstream.addresses[:1]:
            if self.upstream.isProxy(upstream, self._address):
                self.stop()
                raise ValueError(f"upstream must not be the proxy itself, got {formatAddress(upstream)}")

    def stop(self) -> None:
        """Stop at once, at any time. Delayed datagrams are lost, and counted as C{own_loss}."""
        port, self._carrier.port = self._carrier.port, None
        self._sweep.cancel()
        self.upstream.close()
        for client in list(self._clients.values()):
            self._forget(client)
        if port is not None:
            closePort(port, self.up)
        for send in self._carrier.line.close():
            # Counts, now that there is no socket.
            send()

    # From the clients

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        """A batch came from clients."""
        if self._sources is not self.upstream.addresses:
            self._sources = self.upstream.addresses
            self._shortcut.forgetAll()
        self._shortcut.fromClients(batch)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from a client."""
        address = cast(DatagramAddress, addr)
        client = self._clients.get(address)
        if self._wouldReturn(address, client is None):
            self.up.drop("loop_guard")
            return
        if client is None:
            while len(self._clients) >= self._maxClients:
                self._forget(self._order.first())
            client = self._clients[address] = ProxyClient(self, address)
        else:
            self._order.know(client)
        self._shortcut.forget(client)
        # Replies leave from the address that the client sent to last.
        client.address = address
        client.lastSize = len(datagram)
        self._touch(client, self._now())
        if client.port is None:
            self._open(client)
        elif client.attended is not client.port.socket:
            # It was opened again, with another address.
            self._others.attend(client, self.clients)
        elif self._now() - client.lastReceived >= _QUIET and not self.upstream.current:
            client.lastReceived = self._now()
            self.upstream.lookUp().addCallbacks(lambda _: self._leave(client, client.peer in self.upstream.addresses), _ignore)
        self._carrier.carry(self.up, client, datagram, address.hopLimit, None)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """A datagram from a client had no hop left, or the proxy was stopped."""
        self.up.drop(reason)

    def _wouldReturn(self, address: DatagramAddress, isNew: bool) -> bool:
        """Whether a source answers the answer: it is the upstream, of which more addresses may be known now, or this proxy."""
        return self.upstream.isSource(address) or (
            isNew and (address.port in _ANSWERING_PORTS or self.upstream.isProxy(address, self._address))
        )

    def _open(self, client: ProxyClient) -> None:
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
                self._carrier.send(self.up, client, datagram, hops)

        self.upstream.lookUp().addBoth(lookedUp)

    def _dial(self, client: ProxyClient) -> None:
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
                client.port = dial(self._reactor, client, peer, receiveBuffer=_RECEIVE_BUFFER, options=self._upward)
            except OSError as e:
                if e.errno not in NO_DESCRIPTOR or not self._spare():
                    raise
                client.port = dial(self._reactor, client, peer, receiveBuffer=_RECEIVE_BUFFER, options=self._upward)
        except OSError as e:
            if e.errno in NO_DESCRIPTOR:
                client.lost = "no_socket"
            self._warn("socket", f"cannot open a socket for {client.address}: {os.strerror(e.errno or 0)}")
            return
        client.peer = peer
        client.lastReceived = self._now()
        self._others.attend(client, self.clients)

    def _spare(self) -> bool:
        """Forget a client that has been idle, for its descriptor.

        @return: whether there was one.
        """
        oldest = self._order.first()
        if oldest.port is None or self._now() - oldest.lastSeen < _DISPENSABLE:
            return False
        self._forget(oldest)
        return True

    def _now(self) -> float:
        return self._clock.seconds()

    def _warn(self, kind: str, sentence: str) -> None:
        """Log a warning, each kind at most so often."""
        now = self._now()
        if now - self._warned.get(kind, -_WARN_INTERVAL) >= _WARN_INTERVAL:
            self._warned[kind] = now
            _log.warn("{sentence}", sentence=sentence)

    def _leave(self, client: ProxyClient, stays: bool) -> None:
        """Close a client's socket, so that its next datagram opens one to the upstream's present address."""
        if not stays:
            client.close(self.down)

    def _touch(self, client: ProxyClient, now: float) -> None:
        """A client is active, if it is one still."""
        if self._clients.get(client.address) is client:
            client.lastSeen = now
            self._order.touch(client)
            self._sweep.schedule(self._idleTimeout)

    def _forgetIdle(self) -> None:
        now = self._now()
        while idle := [client for client in self._order.longestIdle() if client.lastSeen + self._idleTimeout <= now]:
            for client in idle:
                if client.held:
                    # A client with a delayed datagram is not idle.
                    self._touch(client, now)
                else:
                    self._forget(client)
        if self._clients:
            self._sweep.cancel()
            self._sweep.schedule(min(client.lastSeen for client in self._order.longestIdle()) + self._idleTimeout - now)

    def _forget(self, client: ProxyClient) -> None:
        del self._clients[client.address]
        self._shortcut.forget(client)
        self._order.remove(client)
        self._leave(client, False)

    # From the upstream

    def fromUpstream(self, client: ProxyClient, datagram: bytes, address: DatagramAddress) -> None:
        """@see: L{Passing.fromUpstream}"""
        isOwn = client.isFromPeer(address)
        other = None if isOwn else self._others.find(client, address, self._address[0])
        if not isOwn and other is None:
            return
        self._noteActivity(client, True, self._now())
        # Not more than the client's datagram had left: the upstream begins anew, and the client may be another proxy.
        hops = [hops for hops in (address.hopLimit, client.hops) if hops is not None]
        self._carrier.carry(self.down, client, datagram, min(hops, default=None), other)

    def batchFromUpstream(self, client: ProxyClient, batch: IDatagramBatch) -> None:
        """@see: L{Passing.batchFromUpstream}"""
        self._shortcut.fromUpstream(client, self._carrier.port, batch)

    def fromClient(self, client: ProxyClient, datagram: bytes, hopLimit: int | None, other: OtherPort) -> None:
        """@see: L{Passing.fromClient}"""
        self._noteActivity(client, False, self._now())
        self._carrier.carry(self.up, client, datagram, hopLimit, other)

    def refused(self, client: ProxyClient) -> None:
        """@see: L{Passing.refused}"""
        self.refusals += 1
        host, port = self._address
        local = client.address.localHost or host
        if icmp.refuse(client.address, (local, port), client.lastSize):
            self.refusalsPassed += 1
        if client.peer is not None and self.upstream.refused(client.peer):
            self._leave(client, False)

    # Either way

    def knownClient(self, address: DatagramAddress) -> ProxyClient | None:
        """@see: L{Shortened.knownClient}"""
        client = self._clients.get(address)
        return None if client is None or self._wouldReturn(address, False) else client

    def shorten(self, client: ProxyClient, direction: Direction) -> bool:
        """@see: L{Shortened.shorten}"""
        now, isUp, port = self._now(), direction is self.up, client.port
        if port is None or client.attended is not port.socket:
            return False
        if not (hasPlan(direction) and self._carrier.isFree(client)):
            return False
        if isUp and now - client.lastReceived >= _QUIET and not self.upstream.current:
            return False
        self._noteActivity(client, not isUp, now)
        return True

    def _noteActivity(self, client: ProxyClient, fromUpstream: bool, now: float) -> None:
        """A datagram came from a client, or for it from the upstream."""
        if fromUpstream:
            client.lastReceived = now
            client.answered = True
        else:
            self._order.know(client)
        self._touch(client, now)

    def __str__(self) -> str:
        return f"{self.up}\n{self.down}\nrefusals={self.refusals} passed-back={self.refusalsPassed}"


def _ignore(failure: Failure) -> None:
    """A lookup has failed."""
