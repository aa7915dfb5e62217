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
            ({"interval": 0}, "the interval is a number of seconds above 0, not 0"),
            ({"timeout": float("nan")}, "the timeout is a number of seconds above 0, not nan"),
            ({"wait": -1}, "the wait is a number of seconds, 0 or more, not -1"),
            ({"count": 0}, "the count is a number of probes from 1 on, not 0"),
            ({"sizes": ()}, "there is no size: one or more are needed"),
            (
                {"sizes": (64, 2), "interval": 0.001},
                "of 1000 probes of 2 bytes that may be under way at once, no more than 256 can be told apart: make them larger,"
                " the interval longer or the timeout shorter",
            ),
        ],
    )
    def test_wrong(self, values: dict[str, Any], sentence: str) -> None:
        """What cannot be is said in one sentence."""
        with pytest.raises(ValueError, match=r"are|is|make") as caught:
            Plan(**values)
        assert str(caught.value) == sentence

    def test_empty(self) -> None:
        """Empty probes can be told apart one by one."""
        assert Plan(sizes=(0,)).outstanding == 1
        assert Plan(sizes=(0,), count=1, interval=0.1).outstanding == 1


class ScheduleTests:
    """L{Schedule}."""

    def test_fixed(self) -> None:
        """Each probe has its time, counted from the first one, and not from the one before it."""
        schedule = Schedule(Plan(interval=0.00002), 7)
        assert [schedule.at(sequence, 0) for sequence in (0, 1, 50_000)] == [7, 20_007, 7 + SECOND]

    @given(st.floats(1e-6, 3), st.integers(0, 10**6), st.integers(0, 10**12))
    def test_due(self, interval: float, following: int, now: int) -> None:
        """Due are just those whose time has come."""
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
        """More than a second late is too late."""
        schedule = Schedule(Plan(interval=0.5), 0)
        assert schedule.missed(0, SECOND) == 0
        assert schedule.missed(0, SECOND + 1) == 1
        assert schedule.missed(1, 3 * SECOND) == 3


class FloodTests:
    """L{Flood}."""

    def test_room(self) -> None:
        """So many may be under way; a reply makes room for another."""
        flood = Flood(Plan(flood=True), 0)
        assert flood.due(0, 0, 1) == FLOOD_OUTSTANDING
        assert flood.due(FLOOD_OUTSTANDING, FLOOD_OUTSTANDING, 2) == 0
        assert flood.due(FLOOD_OUTSTANDING, FLOOD_OUTSTANDING - 3, 3) == 3

    def test_silence(self) -> None:
        """Without replies one leaves each hundredth of a second."""
        flood = Flood(Plan(flood=True), 0)
        flood.due(0, 0, 0)
        following = flood.next(256, 256, 1)
        assert following == SECOND // 100
        assert flood.due(256, 256, following) == 1
        assert flood.due(257, 257, following) == 0

    def test_ends(self) -> None:
        """Count and duration hold."""
        assert Flood(Plan(flood=True, count=10), 0).due(4, 0, 0) == 6
        assert Flood(Plan(flood=True, duration=1), 0).isOver(4, SECOND)
        assert Flood(Plan(flood=True, duration=1), 0).next(4, 0, SECOND) is None
