"""C{connect} and C{echo}."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReactorUDP

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.protocol import TIMEOUT, EchoClient, checkPayload, elapsedSince
from udpecho.errors import EchoError, HostUnreachable, MessageTooLong, unreachable
from udpecho.interfaces import Reactor
from udpecho.net.open import dial
from udpecho.net.resolver import resolve
from udpecho.net.sockets import MAX_DATAGRAM
from udpecho.parsing import checkTimeout

#: What says nothing of the peer: this machine is at its end.
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
    """
    Open a client: resolve the host, open a socket and C{connect(2)} it before anything can be queued on it; if the system
    refuses one address, try the next.

    @param reactor: an C{IReactorUDP} and C{IReactorTime} provider.
    @param host: a name or an IP address.
    @param port: the peer's port, 1 to 65535.
    @param timeout: the seconds that resolving may take, and that each of the client's calls has by default.
    @param verify: whether a reply must be the payload that was sent.
    @param bindAddress: the local C{(host, port)} to send from, port 0 for any; by default the system chooses.

    @return: fires with the client. Fails with the resolver's failure, L{ResponseTimeout}, L{HostUnreachable} if the system
        has no way to any of the addresses, or C{error.CannotListenError} if it refuses C{bindAddress}; with C{TypeError} or
        C{ValueError} at once if an argument is wrong. May be cancelled.
    """
    try:
        checkPeer(host, port)
        checkTimeout(timeout)
        families = None if bindAddress is None else [_checkLocal(bindAddress)]
    except (TypeError, ValueError):
        return defer.fail()

    def open(addresses: list[DatagramAddress]) -> EchoClient:
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

    return resolve(reactor, host, port, timeout, families).addCallback(open)


def _open(
    reactor: IReactorTime, peer: DatagramAddress, timeout: float, verify: bool, bindAddress: tuple[str, int] | None
) -> EchoClient:
    """
    Connect a client to one address.

    @raise OSError: if the system refuses.
    """
    if IReactorFDSet.providedBy(reactor):
        # A reactor's seconds may be those of the wall clock, which can be set.
        client = EchoClient(reactor, timeout, verify, time.monotonic)
        client.connectedTo(peer)
        dial(reactor, client, peer, bindAddress)
        return client
    client = EchoClient(reactor, timeout, verify)
    client.connectedTo(peer)
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
    """
    Send one payload to an echo server and wait for the reply.

    @param reactor: an C{IReactorUDP} and C{IReactorTime} provider; its C{callLater} enforces the deadline.
    @param host: a name or an IP address.
    @param port: the server's port, 1 to 65535.
    @param payload: 0 to 65507 bytes over IPv4, 65527 over IPv6.
    @param timeout: seconds until the deadline; resolving the name is inside it.
    @param verify: whether the reply must be the payload; other datagrams are ignored then, and the timeout's message says how
        many there were. If not, the first datagram from the server is the reply.
    @param bindAddress: the local C{(host, port)} to send from, port 0 for any; by default the system chooses.

    @return: fires, when the socket is closed again, with the byte count of the reply. Fails with L{ResponseTimeout},
        L{PortUnreachable}, L{HostUnreachable}, L{MessageTooLong}, the resolver's failure, or C{error.CannotListenError} if
        the system refuses C{bindAddress}; with C{TypeError} or C{ValueError} at once if an argument is wrong. May be
        cancelled.
    """
    try:
        checkPayload(payload)
    except (TypeError, MessageTooLong):
        return defer.fail()
    started = reactor.seconds()

    def exchange(client: EchoClient) -> defer.Deferred[int]:
        def close(result: Any) -> Any:
            return client.close().addCallback(lambda _: result)

        counted = client.echo(payload, timeout, elapsed=elapsedSince(started, reactor))
        counted.addBoth(close)
        return counted

    return connect(reactor, host, port, timeout, verify=verify, bindAddress=bindAddress).addCallback(exchange)


def checkPeer(host: str, port: int) -> None:
    """
    @raise TypeError: if C{host} is not a string or C{port} not a whole number.
    @raise ValueError: if C{port} is not one that can be sent to.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or an IP address, a string, not {host!r}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is a whole number, not {port!r}")
    if not 1 <= port <= 65535:
        raise ValueError(f"{port!r} is not a port to send to: a number from 1 to 65535 is")


def _checkLocal(address: tuple[str, int]) -> type[IPv4Address | IPv6Address]:
    """
    @return: the type of addresses that can be reached from this one.

    @raise TypeError: if it is not a pair of a string and a whole number.
    @raise ValueError: if they are not an IP address and a port.
    """
    if not isinstance(address, tuple) or len(address) != 2 or [type(item) for item in address] != [str, int]:
        raise TypeError(f"a local address is a pair of an IP address and a port, not {address!r}")
    host, port = address
    if not 0 <= port <= 65535:
        raise ValueError(f"{port!r} is not a port to send from: a number from 0 to 65535 is")
    if isIPv6Address(host):
        return IPv6Address
    if isIPAddress(host):
        return IPv4Address
    raise ValueError(f"{host!r} is not a local address: an IP address of this machine is")
