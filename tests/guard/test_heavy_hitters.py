"""Tests of L{udpecho.guard.heavy_hitters}."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from udpecho.guard.heavy_hitters import HeavyHitters


class BusiestTests:
    """L{HeavyHitters}."""

    def test_exact(self) -> None:
        """As long as there is a counter for each thing, the counts are exact, the highest first."""
        busiest = HeavyHitters[str](3)
        for thing in "abcbcc":
            busiest.add(thing)
        assert busiest.take(2) == [("c", 3), ("b", 2)]

    def test_startsOver(self) -> None:
        """What was told is forgotten, and so is what was not."""
        busiest = HeavyHitters[str]()
        busiest.add("a", 5)
        busiest.add("b", 2)
        assert busiest.take(1) == [("a", 5)]
        assert busiest.take(9) == []

    def test_none(self) -> None:
        """None may be asked for."""
        busiest = HeavyHitters[str]()
        busiest.add("a")
        assert busiest.take(0) == []

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=200), st.integers(1, 5))
    def test_bounds(self, additions: list[tuple[int, int]], counters: int) -> None:
        """
        There are never more counters than allowed, no count is too high, and none is too low by more than one part in
        C{counters + 1} of the whole: so what comes more often than that is named.
        """
        busiest, exact = HeavyHitters[int](counters), Counter[int]()
        for thing, times in additions:
            busiest.add(thing, times)
            exact[thing] += times
        found = busiest.take(99)
        assert len(found) <= counters
        assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)
        counts = dict(found)
        for thing, times in exact.items():
            assert times - exact.total() / (counters + 1) <= counts.get(thing, 0) <= times
            assert counts.get(thing) != 0

    def test_heavyAmongMany(self) -> None:
        """One thing that comes every tenth time is found among any number that come once."""
        busiest = HeavyHitters[int](16)
        for turn in range(10_000):
            busiest.add(-1 if turn % 10 == 0 else turn)
        ((thing, count), *_) = busiest.take(1)
        assert thing == -1
        assert 1000 - 10_000 / 17 <= count <= 1000
