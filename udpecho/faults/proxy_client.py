"""The clients of a proxy, and the ports of the upstream that they talk to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, cast

from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError
from udpecho.faults.decision import Direction
from udpecho.faults.upstream import sameHost
from udpecho.interfaces import (
    IBatchReceiver,
    IDatagramAddressReceiver,
    IDatagramBatch,
    IDropReceiver,
    INetworkErrorReceiver,
)
from udpecho.net.forward import Way
from udpecho.net.port import DatagramPort


class Passing(Protocol):
    """What a proxy does with the datagrams that its clients' sockets receive."""

    up: Direction
    down: Direction

    def fromUpstream(self, client: ProxyClient, datagram: bytes, address: DatagramAddress) -> None:
        """A datagram came from the upstream, of its own port or of another one."""

    def fromClient(self, client: ProxyClient, datagram: bytes, hopLimit: int | None, other: OtherPort) -> None:
        """A datagram came from a client for another port of the upstream."""

    def batchFromUpstream(self, client: ProxyClient, batch: IDatagramBatch) -> None:
        """A batch came from the upstream's own port."""

    def refused(self, client: ProxyClient) -> None:
        """The upstream has refused a client's datagram."""


@implementer(INetworkErrorReceiver, IDropReceiver, IBatchReceiver)
@dataclass(eq=False, repr=False)
class ProxyClient(DatagramProtocol):
    """One client of a proxy: the protocol of its own sockets to the upstream.

    @ivar lastReceived: when a datagram last came from the upstream, or the client opened its socket.
    @ivar known: whether it has sent again after it got a reply, which a forged source does not.
    @ivar held: the bytes of its datagrams that wait.
    @ivar port: its socket to the upstream's own port.
    @ivar companion: the socket for what comes from the upstream's other ports, on the same local address; or C{port} itself.
    @ivar attended: the socket that C{companion} was opened for.
    @ivar others: the other ports of the upstream that it talks to, by their addresses; the longest idle one first.
    @ivar hops: what its last datagram had left of its hop limit.
    @ivar waiting: what waits for a lookup, C{None} if there is none.
    @ivar lost: what its datagrams count as while there is no socket.
    @ivar origin: what its datagrams are known by on the short way.
    @ivar waysUp: how they go on to the upstream's own port, by the hop limit that is left; C{waysDown} to the client.
    """

    noisy = False

    proxy: Passing
    address: DatagramAddress
    lastSize: int = 0
    lastSeen: float = 0.0
    lastReceived: float = 0.0
    answered: bool = False
    known: bool = False
    held: int = 0
    port: DatagramPort | None = None
    peer: DatagramAddress | None = None
    companion: DatagramPort | None = None
    attended: object = None
    others: dict[DatagramAddress, OtherPort] = field(default_factory=dict)
    hops: int | None = None
    waiting: list[tuple[bytes, int | None]] | None = None
    lost: str = "own_loss"
    origin: bytes | None = None
    waysUp: dict[int | None, Way] = field(default_factory=dict)
    waysDown: dict[int | None, Way] = field(default_factory=dict)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from the upstream."""
        self.proxy.fromUpstream(self, datagram, cast(DatagramAddress, addr))

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        """A batch came from the upstream."""
        self.proxy.batchFromUpstream(self, batch)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """One from the upstream was not handed over."""
        self.proxy.down.drop(reason)

    def connectionRefused(self) -> None:
        """The upstream has refused a datagram."""
        self.proxy.refused(self)

    def networkError(self, reason: EchoError) -> None:
        """The upstream cannot be reached."""
        # No port unreachable for the client: it sees no reply, as it would without the proxy.
        self.proxy.up.outcomes["unreachable"] += 1

    def isFromPeer(self, address: DatagramAddress) -> bool:
        """Whether a datagram comes from the upstream's own port."""
        peer = self.peer
        return peer is not None and (address == peer or (address.port == peer.port and sameHost(address, peer)))

    def close(self, down: Direction) -> None:
        """Close all its sockets."""
        for other in list(self.others.values()):
            other.close(down)
        if self.companion is not None and self.companion is not self.port:
            closePort(self.companion, down)
        if self.port is not None:
            closePort(self.port, down)
        self.port = self.companion = None


@implementer(IDatagramAddressReceiver, IDropReceiver)
@dataclass(eq=False, repr=False)
class Companion(DatagramProtocol):
    """The protocol of a client's second socket: it has one transport, as the client itself has."""

    noisy = False

    client: ProxyClient

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from elsewhere than the upstream's own port."""
        self.client.datagramReceived(datagram, addr)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """One was not handed over."""
        self.client.datagramDropped(reason, size, address)


@implementer(IDatagramAddressReceiver, INetworkErrorReceiver, IDropReceiver)
@dataclass(eq=False, repr=False)
class OtherPort(DatagramProtocol):
    """Another port of the upstream, as one client sees it: the protocol of a socket of the proxy that has this client as its
    peer, so that no one else can send to it.

    @ivar address: the upstream's.
    @ivar peer: the client's.
    """

    noisy = False

    client: ProxyClient
    address: DatagramAddress
    peer: DatagramAddress
    port: DatagramPort | None = None

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram came from the client."""
        self.client.proxy.fromClient(self.client, datagram, cast(DatagramAddress, addr).hopLimit, self)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """One from the client was not handed over."""
        self.client.proxy.up.drop(reason)

    def connectionRefused(self) -> None:
        """The client has closed its socket, as after the last datagram of a file."""
        self.client.proxy.down.outcomes["unreachable"] += 1

    def networkError(self, reason: EchoError) -> None:
        """The client cannot be reached."""
        self.client.proxy.down.outcomes["unreachable"] += 1

    def close(self, down: Direction) -> None:
        """Close its socket, and forget it."""
        self.client.others.pop(self.address, None)
        port, self.port = self.port, None
        if port is not None:
            closePort(port, down)


def closePort(port: DatagramPort, direction: Direction) -> None:
    """Close a socket, and count what the kernel dropped from its receive queue."""
    direction.outcomes["own_loss"] += port.getKernelDrops() or 0
    port.abort()
