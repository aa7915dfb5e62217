"""Networks: their names, and a map from addresses to values that does not slow down with many networks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import repeat
from typing import Generic, TypeVar

_T = TypeVar("_T")

Network = IPv4Network | IPv6Network
Networks = tuple[Network, ...]

#: This machine (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
LOOPBACK: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
#: Addresses that the Internet does not route: private use (RFC 1918), shared between a provider and its customers (RFC 6598),
#: link-local (RFC 3927, RFC 4291 section 2.5.6), unique local (RFC 4193). With L{LOOPBACK}, dnsdist answers these by default.
PRIVATE: Networks = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
)
ANY: Networks = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
#: IPv4 addresses as an IPv6 socket that serves both writes them (RFC 4291 section 2.5.5.2).
MAPPED = IPv6Network("::ffff:0:0/96")

_names = {"any": ANY, "loopback": LOOPBACK, "private": PRIVATE}
_network = re.compile(r"([0-9A-Fa-f:.]+)(?:/([0-9]{1,3}))?", re.ASCII)


def parseNetwork(text: str) -> Networks:
    """Read a network: C{192.0.2.0/24}, C{2001:db8::/32}, a single address, or one of the names C{private}, C{loopback} and
    C{any}.

    @return: the networks that the name stands for, or the one network.
    @raise ValueError: if the text is none of these, or has bits set beyond the prefix length.
    """
    if text in _names:
        return _names[text]
    try:
        if not _network.fullmatch(text):
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            "network must be an address with a prefix length, as in 192.0.2.0/24 or 2001:db8::/32, a single address, or"
            f" private, loopback or any, got {text!r}"
        ) from None
    if network.network_address != ip_network(text.partition("/")[0]).network_address:
        raise ValueError(f"network must have no bits set beyond its prefix length, as in {network}, got {text!r}")
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        inside = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise ValueError(f"IPv4 network must be written as IPv4, as in {inside}, got {text!r}")
    return (network,)


class AddressRanges:
    """A set of addresses of one family, made of networks.

    @ivar edges: the sorted addresses at which a range begins, and those just after a range's last.
    """

    def __init__(self, networks: Iterable[Network], version: int) -> None:
        """@param networks: the networks; those of another IP version than C{version} are ignored."""
        spans = [(int(net.network_address), int(net.broadcast_address) + 1) for net in networks if net.version == version]
        self.edges: list[int] = []
        for start, end in sorted(spans):
            if self.edges and start <= self.edges[-1]:
                self.edges[-1] = max(end, self.edges[-1])
            else:
                self.edges += start, end

    def __contains__(self, address: int) -> bool:
        return bisect_right(self.edges, address) % 2 == 1


class AddressMap(Generic[_T]):
    """A value for each address of one family. It keeps only the addresses where the value changes, so that one lookup is one
    binary search, however many networks there are; any number of addresses between two changes cost two searches altogether.
    """

    def __init__(self, edges: Iterable[int], valueOf: Callable[[int], _T]) -> None:
        """@param edges: the addresses at which C{valueOf}, the value of an address, may change."""
        self._edges: list[int] = []
        self._values = [valueOf(0)]
        for edge in sorted(set(edges) - {0}):
            value = valueOf(edge)
            if value != self._values[-1]:
                self._edges.append(edge)
                self._values.append(value)
        self._alone = [frozenset([value]) for value in self._values]

    def __getitem__(self, address: int) -> _T:
        return self._values[bisect_right(self._edges, address)]

    def valuesOf(self, addresses: Collection[int]) -> AbstractSet[_T]:
        """The set of the values of one or more addresses."""
        edges = self._edges
        lowest = bisect_right(edges, min(addresses))
        if bisect_right(edges, max(addresses)) == lowest:
            return self._alone[lowest]
        values = self._values
        return {values[place] for place in set(map(bisect_right, repeat(edges), set(addresses)))}
