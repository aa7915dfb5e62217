"""The short way through a proxy: datagrams that no fault meets go on from the memory in which they came, many at once.

What could be special takes the long way, one datagram after the other: a new client, one that sends from or to another address
than before, a plan that is not plain, a watcher, what has to wait.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from udpecho.addresses import DatagramAddress
from udpecho.faults.carrier import Carrier
from udpecho.faults.decision import AT_ONCE, DELIVERED, Direction
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy_client import ProxyClient
from udpecho.interfaces import IDatagramBatch
from udpecho.net.forward import Forwarder, Run, Way
from udpecho.net.port import DatagramPort


class Shortened(Protocol):
    """A proxy that has a short way."""

    up: Direction
    down: Direction

    def knownClient(self, address: DatagramAddress) -> ProxyClient | None:
        """The client with an address, unless what comes from there is dropped."""

    def shorten(self, client: ProxyClient, direction: Direction) -> bool:
        """Datagrams of a client came, and are about to go on.

        @return: whether nothing has to be done about them but what the short way does.
        """


def hasPlan(direction: Direction) -> bool:
    """Whether a L{FaultPlan} decides in a direction, as it is."""
    return type(direction.plan) is FaultPlan


class Shortcut:
    """The short way of one proxy."""

    def __init__(self, proxy: Shortened, carrier: Carrier) -> None:
        """@param carrier: carries datagrams with faults, and what the system does not take at once."""
        self._proxy = proxy
        self._carrier = carrier
        self._forwarder = Forwarder()
        self._byOrigin: dict[bytes, ProxyClient] = {}

    def fromClients(self, batch: IDatagramBatch) -> None:
        """A batch came from clients."""
        done = 0
        for run in self._forwarder.runs(batch):
            client = self._byOrigin.get(run.origin) or self._learn(batch, run)
            if client is None or client.port is None or client.peer is None:
                break
            if not self._proxy.shorten(client, self._proxy.up):
                break
            client.hops = hops = run.hopLimit
            client.lastSize = batch.sizes()[run.end - 1]
            way = client.waysUp.get(hops)
            if way is None:
                way = client.waysUp[hops] = Way(client.port, client.peer.withHops(hops))
            self._pass(_Passage(self._proxy.up, client, client.port, way, hops), batch, run)
            done = run.end
        _splitRest(batch, done)

    def fromUpstream(self, client: ProxyClient, port: DatagramPort | None, batch: IDatagramBatch) -> None:
        """A batch came for a client from its upstream.

        @param port: sends to the client.
        """
        done = 0
        for run in self._forwarder.runs(batch):
            # Not more than the client's datagram had left, as on the long way.
            limits = [hops for hops in (run.hopLimit, client.hops) if hops is not None]
            hops = min(limits, default=None)
            if port is None or (hops is not None and hops < 2) or not self._proxy.shorten(client, self._proxy.down):
                break
            way = client.waysDown.get(hops)
            if way is None:
                way = client.waysDown[hops] = Way(port, client.address.withHops(hops))
            self._pass(_Passage(self._proxy.down, client, port, way, hops), batch, run)
            done = run.end
        _splitRest(batch, done)

    def _learn(self, batch: IDatagramBatch, run: Run) -> ProxyClient | None:
        address = batch.address(run.first)
        client = self._proxy.knownClient(address)
        if client is None or not address.answerable or vars(client.address.withHops(None)) != vars(address.withHops(None)):
            return None
        client.origin = run.origin
        self._byOrigin[run.origin] = client
        return client

    def forget(self, client: ProxyClient) -> None:
        """A client is forgotten, or may have another address or socket now."""
        if client.origin is not None:
            self._byOrigin.pop(client.origin, None)
            client.origin = None
        client.waysUp.clear()
        client.waysDown.clear()

    def forgetAll(self) -> None:
        """Other sources may be dropped now."""
        self._byOrigin.clear()

    def _pass(self, passage: _Passage, batch: IDatagramBatch, run: Run) -> None:
        direction = passage.direction
        plan = cast(FaultPlan, direction.plan)
        if plan.faultless:
            plan.skip(run.end - run.first)
            self._send(passage, batch, run)
            return
        sizes, now, first = batch.sizes(), self._carrier.now() - direction.began, run.first
        for entry in range(run.first, run.end):
            decision = plan.decide(sizes[entry], now)
            if decision is not AT_ONCE:
                self._send(passage, batch, run.part(first, entry))
                self._carrier.follow(direction, passage.client, batch.payloads(entry)[0], passage.hops, decision)
                first = entry + 1
        self._send(passage, batch, run.part(first, run.end))

    def _send(self, passage: _Passage, batch: IDatagramBatch, run: Run) -> None:
        if run.first == run.end:
            return
        direction = passage.direction
        sent = self._forwarder.send(batch, run, passage.port, passage.way)
        if sent:
            direction.datagrams += sent
            direction.outcomes[DELIVERED] += sent
        for entry in range(run.first + sent, run.end):
            self._carrier.follow(direction, passage.client, batch.payloads(entry)[0], passage.hops, AT_ONCE)


class _Passage(NamedTuple):
    direction: Direction
    client: ProxyClient
    port: DatagramPort
    way: Way
    hops: int | None


def _splitRest(batch: IDatagramBatch, done: int) -> None:
    if done < batch.entries:
        for entry in range(done):
            batch.take(entry)
        batch.split()
