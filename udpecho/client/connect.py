"""C{connect} and C{echo}."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.client.checks import checkLocalAddress, checkPayload, checkPeer
from udpecho.client.protocol import TIMEOUT, EchoClient, elapsedSince
from udpecho.client.route import Route
from udpecho.errors import EchoError, MessageTooLong
from udpecho.interfaces import IDatagramAddressReceiver, INetworkErrorReceiver, Reactor
from udpecho.net.open import dial
from udpecho.net.resolver import resolve
from udpecho.parsing import checkTimeout


def connect(
    reactor: Reactor,
    host: str,
    port: int,
    timeout: float = TIMEOUT,
    *,
    verify: bool = True,
    bindAddress: tuple[str, int] | None = None,
) -> defer.Deferred[EchoClient]:
    """Open a client: resolve the host, open a socket and C{connect(2)} it before a datagram can be queued on it. If the system
    or the peer refuses an address before the first reply, the next one is tried. When calls keep failing, the host is resolved
    again.

    @param reactor: an C{IReactorTime} that is C{IReactorFDSet} or C{IReactorUDP} too.
    @param host: a name or an IP address.
    @param port: the peer's port, 1 to 65535.
    @param timeout: the seconds that resolving may take, and that each call on the client has by default.
    @param verify: whether a reply must be the payload that was sent.
    @param bindAddress: the local C{(host, port)} to send from, port 0 for any; by default the system chooses.
    @return: fires with the client. Fails with the resolver's failure, L{ResponseTimeout}, L{HostUnreachable} if the system
        has no route to any of the addresses, or C{error.CannotListenError} if it refuses C{bindAddress}; with C{TypeError} or
        C{ValueError} at once if an argument is wrong. May be cancelled.
    """
    try:
        checkPeer(host, port)
        checkTimeout(timeout)
        families = None if bindAddress is None else [checkLocalAddress(bindAddress)]
    except (TypeError, ValueError):
        return defer.fail()

    # Seconds since 1970 in a float are exact to 0.2 us only, too coarse for round trips.
    client = EchoClient(reactor, timeout, verify, time.monotonic if IReactorFDSet.providedBy(reactor) else None)
    route = Route(
        reactor,
        lambda: resolve(reactor, host, port, timeout, families),
        lambda address: _open(reactor, client, address, bindAddress),
    )

    def start(addresses: list[DatagramAddress]) -> EchoClient:
        route.start(addresses)
        client.route = route
        return client

    return resolve(reactor, host, port, timeout, families).addCallback(start)


@implementer(IDatagramAddressReceiver, INetworkErrorReceiver)
class _Link(DatagramProtocol):
    """The protocol of one of a client's sockets. A former socket still receives replies. Its errors are ignored, and its
    replies do not show that the present address works.
    """

    noisy = False

    def __init__(self, client: EchoClient) -> None:
        self._client = client

    @property
    def _current(self) -> bool:
        return self._client.transport is self.transport

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if self._current and self._client.route is not None:
            self._client.route.answered()
        self._client.datagramReceived(datagram, addr)

    def connectionRefused(self) -> None:
        if self._current:
            self._client.connectionRefused()

    def networkError(self, reason: EchoError) -> None:
        if self._current:
            self._client.networkError(reason)

    def doStop(self) -> None:
        current = self._current
        super().doStop()
        if current:
            self._client.transport = None
            self._client.stopProtocol()


def _open(reactor: Reactor, client: EchoClient, peer: DatagramAddress, bindAddress: tuple[str, int] | None) -> None:
    """Open a socket for a client, in place of the one that it has."""
    link = _Link(client)
    old: Any = client.transport
    client.transport = dial(reactor, link, peer, bindAddress, replaced=old)
    client.connectedTo(peer)
    if old is not None:
        client.retire(old)


def echo(
    reactor: Reactor,
    host: str,
    port: int,
    payload: bytes,
    timeout: float = TIMEOUT,
    *,
    verify: bool = True,
    bindAddress: tuple[str, int] | None = None,
) -> defer.Deferred[int]:
    """Send one payload to an echo server and wait for the reply.

    @param reactor: as for L{connect}, and so are C{host}, C{port} and C{bindAddress}; its C{callLater} enforces the deadline.
    @param payload: 0 to 65507 bytes over IPv4, 65527 over IPv6.
    @param timeout: seconds until the deadline, with the time for resolving the name.
    @param verify: whether the reply must be the payload: other datagrams are ignored then, and the timeout's message counts
        them. If not, the first datagram from the server is the reply.
    @return: fires with the byte count of the reply, when the socket is closed again. Fails as L{connect} and
        L{EchoClient.echo} do. May be cancelled.
    """
    try:
        checkPayload(payload)
    except (TypeError, MessageTooLong):
        return defer.fail()
    started = reactor.seconds()

    def exchange(client: EchoClient) -> defer.Deferred[int]:
        def close(result: Any) -> Any:
            return client.close().addCallback(lambda _: result)

        return client.echo(payload, timeout, elapsed=elapsedSince(started, reactor)).addBoth(close)

    return connect(reactor, host, port, timeout, verify=verify, bindAddress=bindAddress).addCallback(exchange)
