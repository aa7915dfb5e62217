"""What tests of TCP in memory share: protocols that record, and a connection between two hosts."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol
from zope.interface import implementer

from tests.support.memory import pair
from udpecho.testing.memory_network import MemoryNetwork


class Talker(Protocol):
    """Records what happens to it."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.made = False
        self.lost: list[type[BaseException]] = []
        self.times: list[float] = []

    def connectionMade(self) -> None:
        self.made = True

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.times.append(self.transport.reactor.seconds())

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Talker):
    """Notices each direction that ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


class Connecting(ClientFactory[Any]):
    """Makes one protocol, and records how it failed."""

    noisy = False

    def __init__(self, made: Protocol) -> None:
        self.made = made
        self.failures: list[type[BaseException]] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        self.made.factory = self
        return self.made

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failures.append(reason.type)


def connected(network: MemoryNetwork, kind: type[Talker] = Talker) -> tuple[Talker, Talker]:
    """A connection between two hosts: the protocols of the client and of the server."""
    one, two = pair(network)
    here, there = kind(), kind()
    two.listenTCP(80, Connecting(there))
    one.connectTCP("two", 80, Connecting(here))
    network.advance(10)
    assert here.made
    assert there.made
    return here, there
