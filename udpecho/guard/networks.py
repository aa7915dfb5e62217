"""Networks: how people name them, and a map that says for any address at once which rule it falls under."""

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
#: link-local (RFC 3927, RFC 4291 section 2.5.6), unique local (RFC 4193). With L{LOOPBACK} it is the list of whom dnsdist
#: answers by default.
PRIVATE: Networks = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
)
#: Every address.
ANY: Networks = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
#: IPv4 addresses as an IPv6 socket that serves both writes them (RFC 4291 section 2.5.5.2).
MAPPED = IPv6Network("::ffff:0:0/96")

_names = {"any": ANY, "loopback": LOOPBACK, "private": PRIVATE}
_network = re.compile(r"([0-9A-Fa-f:.]+)(?:/([0-9]{1,3}))?", re.ASCII)


def parseNetwork(text: str) -> Networks:
    """
    Read a network: C{192.0.2.0/24}, C{2001:db8::/32}, a single address, or one of the names C{private}, C{loopback} and
    C{any}.

    @return: what the name stands for, or the one network.

    @raise ValueError: with a sentence that says what would be right.
    """
    if text in _names:
        return _names[text]
    try:
        if not _network.fullmatch(text):
            raise ValueError
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a network: an address with a prefix length is, as in 192.0.2.0/24 or 2001:db8::/32, a single "
            "address, or private, loopback or any"
        ) from None
    if network.network_address != ip_network(text.partition("/")[0]).network_address:
        raise ValueError(f"{text!r} has bits set beyond its prefix length: {network} is that network")
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        inside = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise ValueError(f"{text!r} is an IPv4 network in IPv6 clothes: write {inside}")
    return (network,)


class AddressRanges:
    """
    A set of addresses of one family, made of networks.

    @ivar edges: every address at which it begins or ends, sorted; it ends just before one.
    """

    def __init__(self, networks: Iterable[Network], version: int) -> None:
        """
        @param networks: those of the other family are left out.
        @param version: 4 or 6.
        """
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
    """
    What is true of each address of one family. It holds only where that changes, so that an address costs one binary search,
    whatever the number of networks it is made from; and addresses between the same two changes cost two searches altogether.
    """

    def __init__(self, edges: Iterable[int], valueOf: Callable[[int], _T]) -> None:
        """
        @param edges: addresses at which C{valueOf} may change.
        @param valueOf: what is true of an address.
        """
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
        """
        All that is true of some addresses.

        @param addresses: one or more.
        """
        edges = self._edges
        lowest = bisect_right(edges, min(addresses))
        if bisect_right(edges, max(addresses)) == lowest:
            return self._alone[lowest]
        values = self._values
        return {values[place] for place in set(map(bisect_right, repeat(edges), set(addresses)))}
