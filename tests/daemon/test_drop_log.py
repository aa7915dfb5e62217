"""Tests of L{udpecho.daemon.drop_log}."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.conftest import CaughtErrors
from udpecho.daemon.drop_log import LINE_INTERVAL, DropLog, LogThrottle
from udpecho.guard.guard import Guard
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.server.counters import Counters


class Watched:
    """A log of drops on a clock.

    @ivar clock: the clock.
    @ivar counters: the counters that it reads.
    @ivar events: the logged events.
    """

    def __init__(self, events: Any) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.events: list[dict[str, Any]] = events

    def log(self, **how: Any) -> DropLog:
        """Start the log."""
        log = DropLog(self.clock, self.counters, **how)
        log.start()
        return log

    def drop(self, reason: str, datagrams: int) -> None:
        self.counters.receive(0, datagrams)
        self.counters.drop(reason, 0, datagrams)

    def turn(self, seconds: int) -> list[str]:
        """Let seconds pass, one by one.

        @return: the lines since the last call.
        """
        self.clock.pump([1.0] * seconds)
        return self.lines()

    def lines(self) -> list[str]:
        """The lines since the last call."""
        lines = [formatEvent(event) for event in self.events]
        del self.events[:]
        return lines


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Counters, a clock, and the logged events."""
    with capturedLogs() as events:
        yield Watched(events)


class DropLogTests:
    """L{DropLog}."""

    def test_quiet(self, watched: Watched) -> None:
        """Where nothing is dropped nothing is logged."""
        log = watched.log(kernelDrops=lambda: 0)
        watched.counters.receive(3)
        watched.counters.echo(3)
        assert watched.turn(100) == []
        log.stop()
        assert watched.lines() == []
        assert not watched.clock.getDelayedCalls()

    def test_firstSoon(self, watched: Watched) -> None:
        """The first drop of a reason is logged within a second, with its fields."""
        watched.log()
        watched.drop("too_large", 2)
        watched.clock.advance(1)
        (event,) = watched.events
        assert formatEvent(event) == "datagrams-dropped: reason=too_large datagrams=2 in 1 s"
        assert (event["reason"], event["datagrams"], event["busiest"]) == ("too_large", 2, {})
        assert event["log_level"] is LogLevel.info

    def test_thenSeldom(self, watched: Watched) -> None:
        """The next line of each reason comes after 30 s, with the sum."""
        watched.log()
        watched.drop("truncated", 1)
        assert watched.turn(1) == ["datagrams-dropped: reason=truncated datagrams=1 in 1 s"]
        for _ in range(10):
            watched.drop("truncated", 5)
            assert watched.turn(1) == []
        watched.drop("too_large", 3)
        assert watched.turn(1) == ["datagrams-dropped: reason=too_large datagrams=3 in 1 s"]
        assert watched.turn(18) == []
        assert watched.turn(1) == ["datagrams-dropped: reason=truncated datagrams=50 in 30 s"]
        assert watched.turn(100) == []

    def test_afterIdleTime(self, watched: Watched) -> None:
        """After 30 s without a drop the next one is logged at once again."""
        watched.log()
        watched.drop("truncated", 1)
        watched.turn(61)
        watched.drop("truncated", 4)
        assert watched.turn(1) == ["datagrams-dropped: reason=truncated datagrams=4 in 1 s"]

    def test_earlierDrops(self, watched: Watched) -> None:
        """Drops before the start are not logged."""
        watched.drop("truncated", 7)
        watched.log()
        assert watched.turn(2) == []
        watched.drop("truncated", 1)
        assert watched.turn(1) == ["datagrams-dropped: reason=truncated datagrams=1 in 1 s"]

    def test_stop(self, watched: Watched) -> None:
        """At the stop the rest is logged at once, and nothing later; it may be started twice and stopped twice."""
        log = watched.log()
        log.start()
        watched.drop("truncated", 1)
        watched.turn(1)
        watched.drop("truncated", 2)
        watched.clock.advance(0.5)
        log.stop()
        log.stop()
        assert watched.lines() == ["datagrams-dropped: reason=truncated datagrams=2 in 0 s"]
        watched.drop("truncated", 1)
        assert watched.turn(40) == []
        assert not watched.clock.getDelayedCalls()

    def test_busiest(self, watched: Watched) -> None:
        """A guard's drops have the busiest prefixes, also those that were read when another reason was due."""
        guard = Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24")), seconds=lambda: 0.0)
        watched.log(busiest=guard.busiest)

        def receive(host: str, port: int, datagrams: int) -> None:
            for _ in range(datagrams):
                reason = guard.refuse(5, (host, port))
                assert reason is not None
                watched.drop(reason, 1)

        receive("203.0.113.1", 40000, 2)
        receive("198.51.100.7", 40000, 5)
        assert watched.turn(1) == [
            "datagrams-dropped: reason=not_allowed datagrams=7 in 1 s; busiest 198.51.100.7/32 (5), 203.0.113.1/32 (2)"
        ]
        receive("203.0.113.9", 40000, 3)
        receive("192.0.2.1", 7, 1)
        assert watched.turn(1) == ["datagrams-dropped: reason=loop_guard datagrams=1 in 1 s; busiest 192.0.2.1/32 (1)"]
        receive("203.0.113.9", 40000, 1)
        assert watched.turn(29) == ["datagrams-dropped: reason=not_allowed datagrams=4 in 30 s; busiest 203.0.113.9/32 (4)"]

    def test_fixedMemory(self, watched: Watched) -> None:
        """However many prefixes a guard returns, the number of those that are kept is bounded."""
        numbers = iter(range(10**6))

        def busiest(most: int) -> dict[str, list[tuple[str, int]]]:
            return {"rate_limited": [(f"prefix {next(numbers)}", 1) for _ in range(most)]}

        log = watched.log(busiest=busiest)
        for _ in range(500):
            watched.drop("too_large", 1)
            watched.turn(31)
        assert sum(len(counts._counts) for counts in log._prefixes.values()) <= 64

    def test_dryRun(self, watched: Watched) -> None:
        """The drops of a dry run have lines of their own."""
        guard = Guard(GuardPolicy(dryRun=True), seconds=lambda: 0.0)
        watched.log(busiest=guard.busiest, wouldDrop=lambda: guard.wouldDrop)
        assert guard.refuse(5, ("192.0.2.1", 7)) is None
        assert watched.turn(1) == ["datagrams-would-drop: reason=loop_guard datagrams=1 in 1 s; busiest 192.0.2.1/32 (1)"]

    def test_kernel(self, watched: Watched) -> None:
        """The kernel's drops are a warning with the option that helps, every 30 s at the most; a new socket starts at 0."""
        kernelDrops: list[int | None] = [3]
        watched.log(kernelDrops=lambda: kernelDrops[0])
        assert watched.turn(1) == []
        kernelDrops[0] = 10
        watched.clock.advance(1)
        assert [event["log_level"] for event in watched.events] == [LogLevel.warn]
        assert watched.lines() == [
            "the kernel dropped 7 datagrams in 1 s before they were received: --receive-buffer helps against bursts"
        ]
        kernelDrops[0] = 12
        assert watched.turn(29) == []
        assert [line.partition(" before")[0] for line in watched.turn(1)] == ["the kernel dropped 2 datagrams in 30 s"]
        kernelDrops[0] = 0
        assert watched.turn(60) == []
        kernelDrops[0] = 1
        assert [line.partition(" before")[0] for line in watched.turn(1)] == ["the kernel dropped 1 datagrams in 1 s"]
        kernelDrops[0] = None
        assert watched.turn(60) == []

    def test_counters(self, watched: Watched) -> None:
        """The counters are logged on demand, as at the stop, with the kernel's drops where they are known."""
        watched.drop("truncated", 2)
        watched.log().logCounters()
        watched.log(kernelDrops=lambda: 5).logCounters()
        sums = "counters: received=2 echoed=0 dropped=2 (truncated=2) received-bytes=0 echoed-bytes=0 dropped-bytes=0"
        assert [event["received"] for event in watched.events] == [2, 2]
        assert watched.lines() == [sums, f"{sums} kernel-dropped=5"]

    def test_failure(self, watched: Watched, caught: CaughtErrors) -> None:
        """If the counters cannot be read, that is logged once, and the log can be stopped."""
        log = watched.log(kernelDrops=iter([1]).__next__)
        watched.turn(3)
        assert len(caught.flush(StopIteration)) == 1
        log.stop()


class LogThrottleTests:
    """L{LogThrottle}."""

    @given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1000))))
    def test_all(self, steps: list[tuple[float, int]]) -> None:
        """At any times, all growth is reported in the end, and none twice."""
        now, value, reported = 0.0, 0, 0
        throttle = LogThrottle(now, value)
        for seconds, growth in steps:
            now, value = now + seconds, value + growth
            report = throttle.update(now, value)
            if report is not None:
                assert report[0] > 0
                reported += report[0]
            assert reported <= value
        rest = throttle.update(now, value, atOnce=True)
        assert reported + (rest[0] if rest else 0) == value

    @given(st.lists(st.booleans(), min_size=100, max_size=400))
    def test_seldom(self, grows: list[bool]) -> None:
        """Updated once a second, two reports are 30 s apart, and no growth waits for longer than that."""
        throttle, value, reportTime, waiting = LogThrottle(0, 0), 0, -LINE_INTERVAL, 0
        for second, more in enumerate(grows, 1):
            value += more
            waiting = waiting + 1 if more or waiting else 0
            if throttle.update(second, value) is not None:
                assert second - reportTime >= LINE_INTERVAL
                reportTime = second
                waiting = 0
            assert waiting <= LINE_INTERVAL
