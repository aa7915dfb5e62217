"""Tests of L{udpecho.testing.clock}."""

from __future__ import annotations

import pytest
from twisted.internet import error
from twisted.internet.task import LoopingCall

from tests.conftest import CaughtErrors
from udpecho.testing.clock import NetworkClock


class ClockTests:
    """The time of a network."""

    def test_order(self) -> None:
        """Calls are made at their times and in that order, those for one time in the order of C{callLater}, and those that
        they make in turn in the same step.
        """
        clock = NetworkClock()
        made: list[tuple[float, str]] = []

        def note(what: str) -> None:
            made.append((clock.seconds(), what))

        def again() -> None:
            note("again")
            clock.callLater(1, note, "in turn")
            clock.callLater(0, note, "at once")
            clock.callLater(10, note, "beyond the step")

        clock.callLater(3, note, "three")
        clock.callLater(1, again)
        clock.callLater(1, note, "one")
        clock.fly(2, None, note, "flown")
        clock.callLater(2, note, "two")
        clock.advance(5)
        assert made == [
            (1, "again"),
            (1, "one"),
            (1, "at once"),
            (2, "flown"),
            (2, "two"),
            (2, "in turn"),
            (3, "three"),
        ]
        assert clock.seconds() == 5
        assert [call.getTime() for call in clock.getDelayedCalls()] == [11]
        clock.pump([3, 3])
        assert made[-1] == (11, "beyond the step")
        assert not clock.getDelayedCalls()

    def test_changed(self) -> None:
        """Delayed calls can be cancelled, put off, put off again and brought forward, and are made once, at the time
        that was set last.
        """
        clock = NetworkClock()
        made: list[tuple[float, str]] = []

        def note(what: str) -> None:
            made.append((clock.seconds(), what))

        calls = {what: clock.callLater(5, note, what) for what in ("cancelled", "sooner", "later", "delayed", "both")}
        calls["cancelled"].cancel()
        calls["sooner"].reset(2)
        calls["later"].reset(8)
        calls["delayed"].delay(1)
        calls["delayed"].delay(1)
        calls["both"].reset(1)
        calls["both"].delay(8)
        assert len(clock.getDelayedCalls()) == 4
        clock.advance(3)
        assert made == [(2, "sooner")]
        clock.advance(100)
        assert made == [(2, "sooner"), (7, "delayed"), (8, "later"), (9, "both")]
        assert not any(call.active() for call in calls.values())
        with pytest.raises(error.AlreadyCancelled):
            calls["cancelled"].cancel()
        with pytest.raises(error.AlreadyCalled):
            calls["sooner"].cancel()

    def test_cancelledByAnother(self) -> None:
        """A call that is cancelled at its very moment, by the one before it, is not made."""
        clock = NetworkClock()
        made: list[str] = []
        clock.callLater(1, lambda: second.cancel())
        second = clock.callLater(1, made.append, "second")
        clock.advance(1)
        assert made == []

    def test_raises(self, caught: CaughtErrors) -> None:
        """What a call raises is logged, as a reactor does, and the others are made; what ends a program ends the step."""
        clock = NetworkClock()
        made: list[float] = []

        def interrupt() -> None:
            raise KeyboardInterrupt

        clock.callLater(1, lambda: 1 / 0)
        clock.callLater(1, lambda: made.append(clock.seconds()))
        clock.fly(2, None, lambda: 1 / 0)
        clock.callLater(3, interrupt)
        clock.callLater(3, lambda: made.append(clock.seconds()))
        with pytest.raises(KeyboardInterrupt):
            clock.advance(5)
        assert (made, clock.seconds()) == ([1], 3)
        assert len(caught.flush(ZeroDivisionError)) == 2
        clock.advance(2)
        assert (made, clock.seconds()) == ([1, 3], 5)

    @pytest.mark.parametrize("delay", [-1, float("nan")])
    def test_negative(self, delay: float) -> None:
        """A delay that is none is refused, as Twisted's reactors do."""
        clock = NetworkClock()
        with pytest.raises(AssertionError):
            clock.callLater(delay, int)
        assert not clock.getDelayedCalls()

    def test_loopingCall(self) -> None:
        """A C{LoopingCall} runs on it, at each of its times though the steps are wide."""
        clock = NetworkClock()
        times: list[float] = []
        loop = LoopingCall(lambda: times.append(clock.seconds()))
        loop.clock = clock
        loop.start(1.5)
        clock.advance(6)
        assert times == [0, 1.5, 3, 4.5, 6]
        loop.stop()
        assert not clock.getDelayedCalls()

    def test_owner(self) -> None:
        """While a call of a host is made, the clock names that host; C{callsOf} has the calls of one."""
        clock = NetworkClock()
        seen: list[object] = []
        call = clock.schedule("one", 2, lambda: seen.append(clock.owner), (), {})
        clock.schedule("two", 1, lambda: seen.append(clock.owner), (), {})
        clock.callLater(3, lambda: seen.append(clock.owner))
        assert clock.callsOf("one") == [call]
        clock.advance(5)
        assert seen == ["two", "one", None]
        assert clock.owner is None
