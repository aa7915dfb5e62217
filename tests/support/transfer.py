"""A protocol with a bug for tests of what finds it: a transfer that waits for the acknowledgement of each block."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from udpecho.faults.plan import FaultPlan
from udpecho.testing.memory_network import MemoryNetwork


class Receiver(DatagramProtocol):
    """Acknowledges each block. The bug: a block that comes again is not acknowledged again if it is the third."""

    def __init__(self) -> None:
        self.blocks: dict[int, bytes] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        number = datagram[1]
        if number == 3 and number in self.blocks:
            return
        self.blocks[number] = datagram[2:]
        assert self.transport is not None
        self.transport.write(bytes([4, number]), addr)


class Sender(DatagramProtocol):
    """Sends blocks, each until it is acknowledged, five times at most."""

    def __init__(self, reactor: Any, server: tuple[str, int], blocks: int) -> None:
        self.reactor = reactor
        self.server = server
        self.number, self.last = 1, blocks
        self.done = False
        self.call: IDelayedCall | None = None

    def startProtocol(self) -> None:
        self.send()

    def send(self, tries: int = 5) -> None:
        if tries:
            assert self.transport is not None
            self.transport.write(bytes([3, self.number]) + b"block", self.server)
            self.call = self.reactor.callLater(0.5, self.send, tries - 1)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if datagram[1:2] == bytes([self.number]) and not self.done:
            if self.call is not None and self.call.active():
                self.call.cancel()
            self.number += 1
            self.done = self.number > self.last
            if not self.done:
                self.send()


def transfer(network: MemoryNetwork, blocks: int = 40) -> None:
    """Bring blocks from a client to a server, and check that all have come."""
    if not network.hosts:
        network.host("client", "192.0.2.1")
        network.host("server", "192.0.2.2")
    receiver = Receiver()
    network.hosts["server"].listenUDP(69, receiver)
    client = network.hosts["client"]
    sender = Sender(client, ("192.0.2.2", 69), blocks)
    client.listenUDP(5000, sender)
    network.advance(200)
    assert sender.done, f"stopped at block {sender.number}"


def failingSeed(**faults: Any) -> int:
    """A seed of a plan for all links with which the transfer stops at the third block, among ten datagrams or more."""
    for seed in range(1000):
        network = MemoryNetwork(FaultPlan(seed, **faults))
        try:
            transfer(network)
        except AssertionError as e:
            if "block 3" in str(e) and len(network.trace) >= 10:
                return seed
    raise AssertionError("no seed fails")
