"""Tests of L{udpecho.guard.heavy_hitters}."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from udpecho.guard.heavy_hitters import HeavyHitters


class HeavyHittersTests:
    """L{HeavyHitters}."""

    def test_exact(self) -> None:
        """As long as there is a counter for each key, the counts are exact, the highest first."""
        hitters = HeavyHitters[str](3)
        for key in "abcbcc":
            hitters.add(key)
        assert hitters.drain(2) == [("c", 3), ("b", 2)]

    def test_startsOver(self) -> None:
        """Draining forgets all counts, also those not returned."""
        hitters = HeavyHitters[str]()
        hitters.add("a", 5)
        hitters.add("b", 2)
        assert hitters.drain(1) == [("a", 5)]
        assert hitters.drain(9) == []

    def test_none(self) -> None:
        """The number of keys to return may be 0."""
        hitters = HeavyHitters[str]()
        hitters.add("a")
        assert hitters.drain(0) == []

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=200), st.integers(1, 5))
    def test_bounds(self, additions: list[tuple[int, int]], counters: int) -> None:
        """There are never more counters than given, no count is too high, and none is too low by more than one part in
        C{counters + 1} of the total: so a key that is more frequent is returned.
        """
        hitters, exact = HeavyHitters[int](counters), Counter[int]()
        for key, times in additions:
            hitters.add(key, times)
            exact[key] += times
        found = hitters.drain(99)
        assert len(found) <= counters
        assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)
        counts = dict(found)
        for key, times in exact.items():
            assert times - exact.total() / (counters + 1) <= counts.get(key, 0) <= times
            assert counts.get(key) != 0

    def test_heavyAmongMany(self) -> None:
        """A key that is every tenth is found among any number that are added once."""
        hitters = HeavyHitters[int](16)
        for turn in range(10_000):
            hitters.add(-1 if turn % 10 == 0 else turn)
        ((key, count), *_) = hitters.drain(1)
        assert key == -1
        assert 1000 - 10_000 / 17 <= count <= 1000
