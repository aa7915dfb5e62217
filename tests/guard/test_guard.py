"""Tests of L{udpecho.guard.guard}."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.guard.test_limiter import Model, never, seeded
from tests.support.source import ROOT
from udpecho.addresses import DatagramAddress
from udpecho.guard.guard import Guard
from udpecho.guard.limiter import LONGEST_STEP
from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, parseNetwork
from udpecho.guard.policy import SERVICES, GuardPolicy
from udpecho.interfaces import DROP_REASONS, BatchSendCallback, IBatchGuard, IDatagramBatch

#: A source that nothing is wrong with, and that is not trusted.
STRANGER = "192.0.2.1"


def number(host: str) -> int:
    """An address as a number."""
    return int(ip_address(host))


@implementer(IDatagramBatch)
class GivenBatch:
    """
    A batch of given sources.

    @ivar dropped: the entries that were dropped, with their reasons.
    """

    def __init__(self, hosts: list[int], ports: list[int], counts: list[int] | None = None, isIPv6: bool = False) -> None:
        self._hosts, self._ports = hosts, ports
        self._counts = [1] * len(hosts) if counts is None else counts
        self.entries, self.datagrams, self.size = len(hosts), sum(self._counts), 5 * sum(self._counts)
        self.isIPv6 = isIPv6
        self.dropped: dict[int, str] = {}

    def sizes(self) -> list[int]:
        return [5 * count for count in self._counts]

    def counts(self) -> list[int]:
        return list(self._counts)

    def hosts(self) -> list[int]:
        return list(self._hosts)

    def ports(self) -> list[int]:
        return list(self._ports)

    def longest(self) -> list[int]:
        return self.sizes()

    def nonUnicast(self) -> Sequence[int]:
        return ()

    def scopes(self) -> list[int]:
        return [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        return DatagramAddress((str(ip_address(self._hosts[entry])), self._ports[entry]))

    def payloads(self, entry: int) -> list[bytes]:
        return [b"hello"] * self._counts[entry]

    def drop(self, entry: int, reason: str) -> None:
        assert reason in DROP_REASONS
        self.dropped.setdefault(entry, reason)

    def send(self, callback: BatchSendCallback) -> None:
        raise NotImplementedError


def batchOf(*sources: tuple[str, int]) -> GivenBatch:
    """A batch with one datagram from each source."""
    hosts = [ip_address(host) for host, _ in sources]
    return GivenBatch([int(host) for host in hosts], [port for _, port in sources], isIPv6=hosts[0].version == 6)


def verdict(guard: Guard, host: str, port: int = 40000) -> str | None:
    """What a guard says of a datagram, as one and as a batch, which must be the same; there must be no limit."""
    batch = batchOf((host, port))
    guard.refuseEntries(batch)
    assert batch.dropped.get(0) == guard.refuse(5, (host, port))
    return batch.dropped.get(0)


unlimited = GuardPolicy(rate=0)


class LoopTests:
    """Sources that might answer."""

    @pytest.mark.parametrize("port", [0, 1, 7, 13, 17, 19, 37, 53, 69, 123, 1023, *SERVICES])
    @pytest.mark.parametrize("host", [STRANGER, "127.0.0.1", "2001:db8::1"])
    def test_services(self, host: str, port: int) -> None:
        """Nothing is sent to port 0, to a port of the system's services, and to services that answer anything."""
        assert verdict(Guard(unlimited), host, port) == "loop_guard"

    @pytest.mark.parametrize("port", [1024, 1025, 2048, 32768, 65535])
    def test_clients(self, port: int) -> None:
        """Other ports are clients' ports."""
        assert verdict(Guard(unlimited, ownPorts=[1234]), STRANGER, port) is None

    @pytest.mark.parametrize("host", [STRANGER, "127.0.0.1", "::1", "2001:db8::1"])
    def test_ownPorts(self, host: str) -> None:
        """Nothing is sent to one of our own ports, on whatever host; so not to ourselves either."""
        guard = Guard(unlimited, ownPorts=[1234, 4321])
        assert verdict(guard, host, 1234) == verdict(guard, host, 4321) == "loop_guard"
        assert verdict(guard, host, 1235) is None

    def test_ownPortsLater(self) -> None:
        """The own ports may be told once they are known, and a new policy does not make them forgotten."""
        guard = Guard(unlimited, ownPorts=[1234])
        guard.setOwnPorts([5678])
        assert verdict(guard, STRANGER, 1234) is None
        guard.configure(replace(unlimited, maxRate=1000))
        assert verdict(guard, STRANGER, 5678) == "loop_guard"

    def test_clientOnThisHost(self) -> None:
        """A client on our own host, which has our own address, is answered."""
        assert verdict(Guard(unlimited, ownPorts=[1234]), "127.0.0.1", 40000) is None

    @pytest.mark.parametrize(
        "host",
        [
            *("0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
            *("::", "::2", "::192.0.2.1", "::ffff:192.0.2.1", "ff02::1", "ff0e::1"),
            *("2002:0a00:0001::1", "2002:7f00:1::1", "2002:e000:1::", "2002:ffff:ffff::1", "2002:c0a8:101::1"),
            *("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::224.0.0.1", "64:ff9b::255.255.255.255"),
        ],
    )
    def test_noHosts(self, host: str) -> None:
        """
        Nothing is sent to what is not the address of a host: this network, multicast, broadcast, unspecified, IPv4-mapped,
        IPv4-compatible, and transition addresses with an IPv4 address in them that is not global.
        """
        assert verdict(Guard(unlimited), host) == "loop_guard"

    @pytest.mark.parametrize(
        "host", ["1.0.0.0", "223.255.255.255", "255.255.255.254", "::1", "2002:c000:0201::1", "64:ff9b::192.0.2.1", "fe80::1"]
    )
    def test_hosts(self, host: str) -> None:
        """The addresses next to these are hosts' addresses, and so are transition addresses with a global IPv4 address."""
        assert verdict(Guard(unlimited), host) is None

    def test_broadcasts(self) -> None:
        """The broadcast addresses of our own networks are refused too, once they are told."""
        guard = Guard(unlimited, broadcasts=[IPv4Address("192.0.2.255")])
        assert verdict(guard, "192.0.2.255") == "loop_guard"
        assert verdict(guard, "192.0.2.254") is None
        assert verdict(Guard(unlimited), "192.0.2.255") is None

    @pytest.mark.parametrize("source", [(STRANGER, 0), (STRANGER, 1234), (STRANGER, 7), ("224.0.0.1", 9999), ("ff02::1", 9999)])
    def test_off(self, source: tuple[str, int]) -> None:
        """One switch turns all of this off."""
        assert verdict(Guard(replace(unlimited, loops=False), ownPorts=[1234]), *source) is None

    def test_entries(self) -> None:
        """In a batch, only the entries that are refused are dropped."""
        batch = batchOf((STRANGER, 40000), (STRANGER, 7), ("224.0.0.1", 40000), ("127.0.0.1", 40000), ("0.0.0.0", 0))
        Guard(ownPorts=[1234]).refuseEntries(batch)
        assert batch.dropped == {1: "loop_guard", 2: "loop_guard", 4: "loop_guard"}


class DualStackTests:
    """Batches of a socket that serves IPv4 and IPv6."""

    def test_mapped(self) -> None:
        """IPv4-mapped sources are judged as the IPv4 addresses that they are."""
        policy = GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("2001:db8::/32")), rate=0)
        guard = Guard(policy, dualStack=True)
        hosts = ["::ffff:192.0.2.1", "::ffff:10.0.0.1", "2001:db8::1", "2001:db9::1", "::ffff:224.0.0.1", "::192.0.2.1"]
        batch = batchOf(*((host, 40000) for host in hosts))
        guard.refuseEntries(batch)
        assert batch.dropped == {1: "not_allowed", 3: "not_allowed", 4: "loop_guard", 5: "loop_guard"}

    def test_noLoopGuard(self) -> None:
        """Without the loop guard too."""
        policy = GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("::/0")), rate=0, loops=False)
        guard = Guard(policy, dualStack=True)
        assert verdict(guard, "::ffff:10.0.0.1") == "not_allowed"
        assert verdict(guard, "::ffff:192.0.2.1") is None

    def test_limited(self) -> None:
        """They are limited as such: each IPv4 address has its own rate, the same in both forms."""
        guard = Guard(GuardPolicy(rate=1, burst=1), dualStack=True, seconds=lambda: 0.0, entropy=never)
        batch = batchOf(("::ffff:192.0.2.1", 40000), ("::ffff:192.0.2.1", 40001))
        guard.refuseEntries(batch)
        assert batch.dropped == {1: "rate_limited"}
        assert guard.refuse(5, (STRANGER, 40000)) == "rate_limited"
        assert guard.busiest(9) == {"rate_limited": [("192.0.2.1/32", 2)]}


class AllowTests:
    """Who is answered."""

    def test_anybody(self) -> None:
        """By default everybody is."""
        for host in (STRANGER, "10.0.0.1", "127.0.0.1", "2001:db8::1", "fe80::1"):
            assert verdict(Guard(), host) is None

    def test_networks(self) -> None:
        """Those who are not in an allowed network are not."""
        guard = Guard(GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *PRIVATE)))
        for host in (STRANGER, "10.0.0.1", "fe80::1", "fd00::1"):
            assert verdict(guard, host) is None
        for host in ("192.0.3.0", "127.0.0.1", "2001:db8::1", "::1"):
            assert verdict(guard, host) == "not_allowed"

    def test_trustDoesNotAllow(self) -> None:
        """To be trusted is not to be allowed."""
        guard = Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24"), trust=ANY))
        assert verdict(guard, "10.0.0.1") == "not_allowed"

    def test_loopsFirst(self) -> None:
        """What is refused for both reasons is counted as a loop."""
        assert verdict(Guard(GuardPolicy(allow=PRIVATE)), STRANGER, 7) == "loop_guard"

    @pytest.mark.parametrize("host", ["", "localhost", "1.2.3", "somewhere"])
    def test_noAddress(self, host: str) -> None:
        """What has no IP address for a source, as a transport in a test may, is not answered."""
        assert Guard().refuse(5, (host, 40000)) == "not_allowed"

    def test_scope(self) -> None:
        """A scope does not matter."""
        assert Guard(GuardPolicy(allow=PRIVATE)).refuse(5, ("fe80::1%eth0", 40000)) is None


class LimitTests:
    """How much is answered."""

    def test_trusted(self) -> None:
        """This machine and private networks have no limit by default; others have."""
        guard = Guard(GuardPolicy(rate=1, burst=1), seconds=lambda: 0.0, entropy=never)
        for host in ("127.0.0.1", "::1", "10.0.0.1", "192.168.0.1", "100.64.0.1", "169.254.0.1", "fd00::1", "fe80::1"):
            assert {guard.refuse(5, (host, 40000)) for _ in range(9)} == {None}
        for host in (STRANGER, "2001:db8::1"):
            assert [guard.refuse(5, (host, 40000)) for _ in range(3)] == [None, "rate_limited", "rate_limited"]

    def test_portsDoNotMatter(self) -> None:
        """A source that changes its port has no more."""
        guard = Guard(GuardPolicy(rate=8, burst=8), seconds=lambda: 0.0, entropy=never)
        batch = batchOf(*((STRANGER, 40000 + turn) for turn in range(16)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(8, 16), "rate_limited")

    def test_refusedAreNotCharged(self) -> None:
        """What is refused for another reason takes nothing of the rate."""
        guard = Guard(GuardPolicy(rate=8, burst=8), seconds=lambda: 0.0, entropy=never)
        batch = batchOf(*((STRANGER, 7) for turn in range(16)), *((STRANGER, 40000) for turn in range(8)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(16), "loop_guard")

    def test_default(self) -> None:
        """By default a probe each millisecond is within the limit, for ever."""
        clock = iter(turn / 1000 for turn in range(10_001))
        guard = Guard(seconds=clock.__next__, entropy=never)
        assert {guard.refuse(5, (STRANGER, 40000)) for _ in range(10_000)} == {None}

    def test_ceiling(self) -> None:
        """All together have a ceiling, the trusted too, and there is no leak."""
        now = [0.0]
        guard = Guard(GuardPolicy(maxRate=10), seconds=lambda: now[0], entropy=bytes)
        batch = batchOf(*(("10.0.0.1", 40000) for _ in range(8)), *((STRANGER, 40000) for _ in range(8)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(10, 16), "rate_limited")
        now[0] += 0.5
        assert [verdictOf for verdictOf in (guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(9)) if verdictOf is None] == [
            None
        ] * 5

    def test_setBack(self) -> None:
        """A clock that is set back costs nobody anything."""
        now = [1e9]
        guard = Guard(GuardPolicy(rate=1, burst=1), seconds=lambda: now[0], entropy=never)
        assert guard.refuse(5, (STRANGER, 40000)) is None
        now[0] = 0.0
        assert guard.refuse(5, (STRANGER, 40000)) == "rate_limited"
        now[0] = 1.0
        assert guard.refuse(5, (STRANGER, 40000)) is None

    def test_fill(self) -> None:
        """The fill is that of the limiter's table, and nothing without a limiter."""
        guard = Guard(seconds=lambda: 0.0)
        guard.refuse(5, (STRANGER, 40000))
        assert guard.fill == 2 / (2 << 14)
        assert Guard(unlimited).fill == 0.0

    @pytest.mark.parametrize("wrong", [{"rate": -1}, {"burst": 0}, {"maxRate": -1}])
    def test_wrong(self, wrong: dict[str, Any]) -> None:
        """A policy that makes no sense says what would."""
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is .*: [01] or more is right"):
            GuardPolicy(**wrong)


class DryRunTests:
    """A dry run."""

    def test_counts(self) -> None:
        """It counts what would be dropped, datagrams and not bursts, and drops nothing."""
        policy = GuardPolicy(allow=parseNetwork("192.0.2.0/24"), rate=8, burst=8, dryRun=True)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        hosts = [number(STRANGER), number(STRANGER), number("10.0.0.1"), number(STRANGER)]
        batch = GivenBatch(hosts, [40000, 40000, 40000, 7], [8, 3, 4, 5])
        guard.refuseEntries(batch)
        assert guard.refuse(5, (STRANGER, 0)) is None
        assert batch.dropped == {}
        assert guard.wouldDrop == {"rate_limited": 3, "not_allowed": 4, "loop_guard": 6}

    def test_sameAsReal(self) -> None:
        """It decides as in earnest, and in earnest nothing is counted as if it were not."""
        guards = [Guard(GuardPolicy(rate=4, burst=4, dryRun=dry), seconds=lambda: 0.0, entropy=never) for dry in (True, False)]
        batches = [batchOf(*((STRANGER, 40000) for _ in range(9))) for _ in guards]
        for guard, batch in zip(guards, batches):
            guard.refuseEntries(batch)
        assert guards[0].wouldDrop == Counter(batches[1].dropped.values()) == {"rate_limited": 5}
        assert guards[1].wouldDrop == {}


class BusiestTests:
    """From where most of what is dropped comes."""

    def test_prefixes(self) -> None:
        """They are named by reason, the busiest first, and forgotten when they were told."""
        guard = Guard(GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("2001:db8::/32"))), seconds=lambda: 0.0)
        hosts = [number("10.0.0.1"), number("10.0.0.2"), number(STRANGER)]
        guard.refuseEntries(GivenBatch(hosts, [40000, 40000, 7], [1, 5, 2]))
        guard.refuseEntries(batchOf(("fd00::1", 40000), ("fd00::2", 40000)))
        assert guard.busiest(2) == {
            "loop_guard": [("192.0.2.1/32", 2)],
            "not_allowed": [("10.0.0.2/32", 5), ("fd00::/64", 2)],
        }
        assert guard.busiest(2) == {}

    def test_wide(self) -> None:
        """If it was the wide prefix that was over its limit, it is the one that is named."""
        guard = Guard(GuardPolicy(rate=1, burst=1), seconds=lambda: 0.0, entropy=never)
        batch = batchOf(*((f"192.0.2.{host}", 40000) for host in range(256)))
        guard.refuseEntries(batch)
        assert len(batch.dropped) == 256 - 32
        ((prefix, count), *_) = guard.busiest(1)["rate_limited"]
        assert prefix == "192.0.2.0/24"
        assert count > 150


class ConfigureTests:
    """Another policy while running."""

    def test_policy(self) -> None:
        """It counts from the next datagram on."""
        guard = Guard()
        assert verdict(guard, STRANGER) is None
        policy = GuardPolicy(allow=PRIVATE)
        guard.configure(policy)
        assert guard.policy is policy
        assert verdict(guard, STRANGER) == "not_allowed"

    def test_keepsState(self) -> None:
        """Who was over the limit still is, and the ceiling is as near as it was, if their rates are the same."""
        policy = GuardPolicy(rate=1, burst=1, maxRate=3)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        assert guard.refuse(5, (STRANGER, 40000)) is None
        guard.configure(replace(policy, trust=LOOPBACK, allow=PRIVATE, loops=False))
        guard.configure(policy)
        assert guard.refuse(5, (STRANGER, 40000)) == "rate_limited"
        assert [guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(3)] == [None, None, "rate_limited"]

    @pytest.mark.parametrize("other", [{"rate": 2}, {"burst": 2}, {"rate": 0}])
    def test_newRate(self, other: dict[str, int]) -> None:
        """With another rate the limiter begins anew."""
        policy = GuardPolicy(rate=1, burst=1)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        assert [guard.refuse(5, (STRANGER, 40000)) for _ in range(2)] == [None, "rate_limited"]
        guard.configure(replace(policy, **other))  # type: ignore[arg-type]
        assert guard.refuse(5, (STRANGER, 40000)) is None

    def test_newCeiling(self) -> None:
        """So does the ceiling; without one there is none."""
        guard = Guard(GuardPolicy(maxRate=1), seconds=lambda: 0.0)
        assert [guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(2)] == [None, "rate_limited"]
        guard.configure(GuardPolicy(maxRate=2))
        assert [guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(3)] == [None, None, "rate_limited"]
        guard.configure(GuardPolicy())
        assert {guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(9)} == {None}


class InterfaceTests:
    """What the guard provides, and what it is tried with."""

    def test_guard(self) -> None:
        """It is an L{IBatchGuard}."""
        assert verifyObject(IBatchGuard, Guard())

    def test_batch(self) -> None:
        """The batch of these tests is an L{IDatagramBatch}."""
        assert verifyObject(IDatagramBatch, batchOf((STRANGER, 40000)))

    def test_harmless(self) -> None:
        """A batch from trusted networks is not even asked for its counts, whatever networks they are."""

        class Uncounted(GivenBatch):
            def counts(self) -> list[int]:
                raise AssertionError("not needed")

        hosts = [number("10.0.0.1"), number("127.0.0.1"), number("192.168.1.1")]
        Guard().refuseEntries(Uncounted(hosts, [40000] * 3))

    def test_memory(self) -> None:
        """However many sources are limited, refused or trusted, memory does not grow."""
        guard = Guard(GuardPolicy(allow=parseNetwork("0.0.0.0/1"), rate=1, burst=1))
        batches = [GivenBatch(list(range(turn << 22, (turn << 22) + 64)), [40000] * 64) for turn in range(1024)]
        guard.refuseEntries(batches[0])
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for batch in batches:
                for entry, reason in guard.decide(batch.hosts(), batch.ports(), batch.counts(), False):
                    assert reason in DROP_REASONS, entry
            assert tracemalloc.get_traced_memory()[0] - before < 50_000
        finally:
            tracemalloc.stop()

    def test_documented(self) -> None:
        """The operators' page has every port that is refused."""
        page = (ROOT / "docs" / "guard.rst").read_text()
        assert {int(port) for port in re.findall(r"^   \* - (\d+)$", page, re.MULTILINE)} == set(SERVICES)


class GuardModel:
    """What L{Guard} is meant to do, one datagram at a time, with the networks as they are written."""

    def __init__(self, policy: GuardPolicy, ownPorts: set[int], guard: Guard, entropy: Callable[[int], bytes]) -> None:
        self.policy, self.ownPorts = policy, ownPorts
        self.limiter = None
        if guard._limiter is not None:
            self.limiter = Model(policy.rate, policy.burst, entropy, guard._limiter)
        self.now = self.last = Fraction(0)
        self.room = Fraction(policy.maxRate)

    def tick(self, now: Fraction) -> None:
        """Let time pass."""
        step = min(max(Fraction(0), now - self.last), Fraction(LONGEST_STEP))
        self.last = now
        self.now += step
        self.room = min(Fraction(self.policy.maxRate), self.room + step * self.policy.maxRate)

    def judge(self, host: Any, port: int) -> str | None:
        """The reason to refuse a source, if there is one in itself."""
        if self.policy.loops and (port < 1024 or port in SERVICES or port in self.ownPorts or self.isNoHost(host)):
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
                if self.room >= 1:
                    self.room -= count
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
    loops=st.booleans(),
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

    @settings(max_examples=300)
    @given(policies, st.lists(st.tuples(times, st.booleans(), entries), max_size=8), st.integers(0, 9))
    def test_model(self, policy: GuardPolicy, steps: list[tuple[int, bool, list[tuple[int, int, int]]]], seed: int) -> None:
        """They decide alike, in every order of sources, with bursts, in both families, with clocks that go back and leap."""
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


class LoopModel:
    """Two of our servers on different ports, and one datagram that was forged to make them talk to each other."""

    def __init__(self, guarded: Callable[[int, Callable[[], float]], Guard], decrements: bool, hops: int, turn: float) -> None:
        """
        @param guarded: makes the guard of the server on a port, with a clock.
        @param decrements: whether a reply's TTL is one less than its request's.
        @param hops: how many routers there are between the two.
        @param turn: how long a datagram is on its way, in seconds.
        """
        self.now = 0.0
        self.guards = {port: guarded(port, lambda: self.now) for port in (1234, 4321)}
        self.decrements, self.hops, self.turn = decrements, hops, turn

    def turns(self, ttl: int, most: int) -> int:
        """
        How many replies the servers send each other before there is an end.

        @param ttl: with which the forged datagram comes.
        @param most: when to give up.
        """
        source, own = 4321, 1234
        for turn in range(most):
            if self.guards[own].refuse(5, ("198.51.100.1", source)) is not None:
                return turn
            # Without the rule a reply starts with what the system gives it.
            ttl = ttl - 1 if self.decrements else 64
            if ttl < 1:
                return turn
            # Each router on the way takes one, and drops what has none left (RFC 1812 section 5.3.1).
            ttl -= self.hops
            if ttl < 1:
                return turn + 1
            self.now += self.turn
            source, own = own, source
        return most


class LoopsEndTests:
    """Why a reply's TTL is one less than that of its request."""

    @staticmethod
    def guarded(port: int, seconds: Callable[[], float]) -> Guard:
        """A guard as it is by default, that knows its own port only."""
        return Guard(ownPorts=[port], seconds=seconds)

    @given(st.integers(1, 255), st.integers(0, 40), st.sampled_from([0.0, 1e-5, 1e-3, 1.0]))
    def test_ends(self, ttl: int, hops: int, turn: float) -> None:
        """With that rule two servers on different ports, on whatever hosts, end within 255 turns, however slow they are."""
        assert LoopModel(self.guarded, True, hops, turn).turns(ttl, 1000) <= 255

    def test_limiterAlone(self) -> None:
        """
        Without it, a datagram that takes no less than a millisecond each way is always within the limit, and goes on for ever.
        """
        assert LoopModel(self.guarded, False, 5, 0.001).turns(64, 50_000) == 50_000

    def test_samePort(self) -> None:
        """On the same port there is not a single reply, with or without it."""
        guard = Guard(ownPorts=[1234])
        assert guard.refuse(5, ("198.51.100.1", 1234)) == "loop_guard"

    @given(st.sampled_from([64, 128, 255]), st.integers(0, 255))
    def test_distantClients(self, ttl: int, hops: int) -> None:
        """A client whose system sends with a TTL of 64 has its reply as long as there are no more than 31 routers between."""
        arrives = ttl - hops
        back = arrives - 1 - hops
        assert (arrives >= 1 and back >= 1) == (hops <= (ttl - 2) // 2)
        assert (64 - 2) // 2 == 31


class SpoofedTests:
    """What an attacker gets."""

    def test_victim(self) -> None:
        """
        Of a flood in a victim's name about a quarter is sent to the victim, besides the rate; and the victim itself, among the
        flood, has about a quarter of its replies.
        """
        now = [0.0]
        guard = Guard(seconds=lambda: now[0], entropy=random.Random(1).randbytes)
        answered = asked = heard = 0
        for turn in range(4000):
            now[0] = turn / 1000
            batch = GivenBatch([number(STRANGER)] * 64, [40000] * 64)
            guard.refuseEntries(batch)
            answered += 64 - len(batch.dropped)
            asked += 1
            heard += 63 not in batch.dropped
        over = 4000 * 64 - 1000 - 3999
        assert abs(answered - 1000 - 3999 - over / 4) < over / 100
        assert abs(heard / asked - 0.25) < 0.05
