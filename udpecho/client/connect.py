"""C{connect} and C{echo}."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from twisted.internet import defer, error
from twisted.internet.interfaces import IReactorFDSet, IReactorUDP

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.checks import checkLocalAddress, checkPayload, checkPeer
from udpecho.client.protocol import TIMEOUT, EchoClient, elapsedSince
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, unreachable
from udpecho.interfaces import Reactor
from udpecho.net.open import dial
from udpecho.net.resolver import resolve
from udpecho.net.sockets import MAX_DATAGRAM
from udpecho.parsing import checkTimeout

#: This machine has no socket left: the peer is not the reason.
_exhausted = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
    refuses an address, the next one is tried.

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

    def openFirst(addresses: list[DatagramAddress]) -> EchoClient:
        for address in addresses:
            try:
                return _open(reactor, address, timeout, verify, bindAddress)
            except error.CannotListenError:
                raise
            except OSError as e:
                if e.errno in _exhausted:
                    raise EchoError(f"cannot open a socket: {os.strerror(e.errno)}", e.errno) from None
                refusal = unreachable(e.errno or 0, formatAddress(address))
                if e.errno == errno.EINVAL and not address.scopeID and address.host.lower().startswith("fe80:"):
                    refusal = HostUnreachable(f"{refusal.args[0]} (name its interface, as in {address.host}%eth0)", e.errno)
        raise refusal

    return resolve(reactor, host, port, timeout, families).addCallback(openFirst)


def _open(
    reactor: Reactor, peer: DatagramAddress, timeout: float, verify: bool, bindAddress: tuple[str, int] | None
) -> EchoClient:
    hasDescriptors = IReactorFDSet.providedBy(reactor)
    # The clock of a reactor with descriptors may be the wall clock, which can be set.
    client = EchoClient(reactor, timeout, verify, time.monotonic if hasDescriptors else None)
    client.connectedTo(peer)
    if hasDescriptors:
        dial(reactor, client, peer, bindAddress)
        return client
    host, port = bindAddress or ("::" if ":" in peer.host else "0.0.0.0", 0)
    transport: Any = IReactorUDP(reactor).listenUDP(port, client, host, MAX_DATAGRAM)
    try:
        transport.connect(*peer)
    except BaseException:
        transport.stopListening()
        raise
    return client


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
