"""Source addresses that no host has."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from udpecho.guard.networks import MAPPED, PRIVATE

#: IPv4 sources that no host has: "this network" and broadcast (RFC 1122 section 3.2.1.3), and multicast (RFC 1112 section 7.2).
_noHostsIPv4 = (IPv4Network("0.0.0.0/8"), IPv4Network("224.0.0.0/4"), IPv4Network("255.255.255.255/32"))
#: IPv4 addresses that mean nothing outside of one network, so that an IPv6 address made from one is forged or misconfigured.
_localIPv4 = (
    *_noHostsIPv4,
    IPv4Network("127.0.0.0/8"),
    *(network for network in PRIVATE if isinstance(network, IPv4Network)),
    IPv4Network("240.0.0.0/4"),
)


def _embedded(prefix: str, network: IPv4Network) -> IPv6Network:
    """An IPv4 network as it is written behind an IPv6 prefix."""
    outer = IPv6Network(prefix)
    length = outer.prefixlen + network.prefixlen
    shift = 128 - outer.prefixlen - 32
    return IPv6Network((int(outer.network_address) | int(network.network_address) << shift, length))


#: IPv6 sources that no host has. Unspecified and IPv4-compatible, which is obsolete (RFC 4291 sections 2.5.2 and 2.5.5.1), are
#: all of ::/96 but loopback. IPv4-mapped must not be on the wire (RFC 4942 section 2.2), and a socket for IPv6 alone has no
#: other. Then multicast (RFC 4291 section 2.7), and 6to4 (RFC 3964 section 5.3) and NAT64 (RFC 6052 section 3.1) with an IPv4
#: address in them that no host has, or only one of some private network.
_noHostsIPv6 = (
    *IPv6Network("::/96").address_exclude(IPv6Network("::1/128")),
    MAPPED,
    IPv6Network("ff00::/8"),
    *(_embedded("2002::/16", network) for network in _localIPv4),
    *(_embedded("64:ff9b::/96", network) for network in _localIPv4),
)
