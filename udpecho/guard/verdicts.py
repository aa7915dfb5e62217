"""A policy in the form in which a guard looks sources up."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from udpecho.guard.bogons import IPV4_BOGONS, IPV6_BOGONS
from udpecho.guard.networks import ANY, AddressMap, AddressRanges, Network
from udpecho.guard.policy import GuardPolicy

# The verdicts on a source, besides the reasons to refuse it.
UNLIMITED, LIMITED = "unlimited", "limited"


class Verdicts:
    """The verdict on every source address. With many networks it takes long to make, and it can be made in any thread.

    @ivar policy: the operator's decisions.
    @ivar maps: the verdict on each IPv4 address, and on each IPv6 address: L{UNLIMITED}, L{LIMITED} or the reason to refuse it.
    """

    def __init__(self, policy: GuardPolicy, broadcasts: Iterable[IPv4Network] = ()) -> None:
        """@param broadcasts: the broadcast addresses of our own networks."""
        self.policy = policy
        self.maps = (_verdicts(policy, 4, (*IPV4_BOGONS, *broadcasts)), _verdicts(policy, 6, IPV6_BOGONS))


def _verdicts(policy: GuardPolicy, version: int, bogons: Iterable[Network]) -> AddressMap[str]:
    refused = AddressRanges(bogons if policy.refuseLoops else (), version)
    allowed = AddressRanges(policy.allow, version)
    trusted = AddressRanges(policy.trust if policy.rate else ANY, version)

    def verdict(address: int) -> str:
        if address in refused:
            return "loop_guard"
        if address not in allowed:
            return "not_allowed"
        return UNLIMITED if address in trusted else LIMITED

    return AddressMap([*refused.edges, *allowed.edges, *trusted.edges], verdict)
