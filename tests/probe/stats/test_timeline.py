"""Tests of L{udpecho.probe.stats.timeline}: no extreme is lost, in bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.probe.outcomes import EXTRA_DATAGRAMS, Outcome
from udpecho.probe.stats.timeline import Timeline

MS = 0.001
probes = st.lists(st.one_of(st.none(), st.integers(0, 10_000_000_000)), max_size=200)


class TimelineTests:
    """L{Timeline}."""

    @given(probes, st.integers(2, 20), st.integers(1, 2_000_000_000))
    def test_keeps(self, roundTrips: list[int | None], capacity: int, interval: int) -> None:
        """There are never more buckets than the capacity. Together they have all probes and the sum of all round trips, and
        each has the extremes of its own period, exactly.
        """
        timeline = Timeline(capacity)
        for sequence, roundTrip in enumerate(roundTrips):
            outcome = Outcome.LOST if roundTrip is None else Outcome.ANSWERED
            time = sequence * interval / 1e9
            timeline.add(outcome, sequence, time, None if roundTrip is None else roundTrip / 1e9)
        buckets = timeline.buckets()
        assert len(buckets) <= capacity
        known = [(sequence * interval, each) for sequence, each in enumerate(roundTrips) if each is not None]
        assert sum(each.count for each in buckets) == len(known)
        assert sum(each.total for each in buckets) == pytest.approx(sum(each for _, each in known) / 1e9)
        assert sum(number for each in buckets for _, number in each.missing.values()) == roundTrips.count(None)
        length = round(timeline.bucketLength * 1e9)
        assert {round(each.low[0] * 1e9) // length for each in buckets if each.low} == {time // length for time, _ in known}
        for each in buckets:
            if each.low is not None and each.high is not None:
                index = round(each.low[0] * 1e9) // length
                own = [(time / 1e9, value / 1e9) for time, value in known if time // length == index]
                assert each.low == min(own, key=lambda pair: pair[1])
                assert each.high == max(own, key=lambda pair: pair[1])

    def test_apart(self) -> None:
        """Up to the capacity, each probe has its own bucket."""
        timeline = Timeline(100)
        for sequence in range(100):
            timeline.add(Outcome.ANSWERED, sequence, float(sequence), sequence)
        assert [each.low for each in timeline.buckets()] == [(n, n) for n in range(100)]
        timeline.add(Outcome.ANSWERED, 100, 100.0, 7)
        assert len(timeline.buckets()) <= 100

    @pytest.mark.parametrize(
        "outcome", [Outcome.LOST, Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT]
    )
    def test_missing(self, outcome: Outcome) -> None:
        """Probes without a reply are counted by outcome, with the time of the first."""
        timeline = Timeline(2)
        for sequence in (5, 6, 7):
            timeline.add(outcome, sequence, sequence * 1e-7)
        (bucket,) = timeline.buckets()
        ((time, number),) = bucket.missing.values()
        assert (set(bucket.missing), number) == ({outcome}, 3)
        assert time == pytest.approx(5e-7)
        assert (bucket.count, bucket.low, bucket.high) == (0, None, None)

    def test_late(self) -> None:
        """A reply removes the loss of its probe, in the bucket that it is in by then, and no other."""
        timeline = Timeline(2)
        for sequence in range(8):
            timeline.add(Outcome.LOST, sequence, sequence * MS)
        timeline.add(Outcome.LATE, 3, 3 * MS, 2000 * MS)
        timeline.add(Outcome.LATE, 99, 7 * MS, 2000 * MS)
        buckets = timeline.buckets()
        assert sum(each.missing[Outcome.LOST][1] for each in buckets) == 7
        assert sum(each.count for each in buckets) == 2

    def test_lateAlone(self) -> None:
        """A bucket without another loss has none left."""
        timeline = Timeline()
        timeline.add(Outcome.LOST, 0, 0)
        timeline.add(Outcome.LATE, 0, 0, MS)
        (bucket,) = timeline.buckets()
        assert bucket.missing == {}
        assert bucket.high == (0, MS)

    def test_refusedAfterAll(self) -> None:
        """A refusal replaces the loss of its probe."""
        timeline = Timeline()
        timeline.add(Outcome.LOST, 0, 0)
        timeline.add(Outcome.REFUSED, 0, 0)
        (bucket,) = timeline.buckets()
        assert bucket.missing == {Outcome.REFUSED: (0, 1)}

    def test_extraDatagrams(self) -> None:
        """Duplicates and the like change nothing."""
        timeline = Timeline()
        for outcome in (*EXTRA_DATAGRAMS, Outcome.OUTSTANDING):
            timeline.add(outcome, 0, 0, MS)
        assert timeline.buckets() == []

    def test_memory(self) -> None:
        """Memory does not grow with the number of probes, answered or lost."""
        timeline = Timeline(256)

        def some(start: int) -> None:
            for sequence in range(start, start + 20_000):
                lost = sequence % 2
                timeline.add(Outcome.LOST if lost else Outcome.ANSWERED, sequence, sequence * MS, None if lost else MS)

        some(0)
        tracemalloc.start()
        try:
            some(20_000)
            before, _ = tracemalloc.get_traced_memory()
            some(40_000)
            some(60_000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 200_000

    def test_wrong(self) -> None:
        """A reply without a round trip, and a capacity below 2, are refused."""
        with pytest.raises(ValueError, match="round trip of a probe that is late must be in seconds, got None"):
            Timeline().add(Outcome.LATE, 0, 0)
        with pytest.raises(ValueError, match="capacity must be 2 buckets or more, got 1"):
            Timeline(1)
