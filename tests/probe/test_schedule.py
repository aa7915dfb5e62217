"""Tests of when probes leave."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.probe.schedule import FLOOD_OUTSTANDING, Flood, Plan, Schedule

SECOND = 10**9


class PlanTests:
    """L{Plan}."""

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ({"interval": 0}, "interval must be a number of seconds above 0, got 0"),
            ({"timeout": float("nan")}, "timeout must be a number of seconds above 0, got nan"),
            ({"timeout": "1"}, "timeout must be a number of seconds above 0, got '1'"),
            ({"wait": -1}, "wait must be a number of seconds, 0 or more, got -1"),
            ({"duration": float("inf")}, "duration must be a number of seconds, 0 or more, got inf"),
            ({"count": 0}, "count must be 1 probe or more, got 0"),
            ({"count": 1.5}, "count must be 1 probe or more, got 1.5"),
            ({"sizes": ()}, "sizes must be a list of one size or more, in bytes, got ()"),
            ({"sizes": 64}, "sizes must be a list of one size or more, in bytes, got 64"),
            ({"sizes": (64, 70_000)}, "size must be 0 to 65527 bytes, got 70000"),
            ({"sizes": (-1,)}, "size must be 0 to 65527 bytes, got -1"),
            ({"sizes": "64"}, "size must be 0 to 65527 bytes, got '6'"),
            ({"pattern": b""}, "pattern must be one byte or more, got b''"),
            ({"pattern": "ff"}, "pattern must be one byte or more, got 'ff'"),
            (
                {"interval": 1e-6, "timeout": 2},
                "outstanding probes must be 1048576 or fewer, got 2000000: make the interval longer or the timeout shorter",
            ),
            (
                {"sizes": (64, 2), "interval": 0.001},
                "outstanding probes of 2 bytes must be 256 or fewer for replies to be matched, got 1000: make the size larger,"
                " the interval longer or the timeout shorter",
            ),
        ],
    )
    def test_wrong(self, values: dict[str, Any], sentence: str) -> None:
        """A wrong value is refused where it is given."""
        with pytest.raises(ValueError, match="must be") as caught:
            Plan(**values)
        assert str(caught.value) == sentence

    def test_empty(self) -> None:
        """One empty probe may be outstanding."""
        assert Plan(sizes=(0,)).outstanding == 1
        assert Plan(sizes=(0,), count=1, interval=0.1).outstanding == 1


class ScheduleTests:
    """L{Schedule}."""

    def test_fixed(self) -> None:
        """The time of each probe is computed from the first, so that rounding errors do not add up."""
        schedule = Schedule(Plan(interval=0.00002), 7)
        assert [schedule.at(sequence, 0) for sequence in (0, 1, 50_000)] == [7, 20_007, 7 + SECOND]

    @given(st.floats(1e-6, 3), st.integers(0, 10**6), st.integers(0, 10**12))
    def test_due(self, interval: float, following: int, now: int) -> None:
        """Exactly the probes whose time has come are due."""
        schedule = Schedule(Plan(interval=interval, timeout=1e-3), 5)
        due = schedule.due(following, 0, now)
        assert due >= 0
        assert schedule.at(following + due, now) > now
        if due:
            assert schedule.at(following + due - 1, now) <= now

    def test_count(self) -> None:
        """After the last one none is due."""
        schedule = Schedule(Plan(interval=1, count=3), 0)
        assert schedule.due(0, 0, 100 * SECOND) == 3
        assert schedule.due(3, 0, 100 * SECOND) == 0
        assert schedule.next(3, 0, 0) is None
        assert schedule.isOver(3, 0)
        assert not schedule.isOver(2, 0)

    @pytest.mark.parametrize(("duration", "total"), [(0, 1), (1, 10), (0.95, 10), (1.05, 11)])
    def test_duration(self, duration: float, total: int) -> None:
        """Probes leave before the duration is over, and one at least."""
        assert Schedule(Plan(interval=0.1, duration=duration), 0).total == total

    def test_missed(self) -> None:
        """Probes more than a second late are missed."""
        schedule = Schedule(Plan(interval=0.5), 0)
        assert schedule.missed(0, SECOND) == 0
        assert schedule.missed(0, SECOND + 1) == 1
        assert schedule.missed(1, 3 * SECOND) == 3


class FloodTests:
    """L{Flood}."""

    def test_limit(self) -> None:
        """The number of outstanding probes is limited; each reply allows another one."""
        flood = Flood(Plan(flood=True), 0)
        assert flood.due(0, 0, 1) == FLOOD_OUTSTANDING
        assert flood.due(FLOOD_OUTSTANDING, FLOOD_OUTSTANDING, 2) == 0
        assert flood.due(FLOOD_OUTSTANDING, FLOOD_OUTSTANDING - 3, 3) == 3

    def test_silence(self) -> None:
        """Without replies one probe is sent every hundredth of a second."""
        flood = Flood(Plan(flood=True), 0)
        flood.due(0, 0, 0)
        following = flood.next(256, 256, 1)
        assert following == SECOND // 100
        assert flood.due(256, 256, following) == 1
        assert flood.due(257, 257, following) == 0

    def test_ends(self) -> None:
        """Count and duration limit a flood."""
        assert Flood(Plan(flood=True, count=10), 0).due(4, 0, 0) == 6
        assert Flood(Plan(flood=True, duration=1), 0).isOver(4, SECOND)
        assert Flood(Plan(flood=True, duration=1), 0).next(4, 0, SECOND) is None
