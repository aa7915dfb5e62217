"""IP addresses as text, as the hosts of a network in memory compare them."""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

WILDCARDS = ("0.0.0.0", "::")
#: The range that Linux takes ephemeral ports from (C{ip_local_port_range} in C{ip(7)}).
EPHEMERAL = range(32768, 61000)


@lru_cache(4096)
def canonical(address: str) -> str:
    """An IP address in the system's spelling, which is one for all its spellings.

    @raise ValueError: if it is not an IP address.
    """
    host, percent, scope = address.partition("%")
    # Not ipaddress: how it writes IPv4-mapped addresses depends on Python's version.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, host)) + percent + scope
    except OSError:
        raise ValueError(f"address must be an IP address, got {address!r}") from None


@lru_cache(4096)
def unmapped(address: str) -> str:
    """The IPv4 address in an IPv4-mapped IPv6 one; others as they are."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if address.startswith("::ffff:") else None
    return address if mapped is None else str(mapped)


@lru_cache(4096)
def isLoopback(host: str) -> bool:
    """Whether an address is a loopback address."""
    return ipaddress.ip_address(host).is_loopback


def overlap(one: str, other: str, bothFamilies: bool = True) -> bool:
    """Whether sockets on two addresses cannot have the same port number.

    @param bothFamilies: whether the IPv6 wildcard includes all of IPv4.
    """
    if (":" in one) != (":" in other):
        return bothFamilies and "::" in (one, other)
    return one == other or one in WILDCARDS or other in WILDCARDS
