"""Tests of L{udpecho.guard.limiter}."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.guard import LimiterModel, apart, never, number, seeded
from udpecho.guard.limiter import LONGEST_STEP, Ceiling, Elapsed, Lots, PrefixLimiter

#: Sources of which some share narrow prefixes, some wide ones.
HOSTS = {
    False: [number(f"192.0.{net}.{host}") for net in (2, 3) for host in (1, 2, 3)],
    True: [number(f"2001:db8:{site:x}:{net:x}::{host:x}") for site in (1, 2) for net in (1, 2) for host in (1, 2)],
}

entries = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 70)), min_size=1, max_size=12)
steps = st.lists(st.tuples(st.integers(0, 640), st.booleans(), entries), max_size=12)


class PrefixLimiterTests:
    """L{PrefixLimiter}."""

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([1, 2, 8, 1 << 14]), steps, st.integers(0, 9))
    def test_model(
        self, rate: int, burst: int, size: int, some: list[tuple[int, bool, list[tuple[int, int]]]], seed: int
    ) -> None:
        """It decides as the model does, with segments, with both families, and with prefixes that share their places."""
        limiter = PrefixLimiter(rate, burst, size, seeded(seed))
        model = LimiterModel(rate, burst, seeded(seed), limiter)
        now = Fraction(0)
        for step, isIPv6, came in some:
            now += Fraction(step, 64)
            hosts, counts = [HOSTS[isIPv6][host] for host, _ in came], [count for _, count in came]
            assert limiter.refuse(hosts, counts, isIPv6, float(now)) == model.refuse(hosts, counts, isIPv6, now)

    def test_burst(self) -> None:
        """A source may send a whole burst at once, exactly, and after that what its rate earns, exactly."""
        limiter = PrefixLimiter(1000, 1000, entropy=never)
        host = number("192.0.2.1")
        for now, earned in ((12345.678, 1000), (12345.679, 1), (12345.729, 50), (12350.0, 1000)):
            refused = limiter.refuse([host] * 2000, [1] * 2000, False, now)
            assert sorted(refused) == list(range(earned, 2000))

    def test_rate(self) -> None:
        """Over any time, a source that sends all it can is answered its rate times that time and one burst, and no more."""
        limiter = PrefixLimiter(100, 10, entropy=never)
        answered = 0
        for turn in range(10_000):
            answered += 10 - len(limiter.refuse([1 << 24] * 10, [1] * 10, False, turn / 1000))
        assert answered == 10 + 9.999 * 100 // 1

    def test_wide(self) -> None:
        """A whole IPv4 /24 has 32 times what an address has, and an IPv6 /48 twice what a /64 has."""
        limiter = PrefixLimiter(10, 10, entropy=never)
        hosts = apart(limiter, [number(f"192.0.2.{host}") for host in range(256)], False)
        assert len(hosts) > 40
        refused = limiter.refuse(hosts * 10, [1] * 10 * len(hosts), False, 0.0)
        assert 10 * len(hosts) - len(refused) == 320
        assert 24 in refused.values()
        hosts = apart(limiter, [number(f"2001:db8:1:{net:x}::1") for net in range(9)], True)
        refused = limiter.refuse(hosts * 10, [1] * 10 * len(hosts), True, 0.0)
        assert 10 * len(hosts) - len(refused) == 20
        assert 48 in refused.values()

    def test_narrow(self) -> None:
        """All addresses of an IPv6 /64 share one allowance; another /64 has its own."""
        limiter = PrefixLimiter(10, 10, entropy=never)
        one, other, *_ = apart(limiter, [number(f"2001:db8:0:{net:x}::") for net in range(9)], True)
        refused = limiter.refuse([*range(one, one + 100), other], [1] * 101, True, 0.0)
        assert refused == dict.fromkeys(range(10, 100), 64)

    @pytest.mark.parametrize(
        ("first", "last", "narrow", "isIPv6"),
        [
            ("192.0.2.0", "192.0.2.0", True, False),
            ("192.0.2.0", "192.0.2.255", False, False),
            ("2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff", True, True),
            ("2001:db8:1::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff", False, True),
        ],
    )
    def test_prefixes(self, first: str, last: str, narrow: bool, isIPv6: bool) -> None:
        """A prefix has one place from its first address to its last, and what is before and after has others."""
        level = 0 if narrow else 1
        sharing = Counter[int]()
        for seed in range(50):
            limiter = PrefixLimiter(1, 1, 1024, seeded(seed))
            place = limiter.places(number(first), isIPv6)[level]
            assert limiter.places(number(last), isIPv6)[level] == place
            for step, host in ((-1, number(first) - 1), (1, number(last) + 1)):
                sharing[step] += limiter.places(host, isIPv6)[level] == place
        assert max(sharing.values()) < 10

    def test_oneInFour(self) -> None:
        """Of what is over the limit about one in four is answered, and which is not the same twice."""
        limiters = [PrefixLimiter(1, 1), PrefixLimiter(1, 1)]
        refused = [limiter.refuse([1 << 24] * 40_001, [1] * 40_001, False, 0.0) for limiter in limiters]
        assert refused[0] != refused[1]
        for each in refused:
            # Ten standard deviations.
            assert abs(40_000 - len(each) - 10_000) < 866

    def test_leakIsNotCharged(self) -> None:
        """A flood in a victim's name takes nothing of what the victim's rate earns."""
        limiter = PrefixLimiter(1, 1, entropy=lambda size: bytes(size))
        assert not limiter.refuse([1 << 24] * 1000, [1] * 1000, False, 0.0)
        limiter._lots = Lots(never)
        assert sorted(limiter.refuse([1 << 24] * 2, [1] * 2, False, 1.0)) == [1]

    def test_repeatedSource(self) -> None:
        """Several entries of one source are charged together, exactly."""
        limiter = PrefixLimiter(8, 8, entropy=never)
        assert not limiter.refuse([1 << 24] * 3, [1, 2, 1], False, 0.0)
        assert sorted(limiter.refuse([1 << 24] * 5, [1] * 5, False, 0.0)) == [4]

    def test_segments(self) -> None:
        """The segments of one entry are answered together, if there is a token for the first, and all are charged."""
        limiter = PrefixLimiter(8, 8, entropy=never)
        assert not limiter.refuse([1 << 24], [64], False, 0.0)
        assert limiter.refuse([1 << 24], [1], False, 7.0)
        assert not limiter.refuse([1 << 24], [1], False, 7.125)

    def test_lastToken(self) -> None:
        """An entry for whose first datagram there is just a token left is answered."""
        limiter = PrefixLimiter(8, 8, entropy=never)
        assert not limiter.refuse([1 << 24], [7], False, 0.0)
        assert not limiter.refuse([1 << 24], [2], False, 0.0)
        assert limiter.refuse([1 << 24], [1], False, 0.125)
        assert not limiter.refuse([1 << 24], [1], False, 0.25)

    def test_secret(self) -> None:
        """Which prefixes share a place is another in each limiter."""
        hosts = range(1 << 24, (1 << 24) + 4096)
        places = [[limiter.places(host, False)[0] for host in hosts] for limiter in (PrefixLimiter(1, 1), PrefixLimiter(1, 1))]
        assert places[0] != places[1]

    def test_spread(self) -> None:
        """Prefixes spread evenly over the table, those that follow each other too."""
        limiter = PrefixLimiter(1, 1, 256, seeded(1))
        for isIPv6, shift in ((False, 0), (False, 8), (True, 64), (True, 80)):
            length = shift in (8, 80)
            found = Counter(limiter.places((1 << 16 | turn) << shift, isIPv6)[length] for turn in range(25_600))
            assert set(found) == set(range(256))
            # With a mean of 100, chance alone has a deviation of 10.
            assert max(found.values()) < 160

    def test_fill(self) -> None:
        """It knows how much of its table is in use, and that what is whole again is not."""
        limiter = PrefixLimiter(10, 10, entropy=seeded(1))
        assert limiter.fill(0.0) == 0.0
        limiter.refuse([1 << 24], [1], False, 0.0)
        assert limiter.fill(0.001) == 2 / (2 << 14)
        # The wide prefix earns what it was charged in a 32nd of the time.
        assert limiter.fill(0.05) == 1 / (2 << 14)
        assert limiter.fill(0.1) == 0.0

    def test_memory(self) -> None:
        """However many sources there are, it takes no more memory."""
        limiter = PrefixLimiter(1, 1)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for turn in range(1000):
                limiter.refuse(range(turn << 20, (turn << 20) + 64), [1] * 64, False, turn / 1000)
            assert tracemalloc.get_traced_memory()[0] - before < 10_000
        finally:
            tracemalloc.stop()


class CeilingTests:
    """L{Ceiling}."""

    @settings(deadline=None)
    @given(
        st.integers(1, 100),
        st.lists(st.tuples(st.integers(0, 128), st.lists(st.integers(1, 70), min_size=1, max_size=12)), max_size=12),
    )
    def test_model(self, rate: int, some: list[tuple[int, list[int]]]) -> None:
        """It is a bucket of a second's datagrams."""
        ceiling, now, tokens = Ceiling(rate), Fraction(0), Fraction(rate)
        for step, counts in some:
            now += Fraction(step, 64)
            tokens = min(Fraction(rate), tokens + Fraction(step, 64) * rate)
            refused = []
            for entry, count in enumerate(counts):
                if tokens >= 1:
                    tokens -= count
                else:
                    refused.append(entry)
            assert ceiling.refuse(counts, float(now)) == refused


class ElapsedTests:
    """L{Elapsed}."""

    @settings(deadline=None)
    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
    def test_forward(self, times: list[float]) -> None:
        """With any clock, time does not go backwards, and never leaps further than a day."""
        clock = iter([0.0, *times])
        elapsed = Elapsed(clock.__next__)
        before = 0.0
        for _ in times:
            now = elapsed.now()
            assert before <= now <= before + LONGEST_STEP
            before = now

    def test_setBack(self) -> None:
        """After the clock was set back, time goes on from there."""
        clock = iter([1000.0, 1001.0, 500.0, 502.0])
        elapsed = Elapsed(clock.__next__)
        assert [elapsed.now(), elapsed.now(), elapsed.now()] == [1.0, 1.0, 3.0]


class LotsTests:
    """L{Lots}."""

    def test_drawn(self) -> None:
        """One byte in four is a lot that is drawn."""
        lots = Lots(lambda size: bytes(range(256)) * (size // 256))
        assert [lots.draw() for _ in range(512)] == ([True] * 64 + [False] * 192) * 2
