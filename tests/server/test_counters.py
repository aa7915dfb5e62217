"""Tests of L{udpecho.server.counters}."""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udpecho.interfaces import DROP_REASONS
from udpecho.net.linux.mmsg import SLOTS
from udpecho.server.counters import BATCH_SIZES, COUNTERS_SIZE, Counters, SharedCounters, SummedCounters, WorkerGuardStats


def openDescriptors() -> set[int]:
    """The descriptors that this process has open."""
    found = set()
    for descriptor in range(1024):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


class CountersTests:
    """L{Counters}."""

    def test_sums(self) -> None:
        """What came in is what went back, what was dropped and what waits, in datagrams and in bytes."""
        counters = Counters()
        counters.receive(30, 3)
        counters.receive(7)
        counters.echo(20, 2)
        counters.drop("truncated", 10)
        assert (counters.received, counters.receivedBytes) == (4, 37)
        assert (counters.echoed, counters.echoedBytes) == (2, 20)
        assert (counters.dropped, counters.droppedBytes) == ({"truncated": 1}, 10)
        assert counters.waiting == 1

    def test_text(self) -> None:
        """As text they are in the order of the reasons; without drops there are no reasons."""
        counters = Counters()
        counters.receive(30, 3)
        assert str(counters) == "received=3 echoed=0 dropped=0 received-bytes=30 echoed-bytes=0 dropped-bytes=0"
        counters.drop("truncated", 10)
        counters.drop("loop_guard", 10, 2)
        assert " dropped=3 (loop_guard=2 truncated=1) " in str(counters)

    def test_largestBucket(self) -> None:
        """The largest bucket is for full batches."""
        assert BATCH_SIZES[-1] == SLOTS

    def test_unknownReason(self) -> None:
        """A reason that is not in the list is a mistake, and counts nothing."""
        counters = Counters()
        with pytest.raises(KeyError):
            counters.drop("weather", 10)
        assert counters.droppedBytes == 0

    def test_shared(self) -> None:
        """Two that have the same memory have the same numbers."""
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

    def test_detach(self) -> None:
        """Detached, it keeps its numbers and counts on; the memory can be given back."""
        with mmap.mmap(-1, COUNTERS_SIZE) as memory:
            counters = Counters(memory)
            counters.receive(5)
            counters.detach()
        counters.receive(5)
        assert (counters.received, counters.receivedBytes) == (2, 10)

    @example(list(range(1, 130)))
    @given(st.lists(st.integers(1, 1000)))
    def test_batches(self, sizes: list[int]) -> None:
        """Each batch is in the first bucket that is large enough, or else in the last."""
        counters = Counters()
        expected = [0] * len(BATCH_SIZES)
        for size in sizes:
            counters.receiveBatch(size, 2 * size, 3 * size)
            expected[next((index for index, most in enumerate(BATCH_SIZES) if size <= most), len(BATCH_SIZES) - 1)] += 1
        assert list(counters.batches) == expected
        assert counters.batchedEntries == sum(sizes)
        assert (counters.receivedBytes, counters.received) == (2 * sum(sizes), 3 * sum(sizes))

    def test_add(self) -> None:
        """Adding counters to others adds every number."""
        one, other = Counters(), Counters()
        for counters in (one, other):
            counters.receive(5, 2)
            counters.echo(3)
            counters.drop("too_large", 2)
            counters.receiveBatch(2, 0, 0)
        one.add(other)
        assert one.asFields() == {
            "received": 4,
            "receivedBytes": 10,
            "echoed": 2,
            "echoedBytes": 6,
            "dropped": {"too_large": 2},
            "droppedBytes": 4,
        }
        assert (one.batches[1], one.batchedEntries) == (2, 4)
        assert other.received == 2

    @given(st.lists(st.tuples(st.integers(0, 65527), st.sampled_from(["echo", "drop", "wait"]))), st.integers(0, 2))
    def test_writeOffPending(self, outcomes: list[tuple[int, str]], killedAt: int) -> None:
        """Then the counters add up, in datagrams and in bytes, even if the process was killed between counting a datagram and
        counting its bytes; what was echoed or dropped stays so.
        """
        memory = bytearray(COUNTERS_SIZE)
        counters = Counters(memory)
        for size, outcome in outcomes:
            counters.receive(size)
            if outcome == "echo":
                counters.echo(size)
            elif outcome == "drop":
                counters.drop("too_large", size)
        waiting = counters.waiting
        # A last datagram, of which only the number is counted: as received, as echoed too, or not at all.
        cells = memoryview(memory).cast("Q")
        if killedAt >= 1:
            cells[0] += 1
        if killedAt == 2:
            cells[1] += 7
            cells[2] += 1
        echoed = counters.echoed
        assert counters.writeOffPending() == waiting + (killedAt == 1)
        assert counters.waiting == 0
        assert counters.echoed == echoed
        assert counters.receivedBytes == counters.echoedBytes + counters.droppedBytes
        assert counters.writeOffPending() == 0


class SummedCountersTests:
    """L{SummedCounters}."""

    def test_sum(self) -> None:
        """It reads as counters that have counted all, now and later, and those that come later too."""
        parts = [Counters(), Counters()]
        summed, whole = SummedCounters(parts), Counters()
        for counters in (parts[0], whole):
            counters.receive(7, 3)
            counters.echo(2)
        for counters in (parts[1], whole):
            counters.receive(9)
            counters.drop("truncated", 9)
            counters.receiveBatch(64, 0, 0)
        assert summed.asFields() == whole.asFields()
        assert str(summed) == str(whole)
        assert (summed.waiting, summed.batches, summed.batchedEntries) == (2, whole.batches, 64)
        parts.append(Counters())
        parts[2].receive(1)
        assert summed.received == 5


class SharedCountersTests:
    """L{SharedCounters}."""

    @pytest.mark.parametrize("named", [True, False], ids=["memfd", "file"])
    def test_shared(self, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
        """Another mapping of the descriptor has the same numbers, each process its own; after the close they stay."""
        if not named:
            monkeypatch.delattr(os, "memfd_create", raising=False)
        elif not hasattr(os, "memfd_create"):
            pytest.skip("this system has no memfd_create")
        shared = SharedCounters(3)
        assert len(shared.counters) == 3
        with mmap.mmap(shared.descriptor, 3 * COUNTERS_SIZE) as memory:
            whole = memoryview(memory)
            other = Counters(whole[COUNTERS_SIZE : 2 * COUNTERS_SIZE])
            other.receive(5)
            other.detach()
            whole.release()
        shared.close()
        assert [counters.received for counters in shared.counters] == [0, 1, 0]
        shared.counters[1].receive(5)
        assert shared.counters[1].receivedBytes == 10

    def test_close(self) -> None:
        """The close gives descriptor and memory back."""
        descriptors = openDescriptors()
        shared = SharedCounters(2)
        assert shared.descriptor not in descriptors
        shared.close()
        assert openDescriptors() == descriptors

    def test_noMemory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no memory left, that is raised, and no descriptor stays open."""

        def fail(*arguments: object) -> None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        descriptors = openDescriptors()
        monkeypatch.setattr("udpecho.server.counters.mmap.mmap", fail)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            SharedCounters(2)
        assert openDescriptors() == descriptors


class GuardStatsTests:
    """L{WorkerGuardStats}."""

    def test_empty(self) -> None:
        """Without a report there is nothing."""
        stats = WorkerGuardStats()
        assert (stats.fill, stats.wouldDrop, stats.busiest(3)) == (0.0, {}, {})

    def test_merge(self) -> None:
        """Datagrams of all workers are added, prefix by prefix and reason by reason."""
        stats = WorkerGuardStats()
        stats.merge(1, {"not_allowed": [("192.0.2.1/32", 3), ("192.0.2.2/32", 4)]}, {"not_allowed": 7}, 0.25)
        stats.merge(2, {"not_allowed": [("192.0.2.1/32", 2)], "loop_guard": [("::1/64", 1)]}, {"loop_guard": 1}, 0.125)
        assert stats.wouldDrop == {"not_allowed": 7, "loop_guard": 1}
        assert stats.busiest(1) == {"not_allowed": [("192.0.2.1/32", 5)], "loop_guard": [("::1/64", 1)]}
        assert stats.busiest(1) == {}

    def test_fill(self) -> None:
        """The fill is that of the fullest table now: a worker's latest report counts."""
        stats = WorkerGuardStats()
        stats.merge(1, {}, {}, 0.5)
        stats.merge(2, {}, {}, 0.25)
        assert stats.fill == 0.5
        stats.merge(1, {}, {}, 0.125)
        assert stats.fill == 0.25
