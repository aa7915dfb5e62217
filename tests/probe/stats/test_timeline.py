"""Tests of L{udpecho.probe.stats.timeline}: that no extreme is lost, in little memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.timeline import Samples

MS = 1_000_000
probes = st.lists(st.one_of(st.none(), st.integers(0, 10_000 * MS)), max_size=200)


class SamplesTests:
    """L{Samples}."""

    @given(probes, st.integers(2, 20), st.integers(1, 2000 * MS))
    def test_keeps(self, roundTrips: list[int | None], capacity: int, interval: int) -> None:
        """
        However many probes share the room, there are no more stretches than it holds, and all together have all counts, the sum
        of round trips, and the extremes where they were; each stretch has those of its own time.
        """
        samples = Samples(capacity)
        for sequence, roundTrip in enumerate(roundTrips):
            outcome = Outcome.LOST if roundTrip is None else Outcome.ANSWERED
            samples.add(outcome, sequence, sequence * interval, roundTrip)
        stretches = samples.stretches()
        assert len(stretches) <= capacity
        known = [(sequence * interval, each) for sequence, each in enumerate(roundTrips) if each is not None]
        assert sum(each.count for each in stretches) == len(known)
        assert sum(each.total for each in stretches) == sum(each for _, each in known)
        assert sum(number for each in stretches for _, number in each.missing.values()) == roundTrips.count(None)
        for index in {time >> samples.shift for time, _ in known}:
            own = [each for each in known if each[0] >> samples.shift == index]
            (found,) = [each for each in stretches if each.low is not None and each.low[0] >> samples.shift == index]
            assert found.low == min(own, key=lambda each: each[1])
            assert found.high == max(own, key=lambda each: each[1])

    def test_apart(self) -> None:
        """As long as there is room, each probe is on its own."""
        samples = Samples(100)
        for sequence in range(100):
            samples.add(Outcome.ANSWERED, sequence, sequence * 1000 * MS, sequence)
        assert [each.low for each in samples.stretches()] == [(n * 1000 * MS, n) for n in range(100)]
        samples.add(Outcome.ANSWERED, 100, 100_000 * MS, 7)
        assert len(samples.stretches()) <= 100

    @pytest.mark.parametrize(
        "outcome", [Outcome.LOST, Outcome.LOST_OWN, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT]
    )
    def test_missing(self, outcome: Outcome) -> None:
        """What has no reply is marked by its outcome, where the first of it was."""
        samples = Samples(2)
        for sequence in (5, 6, 7):
            samples.add(outcome, sequence, sequence * 100)
        (stretch,) = samples.stretches()
        assert stretch.missing == {outcome: (500, 3)}
        assert (stretch.count, stretch.low, stretch.high) == (0, None, None)

    def test_late(self) -> None:
        """A reply takes the loss back, in whatever stretch that is by now; one that was not lost takes nothing back."""
        samples = Samples(2)
        for sequence in range(8):
            samples.add(Outcome.LOST, sequence, sequence * MS)
        samples.add(Outcome.LATE, 3, 3 * MS, 2000 * MS)
        samples.add(Outcome.LATE, 99, 7 * MS, 2000 * MS)
        stretches = samples.stretches()
        assert sum(each.missing[Outcome.LOST][1] for each in stretches) == 7
        assert sum(each.count for each in stretches) == 2

    def test_late_alone(self) -> None:
        """Where nothing else is, nothing of the loss is left."""
        samples = Samples()
        samples.add(Outcome.LOST, 0, 0)
        samples.add(Outcome.LATE, 0, 0, MS)
        (stretch,) = samples.stretches()
        assert stretch.missing == {}
        assert stretch.high == (0, MS)

    def test_refusedAfterAll(self) -> None:
        """A probe that was lost and is refused then is one probe."""
        samples = Samples()
        samples.add(Outcome.LOST, 0, 0)
        samples.add(Outcome.REFUSED, 0, 0)
        (stretch,) = samples.stretches()
        assert stretch.missing == {Outcome.REFUSED: (0, 1)}

    def test_beside(self) -> None:
        """Duplicates and such change nothing."""
        samples = Samples()
        for outcome in set(Outcome) - {Outcome.ANSWERED, Outcome.LATE}:
            if outcome in (Outcome.DUPLICATE, Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN, Outcome.UNMATCHED):
                samples.add(outcome, 0, 0, MS)
        samples.add(Outcome.OUTSTANDING, 0, 0)
        assert samples.stretches() == []

    def test_memory(self) -> None:
        """Memory does not grow with the number of probes, answered or lost."""
        samples = Samples(256)

        def some(start: int) -> None:
            for sequence in range(start, start + 20_000):
                lost = sequence % 2
                samples.add(Outcome.LOST if lost else Outcome.ANSWERED, sequence, sequence * MS, None if lost else MS)

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
        """A reply without a time, and too little room, are told what would be right."""
        with pytest.raises(ValueError, match="None is not the round trip of a probe that is late: a number of nanoseconds is"):
            Samples().add(Outcome.LATE, 0, 0)
        with pytest.raises(ValueError, match="1 is not a number of stretches: 2 or more is"):
            Samples(1)
