"""Tests of L{udpecho.guard.guard} against a model of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.guard import PUBLIC, GivenBatch, LimiterModel, number, seeded
from udpecho.guard.guard import Guard
from udpecho.guard.limiter import LONGEST_STEP
from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, parseNetwork
from udpecho.guard.policy import SERVICES, GuardPolicy


class GuardModel:
    """What L{Guard} is meant to do, one datagram at a time, with the networks as they are written."""

    def __init__(self, policy: GuardPolicy, ownPorts: set[int], guard: Guard, entropy: Callable[[int], bytes]) -> None:
        self.policy, self.ownPorts = policy, ownPorts
        self.limiter = None
        if guard._limiter is not None:
            self.limiter = LimiterModel(policy.rate, policy.burst, entropy, guard._limiter)
        self.now = self.last = Fraction(0)
        self.tokens = Fraction(policy.maxRate)

    def tick(self, now: Fraction) -> None:
        """Let time pass."""
        step = min(max(Fraction(0), now - self.last), Fraction(LONGEST_STEP))
        self.last = now
        self.now += step
        self.tokens = min(Fraction(self.policy.maxRate), self.tokens + step * self.policy.maxRate)

    def judge(self, host: Any, port: int) -> str | None:
        """The reason to refuse a source, if there is one in itself."""
        if self.policy.refuseLoops and (port < 1024 or port in SERVICES or port in self.ownPorts or self.isNoHost(host)):
            return "loop_guard"
        return None if any(host in network for network in self.policy.allow) else "not_allowed"

    def isNoHost(self, host: Any) -> bool:
        """Whether no host has an address."""
        if host.version == 4:
            return host.is_multicast or host == IPv4Address("255.255.255.255") or host in IPv4Network("0.0.0.0/8")
        inside = host.sixtofour
        if host in IPv6Network("64:ff9b::/96"):
            inside = IPv4Address(int(host) & 0xFFFFFFFF)
        if inside is not None:
            shared = inside in IPv4Network("100.64.0.0/10")
            own = inside.is_loopback or inside.is_link_local or inside in IPv4Network("0.0.0.0/8")
            rfc1918 = any(inside in IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
            return shared or own or rfc1918 or inside.is_multicast or inside.is_reserved
        compatible = int(host) < 1 << 32 and not host.is_loopback
        return host.is_multicast or host.ipv4_mapped is not None or compatible

    def decide(self, hosts: list[int], ports: list[int], counts: list[int], isIPv6: bool) -> dict[int, str]:
        """The entries to drop, with the reasons."""
        addresses = [ip_address(host.to_bytes(16 if isIPv6 else 4, "big")) for host in hosts]
        reasons = [self.judge(address, port) for address, port in zip(addresses, ports)]
        refused = {entry: reason for entry, reason in enumerate(reasons) if reason is not None}
        if self.limiter is not None:
            trusted = [any(address in network for network in self.policy.trust) for address in addresses]
            limited = [entry for entry in range(len(hosts)) if entry not in refused and not trusted[entry]]
            over = self.limiter.refuse([hosts[each] for each in limited], [counts[each] for each in limited], isIPv6, self.now)
            refused.update({limited[index]: "rate_limited" for index in over})
        for entry, count in enumerate(counts):
            if self.policy.maxRate and entry not in refused:
                if self.tokens >= 1:
                    self.tokens -= count
                else:
                    refused[entry] = "rate_limited"
        return refused


#: Sources on both sides of the edges that matter.
SOURCES = {
    False: [
        *("0.255.255.255", "1.0.0.0", "9.255.255.255", "10.0.0.0", "10.0.0.1", "127.0.0.1", "192.0.2.1", "192.0.2.2"),
        *("192.0.3.1", "192.168.0.1", "223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"),
    ],
    True: [
        *("::", "::1", "::2", "::ffff:192.0.2.1", "::1:0:0", "64:ff9b::9.9.9.9", "64:ff9b::10.0.0.1", "2001:db8::1"),
        *("2001:db8::2", "2001:db8:0:1::1", "2001:db8:1::1", "2002:a00:1::1", "2002:909:909::1", "fd00::1", "fe80::1"),
        *("feff::1", "ff00::1"),
    ],
}

policies = st.builds(
    GuardPolicy,
    allow=st.sampled_from([ANY, PRIVATE, (*PRIVATE, *LOOPBACK), parseNetwork("192.0.2.0/24"), parseNetwork("2001:db8::/47")]),
    trust=st.sampled_from([ANY, PRIVATE, (*PRIVATE, *LOOPBACK), parseNetwork("192.0.2.1"), parseNetwork("2001:db8::/64"), ()]),
    rate=st.integers(0, 10),
    burst=st.integers(1, 10),
    maxRate=st.sampled_from([0, 0, 5, 50]),
    refuseLoops=st.booleans(),
)
entries = st.lists(
    st.tuples(
        st.integers(0, 99),
        st.sampled_from([0, 7, 1023, 1024, 1234, 1900, 11211, 40000, 40000, 40000, 40001, 65535]),
        st.sampled_from([1, 1, 1, 2, 64]),
    ),
    min_size=1,
    max_size=16,
)
times = st.one_of(st.integers(-640, 640), st.sampled_from([-(10**9), 10**9, 10**12]))


class ModelTests:
    """L{Guard} against L{GuardModel}."""

    @settings(max_examples=100, deadline=None)
    @given(policies, st.lists(st.tuples(times, st.booleans(), entries), max_size=8), st.integers(0, 9))
    def test_model(self, policy: GuardPolicy, steps: list[tuple[int, bool, list[tuple[int, int, int]]]], seed: int) -> None:
        """They decide alike, in every order of sources, with segments, in both families, with clocks that go back and leap."""
        now = [Fraction(0)]
        guard = Guard(policy, [1234], seconds=lambda: float(now[0]), entropy=seeded(seed))
        model = GuardModel(policy, {1234}, guard, seeded(seed))
        for step, isIPv6, came in steps:
            now[0] += Fraction(step, 64)
            model.tick(now[0])
            # Time passes with every look at the clock, and a batch that needs none of it does not look.
            guard._now()
            hosts = [number(SOURCES[isIPv6][host % len(SOURCES[isIPv6])]) for host, _, _ in came]
            ports, counts = [port for _, port, _ in came], [count for _, _, count in came]
            batch = GivenBatch(hosts, ports, counts, isIPv6)
            guard.refuseEntries(batch)
            assert batch.dropped == model.decide(hosts, ports, counts, isIPv6)


class SpoofedTests:
    """What an attacker gets."""

    def test_victim(self) -> None:
        """Of a flood in a victim's name the rate and a quarter of the rest is sent to the victim; and the victim itself gets a
        quarter of its own replies.
        """
        now = [0.0]
        guard = Guard(seconds=lambda: now[0], entropy=random.Random(1).randbytes)
        answered = requests = replies = 0
        for turn in range(4000):
            now[0] = turn / 1000
            batch = GivenBatch([number(PUBLIC)] * 64, [40000] * 64)
            guard.refuseEntries(batch)
            answered += 64 - len(batch.dropped)
            requests += 1
            replies += 63 not in batch.dropped
        over = 4000 * 64 - 1000 - 3999
        assert abs(answered - 1000 - 3999 - over / 4) < over / 100
        assert abs(replies / requests - 0.25) < 0.05
