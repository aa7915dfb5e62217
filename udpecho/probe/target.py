"""Targets of probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import Reactor
from udpecho.net.resolver import literal, resolve
from udpecho.parsing import parseAddress

#: How long looking up a target may take, in seconds.
LOOKUP_TIMEOUT = 5.0


@dataclass(frozen=True)
class Target:
    """A peer to probe. The name is the address as the user wrote it."""

    name: str
    address: DatagramAddress

    def __post_init__(self) -> None:
        """@raise ValueError: if the address is not an IP address and a port to send to."""
        address = self.address
        if not isinstance(address, DatagramAddress) or literal(*address) is None:
            raise ValueError(f"address of a target must be a DatagramAddress with an IP address, got {address!r}")
        if not 1 <= address.port <= 65535:
            raise ValueError(f"port must be 1 to 65535, got {address.port!r}")

    @classmethod
    def of(cls, text: str) -> Target:
        """Read C{ADDR:PORT} or C{[ADDR]:PORT}; a name needs L{findTarget}.

        @raise ValueError: with the form that is expected.
        """
        host, port = parseAddress(text)
        address = literal(host, port)
        if address is None:
            raise ValueError(f"host must be an IP address, got {host!r}: look the name up first")
        return cls(text, address)


async def findTarget(reactor: Reactor, text: str, family: int | None = None) -> Target:
    """Look up a target.

    @param reactor: an C{IReactorTime} and C{IReactorPluggableNameResolver} provider.
    @param text: C{HOST:PORT}, or C{[ADDR]:PORT}.
    @param family: 4 or 6 for IPv4 or IPv6 addresses only.
    @raise ValueError: if the text is not an address, or one of the other family.
    @raise error.DNSLookupError: if the name has no address.
    @raise ResponseTimeout: after L{LOOKUP_TIMEOUT}.
    """
    host, port = parseAddress(text)
    found = literal(host, port)
    if found is not None and family is not None and (6 if ":" in found.host else 4) != family:
        raise ValueError(f"{text} must be an IPv{family} address, got {host}")
    types: Sequence[type[IAddress]] | None = None if family is None else [IPv6Address if family == 6 else IPv4Address]
    addresses = await resolve(reactor, host, port, LOOKUP_TIMEOUT, types)
    return Target(text, addresses[0])
