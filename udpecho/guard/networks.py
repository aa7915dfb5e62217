"""Networks: their names, and a map from addresses to values that does not slow down with many networks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from heapq import merge
from ipaddress import IPv4Network, IPv6Network
from itertools import islice, repeat
from socket import AF_INET, AF_INET6, inet_pton
from typing import Generic, TypeVar

from udpecho.pieces import Work

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

#: How many values are a piece of work.
_piece = 50
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
        network, isExact = _read(text)
    except (OSError, ValueError):
        raise ValueError(
            "network must be an address with a prefix length, as in 192.0.2.0/24 or 2001:db8::/32, a single address, or"
            f" private, loopback or any, got {text!r}"
        ) from None
    if not isExact:
        raise ValueError(f"network must have no bits set beyond its prefix length, as in {network}, got {text!r}")
    if network.version == 6 and network.subnet_of(MAPPED):
        inside = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise ValueError(f"IPv4 network must be written as IPv4, as in {inside}, got {text!r}")
    return (network,)


def _read(text: str) -> tuple[Network, bool]:
    """@return: the network, and whether the text has no bits beyond it. A file has thousands of them: C{ip_network} takes some
    five times as long.
    @raise ValueError: if it is none; so does C{OSError}.
    """
    match = _network.fullmatch(text)
    if match is None:
        raise ValueError
    isIPv6 = ":" in text
    bits = 128 if isIPv6 else 32
    address = int.from_bytes(inet_pton(AF_INET6 if isIPv6 else AF_INET, match[1]), "big")
    length = bits if match[2] is None else int(match[2])
    host = (1 << bits - length) - 1
    return (IPv6Network if isIPv6 else IPv4Network)((address & ~host, length)), not address & host


def joinNetworks(networks: Iterable[Network]) -> Work[str]:
    """Write networks as one text, each once."""
    texts: dict[str, None] = {}
    for some in _some(networks):
        texts.update(dict.fromkeys(map(str, some)))
        yield
    return " ".join(texts)


def splitNetworks(text: str) -> Work[Networks]:
    """Read what L{joinNetworks} wrote."""
    networks: list[Network] = []
    for some in _some(match[0] for match in re.finditer("[^ ]+", text)):
        networks += [_read(one)[0] for one in some]
        yield
    return tuple(networks)


def _some(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Divide values into pieces."""
    rest = iter(values)
    return iter(lambda: list(islice(rest, _piece)), [])


class AddressRanges:
    """A set of addresses of one family, made of networks.

    @ivar edges: the sorted addresses at which a range begins, and those just after a range's last.
    """

    def __init__(self, edges: list[int]) -> None:
        self.edges = edges

    @classmethod
    def make(cls, networks: Iterable[Network], version: int) -> Work[AddressRanges]:
        """@param networks: the networks; those of another IP version than C{version} are ignored."""
        spans: list[list[tuple[int, int]]] = []
        for some in _some(networks):
            ours = [(int(net.network_address), net.max_prefixlen - net.prefixlen) for net in some if net.version == version]
            spans.append(sorted(ours))
            yield
        edges: list[int] = []
        for ordered in _some(merge(*spans)):
            for start, bits in ordered:
                end = start + (1 << bits)
                if edges and start <= edges[-1]:
                    edges[-1] = max(end, edges[-1])
                else:
                    edges += start, end
            yield
        return cls(edges)

    def __contains__(self, address: int) -> bool:
        return bisect_right(self.edges, address) % 2 == 1


class AddressMap(Generic[_T]):
    """A value for each address of one family. It keeps only the addresses where the value changes, so that one lookup is one
    binary search, however many networks there are; any number of addresses between two changes cost two searches altogether.
    """

    def __init__(self, value: _T) -> None:
        """@param value: that of all addresses."""
        self._edges: list[int] = []
        self._values = [value]
        self._alone = [frozenset(self._values)]

    @classmethod
    def make(cls, edges: Iterable[int], valueOf: Callable[[int], _T]) -> Work[AddressMap[_T]]:
        """@param edges: the addresses at which C{valueOf}, the value of an address, may change, in their order."""
        made, alone = cls(valueOf(0)), dict[_T, frozenset[_T]]()
        for some in _some(edges):
            for edge in some:
                value = valueOf(edge)
                if value != made._values[-1]:
                    made._edges.append(edge)
                    made._values.append(value)
                    made._alone.append(alone.setdefault(value, frozenset([value])))
            yield
        return made

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
