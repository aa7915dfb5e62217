"""Tests of L{udpecho.probe.stats.histogram}: against sorting, to three digits."""

from __future__ import annotations

import statistics
import tracemalloc
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.probe.stats.histogram import Histogram

HOUR = 3600 * 10**9
#: The promised precision: half a bucket.
WITHIN = 1 / 2048

#: Times of every size: each power of two as likely as any other.
times = st.integers(0, 42).flatmap(lambda bits: st.integers(0, 1 << bits)).map(lambda value: min(value, HOUR))
samples = st.lists(times, min_size=1, max_size=200)


def histogramOf(values: list[int]) -> Histogram:
    """A histogram that has counted some values."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


class QuantileTests:
    """Quantiles, ranks and sums."""

    @given(samples, st.floats(0, 1))
    def test_quantile(self, values: list[int], q: float) -> None:
        """A quantile is the value that sorting finds, to within 0.05 %."""
        exact = sorted(values)[max(1, ceil(round(q * len(values), 6))) - 1]
        assert histogramOf(values).quantile(q) == pytest.approx(exact, rel=WITHIN, abs=0)

    @given(samples)
    def test_atRank(self, values: list[int]) -> None:
        """Each rank has the value that stands there when they are sorted; the ends have it exactly."""
        histogram = histogramOf(values)
        found = [histogram.atRank(rank) for rank in range(1, len(values) + 1)]
        assert found == pytest.approx(sorted(values), rel=WITHIN, abs=0)
        assert found == sorted(found)
        assert (found[0], found[-1]) == (min(values), max(values))

    @given(samples)
    def test_median(self, values: list[int]) -> None:
        """The median is the middle value, or the mean of the middle two."""
        assert histogramOf(values).median() == pytest.approx(statistics.median(values), rel=WITHIN, abs=0)

    @given(samples)
    def test_exact(self, values: list[int]) -> None:
        """Count, lowest, highest and both sums are exact."""
        histogram = histogramOf(values)
        assert (histogram.count, histogram.min, histogram.max) == (len(values), min(values), max(values))
        assert histogram.total == sum(values)
        assert histogram.squares == sum(value * value for value in values)

    def test_decimalShare(self) -> None:
        """A share that floating point puts a little above a whole number of values is that number: 0.07 of 100 values is 7."""
        assert 0.07 * 100 > 7
        assert histogramOf(list(range(1, 101))).quantile(0.07) == 7

    def test_none(self) -> None:
        """Without values there are no figures."""
        histogram = Histogram()
        assert (histogram.min, histogram.max, histogram.median(), histogram.quantile(0.5)) == (None,) * 4
        assert list(histogram.buckets()) == []

    @pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
    def test_badQuantile(self, q: float) -> None:
        """A quantile is from 0 to 1."""
        with pytest.raises(ValueError, match="quantile must be from 0 to 1, got"):
            histogramOf([1]).quantile(q)

    @pytest.mark.parametrize("rank", [0, 3])
    def test_badRank(self, rank: int) -> None:
        """There are as many ranks as values."""
        with pytest.raises(ValueError, match=f"rank must be 1 to 2, got {rank}"):
            histogramOf([1, 2]).atRank(rank)


class RecordTests:
    """Recording and merging."""

    @given(samples)
    def test_buckets(self, values: list[int]) -> None:
        """Each value is in one bucket, which is no wider than 1/1024 of it, and no two buckets have a value in common."""
        buckets = list(histogramOf(values).buckets())
        for bucket in buckets:
            assert bucket.number == sum(bucket.low <= value <= bucket.high for value in values)
            assert bucket.high - bucket.low <= bucket.low / 1024
        assert sum(bucket.number for bucket in buckets) == len(values)
        assert all(one.high < next.low for one, next in pairwise(buckets))

    @pytest.mark.parametrize("bits", range(64))
    def test_edges(self, bits: int) -> None:
        """The values next to each power of two are in the right bucket."""
        for value in {max(0, (1 << bits) - 2), (1 << bits) - 1, min(1 << bits, (1 << 63) - 1)}:
            (bucket,) = histogramOf([value]).buckets()
            assert bucket.low <= value <= bucket.high

    @pytest.mark.parametrize("value", [-1, -(10**12), 1 << 63])
    @pytest.mark.parametrize("before", [[], [5, 7]])
    def test_refused(self, value: int, before: list[int]) -> None:
        """A value out of range is refused, and changes nothing."""
        histogram = histogramOf(before)
        with pytest.raises(ValueError, match=f"value must be 0 to .*, got {value}"):
            histogram.record(value)
        assert (histogram.count, histogram.total, histogram.min, histogram.max) == (
            len(before),
            sum(before),
            *((5, 7) if before else (None, None)),
        )

    def test_memory(self) -> None:
        """It needs as much memory as its docstring claims: 280 KiB for an hour, however much is recorded."""
        tracemalloc.start()
        try:
            histogram = Histogram()
            histogram.record(HOUR)
            first, _ = tracemalloc.get_traced_memory()
            for value in range(0, HOUR, HOUR // 50_000):
                histogram.record(value)
            second, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 260 * 1024 < first < 290 * 1024
        # Other code allocates, too; the values alone would be 400 000.
        assert second - first < 16 * 1024
