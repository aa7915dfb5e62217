"""A target of probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime

from udpecho.addresses import DatagramAddress
from udpecho.net.resolver import literal, resolve
from udpecho.parsing import parseAddress


@dataclass(frozen=True)
class Target:
    """
    Whom to probe.

    @ivar name: as the user wrote it.
    @ivar address: the address.
    """

    name: str
    address: DatagramAddress

    @classmethod
    def of(cls, text: str) -> Target:
        """
        Read C{ADDR:PORT} or C{[ADDR]:PORT}, an address and no name.

        @raise ValueError: with a sentence that says what would be right.
        """
        host, port = parseAddress(text)
        address = literal(host, port)
        if address is None:
            raise ValueError(f"{host!r} is not an IP address: look the name up first")
        return cls(text, address)


async def findTarget(reactor: IReactorTime, text: str, timeout: float, family: int | None = None) -> Target:
    """
    Look a target up.

    @param reactor: the reactor to look it up with.
    @param text: C{HOST:PORT}, or C{[ADDR]:PORT}.
    @param timeout: the deadline, in seconds from now.
    @param family: 4 or 6 for addresses of IPv4 or IPv6 only.

    @raise ValueError: if the text is no such address, or one of the other family.
    @raise error.DNSLookupError: if the name has no address.
    @raise ResponseTimeout: at the deadline.
    """
    host, port = parseAddress(text)
    kinds: dict[int, type[IAddress]] = {4: IPv4Address, 6: IPv6Address}
    found = literal(host, port)
    if found is not None and family is not None and (6 if ":" in found.host else 4) != family:
        raise ValueError(f"{host} is not an address of IPv{family}")
    types: Any = None if family is None else [kinds[family]]
    addresses = await resolve(reactor, host, port, timeout, types)
    return Target(text, addresses[0])
