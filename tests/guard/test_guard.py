"""Tests of L{udpecho.guard.guard}."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest
from zope.interface.verify import verifyObject

from tests.support.guard import PUBLIC, GivenBatch, batchOf, never, number, verdict
from udpecho.guard.guard import Guard
from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import DROP_REASONS, IBatchGuard, IDatagramBatch

unlimited = GuardPolicy(rate=0)


class AllowTests:
    """Who is answered."""

    def test_anybody(self) -> None:
        """By default everybody is."""
        for host in (PUBLIC, "10.0.0.1", "127.0.0.1", "2001:db8::1", "fe80::1"):
            assert verdict(Guard(), host) is None

    def test_networks(self) -> None:
        """Sources outside the allowed networks are refused."""
        guard = Guard(GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *PRIVATE)))
        for host in (PUBLIC, "10.0.0.1", "fe80::1", "fd00::1"):
            assert verdict(guard, host) is None
        for host in ("192.0.3.0", "127.0.0.1", "2001:db8::1", "::1"):
            assert verdict(guard, host) == "not_allowed"

    def test_trustDoesNotAllow(self) -> None:
        """To be trusted is not to be allowed."""
        guard = Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24"), trust=ANY))
        assert verdict(guard, "10.0.0.1") == "not_allowed"

    def test_loopsFirst(self) -> None:
        """What is refused for both reasons is counted as a loop."""
        assert verdict(Guard(GuardPolicy(allow=PRIVATE)), PUBLIC, 7) == "loop_guard"

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
        for host in (PUBLIC, "2001:db8::1"):
            assert [guard.refuse(5, (host, 40000)) for _ in range(3)] == [None, "rate_limited", "rate_limited"]

    def test_portsDoNotMatter(self) -> None:
        """A source that changes its port has no more."""
        guard = Guard(GuardPolicy(rate=8, burst=8), seconds=lambda: 0.0, entropy=never)
        batch = batchOf(*((PUBLIC, 40000 + turn) for turn in range(16)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(8, 16), "rate_limited")

    def test_refusedAreNotCharged(self) -> None:
        """What is refused for another reason takes nothing of the rate."""
        guard = Guard(GuardPolicy(rate=8, burst=8), seconds=lambda: 0.0, entropy=never)
        batch = batchOf(*((PUBLIC, 7) for turn in range(16)), *((PUBLIC, 40000) for turn in range(8)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(16), "loop_guard")

    def test_default(self) -> None:
        """By default a probe each millisecond is always within the limit."""
        clock = iter(turn / 1000 for turn in range(10_001))
        guard = Guard(seconds=clock.__next__, entropy=never)
        assert {guard.refuse(5, (PUBLIC, 40000)) for _ in range(10_000)} == {None}

    def test_ceiling(self) -> None:
        """All together have a ceiling, the trusted too, and there is no leak."""
        now = [0.0]
        guard = Guard(GuardPolicy(maxRate=10), seconds=lambda: now[0], entropy=bytes)
        batch = batchOf(*(("10.0.0.1", 40000) for _ in range(8)), *((PUBLIC, 40000) for _ in range(8)))
        guard.refuseEntries(batch)
        assert batch.dropped == dict.fromkeys(range(10, 16), "rate_limited")
        now[0] += 0.5
        assert [verdictOf for verdictOf in (guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(9)) if verdictOf is None] == [
            None
        ] * 5

    @pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
    def test_ceilingOfTrusted(self, host: str) -> None:
        """A batch from trusted sources alone has the ceiling too; without one all of it is answered."""
        for maxRate, answered in ((10, 10), (0, 16)):
            guard = Guard(GuardPolicy(maxRate=maxRate), seconds=lambda: 0.0)
            batch = batchOf(*((host, 40000) for _ in range(16)))
            guard.refuseEntries(batch)
            assert batch.dropped == dict.fromkeys(range(answered, 16), "rate_limited")

    def test_setBack(self) -> None:
        """A clock that is set back costs nobody anything."""
        now = [1e9]
        guard = Guard(GuardPolicy(rate=1, burst=1), seconds=lambda: now[0], entropy=never)
        assert guard.refuse(5, (PUBLIC, 40000)) is None
        now[0] = 0.0
        assert guard.refuse(5, (PUBLIC, 40000)) == "rate_limited"
        now[0] = 1.0
        assert guard.refuse(5, (PUBLIC, 40000)) is None

    def test_fill(self) -> None:
        """The fill is that of the limiter's table, and nothing without a limiter."""
        guard = Guard(seconds=lambda: 0.0)
        guard.refuse(5, (PUBLIC, 40000))
        assert guard.fill == 2 / (2 << 14)
        assert Guard(unlimited).fill == 0.0


class DryRunTests:
    """A dry run."""

    def test_counts(self) -> None:
        """It counts what would be dropped, datagrams and not entries, and drops nothing."""
        policy = GuardPolicy(allow=parseNetwork("192.0.2.0/24"), rate=8, burst=8, dryRun=True)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        hosts = [number(PUBLIC), number(PUBLIC), number("10.0.0.1"), number(PUBLIC)]
        batch = GivenBatch(hosts, [40000, 40000, 40000, 7], [8, 3, 4, 5])
        guard.refuseEntries(batch)
        assert guard.refuse(5, (PUBLIC, 0)) is None
        assert batch.dropped == {}
        assert guard.wouldDrop == {"rate_limited": 3, "not_allowed": 4, "loop_guard": 6}

    def test_sameAsReal(self) -> None:
        """It decides as in earnest, and in earnest nothing is counted as if it were not."""
        guards = [Guard(GuardPolicy(rate=4, burst=4, dryRun=dry), seconds=lambda: 0.0, entropy=never) for dry in (True, False)]
        batches = [batchOf(*((PUBLIC, 40000) for _ in range(9))) for _ in guards]
        for guard, batch in zip(guards, batches):
            guard.refuseEntries(batch)
        assert guards[0].wouldDrop == Counter(batches[1].dropped.values()) == {"rate_limited": 5}
        assert guards[1].wouldDrop == {}


class BusiestTests:
    """From where most of what is dropped comes."""

    def test_prefixes(self) -> None:
        """They are returned by reason, the busiest first, and only once."""
        guard = Guard(GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("2001:db8::/32"))), seconds=lambda: 0.0)
        hosts = [number("10.0.0.1"), number("10.0.0.2"), number(PUBLIC)]
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
        assert verdict(guard, PUBLIC) is None
        policy = GuardPolicy(allow=PRIVATE)
        guard.configure(policy)
        assert guard.policy is policy
        assert verdict(guard, PUBLIC) == "not_allowed"

    def test_keepsState(self) -> None:
        """The limiter and the ceiling keep their state if their rates are the same."""
        policy = GuardPolicy(rate=1, burst=1, maxRate=3)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        assert guard.refuse(5, (PUBLIC, 40000)) is None
        guard.configure(replace(policy, trust=LOOPBACK, allow=PRIVATE, refuseLoops=False))
        guard.configure(policy)
        assert guard.refuse(5, (PUBLIC, 40000)) == "rate_limited"
        assert [guard.refuse(5, ("127.0.0.1", 40000)) for _ in range(3)] == [None, None, "rate_limited"]

    @pytest.mark.parametrize("other", [{"rate": 2}, {"burst": 2}, {"rate": 0}])
    def test_newRate(self, other: dict[str, int]) -> None:
        """With another rate the limiter begins anew."""
        policy = GuardPolicy(rate=1, burst=1)
        guard = Guard(policy, seconds=lambda: 0.0, entropy=never)
        assert [guard.refuse(5, (PUBLIC, 40000)) for _ in range(2)] == [None, "rate_limited"]
        guard.configure(replace(policy, **other))  # type: ignore[arg-type]
        assert guard.refuse(5, (PUBLIC, 40000)) is None

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
        assert verifyObject(IDatagramBatch, batchOf((PUBLIC, 40000)))

    def test_harmless(self) -> None:
        """For a batch from trusted networks not even the counts are read, with any trusted networks."""

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
