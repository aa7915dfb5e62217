"""From a host's name to the addresses of a peer, within a deadline."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, ResponseTimeout
from udpecho.net.call_queue import cancelled
from udpecho.net.monotonic import useMonotonicTime


def literal(host: str, port: int) -> DatagramAddress | None:
    """Read an IP address, a link-local IPv6 one with its scope (C{fe80::1%eth0} or C{fe80::1%2}).

    @return: C{None} if C{host} is not an address.
    @raise error.DNSLookupError: if the scope is not an interface of this machine.
    """
    if isIPAddress(host):
        return DatagramAddress((host, port))
    if not isIPv6Address(host):
        return None
    host, _, scope = host.partition("%")
    address = DatagramAddress((host, port))
    if scope:
        try:
            address.scopeID = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
            if address.scopeID >= 2**32:
                raise ValueError("the index of an interface has 32 bits")
        except (OSError, ValueError):
            raise error.DNSLookupError(f"this machine has no interface {scope!r} to reach {host} by") from None
    return address


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self, port: int, done: defer.Deferred[list[DatagramAddress]]) -> None:
        self._port = port
        self._done = done
        self._found: dict[tuple[str, int], DatagramAddress] = {}

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, (IPv4Address, IPv6Address)):
            found = DatagramAddress((address.host.partition("%")[0], self._port))
            if isinstance(address, IPv6Address):
                # Twisted allows an interface's name here, getaddrinfo gives its index.
                scope = address.scopeID
                found.scopeID = scope if isinstance(scope, int) else socket.if_nametoindex(scope)
            self._found.setdefault((found.host, found.scopeID), found)

    def resolutionComplete(self) -> None:
        if not self._done.called:
            self._done.callback(list(self._found.values()))


def resolve(
    reactor: IReactorTime, host: str, port: int, timeout: float, addressTypes: Sequence[type[IAddress]] | None = None
) -> defer.Deferred[list[DatagramAddress]]:
    """Find the addresses of a host, through the reactor's resolver.

    @param reactor: an C{IReactorTime} and, for names, C{IReactorPluggableNameResolver} provider.
    @param timeout: the deadline, in seconds from now.
    @param addressTypes: C{IPv4Address}, C{IPv6Address} or both, the default.
    @return: fires with the addresses, in the resolver's order, each once. Fails with C{error.DNSLookupError}, with
        C{ValueError} for an IP address of another type, with L{EchoError} if no descriptor is left for the lookup, or with
        L{ResponseTimeout} at the deadline. May be cancelled.
    """
    useMonotonicTime(reactor)
    try:
        address = literal(host, port)
        if address is not None:
            if addressTypes is not None and (IPv6Address if ":" in host else IPv4Address) not in addressTypes:
                raise ValueError(f"{host} cannot be reached from the local address: it is not of the same family")
            return defer.succeed([address])
        # First: what comes next may import a codec.
        _checkDescriptors(host)
        _checkName(host)
    except (error.DNSLookupError, EchoError, ValueError):
        return defer.fail()

    resolver = IReactorPluggableNameResolver(reactor).nameResolver
    done: defer.Deferred[list[DatagramAddress]] = defer.Deferred(cancelled)

    def expired(_: object, seconds: float) -> None:
        raise ResponseTimeout(f"no address for {host} within {seconds:g} s")

    def check(addresses: list[DatagramAddress]) -> list[DatagramAddress]:
        if not addresses:
            family = "" if addressTypes is None or len(addressTypes) != 1 else f"{addressTypes[0].__name__[:4]} "
            raise error.DNSLookupError(
                f"no {family}address for {host!r}: is the name right, and can it be looked up from here?"
            )
        return addresses

    done.addTimeout(timeout, reactor, expired)
    done.addCallback(check)
    try:
        resolver.resolveHostName(_Receiver(port, done), host, port, addressTypes, "UDP")
    except Exception:
        if not done.called:
            done.errback()
    return done


def _checkName(host: str) -> None:
    """Refuse a name that C{getaddrinfo} fails for: Twisted's resolver reports nothing then.

    @raise error.DNSLookupError: if C{host} cannot be a name.
    """
    try:
        if not host or "\0" in host or not host.encode("idna"):
            raise UnicodeError("empty, or with a NUL in it")
    except UnicodeError as e:
        raise error.DNSLookupError(f"{host!r} cannot be the name of a host: {e}") from None


def _checkDescriptors(host: str) -> None:
    """Refuse a lookup for which no descriptor is left: for C{getaddrinfo} the name does not exist then, or it fails in a way
    that Twisted's resolver does not report.

    @raise EchoError: with the reason.
    """
    try:
        for descriptor in os.pipe():
            os.close(descriptor)
    except OSError as e:
        raise EchoError(f"cannot look up {host}: {os.strerror(e.errno or 0)}", e.errno) from None
