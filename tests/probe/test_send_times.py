"""Tests of L{udpecho.probe.send_times}, through a flow on clocks and a socket that a test sets."""

from __future__ import annotations

import pytest

from tests.support.probes import Bench
from udpecho.probe.io.socket import Taken
from udpecho.probe.outcomes import Outcome
from udpecho.probe.schedule import Plan

MS = 1_000_000


class SendTimesTests:
    """Which round trips come from kernel timestamps, through a flow."""

    def exchange(self, bench: Bench, stepBefore: int = 0, stepBetween: int = 0) -> float | None:
        """One probe that takes 100 us from the device and back to it, and 300 us by the monotonic clock.

        @param stepBefore: by how many ns the wall clock is set between the call and the stamp of sending.
        @param stepBetween: the same between the two stamps.
        """

        def send() -> None:
            bench.clocks.time += MS // 10
            bench.clocks.offset += stepBefore
            bench.socket.stamps = [(len(bench.socket.sent), bench.wall)]

        bench.socket.onSend = send
        sequence = bench.flow.statistics.highest + 1
        bench.flow.send(bench.clocks.time)
        bench.clocks.time += MS // 10
        bench.clocks.offset += stepBetween
        stamp = bench.wall
        bench.clocks.time += MS // 10
        bench.reply(sequence, stamp=stamp)
        assert bench.events[-1].outcome is Outcome.ANSWERED
        bench.clocks.time += MS
        return bench.events[-1].roundTrip

    def test_kernel(self) -> None:
        """With both timestamps it is their difference."""
        bench = Bench()
        assert [self.exchange(bench) for _ in range(3)] == [0.0001] * 3
        assert bench.flow.timestampSource == "kernel"

    @pytest.mark.parametrize("step", [-3600 * 10**9, -50_000, 50_000, 150_000, 3600 * 10**9])
    @pytest.mark.parametrize("when", ["stepBefore", "stepBetween"])
    def test_step(self, step: int, when: str) -> None:
        """A wall clock that is set while a probe is outstanding does not falsify its round trip, whether it is set by hours or
        by so little that the timestamps look plausible. That round trip is by the monotonic clock, the next by timestamps
        again.
        """
        bench = Bench()
        times = [self.exchange(bench), self.exchange(bench, **{when: step}), self.exchange(bench)]
        assert times == [0.0001, 0.0003, 0.0001]
        assert bench.flow.timestampSource == "mixed"

    def test_stepWhenIdle(self) -> None:
        """A wall clock that is set while nothing is outstanding changes nothing: timestamps give the next round trip."""
        bench = Bench()
        times = [self.exchange(bench)]
        bench.clocks.offset += 3600 * 10**9
        times.append(self.exchange(bench))
        assert times == [0.0001, 0.0001]
        assert bench.flow.timestampSource == "kernel"

    def test_stampMissing(self) -> None:
        """Without the timestamp of sending it is by the monotonic clock."""
        bench = Bench()
        bench.flow.send(bench.clocks.time)
        bench.clocks.time += MS
        bench.reply(0, stamp=bench.wall)
        assert bench.events[-1].roundTrip == 0.001
        assert bench.flow.timestampSource == "monotonic"

    def test_afterNotSent(self) -> None:
        """Timestamps belong to their probes although one in between could not be sent."""
        bench = Bench()
        bench.clocks.time += 3 * MS
        bench.socket.taken = [Taken(2, 1)]
        bench.flow.send(bench.clocks.time)
        bench.flow.send(bench.clocks.time)
        bench.socket.stamps = [(number, bench.wall + number) for number in range(3)]
        bench.clocks.time += MS
        bench.reply(0, 1, 2, stamp=bench.wall)
        assert [(event.outcome, event.sequence) for event in bench.events] == [
            (Outcome.NOT_SENT, 2),
            (Outcome.ANSWERED, 0),
            (Outcome.ANSWERED, 1),
            (Outcome.ANSWERED, 3),
        ]
        assert [event.roundTrip for event in bench.events[1:]] == pytest.approx([0.001, 0.000999999, 0.000999998], abs=1e-12)

    def test_olderThanStep(self) -> None:
        """A timestamp of a probe from before a clock step is not used, though it arrives after the step was detected."""
        bench = Bench()
        bench.flow.send(bench.clocks.time)
        sent = bench.wall
        bench.clocks.time += MS // 10
        bench.clocks.offset += 50_000
        bench.clocks.time += MS
        bench.flow.send(bench.clocks.time)
        bench.socket.stamps = [(0, sent + 50_000)]
        bench.reply(0, stamp=bench.wall)
        assert bench.events[-1].roundTrip == pytest.approx(0.0011)
        assert bench.flow.timestampSource == "monotonic"

    def test_spread(self) -> None:
        """The probes of a batch leave one after the other: their send times are spread over the duration of the send call."""
        bench = Bench(Plan(interval=0.001))
        bench.flow.send(bench.clocks.time)
        bench.clocks.time += 4 * MS
        bench.socket.onSend = lambda: setattr(bench.clocks, "time", bench.clocks.time + 8 * MS)
        bench.flow.send(bench.clocks.time)
        # The four probes are 3, 2, 1 and 0 ms late when the call begins, and 2 ms apart in it.
        assert bench.flow.statistics.sent == 5
        deviations = bench.flow.statistics.scheduleDeviations
        assert deviations.max == 0.006
        assert deviations.total == pytest.approx(0.003 + 0.004 + 0.005 + 0.006)
