"""Tests of L{udpecho.probe.flow}, on clocks and a socket that a test sets."""

from __future__ import annotations

import errno

import pytest

from tests.support.probes import Bench, ScriptedSocket
from tests.support.sums import checkSums
from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, HostUnreachable, PortUnreachable
from udpecho.probe.io.socket import Arrivals, Taken, Undelivered
from udpecho.probe.outcomes import Outcome
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target

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

    def test_anotherSocket(self) -> None:
        """With another socket numbers and statistics go on, and replies and timestamps of the former one still count."""
        bench = Bench(Plan(interval=0.001, timeout=1))
        former, other = bench.socket, ScriptedSocket()
        bench.clocks.time += 1 * MS
        bench.flow.send(bench.clocks.time)
        assert bench.flow.taken == 2
        other.source = DatagramAddress(("192.0.2.9", 5001))
        bench.flow.use(other, Target("192.0.2.2:7", DatagramAddress(("192.0.2.8", 7))))
        bench.clocks.time += 2 * MS
        bench.flow.send(bench.clocks.time)
        assert (len(former.sent), len(other.sent)) == (2, 2)
        # What the kernel says about both, in one numbering.
        former.stamps, other.stamps = [(1, bench.wall - 5 * MS)], [(2, bench.wall - MS)]
        former.failures = [Undelivered(HostUnreachable("no route", 113), former.sent[0][:28])]
        former.arrivals = [Arrivals([former.sent[1]], [bench.wall])]
        other.arrivals = [Arrivals([other.sent[0]], [bench.wall])]
        bench.clocks.time += 10 * MS
        bench.flow.read(former)
        bench.flow.read(other)
        assert [(event.outcome, event.sequence, event.roundTrip) for event in bench.events] == [
            (Outcome.UNREACHABLE, 0, None),
            (Outcome.ANSWERED, 1, 0.005),
            (Outcome.ANSWERED, 2, 0.001),
        ]
        # Each with where it was sent to, and from where.
        ways = [("192.0.2.2:7", "192.0.2.1:5000")] * 2 + [("192.0.2.8:7", "192.0.2.9:5001")]
        assert [(event.peer, event.source) for event in bench.events] == ways
        former.dropped, other.dropped = 1, 2
        bench.flow.readDrops()
        assert bench.flow.statistics.ownDropped == 3
        bench.clocks.time += 2000 * MS
        bench.flow.expire(bench.clocks.time)
        assert bench.flow.sockets.all == [other]
        checkSums(bench.flow.statistics)

    def test_unanswered(self) -> None:
        """The function for a flow without replies is called about once a second, also when a probe is sent only every minute,
        and not after a reply.
        """
        times: list[int] = []
        bench = Bench(Plan(interval=60, timeout=1), lambda flow: times.append(bench.clocks.time))
        start = bench.clocks.time
        bench.flow.send(start)
        bench.reply(0)
        while bench.clocks.time < start + 63_000 * MS:
            bench.flow.send(bench.clocks.time)
            bench.flow.expire(bench.clocks.time)
            following = bench.flow.next(bench.clocks.time)
            assert following is not None
            assert following > bench.clocks.time
            bench.clocks.time = following
        assert [(time - start) // MS for time in times] == [60_750, 61_500, 62_250]
        bench.reply(1)
        bench.clocks.time += 1000 * MS
        bench.flow.expire(bench.clocks.time)
        assert len(times) == 3
        assert bench.flow.statistics.count(Outcome.LATE) == 1

    @pytest.mark.parametrize(
        ("interval", "timeout", "limit"), [(1, 1, 3000), (0.01, 1, 1010), (0.1, 0.1, 300), (10, 1, 30_000)]
    )
    def test_isUp(self, interval: float, timeout: float, limit: int) -> None:
        """A flow is up for three intervals after a reply, or one and the timeout, and until a send fails."""
        bench = Bench(Plan(interval=interval, timeout=timeout))
        assert not bench.flow.isUp()
        bench.flow.send(bench.clocks.time)
        assert not bench.flow.isUp()
        bench.reply(0)
        bench.clocks.time += limit * MS
        assert bench.flow.isUp()
        bench.clocks.time += 1
        assert not bench.flow.isUp()
        bench.clocks.time += 100 * limit * MS
        while bench.flow.send(bench.clocks.time):
            pass
        bench.reply(1)
        assert bench.flow.isUp()
        bench.clocks.time += round(interval * 1000) * MS
        bench.socket.taken = [Taken(0, errno.ENETUNREACH)]
        bench.flow.send(bench.clocks.time)
        assert not bench.flow.isUp()

    def test_released(self) -> None:
        """Without a socket, probes are not sent, for the reason that there is none."""
        bench = Bench(Plan(interval=1))
        bench.flow.release()
        bench.flow.problem = "cannot send from 192.0.2.1:5000: Address already in use"
        bench.socket.taken = [Taken(0, errno.EBADF)]
        bench.flow.send(bench.clocks.time)
        assert [(event.outcome, event.detail) for event in bench.events] == [(Outcome.NOT_SENT, bench.flow.problem)]

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
