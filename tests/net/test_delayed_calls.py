"""Tests of L{udpecho.net.delayed_calls}, in virtual time."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from udpecho.net.delayed_calls import SingleCall, poll


class SingleCallTests:
    """L{SingleCall}."""

    def test_once(self) -> None:
        """While it is scheduled, scheduling it again changes nothing; afterwards it can be scheduled anew."""
        clock = Clock()
        times: list[float] = []
        call = SingleCall(clock, lambda: times.append(clock.seconds()))
        call.schedule(2)
        call.schedule(1)
        assert call.scheduled
        clock.pump([1, 1, 1])
        assert times == [2]
        assert not call.scheduled
        call.schedule(1)
        clock.advance(1)
        assert times == [2, 4]

    def test_cancel(self) -> None:
        """It can be cancelled at any time, also when somebody else has cancelled the delayed call."""
        clock = Clock()
        call = SingleCall(clock, lambda: pytest.fail("called"))
        call.cancel()
        call.schedule(1)
        call.cancel()
        assert not clock.getDelayedCalls()
        call.schedule(1)
        clock.getDelayedCalls()[0].cancel()
        call.cancel()
        assert not call.scheduled

    def test_fromItself(self) -> None:
        """The function may schedule it again."""
        clock = Clock()
        times: list[float] = []

        def again() -> None:
            times.append(clock.seconds())
            call.schedule(1)

        call = SingleCall(clock, again)
        call.schedule(1)
        clock.pump([1, 1, 1])
        assert times == [1, 2, 3]


class PollTests:
    """L{poll}."""

    def test_cancelledByCondition(self) -> None:
        """A condition that has it cancelled is not looked at again, and nothing is left in the reactor."""
        clock = Clock()

        def condition() -> bool:
            done.cancel()
            return False

        done = poll(clock, condition, 10, lambda: 1)
        done.addErrback(lambda failure: failure.trap(CancelledError))
        clock.advance(0)
        assert clock.getDelayedCalls() == []
