"""Tests of the prober: in virtual time, on real sockets, through the proxy, and with clocks and sockets that a test sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tests.conftest import CaughtErrors
from tests.probe.io.test_timestamps import HandClocks
from tests.support.namespaces import whyNot as whyNoNamespaces
from tests.support.running import Run, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.errors import HostUnreachable, PortUnreachable
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.net import selftest
from udpecho.net.linux import sockopt
from udpecho.net.open import listen
from udpecho.probe import outcomes, records
from udpecho.probe.flow import Flow
from udpecho.probe.io import timestamps
from udpecho.probe.io.socket import Arrivals, IProbeSocket, SocketOptions, Taken, Undelivered
from udpecho.probe.io.timestamps import StepWatch
from udpecho.probe.outcomes import Outcome
from udpecho.probe.packet import Codec
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.target import Target, findTarget
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

LATENCY = 0.005
MS = 1_000_000
jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")

needsStamps = pytest.mark.skipif(
    selftest.unsupportedReason() is not None or timestamps.unsupportedReason() is not None,
    reason="this machine's kernel gives no stamps",
)


class Late(DatagramProtocol):
    """Answers each datagram after a while."""

    noisy = False

    def __init__(self, reactor: Any, delay: float) -> None:
        self._reactor = reactor
        self._delay = delay

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        transport: Any = self.transport
        self._reactor.callLater(self._delay, transport.write, datagram, addr)


class World:
    """
    A prober and an echo server on two hosts in memory.

    @ivar events: what the prober's listener was told.
    """

    def __init__(self, faults: FaultPlan | None = None, server: DatagramProtocol | None = None) -> None:
        self.network = MemoryNetwork(latency=LATENCY)
        self.here = self.network.host("here", "192.0.2.1", "2001:db8::1")
        self.there = self.network.host("there", "192.0.2.2", "2001:db8::2")
        if faults is not None:
            self.network.setPlan(self.there, self.here, faults)
        self.server = server or EchoServer()
        self.port = listen(self.there, 7, self.server, "192.0.2.2")
        self.events: list[outcomes.Event] = []

    def prober(self, plan: Plan, *names: str, **how: Any) -> Prober:
        """Make one."""
        targets = [Target.of(name) for name in names or ("192.0.2.2:7",)]
        return Prober(self.here, targets, plan, listener=lambda flow, event: self.events.append(event), **how)

    def run(self, plan: Plan, *names: str, seconds: float = 3600, **how: Any) -> Flow:
        """
        Probe until it is over.

        @return: the first flow.
        """
        prober = self.prober(plan, *names, **how)
        over = prober.start()
        # All was looked at in passing.
        self.network.advance(seconds)
        assert over.called
        for flow in prober.flows:
            flow.statistics.checkSums()
        self.leavesNothing()
        return prober.flows[0]

    def leavesNothing(self) -> None:
        """Check that no delayed call of the prober's is left."""
        assert not [call for call in self.here.getDelayedCalls() if "Echo" not in repr(call)]

    def outcomes(self) -> Counter[str]:
        """How many events of each kind there were."""
        return Counter(event.outcome.value for event in self.events)


class VirtualTests:
    """The whole prober in virtual time."""

    def test_answered(self) -> None:
        """Each probe leaves on time, and its round trip is twice the way."""
        world = World()
        flow = world.run(Plan(count=10, interval=0.1))
        statistics = flow.statistics
        assert (statistics.sent, statistics.received) == (10, 10)
        assert statistics.roundTrips.min == pytest.approx(2 * LATENCY * 1e9, abs=2)
        assert statistics.roundTrips.max == pytest.approx(2 * LATENCY * 1e9, abs=2)
        assert statistics.sendErrors.max is not None
        assert statistics.sendErrors.max <= 2
        assert flow.timestampSource == "monotonic"
        # It is over with the last reply.
        assert flow.elapsed == pytest.approx(0.9 + 2 * LATENCY)
        assert [event.sequence for event in world.events] == list(range(10))
        sent = [entry.time for entry in world.network.trace if entry.destination == ("192.0.2.2", 7)]
        assert sent == pytest.approx([number / 10 for number in range(10)])

    def test_openLoop(self) -> None:
        """Probes leave on schedule though no reply has come, and those under way are many."""
        world = World(server=Late(None, 0))
        world.server = Late(world.there, 0.9)
        world.port.stopListening()
        world.network.advance(1)
        listen(world.there, 7, world.server, "192.0.2.2")
        prober = world.prober(Plan(count=50, interval=0.01))
        prober.start()
        world.network.advance(0.495)
        assert prober.flows[0].outstanding == 50
        world.network.advance(2)
        assert prober.flows[0].statistics.count(Outcome.ANSWERED) == 50

    def test_lost(self) -> None:
        """Each that is lost is told so at its timeout, and the count is right to within its interval."""
        world = World(FaultPlan(1, loss=0.2))
        flow = world.run(Plan(count=2000, interval=0.01))
        lost = flow.statistics.count(Outcome.LOST)
        fates = Counter(entry.outcome.split(":")[0] for entry in world.network.trace)
        assert lost == fates["lost"]
        assert world.outcomes() == {"answered": 2000 - lost, "lost": lost}
        loss = flow.statistics.loss
        assert loss is not None
        assert loss.low <= 0.2 <= loss.high

    @pytest.mark.parametrize(
        ("faults", "outcome"),
        [
            ({"duplicate": 0.1}, Outcome.DUPLICATE),
            ({"corrupt": 0.1}, Outcome.CORRUPT),
            ({"truncate": 0.1}, Outcome.CUT),
        ],
    )
    def test_beside(self, faults: dict[str, float], outcome: Outcome) -> None:
        """Duplicates, corrupted and cut replies are each counted as what they are, and nothing else is."""
        world = World(FaultPlan(2, **faults))  # type: ignore[arg-type]
        statistics = world.run(Plan(count=2000, interval=0.001)).statistics
        share = statistics.count(outcome) / 2000
        assert 0.07 <= share <= 0.13
        others = (Outcome.DUPLICATE, Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.UNMATCHED)
        assert not sum(statistics.count(each) for each in others if each is not outcome)
        assert statistics.count(Outcome.LOST) == (0 if outcome is Outcome.DUPLICATE else statistics.count(outcome))
        assert world.outcomes()[outcome.value] == statistics.count(outcome)

    def test_reordered(self) -> None:
        """Replies that were overtaken are seen, and marked."""
        world = World(FaultPlan(3, reorder=0.1, reorderDelay=0.0155))
        statistics = world.run(Plan(count=2000, interval=0.01)).statistics
        assert statistics.received == 2000
        assert 0.07 <= statistics.reordering.reordered / 2000 <= 0.13
        assert sum(event.reordered for event in world.events) == statistics.reordering.reordered

    def test_late(self) -> None:
        """A reply after the timeout is first told as lost and then as late, and has its round trip."""
        world = World(FaultPlan(4, delay=0.3))
        flow = world.run(Plan(count=3, interval=1, timeout=0.1, wait=1))
        assert world.outcomes() == {"lost": 3, "late": 3}
        assert flow.statistics.count(Outcome.LATE) == 3
        assert flow.statistics.roundTrips.max == pytest.approx(0.31e9, rel=1e-3)

    def test_waitIsShort(self) -> None:
        """What has no reply when the wait is over is lost."""
        world = World(FaultPlan(4, delay=5))
        statistics = world.run(Plan(count=3, interval=0.1, timeout=60, wait=0.5)).statistics
        assert statistics.count(Outcome.LOST) == 3
        assert statistics.count(Outcome.OUTSTANDING) == 0

    def test_refused(self) -> None:
        """A port where nothing listens refuses each probe at once."""
        world = World()
        flow = world.run(Plan(count=3, interval=0.1), "192.0.2.2:9")
        assert flow.statistics.count(Outcome.REFUSED) == 3
        assert isinstance(flow.said, PortUnreachable)
        assert world.outcomes() == {"refused": 3}

    def test_noRoute(self) -> None:
        """If no target has a way to it, starting fails; if one has, the others are told of, and it is probed."""
        world = World()
        failed: list[Any] = []
        world.prober(Plan(count=1), "198.51.100.1:7").start().addErrback(failed.append)
        failed[0].trap(HostUnreachable)
        prober = world.prober(Plan(count=1), "198.51.100.1:7", "192.0.2.2:7")
        prober.start()
        world.network.advance(2)
        assert [target.name for target, _ in prober.failures] == ["198.51.100.1:7"]
        assert prober.flows[0].statistics.received == 1

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 16, 32, 1400, 65507])
    def test_sizes(self, size: int) -> None:
        """Probes of any size are matched."""
        world = World()
        flow = world.run(Plan(count=5, interval=0.1, timeout=0.1, sizes=(size,)))
        assert flow.statistics.count(Outcome.ANSWERED) == 5
        assert {entry.size for entry in world.network.trace} == {size}

    def test_severalSizes(self) -> None:
        """Sizes are gone through in their order."""
        world = World()
        world.run(Plan(count=5, interval=0.1, sizes=(100, 8, 40)))
        assert [event.size for event in world.events] == [100, 8, 40, 100, 8]

    def test_tooLong(self) -> None:
        """A probe that no datagram can carry is not sent, and that is said."""
        world = World()
        flow = world.run(Plan(count=2, interval=0.1, sizes=(65527,)))
        assert flow.statistics.count(Outcome.NOT_SENT) == 2
        assert world.outcomes() == {"not_sent": 2}

    def test_severalTargets(self) -> None:
        """Targets and sources have flows of their own, whose probes leave one after the other."""
        world = World()
        listen(world.there, 1234, EchoServer(), "192.0.2.2")
        prober = world.prober(Plan(count=3), "192.0.2.2:7", "192.0.2.2:1234", sources=2)
        prober.start()
        world.network.advance(10)
        assert [flow.target.name for flow in prober.flows] == ["192.0.2.2:7"] * 2 + ["192.0.2.2:1234"] * 2
        assert len({flow.source for flow in prober.flows}) == 4
        assert all(flow.statistics.received == 3 for flow in prober.flows)
        sent = [entry.time for entry in world.network.trace if entry.source[0] == "192.0.2.1"]
        assert sent == pytest.approx([number / 4 for number in range(12)])
        jsonschema.validate(json.loads(json.dumps(prober.document())), records.schema())

    def test_sourcePorts(self) -> None:
        """A port to send from is the first source's, and the others are the next."""
        world = World()
        prober = world.prober(Plan(count=1), sources=3, options=SocketOptions(("192.0.2.1", 5000)))
        prober.start()
        assert [tuple(flow.source) for flow in prober.flows] == [("192.0.2.1", 5000 + number) for number in range(3)]
        prober.stop()

    def test_taken(self) -> None:
        """A local address that cannot be had fails, and leaves nothing."""
        world = World()
        failed: list[Any] = []
        how = {"options": SocketOptions(("192.0.2.9", 0))}
        world.prober(Plan(count=1), **how).start().addErrback(failed.append)
        failed[0].trap(error.CannotListenError)
        world.leavesNothing()

    def test_stop(self) -> None:
        """Stopping ends it at once, and leaves nothing; what was under way stays so in the statistics."""
        world = World(FaultPlan(0, delay=5))
        prober = world.prober(Plan(interval=0.1))
        over = prober.start()
        world.network.advance(0.35)
        prober.stop()
        prober.stop()
        assert over.called
        assert prober.flows[0].outstanding == 4
        world.leavesNothing()
        world.network.advance(100)
        assert prober.flows[0].statistics.sent == 4

    def test_cancel(self) -> None:
        """Cancelling is stopping."""
        world = World()
        prober = world.prober(Plan())
        failed: list[Any] = []
        over = prober.start().addErrback(failed.append)
        over.cancel()
        assert not prober.running
        world.leavesNothing()

    def test_startsOnce(self) -> None:
        """A prober that was started is not started again."""
        world = World()
        prober = world.prober(Plan(count=1))
        prober.start()
        failed: list[Any] = []
        prober.start().addErrback(failed.append)
        failed[0].trap(RuntimeError)
        prober.stop()

    def test_iterated(self) -> None:
        """A coroutine may iterate over what happens."""
        world = World()
        prober = world.prober(Plan(count=3))
        seen: list[int | None] = []

        async def watch() -> str:
            async for _, event in events:
                seen.append(event.sequence)
            return "over"

        events = prober.events()
        prober.start()
        done = defer.Deferred.fromCoroutine(watch())
        world.network.advance(1.5)
        assert seen == [0, 1]
        world.network.advance(10)
        assert seen == [0, 1, 2]
        assert done.result == "over"

    def test_listenerRaises(self, caught: CaughtErrors) -> None:
        """A listener that raises is logged, and probing goes on."""
        world = World()
        prober = Prober(world.here, [Target.of("192.0.2.2:7")], Plan(count=2), listener=lambda flow, event: 1 / 0)
        over = prober.start()
        world.network.advance(5)
        assert over.called
        assert prober.flows[0].statistics.received == 2
        assert len(caught.flush(ZeroDivisionError)) == 2

    def test_breaks(self) -> None:
        """What goes wrong within ends it, and the Deferred fails with that."""
        world = World()
        prober = world.prober(Plan())
        failed: list[Any] = []
        prober.start().addErrback(failed.append)
        prober.flows[0].socket.close()

        def broken(now: int) -> bool:
            raise ZeroDivisionError

        prober.flows[0].send = broken  # type: ignore[method-assign]
        world.network.advance(5)
        failed[0].trap(ZeroDivisionError)
        assert not prober.running
        world.leavesNothing()

    def test_flood(self) -> None:
        """A flood sends as fast as replies come."""
        world = World()
        statistics = world.run(Plan(flood=True, duration=1)).statistics
        assert statistics.received == statistics.sent
        # 256 in each round trip of 10 ms.
        assert statistics.sent == pytest.approx(25_600, rel=0.05)

    def test_twoForeigners(self) -> None:
        """What another session has sent, and what is no reply at all, is foreign."""
        world = World()
        prober = world.prober(Plan(count=1))
        prober.start()
        world.network.advance(0.1)
        flow = prober.flows[0]
        for datagram in (Codec(5, {64}).build(0, 64), b"hello"):
            flow.datagramsArrived(Arrivals((datagram,), (0,)))
        assert flow.statistics.count(Outcome.FOREIGN) == 2
        prober.stop()

    def test_optionsNotThere(self) -> None:
        """What a network in memory does not have is refused."""
        world = World()
        failed: list[Any] = []
        world.prober(Plan(), options=SocketOptions(hopLimit=3)).start().addErrback(failed.append)
        failed[0].trap(ValueError)

    @pytest.mark.parametrize("how", [{"sources": 0}, {"targets": []}])
    def test_nothing(self, how: dict[str, Any]) -> None:
        """There is a target and a source at least."""
        with pytest.raises(ValueError, match="or more"):
            Prober(World().here, **{"targets": [Target.of("192.0.2.2:7")], **how})

    def test_name(self) -> None:
        """A name is looked up, and stays the target's name."""
        world = World()
        found = defer.Deferred.fromCoroutine(findTarget(world.here, "there:7", 5, 6))
        target: Any = found.result
        assert (target.name, tuple(target.address)) == ("there:7", ("2001:db8::2", 7))
        with pytest.raises(ValueError, match="look the name up first"):
            Target.of("there:7")


@implementer(IProbeSocket)
class HandSocket:
    """
    A probe socket that does as a test says.

    @ivar sent: the probes.
    @ivar taken: what send calls return, first; then that they took all.
    @ivar stamps: what is in the error queue.
    @ivar failures: what else is there.
    """

    stamped = True
    most = 64
    source = DatagramAddress(("192.0.2.1", 5000))

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.taken: list[Taken] = []
        self.stamps: list[tuple[int, int]] = []
        self.failures: list[Undelivered] = []
        self.dropped = 0
        self._slots: dict[int, bytearray] = {}
        self.onSend: Callable[[], object] = lambda: None

    def fileno(self) -> int:
        return -1

    def slot(self, index: int, size: int) -> bytearray:
        if len(self._slots.get(index, b"")) != size:
            self._slots[index] = bytearray(size)
        return self._slots[index]

    def send(self, count: int) -> Taken:
        self.onSend()
        taken = self.taken.pop(0) if self.taken else Taken(count)
        self.sent += [bytes(self._slots[index]) for index in range(taken.number)]
        return taken

    def receive(self) -> Arrivals:
        return Arrivals((), ())

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        found = self.stamps, self.failures
        self.stamps, self.failures = [], []
        return found

    def drops(self) -> int | None:
        return self.dropped

    def close(self) -> None:
        pass


class Bench:
    """A flow on clocks and a socket that a test sets."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.hand = HandClocks()
        self.events: list[outcomes.Event] = []
        self.socket = HandSocket()
        clocks = self.hand.clocks
        self.times: list[int | None] = []
        self.flow = Flow(Target.of("192.0.2.2:7"), plan or Plan(interval=0.001), clocks, StepWatch(clocks), self._hear)
        self.flow.begin(self.socket, self.hand.time)

    def _hear(self, flow: Flow, event: outcomes.Event) -> None:
        self.events.append(event)
        self.times.append(flow.timeOf(event))

    @property
    def wall(self) -> int:
        """The wall clock."""
        return self.hand.time + self.hand.offset

    def reply(self, *sequences: int, stamp: int = 0) -> None:
        """Replies come."""
        datagrams: Sequence[bytes] = [self.socket.sent[sequence] for sequence in sequences]
        self.flow.datagramsArrived(Arrivals(datagrams, [stamp] * len(datagrams)))


class StampTests:
    """Which round trips come from the kernel's stamps."""

    def exchange(self, bench: Bench, stepBefore: int = 0, stepBetween: int = 0) -> int | None:
        """
        One probe that takes 100 us from the device and back to it, and 300 us by the monotonic clock.

        @param stepBefore: by how many ns the wall clock is set between the call and the stamp of sending.
        @param stepBetween: the same between the two stamps.
        """

        def send() -> None:
            bench.hand.time += MS // 10
            bench.hand.offset += stepBefore
            bench.socket.stamps = [(len(bench.socket.sent), bench.wall)]

        bench.socket.onSend = send
        sequence = bench.flow.statistics.highest + 1
        bench.flow.send(bench.hand.time)
        bench.hand.time += MS // 10
        bench.hand.offset += stepBetween
        stamp = bench.wall
        bench.hand.time += MS // 10
        bench.reply(sequence, stamp=stamp)
        assert bench.events[-1].outcome is Outcome.ANSWERED
        bench.hand.time += MS
        return bench.events[-1].roundTrip

    def test_kernel(self) -> None:
        """With both stamps it is what lies between them."""
        bench = Bench()
        assert [self.exchange(bench) for _ in range(3)] == [MS // 10] * 3
        assert bench.flow.timestampSource == "kernel"

    @pytest.mark.parametrize("step", [-3600 * 10**9, -50_000, 50_000, 150_000, 3600 * 10**9])
    @pytest.mark.parametrize("when", ["stepBefore", "stepBetween"])
    def test_step(self, step: int, when: str) -> None:
        """
        A wall clock that is set while a probe is under way corrupts nothing: not if it is set by hours, and not by so little
        that the stamps would look right. The monotonic clock is asked for that probe, and the stamps again for the next.
        """
        bench = Bench()
        times = [self.exchange(bench), self.exchange(bench, **{when: step}), self.exchange(bench)]
        assert times == [MS // 10, 3 * MS // 10, MS // 10]
        assert bench.flow.timestampSource == "mixed"

    def test_stampMissing(self) -> None:
        """Without the stamp of sending, or without that of receiving, the monotonic clock is asked."""
        bench = Bench()
        bench.flow.send(bench.hand.time)
        bench.hand.time += MS
        bench.reply(0, stamp=bench.wall)
        assert bench.events[-1].roundTrip == MS
        assert bench.flow.timestampSource == "monotonic"

    def test_afterNotSent(self) -> None:
        """Stamps are those of their probes though one between them could not be sent."""
        bench = Bench()
        bench.hand.time += 3 * MS
        bench.socket.taken = [Taken(2, 1)]
        bench.flow.send(bench.hand.time)
        bench.flow.send(bench.hand.time)
        bench.socket.stamps = [(number, bench.wall + number) for number in range(3)]
        bench.hand.time += MS
        bench.reply(0, 1, 2, stamp=bench.wall)
        assert [(event.outcome, event.sequence) for event in bench.events] == [
            (Outcome.NOT_SENT, 2),
            (Outcome.ANSWERED, 0),
            (Outcome.ANSWERED, 1),
            (Outcome.ANSWERED, 3),
        ]
        assert [event.roundTrip for event in bench.events[1:]] == [MS, MS - 1, MS - 2]


class FlowTests:
    """What a flow does with what a socket says."""

    def test_catchUp(self) -> None:
        """What was due while the process was stopped is sent late, and says so; what is more than a second late is not sent."""
        bench = Bench(Plan(interval=0.01))
        start = bench.hand.time
        bench.flow.send(bench.hand.time)
        bench.hand.time += 3000 * MS
        while bench.flow.send(bench.hand.time):
            pass
        statistics = bench.flow.statistics
        assert statistics.scheduled == 301
        assert statistics.count(Outcome.NOT_SENT) == 199
        assert statistics.sendErrors.max == 1000 * MS
        # Their time is when they should have left.
        assert bench.times == [start + number * 10 * MS for number in range(1, 200)]
        statistics.checkSums()

    def test_queueFull(self) -> None:
        """What a full send queue does not take is sent a moment later."""
        bench = Bench()
        bench.hand.time += 2 * MS
        bench.socket.taken = [Taken(1, 11)]
        bench.flow.send(bench.hand.time)
        assert bench.flow.statistics.scheduled == 1
        bench.flow.send(bench.hand.time)
        assert bench.flow.statistics.scheduled == 1
        following = bench.flow.next(bench.hand.time)
        assert following is not None
        bench.hand.time = following
        bench.flow.send(bench.hand.time)
        assert bench.flow.statistics.sent == 3

    def test_ownDrops(self) -> None:
        """So many of the lost as our own receive queue has dropped are ours."""
        bench = Bench(Plan(interval=0.001, timeout=0.01))
        bench.hand.time += 4 * MS
        bench.flow.send(bench.hand.time)
        bench.socket.dropped = 2
        bench.hand.time += 1000 * MS
        bench.flow.expire(bench.hand.time)
        assert bench.flow.statistics.count(Outcome.LOST) == 3
        assert bench.flow.statistics.count(Outcome.LOST_OWN) == 2

    def test_quoted(self) -> None:
        """A refusal that quotes a probe is of that one, else of the oldest under way."""
        bench = Bench()
        bench.hand.time += 3 * MS
        bench.flow.send(bench.hand.time)
        reason = PortUnreachable("nothing listens", 111)
        bench.socket.failures = [Undelivered(reason, bench.socket.sent[2][:28]), Undelivered(reason)]
        bench.flow.readErrors()
        assert [event.sequence for event in bench.events] == [2, 0]

    @pytest.mark.parametrize("size", [8, 12, 16, 31, 32, 64])
    def test_quotedForms(self, size: int) -> None:
        """Each form that has a session and a number can be told from its beginning, and another's cannot."""
        codec = Codec(0x1234567890ABCDEF, {size})
        assert codec.sequenceOf(codec.build(7, size)[:28], 9) == 7
        assert codec.sequenceOf(Codec(99, {size}).build(7, size)[:28], 9) is None
        assert codec.sequenceOf(b"", 9) is None
        assert codec.sequenceOf(codec.build(7, size)[:3], 9) is None


class MemoryTests:
    """What it takes."""

    def test_constant(self) -> None:
        """What a flow has does not grow with the number of its probes."""
        import tracemalloc

        world = World(FaultPlan(5, loss=0.01, jitter=0.002))
        prober = world.prober(Plan(interval=0.001))
        prober._listeners.clear()
        prober.start()

        def go() -> None:
            for _ in range(10):
                world.network.advance(1)
                world.network.trace.clear()

        go()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            go()
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert after - before < 300_000
        prober.stop()


async def probe(reactor: Any, plan: Plan, *targets: tuple[str, int], **how: Any) -> Prober:
    """Probe on real sockets until it is over."""
    named = [Target("x", DatagramAddress(target)) for target in targets]
    prober = Prober(reactor, named, plan, **how)
    await prober.start()
    for flow in prober.flows:
        flow.statistics.checkSums()
    return prober


def source(prober: Prober) -> str:
    """Where the times of the first flow are from."""
    return prober.flows[0].timestampSource


class RealTests:
    """On real sockets, on each kind of reactor."""

    @pytest.mark.parametrize("batches", [True, False])
    def test_answered(self, run: Run, batches: bool) -> None:
        """Probes to our own server are answered; round trips come from the kernel where it has them."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            prober = await probe(reactor, Plan(count=20, interval=0.002), (host.host, host.port), batches=batches)
            statistics = prober.flows[0].statistics
            assert statistics.count(Outcome.ANSWERED) == 20
            if batches and selftest.unsupportedReason() is None and timestamps.unsupportedReason() is None:
                assert source(prober) == "kernel"
            if not batches:
                assert source(prober) == "monotonic"
            await server.stopListening()

        run(test)

    @pytest.mark.parametrize("batches", [True, False])
    def test_refused(self, run: Run, batches: bool) -> None:
        """A port where nothing listens refuses each probe, at once."""
        port = unusedPort()

        async def test(reactor: Any) -> None:
            prober = await probe(reactor, Plan(count=5, interval=0.005), ("127.0.0.1", port), batches=batches)
            assert prober.flows[0].statistics.count(Outcome.REFUSED) == 5

        run(test)

    def test_many(self, runOnce: Run) -> None:
        """Batches both ways, of many sizes, stamps and all: 20 000 probes in a second, and each has its own reply."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer(), receiveBuffer=2**24)
            host = server.getHost()
            plan = Plan(count=5000, interval=0.00005, sizes=tuple(range(32, 1400, 7)), timeout=10)
            statistics = (await probe(reactor, plan, (host.host, host.port))).flows[0].statistics
            assert statistics.count(Outcome.ANSWERED) == 5000
            assert not statistics.count(Outcome.CORRUPT)
            await server.stopListening()

        runOnce(test)

    def test_onlyMonotonic(self, runOnce: Run) -> None:
        """Batches work without stamps too."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            prober = await probe(reactor, Plan(count=5, interval=0.001), (host.host, host.port), stamps=False)
            assert prober.flows[0].statistics.received == 5
            assert source(prober) == "monotonic"
            await server.stopListening()

        runOnce(test)

    @needsStamps
    def test_inTime(self, runOnce: Run) -> None:
        """A reply that came in time is not late, though the process has read it late."""
        import time

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                prober = Prober(
                    reactor, [Target("x", DatagramAddress(sock.getsockname()))], Plan(count=1, timeout=0.05, wait=0.2)
                )
                over = prober.start()
                datagram: bytes = b""
                while not datagram:
                    turn: defer.Deferred[None] = defer.Deferred()
                    reactor.callLater(0, turn.callback, None)
                    await turn
                    sock.setblocking(False)
                    try:
                        datagram, client = sock.recvfrom(100)
                    except BlockingIOError:
                        continue
                sock.sendto(datagram, client)
                # The reactor is held up.
                until = time.monotonic() + 0.2
                while time.monotonic() < until:
                    pass
                await over
                statistics = prober.flows[0].statistics
                assert statistics.count(Outcome.ANSWERED) == 1
                assert statistics.roundTrips.max is not None
                assert statistics.roundTrips.max < 50 * MS

        runOnce(test)

    @pytest.mark.skipif(not sockopt.available, reason="the constants are Linux's")
    def test_options(self, runOnce: Run) -> None:
        """Traffic class, time to live and "do not fragment" are set; what is too long for the path then is not sent."""
        import socket as s

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                sock.setsockopt(s.IPPROTO_IP, 13, 1)
                sock.setsockopt(s.IPPROTO_IP, sockopt.IP_RECVTTL, 1)
                options = SocketOptions(None, 184, 7, True)
                plan = Plan(count=1, timeout=0.01)
                await probe(reactor, plan, sock.getsockname(), options=options)
                controls = {kind: data[0] for _, kind, data in sock.recvmsg(100, 100)[1]}
                assert controls == {s.IP_TOS: 184, sockopt.IP_TTL: 7}
                plan = Plan(count=1, timeout=0.01, sizes=(65507,))
                assert (await probe(reactor, plan, sock.getsockname())).flows[0].statistics.sent == 1

        runOnce(test)


class ProxyTests:
    """Through the real proxy."""

    @pytest.mark.parametrize(
        ("faults", "outcome", "share"),
        [
            ({"loss": 0.1}, Outcome.LOST, 0.1),
            ({"duplicate": 0.1}, Outcome.DUPLICATE, 0.1),
            ({"corrupt": 0.1}, Outcome.CORRUPT, 0.1),
            ({"truncate": 0.1}, Outcome.CUT, 0.1),
            ({"delay": 0.06}, Outcome.LATE, 1.0),
        ],
    )
    def test_faults(self, runOnce: Run, faults: dict[str, Any], outcome: Outcome, share: float) -> None:
        """Each fault's count is right to within four standard deviations."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            host = server.getHost()
            proxy = FaultProxy(reactor, DatagramAddress((host.host, host.port)), None, FaultPlan(7, **faults), 10)
            proxy.start(0, "127.0.0.1")
            plan = Plan(count=1000, interval=0.0005, timeout=0.05, wait=0.2)
            statistics = (await probe(reactor, plan, proxy.address)).flows[0].statistics
            expected = 1000 * share
            # A busy machine may lose time, and what comes late then was not lost.
            found = statistics.count(outcome)
            assert abs(found - expected) <= 4 * (1000 * share * (1 - share)) ** 0.5 + 0.01 * expected
            proxy.stop()
            await server.stopListening()

        runOnce(test)


@pytest.mark.skipif(whyNoNamespaces() is not None, reason="no network namespaces here")
class NamespaceTests:
    """Between hosts of their own."""

    def test_unreachable(self, runOnce: Run) -> None:
        """
        A network that the router has no route to is unreachable, says the router; one that this machine has none to, says the
        machine.
        """
        from tests.support.namespaces import IPV4, network

        async def test(reactor: Any) -> None:
            with network() as net:
                plan = Plan(count=2, interval=0.01, timeout=5)
                prober = Prober(reactor, [Target("nowhere", DatagramAddress((IPV4.nowhere, 7)))], plan)
                over = net.client.call(prober.start)
                await over
                flow = prober.flows[0]
                assert flow.statistics.count(Outcome.UNREACHABLE) == 2
                assert isinstance(flow.said, HostUnreachable)
                prober = Prober(reactor, [Target("lost", DatagramAddress((IPV4.lost, 7)))], plan)
                with pytest.raises(HostUnreachable):
                    await net.client.call(prober.start)

        runOnce(test)

    @pytest.mark.parametrize(
        ("breaking", "mending"),
        [
            (("link set eth0 down",), ("link set eth0 up", "route add default via {near}")),
            (("route add unreachable {server}",), ("route delete unreachable {server}",)),
            (("route add {server} via {nearNobody}",), ("route delete {server}",)),
        ],
        ids=["interface down", "no route", "wrong route"],
    )
    def test_outage(self, runOnce: Run, breaking: Sequence[str], mending: Sequence[str]) -> None:
        """
        While an interface is down, or the route is another, probes are not sent, lost or unreachable; when it is as it was they
        are answered again.
        """
        from tests.support.namespaces import IPV4, network

        async def test(reactor: Any) -> None:
            with network() as net:
                server: Any = net.server.call(listen, reactor, 7, EchoServer(), IPV4.server)
                events: list[outcomes.Event] = []
                prober = Prober(
                    reactor,
                    [Target("server", DatagramAddress((IPV4.server, 7)))],
                    Plan(interval=0.01, timeout=0.2),
                    listener=lambda flow, event: events.append(event),
                )
                over = net.client.call(prober.start)

                async def until(condition: Callable[[], bool]) -> None:
                    while not condition():
                        turn: defer.Deferred[None] = defer.Deferred()
                        reactor.callLater(0.01, turn.callback, None)
                        await turn

                statistics: Statistics = prober.flows[0].statistics
                await until(lambda: statistics.received > 3)
                names = vars(IPV4)
                net.client.ip(*(command.format(**names) for command in breaking))
                bad = (Outcome.NOT_SENT, Outcome.LOST, Outcome.UNREACHABLE)
                await until(lambda: sum(statistics.count(each) for each in bad) > 3)
                net.client.ip(*(command.format(**names) for command in mending))
                before = statistics.received
                await until(lambda: statistics.received > before + 3)
                prober.stop()
                await over
                statistics.checkSums()
                await server.stopListening()

        runOnce(test)
