"""Tests of L{udpecho.probe.stats.jitter}: against the RFCs' own examples, code and definitions."""

from __future__ import annotations

import statistics
import tracemalloc
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.references import nReordering, variations
from udpecho.probe.stats.jitter import Jitter, Reordering, Variation

MS = 1_000_000


class JitterTests:
    """RFC 3550's jitter."""

    def test_byHand(self) -> None:
        """The recurrence of RFC 3550 appendix A.8, by hand: transits of 10, 26, 10, 10 ms differ by 16, 16 and 0, which makes
        16/16 = 1, then 1 + (16 - 1)/16 = 1.9375, then 1.9375 - 1.9375/16 = 1.81640625 ms.
        """
        jitter = Jitter()
        found = []
        for transit in (10, 26, 10, 10):
            jitter.arrive(transit * MS)
            found.append(jitter.value)
        assert found == pytest.approx([None, 0.001, 0.0019375, 0.00181640625])

    @given(st.lists(st.integers(0, 10**10), min_size=2))
    def test_code(self, transits: list[int]) -> None:
        """It is what the code of the appendix makes: C{s->jitter += (1./16.) * ((double)d - s->jitter)}."""
        jitter, expected = Jitter(), 0.0
        jitter.arrive(transits[0])
        for last, transit in pairwise(transits):
            jitter.arrive(transit)
            expected += (1.0 / 16.0) * (abs(transit - last) - expected)
        assert jitter.value == pytest.approx(expected / 1e9, rel=1e-12)


class VariationTests:
    """RFC 3393's delay variation."""

    def test_gap(self) -> None:
        """A probe without a reply makes two pairs fall out."""
        variation = Variation()
        assert (variation.mean, variation.max, variation.count) == (None, None, 0)
        for sequence, roundTrip in ((0, 10), (1, 14), (3, 100), (4, 98)):
            variation.arrive(sequence, roundTrip)
        assert (variation.mean, variation.max, variation.count) == (3e-9, 4e-9, 2)

    @given(st.permutations(range(30)), st.integers(0, 30), st.randoms(use_true_random=False))
    def test_anyOrder(self, order: list[int], received: int, random: Random) -> None:
        """For any order of replies, and any losses, it is that of the pairs."""
        arrived = order[:received]
        roundTrips = {sequence: random.randrange(1000) for sequence in arrived}
        variation = Variation()
        for sequence in arrived:
            variation.arrive(sequence, roundTrips[sequence])
        expected = variations(arrived, roundTrips)
        assert variation.count == len(expected)
        assert variation.max == (max(expected) / 1e9 if expected else None)
        assert variation.mean == (pytest.approx(statistics.mean(expected) / 1e9) if expected else None)

    def test_longAfter(self) -> None:
        """Numbers that share a place in the memory are not taken for neighbours."""
        variation = Variation()
        for sequence in (0, 1025, 2050, 1024 * 1024 + 2051):
            variation.arrive(sequence, sequence)
        assert variation.count == 0


class ReorderingTests:
    """RFC 4737's reordering."""

    @pytest.mark.parametrize(
        ("arrivals", "reordered", "degrees"),
        [
            ([1, 2, 3, 5, 6, 7, 8, 4, 9, 10], {4}, {4: 4}),
            ([1, 2, 3, 4, 7, 5, 6, 8, 9, 10], {5, 6}, {5: 1}),
            ([1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11], {4, 5, 6}, {4: 4}),
        ],
        ids=["one", "two", "three"],
    )
    def test_published(self, arrivals: list[int], reordered: set[int], degrees: dict[int, int]) -> None:
        """The examples of RFC 4737 section 7: one, two and three reordered. Of several in a row the first alone is n-reordered:
        right before the others came one that was sent before them.
        """
        reordering = Reordering()
        assert {sequence for sequence in arrivals if reordering.arrive(sequence)} == reordered
        assert reordering.reordered == len(reordered)
        assert reordering.ratio == len(reordered) / len(arrivals)
        assert reordering.greatest == max(degrees.values())
        for n in (1, 2, 3):
            assert reordering.degree(n) == sum(degree >= n for degree in degrees.values()) / len(arrivals)

    @given(st.lists(st.integers(0, 200), unique=True, max_size=60))
    def test_definition(self, arrivals: list[int]) -> None:
        """In any order it is as defined."""
        reordering = Reordering()
        for sequence in arrivals:
            reordering.arrive(sequence)
        expected = nReordering(arrivals)
        assert reordering.reordered == sum(any(s > sequence for s in arrivals[:i]) for i, sequence in enumerate(arrivals))
        assert reordering.greatest == max(expected, default=0)
        for n in (1, 2, 3):
            assert reordering.degree(n) == (sum(each >= n for each in expected) / len(arrivals) if arrivals else None)

    def test_longStream(self) -> None:
        """Of a long stream it remembers so much that n is exact up to a thousand, and no less than that beyond."""
        reordering = Reordering()
        late = {5_000: 3, 10_000: 900, 20_000: 4_000}
        for sequence in range(30_000):
            if sequence not in late:
                reordering.arrive(sequence)
            for held, behind in late.items():
                if sequence == held + behind:
                    before = reordering.greatest
                    assert reordering.arrive(held)
                    assert reordering.greatest == behind if behind < 1000 else 1000 <= reordering.greatest <= behind
                    assert reordering.greatest >= before
        assert reordering.reordered == 3

    def test_memory(self) -> None:
        """It remembers no more of a stream that is behind all of it, as when a stray number far ahead came first."""
        reordering = Reordering()
        reordering.arrive(1 << 40)
        tracemalloc.start()
        try:
            for sequence in range(20_000):
                assert reordering.arrive(sequence)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < 512 * 1024
        assert (reordering.greatest, reordering.reordered) == (1, 20_000)
