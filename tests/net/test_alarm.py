"""Tests of L{udpecho.net.alarm}."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.conftest import CaughtErrors
from tests.support.descriptors import noDescriptors
from tests.support.guards import onlyLinux
from tests.support.proxy import until
from tests.support.running import Run, sleep
from udpecho.net.alarm import Alarm


class AlarmTests:
    """L{Alarm}."""

    def test_clock(self) -> None:
        """On a reactor without descriptors it is a delayed call; the last time that was set counts."""
        clock, calls = Clock(), []
        alarm = Alarm(clock, lambda: calls.append(clock.seconds()))
        alarm.schedule(5)
        alarm.schedule(2)
        clock.pump([1.0] * 8)
        alarm.schedule(1)
        alarm.cancel()
        alarm.cancel()
        assert clock.getDelayedCalls() == []
        clock.advance(5)
        assert calls == [2.0]

    def test_times(self, run: Run) -> None:
        """It never calls too early, once for each time, and the last one that was set counts."""

        async def test(reactor: Any) -> None:
            calls: list[float] = []
            alarm = Alarm(reactor, lambda: calls.append(reactor.seconds()))
            for number, delay in enumerate((0.0, 0.0003, 0.02), 1):
                alarm.schedule(3600)
                begin = reactor.seconds()
                alarm.schedule(delay)
                await until(reactor, lambda number=number: len(calls) == number, "the call")  # type: ignore[misc]
                assert calls[-1] >= begin + delay
            alarm.schedule(0)
            alarm.cancel()
            await sleep(reactor, 0.01)
            assert len(calls) == 3
            # It is usable again.
            alarm.schedule(0)
            await until(reactor, lambda: len(calls) == 4, "the call after the cancel")
            alarm.cancel()

        run(test)

    @onlyLinux
    def test_descriptor(self, runOnce: Run) -> None:
        """Where the system has such timers it is no delayed call."""

        async def test(reactor: Any) -> None:
            before = len(reactor.getDelayedCalls())
            alarm = Alarm(reactor, lambda: None)
            alarm.schedule(3600)
            assert len(reactor.getDelayedCalls()) == before
            assert alarm._alarm in reactor.getReaders()
            alarm.cancel()

        runOnce(test)

    def test_raises(self, runOnce: Run, caught: CaughtErrors) -> None:
        """What the function raises is logged, and the alarm works on."""

        async def test(reactor: Any) -> None:
            calls: list[int] = []

            def fail() -> None:
                calls.append(1)
                raise ZeroDivisionError

            alarm = Alarm(reactor, fail)
            for number in (1, 2):
                alarm.schedule(0.001)
                await until(reactor, lambda number=number: len(calls) == number, "the call")  # type: ignore[misc]
            alarm.cancel()

        runOnce(test)
        assert len(caught.flush(ZeroDivisionError)) == 2

    @pytest.mark.isolated
    def test_noDescriptor(self, runOnce: Run) -> None:
        """Without a descriptor it is a delayed call."""

        async def test(reactor: Any) -> None:
            calls: list[int] = []
            alarm = Alarm(reactor, lambda: calls.append(1))
            with noDescriptors():
                alarm.schedule(0.001)
                await until(reactor, lambda: calls == [1], "the call")
            alarm.cancel()

        runOnce(test)
