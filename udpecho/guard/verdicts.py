"""A policy in the form in which a guard looks sources up."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from ipaddress import IPv4Network
from typing import NamedTuple

from udpecho.guard.bogons import IPV4_BOGONS, IPV6_BOGONS
from udpecho.guard.networks import ANY, AddressMap, AddressRanges, Network
from udpecho.guard.policy import GuardPolicy
from udpecho.pieces import Work

# The verdicts on a source, in addition to the reasons to refuse it.
UNLIMITED, LIMITED = "unlimited", "limited"


class Verdicts(NamedTuple):
    """The verdict on every source address.

    @ivar policy: the operator's decisions.
    @ivar maps: the verdict on each IPv4 address, and on each IPv6 address: L{UNLIMITED}, L{LIMITED} or the reason to refuse it.
    """

    policy: GuardPolicy
    maps: tuple[AddressMap[str], AddressMap[str]]

    @classmethod
    def make(cls, policy: GuardPolicy, broadcasts: Iterable[IPv4Network] = ()) -> Work[Verdicts]:
        """Make them, which takes long with many networks.

        @param broadcasts: the broadcast addresses of our own networks.
        """
        ipv4 = yield from _verdicts(policy, 4, (*IPV4_BOGONS, *broadcasts))
        ipv6 = yield from _verdicts(policy, 6, IPV6_BOGONS)
        return cls(policy, (ipv4, ipv6))


def _verdicts(policy: GuardPolicy, version: int, bogons: Iterable[Network]) -> Work[AddressMap[str]]:
    refused = yield from AddressRanges.make(bogons if policy.refuseLoops else (), version)
    allowed = yield from AddressRanges.make(policy.allow, version)
    trusted = yield from AddressRanges.make(policy.trust if policy.rate else ANY, version)

    def verdict(address: int) -> str:
        if address in refused:
            return "loop_guard"
        if address not in allowed:
            return "not_allowed"
        return UNLIMITED if address in trusted else LIMITED

    return (yield from AddressMap.make(merge(refused.edges, allowed.edges, trusted.edges), verdict))
