"""Tests of L{udpecho.probe.flow}, on clocks and a socket that a test sets."""

from __future__ import annotations

import pytest

from tests.support.probes import Bench
from tests.support.sums import checkSums
from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.probe.io.socket import Taken, Undelivered
from udpecho.probe.outcomes import Outcome
from udpecho.probe.schedule import Plan

MS = 1_000_000


class FlowTests:
    """L{Flow}."""

    def test_catchUp(self) -> None:
        """Probes that were due while the process was stopped are sent late; those more than a second late are not sent."""
        bench = Bench(Plan(interval=0.01))
        start = bench.clocks.time
        bench.flow.send(bench.clocks.time)
        bench.clocks.time += 3000 * MS
        while bench.flow.send(bench.clocks.time):
            pass
        statistics = bench.flow.statistics
        assert statistics.scheduled == 301
        assert statistics.count(Outcome.NOT_SENT) == 199
        assert statistics.scheduleDeviations.max == 1.0
        # The time of a probe that was not sent is its scheduled time.
        assert bench.times == pytest.approx([start / 1e9 + number / 100 for number in range(1, 200)], abs=1e-9)
        checkSums(statistics)

    def test_queueFull(self) -> None:
        """Probes that a full send queue does not take are sent a moment later."""
        bench = Bench()
        bench.clocks.time += 2 * MS
        bench.socket.taken = [Taken(1, 11)]
        bench.flow.send(bench.clocks.time)
        assert bench.flow.statistics.scheduled == 1
        bench.flow.send(bench.clocks.time)
        assert bench.flow.statistics.scheduled == 1
        following = bench.flow.next(bench.clocks.time)
        assert following is not None
        bench.clocks.time = following
        bench.flow.send(bench.clocks.time)
        assert bench.flow.statistics.sent == 3

    def test_ownDrops(self) -> None:
        """As many lost probes as our own receive queue dropped datagrams are our loss."""
        bench = Bench(Plan(interval=0.001, timeout=0.01))
        bench.clocks.time += 4 * MS
        bench.flow.send(bench.clocks.time)
        bench.socket.dropped = 2
        bench.clocks.time += 1000 * MS
        bench.flow.expire(bench.clocks.time)
        assert bench.flow.statistics.count(Outcome.LOST) == 3
        assert bench.flow.statistics.count(Outcome.LOST_OWN) == 2

    def test_quoted(self) -> None:
        """A refusal is of the probe that it quotes, or without a quotation of the oldest outstanding one."""
        bench = Bench()
        bench.clocks.time += 3 * MS
        bench.flow.send(bench.clocks.time)
        reason = PortUnreachable("nothing listens", 111)
        bench.socket.failures = [Undelivered(reason, bench.socket.sent[2][:28]), Undelivered(reason)]
        bench.flow.readErrors(bench.socket)
        assert [event.sequence for event in bench.events] == [2, 0]

    @pytest.mark.parametrize(
        ("reason", "outcome"),
        [(PortUnreachable("nothing listens", 111), Outcome.REFUSED), (HostUnreachable("no route", 113), Outcome.UNREACHABLE)],
    )
    def test_errorAfterTimeout(self, reason: EchoError, outcome: Outcome) -> None:
        """An ICMP error that arrives after the timeout changes a lost probe: it has a second event and is no longer lost."""
        bench = Bench(Plan(interval=1, timeout=0.01))
        bench.flow.send(bench.clocks.time)
        bench.clocks.time += 20 * MS
        bench.flow.expire(bench.clocks.time)
        bench.socket.failures = [Undelivered(reason, bench.socket.sent[0][:28])]
        bench.flow.readErrors(bench.socket)
        assert [(event.outcome, event.sequence) for event in bench.events] == [(Outcome.LOST, 0), (outcome, 0)]
        assert (bench.flow.statistics.count(Outcome.LOST), bench.flow.statistics.count(outcome)) == (0, 1)
        # A second error for the same probe changes nothing.
        bench.socket.failures = [Undelivered(reason, bench.socket.sent[0][:28])]
        bench.flow.readErrors(bench.socket)
        assert len(bench.events) == 2

    def test_window(self) -> None:
        """The window has 4096 probes: the reply to the oldest in it is matched, the one before it is unmatched, and its event
        has neither a number nor a time, which would be those of another probe.
        """
        bench = Bench(Plan(interval=0.0001, timeout=0.01))
        for _ in range(4096):
            bench.clocks.time += MS // 10
            while bench.flow.send(bench.clocks.time):
                pass
        assert bench.flow.statistics.sent == 4097
        bench.reply(0, 1)
        assert [(event.outcome, event.sequence, event.roundTrip is None) for event in bench.events] == [
            (Outcome.UNMATCHED, None, True),
            (Outcome.LATE, 1, False),
        ]
        checkSums(bench.flow.statistics)

    @pytest.mark.parametrize(
        ("plan", "window"),
        [
            (Plan(), 4096),
            (Plan(interval=0.0001, timeout=1), 20_000),
            (Plan(interval=0.0001, timeout=1, count=15_000), 15_000),
            (Plan(interval=0.0001, timeout=0.1, wait=1), 20_000),
            (Plan(interval=0.000001, timeout=1, wait=2), 1 << 21),
        ],
    )
    def test_windowSize(self, plan: Plan, window: int) -> None:
        """The window holds twice as many probes as can be outstanding, or waited for, within limits."""
        bench = Bench(plan)
        assert bench.flow._window == window
