"""The short way through a proxy, of datagrams that no fault can meet: a batch goes on from the memory in which it came.

All that could be special takes the long way, one datagram after the other: a new client, one that sends from or to another
address than before, a plan with faults, a watcher, what has to wait.
"""

from __future__ import annotations

from typing import Protocol

from udpecho.addresses import DatagramAddress
from udpecho.faults.decision import DELIVERED, Direction
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


def isFaultless(direction: Direction) -> bool:
    """Whether the plan of a direction has no faults."""
    plan = direction.plan
    # A subclass may decide otherwise.
    return type(plan) is FaultPlan and plan.faultless


class Shortcut:
    """The short way of one proxy."""

    def __init__(self, proxy: Shortened) -> None:
        self._proxy = proxy
        self._forwarder = Forwarder()
        self._byOrigin: dict[bytes, ProxyClient] = {}

    def fromClients(self, batch: IDatagramBatch) -> None:
        """A batch came from clients."""
        done = 0
        for run in self._forwarder.runs(batch):
            client = self._byOrigin.get(run.origin) or self._learn(batch, run)
            if client is None or client.port is None or client.peer is None or not self._proxy.shorten(client, self._proxy.up):
                break
            client.hops = run.hopLimit
            client.lastSize = batch.sizes()[run.end - 1]
            way = client.waysUp.get(run.hopLimit)
            if way is None:
                way = client.waysUp[run.hopLimit] = Way(client.port, client.peer.withHops(run.hopLimit))
            sent = self._send(self._proxy.up, batch, run, client.port, way)
            done = run.first + sent
            if done < run.end:
                break
        self._splitRest(batch, done)

    def fromUpstream(self, client: ProxyClient, port: DatagramPort | None, batch: IDatagramBatch) -> None:
        """A batch came for a client from its upstream.

        @param port: sends to the client.
        """
        done = 0
        for run in self._forwarder.runs(batch):
            if port is None or not self._proxy.shorten(client, self._proxy.down):
                break
            # Not more than the client's datagram had left, as on the long way.
            limits = [hops for hops in (run.hopLimit, client.hops) if hops is not None]
            hops = min(limits, default=None)
            if hops is not None and hops < 2:
                break
            way = client.waysDown.get(hops)
            if way is None:
                way = client.waysDown[hops] = Way(port, client.address.withHops(hops))
            sent = self._send(self._proxy.down, batch, run, port, way)
            done = run.first + sent
            if done < run.end:
                break
        self._splitRest(batch, done)

    def _learn(self, batch: IDatagramBatch, run: Run) -> ProxyClient | None:
        address = batch.address(run.first)
        client = self._proxy.knownClient(address)
        if client is None or vars(client.address.withHops(None)) != vars(address.withHops(None)):
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

    def _send(self, direction: Direction, batch: IDatagramBatch, run: Run, port: DatagramPort, way: Way) -> int:
        sent = self._forwarder.send(batch, run, port, way)
        if sent:
            direction.plan.skip(sent)  # type: ignore[attr-defined]
            direction.datagrams += sent
            direction.outcomes[DELIVERED] += sent
        return sent

    def _splitRest(self, batch: IDatagramBatch, done: int) -> None:
        if done < batch.entries:
            for entry in range(done):
                batch.take(entry)
            batch.split()
