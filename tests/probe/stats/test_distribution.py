"""Tests of L{udpecho.probe.stats.distribution}: against published numbers and Python's C{statistics}."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.probe.stats.distribution import Distribution, leastCount, wilson

MS = 1_000_000


class WilsonTests:
    """The interval about a share."""

    @pytest.mark.parametrize(
        ("some", "all", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published(self, some: int, all: int, low: float, high: float) -> None:
        """The intervals are those of R. G. Newcombe, I{Two-sided confidence intervals for the single proportion}, Statistics in
        Medicine 17 (1998), table I, method 3 (the score method without continuity correction), to the four digits printed
        there.
        """
        found = wilson(some, all)
        assert found is not None
        assert found.ratio == some / all
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)

    @given(st.integers(0, 10**6), st.integers(0, 10**6))
    def test_definition(self, some: int, others: int) -> None:
        """The ends are where the share seen is 1.96 standard errors away, by the standard error there: the equation that Wilson
        solved. They are within 0 and 1, and have the share between them; of nothing there is no interval.
        """
        found = wilson(some, some + others)
        if found is None:
            assert some + others == 0
            return
        assert 0 <= found.low <= found.ratio <= found.high <= 1
        for end in (found.low, found.high):
            distance = 1.959963984540054 * math.sqrt(end * (1 - end) / (some + others))
            assert abs(found.ratio - end) == pytest.approx(distance, rel=1e-6, abs=1e-9)


class DistributionTests:
    """L{Distribution}."""

    @pytest.mark.parametrize(("q", "count"), [(0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
    def test_leastCount(self, q: float, count: int) -> None:
        """The size of the sample is that of Wilks' formula: 59 for 95/95 and 299 for 95/99 are in every table of it."""
        assert leastCount(q) == count
        assert 1 - q ** (count - 1) < 0.95 <= 1 - q**count

    @pytest.mark.parametrize(("name", "count"), [("p90", 29), ("p95", 59), ("p99", 299), ("p99_9", 2995)])
    def test_absent(self, name: str, count: int) -> None:
        """A quantile is reported for a sample so large, and not for one smaller by one value."""
        times = Distribution()
        for _ in range(count - 1):
            times.recordNanoseconds(5 * MS)
        assert times.asDict()[name] is None
        times.recordNanoseconds(5 * MS)
        assert times.asDict()[name] == 0.005

    @given(st.lists(st.integers(0, 10**10), min_size=2, max_size=100))
    def test_moments(self, values: list[int]) -> None:
        """Mean and standard deviation are those of Python's own C{statistics}, which calculates with fractions."""
        times = Distribution()
        for value in values:
            times.recordNanoseconds(value)
        assert times.mean == pytest.approx(statistics.mean(values) / 1e9, rel=1e-12)
        assert times.deviation == pytest.approx(statistics.stdev(values) / 1e9, rel=1e-9)
        assert times.total == pytest.approx(sum(values) / 1e9)

    def test_noCancellation(self) -> None:
        """A small deviation of large numbers keeps its digits: of 10**15 + (4, 7, 13, 16) it is the root of 30."""
        times = Distribution()
        for value in (4, 7, 13, 16):
            times.recordNanoseconds(10**15 + value)
        assert times.deviation == math.sqrt(30) / 1e9

    @given(st.lists(st.integers(0, 10**10), min_size=1, max_size=100))
    def test_seconds(self, values: list[int]) -> None:
        """All figures are in seconds."""
        times = Distribution()
        for value in values:
            times.recordNanoseconds(value)
        assert (times.count, times.min, times.max) == (len(values), min(values) / 1e9, max(values) / 1e9)
        assert times.median() == pytest.approx(statistics.median(values) / 1e9, rel=1 / 2048)
        assert times.quantile(0.01) == pytest.approx(min(values) / 1e9, rel=1 / 2048)

    def test_few(self) -> None:
        """An empty sample has no figures, one value has no deviation."""
        times = Distribution()
        assert set(times.asDict().values()) == {None}
        times.recordNanoseconds(MS)
        one = times.asDict()
        assert (one["min"], one["mean"], one["median"], one["max"], one["stddev"]) == (0.001, 0.001, 0.001, 0.001, None)
