"""
Tests of L{udpecho.counters}.
"""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.counters import BATCH_SIZES, COUNTERS_SIZE, DROP_REASONS, Counters


class CountersTests:
    """
    L{Counters}.
    """

    def test_sums(self) -> None:
        """
        What came in is what went back, what was dropped and what waits, in datagrams and in bytes.
        """
        counters = Counters()
        counters.receive(30, 3)
        counters.receive(7)
        counters.echo(20, 2)
        counters.drop("truncated", 10)
        assert (counters.received, counters.receivedBytes) == (4, 37)
        assert (counters.echoed, counters.echoedBytes) == (2, 20)
        assert (counters.dropped, counters.droppedBytes) == ({"truncated": 1}, 10)
        assert counters.waiting == 1

    def test_unknownReason(self) -> None:
        """
        A reason that is not in the list is a mistake, and counts nothing.
        """
        counters = Counters()
        with pytest.raises(KeyError):
            counters.drop("weather", 10)
        assert counters.droppedBytes == 0

    def test_shared(self) -> None:
        """
        Two that have the same memory have the same numbers.
        """
        with mmap.mmap(-1, COUNTERS_SIZE) as memory:
            one, other = Counters(memory), Counters(memory)
            one.receive(2)
            for reason in DROP_REASONS:
                other.drop(reason, 1)
            one.receiveBatch(3, 6, 4)
            assert other.received == 5
            assert one.dropped == dict.fromkeys(DROP_REASONS, 1)
            assert other.batches == one.batches
            del one, other

    @given(st.lists(st.integers(1, 1000)))
    def test_batches(self, sizes: list[int]) -> None:
        """
        Each batch is in the first class that has room for it, or else in the last.
        """
        counters = Counters()
        expected = [0] * len(BATCH_SIZES)
        for size in sizes:
            counters.receiveBatch(size, 2 * size, 3 * size)
            expected[next((index for index, most in enumerate(BATCH_SIZES) if size <= most), len(BATCH_SIZES) - 1)] += 1
        assert list(counters.batches) == expected
        assert counters.batchedEntries == sum(sizes)
        assert (counters.receivedBytes, counters.received) == (2 * sum(sizes), 3 * sum(sizes))
