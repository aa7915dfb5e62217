"""Source addresses that no host has."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from udpecho.guard.networks import LOOPBACK, MAPPED, PRIVATE

#: IPv4: "this network" and broadcast (RFC 1122 section 3.2.1.3), and multicast (RFC 1112 section 7.2).
IPV4_BOGONS = (IPv4Network("0.0.0.0/8"), IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"))
#: IPv4 addresses that mean nothing outside one network, so that an IPv6 address made from one is forged or misconfigured.
_notGlobal = (
    *IPV4_BOGONS,
    *(network for network in (*LOOPBACK, *PRIVATE) if isinstance(network, IPv4Network)),
    IPv4Network("240.0.0.0/4"),
)


def _embedded(prefix: str, network: IPv4Network) -> IPv6Network:
    """An IPv4 network as it is written behind an IPv6 prefix."""
    outer = IPv6Network(prefix)
    shift = 128 - outer.prefixlen - 32
    address = int(outer.network_address) | int(network.network_address) << shift
    return IPv6Network((address, outer.prefixlen + network.prefixlen))


#: IPv6: ::/96 without loopback is the unspecified address and the obsolete IPv4-compatible ones (RFC 4291 sections 2.5.2 and
#: 2.5.5.1). IPv4-mapped addresses must not be on the wire (RFC 4942 section 2.2), and a socket for IPv6 alone has no other.
#: Then multicast (RFC 4291 section 2.7), and 6to4 (RFC 3964 section 5.3) and NAT64 (RFC 6052 section 3.1) with an IPv4 address
#: that no host has, or that is not global.
IPV6_BOGONS = (
    *IPv6Network("::/96").address_exclude(IPv6Network("::1/128")),
    MAPPED,
    IPv6Network("ff00::/8"),
    *(_embedded(prefix, network) for prefix in ("2002::/16", "64:ff9b::/96") for network in _notGlobal),
)
