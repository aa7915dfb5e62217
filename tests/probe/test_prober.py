"""Tests of L{udpecho.probe.prober} in virtual time."""

from __future__ import annotations

import errno
import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import defer, error

from tests.conftest import CaughtErrors
from tests.support.packets import Codec
from tests.support.probes import LATENCY, Late, World
from tests.support.transports import ResolvingClock
from udpecho.errors import HostUnreachable, PortUnreachable
from udpecho.faults.plan import FaultPlan
from udpecho.net.open import listen
from udpecho.probe import records
from udpecho.probe.io.socket import Arrivals, SocketOptions
from udpecho.probe.outcomes import Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target
from udpecho.server.protocol import EchoServer

jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")


class VirtualTests:
    """The whole prober in virtual time."""

    def test_answered(self) -> None:
        """Each probe leaves on time, and its round trip is twice the latency."""
        world = World()
        flow = world.run(Plan(count=10, interval=0.1))
        statistics = flow.statistics
        assert (statistics.sent, statistics.received) == (10, 10)
        assert statistics.roundTrips.min == pytest.approx(2 * LATENCY, abs=2e-9)
        assert statistics.roundTrips.max == pytest.approx(2 * LATENCY, abs=2e-9)
        assert [event.roundTrip for event in world.events] == pytest.approx([2 * LATENCY] * 10, abs=2e-9)
        assert statistics.scheduleDeviations.max is not None
        assert statistics.scheduleDeviations.max <= 2e-9
        assert flow.timestampSource == "monotonic"
        # It ends with the last reply.
        assert flow.elapsed == pytest.approx(0.9 + 2 * LATENCY)
        assert [event.sequence for event in world.events] == list(range(10))
        sent = [entry.time for entry in world.network.trace if entry.destination == ("192.0.2.2", 7)]
        assert sent == pytest.approx([number / 10 for number in range(10)])

    def test_openLoop(self) -> None:
        """Probes leave on schedule although no reply has come."""
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
        """Each lost probe has an event, and the count is exact."""
        world = World(FaultPlan(1, loss=0.2))
        flow = world.run(Plan(count=2000, interval=0.01))
        lost = flow.statistics.count(Outcome.LOST)
        recorded = Counter(entry.outcome.split(":")[0] for entry in world.network.trace)
        assert lost == recorded["lost"]
        assert world.outcomes() == {"answered": 2000 - lost, "lost": lost}
        loss = flow.statistics.loss
        assert loss is not None
        assert loss.low <= 0.2 <= loss.high

    @pytest.mark.parametrize(
        ("faults", "outcome"),
        [
            ({"duplicate": 0.1}, Outcome.DUPLICATE),
            ({"corrupt": 0.1}, Outcome.CORRUPT),
            ({"truncate": 0.1}, Outcome.TRUNCATED),
        ],
    )
    def test_extraDatagrams(self, faults: dict[str, float], outcome: Outcome) -> None:
        """Duplicates, corrupted and truncated replies are counted as such, and nothing else is."""
        world = World(FaultPlan(2, **faults))  # type: ignore[arg-type]
        statistics = world.run(Plan(count=2000, interval=0.001)).statistics
        share = statistics.count(outcome) / 2000
        assert 0.07 <= share <= 0.13
        others = (Outcome.DUPLICATE, Outcome.CORRUPT, Outcome.TRUNCATED, Outcome.OVERSIZED, Outcome.UNMATCHED)
        assert not sum(statistics.count(each) for each in others if each is not outcome)
        assert statistics.count(Outcome.LOST) == (0 if outcome is Outcome.DUPLICATE else statistics.count(outcome))
        assert world.outcomes()[outcome.value] == statistics.count(outcome)

    def test_reordered(self) -> None:
        """Reordered replies are counted, and marked in their events."""
        world = World(FaultPlan(3, reorder=0.1, reorderDelay=0.0155))
        statistics = world.run(Plan(count=2000, interval=0.01)).statistics
        assert statistics.received == 2000
        assert 0.07 <= statistics.reordering.reordered / 2000 <= 0.13
        assert sum(event.reordered for event in world.events) == statistics.reordering.reordered

    def test_late(self) -> None:
        """A reply after the timeout changes a lost probe to a late one, with its round trip."""
        world = World(FaultPlan(4, delay=0.3))
        flow = world.run(Plan(count=3, interval=1, timeout=0.1, wait=1))
        assert world.outcomes() == {"lost": 3, "late": 3}
        assert flow.statistics.count(Outcome.LATE) == 3
        assert flow.statistics.roundTrips.max == pytest.approx(0.31, rel=1e-3)

    def test_waitIsShort(self) -> None:
        """Probes without a reply at the end of the wait are lost."""
        world = World(FaultPlan(4, delay=5))
        statistics = world.run(Plan(count=3, interval=0.1, timeout=60, wait=0.5)).statistics
        assert statistics.count(Outcome.LOST) == 3
        assert statistics.count(Outcome.OUTSTANDING) == 0

    def test_refused(self) -> None:
        """A port where nothing listens refuses each probe at once."""
        world = World()
        flow = world.run(Plan(count=3, interval=0.1), "192.0.2.2:9")
        assert flow.statistics.count(Outcome.REFUSED) == 3
        assert isinstance(flow.lastError, PortUnreachable)
        assert world.outcomes() == {"refused": 3}

    def test_noRoute(self) -> None:
        """If no target can be reached, start() fails; otherwise the others are in C{failures}."""
        world = World()
        failed: list[Any] = []
        world.prober(Plan(count=1), "198.51.100.1:7").start().addErrback(failed.append)
        failed[0].trap(HostUnreachable)
        prober = world.prober(Plan(count=1), "198.51.100.1:7", "192.0.2.2:7")
        prober.start()
        world.network.advance(2)
        assert [name for name, _ in prober.failures] == ["198.51.100.1:7"]
        assert prober.flows[0].statistics.received == 1

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 16, 32, 1400, 65507])
    def test_sizes(self, size: int) -> None:
        """Probes of any size are matched."""
        world = World()
        flow = world.run(Plan(count=5, interval=0.1, timeout=0.1, sizes=(size,)))
        assert flow.statistics.count(Outcome.ANSWERED) == 5
        assert {entry.size for entry in world.network.trace} == {size}

    def test_severalSizes(self) -> None:
        """Sizes take turns in their order."""
        world = World()
        world.run(Plan(count=5, interval=0.1, sizes=(100, 8, 40)))
        assert [event.size for event in world.events] == [100, 8, 40, 100, 8]

    def test_tooLong(self) -> None:
        """A probe that is too long for IPv4 is not sent, and its event has the reason."""
        world = World()
        flow = world.run(Plan(count=2, interval=0.1, sizes=(65527,)))
        assert flow.statistics.count(Outcome.NOT_SENT) == 2
        assert world.outcomes() == {"not_sent": 2}
        assert all(event.detail for event in world.events)

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
        jsonschema.validate(json.loads(json.dumps(records.document(prober.flows))), records.schema())

    def test_sourcePorts(self) -> None:
        """A local port is that of the first source, and the others use the next ones."""
        world = World()
        prober = world.prober(Plan(count=1), sources=3, options=SocketOptions(("192.0.2.1", 5000)))
        prober.start()
        assert [tuple(flow.source) for flow in prober.flows] == [("192.0.2.1", 5000 + number) for number in range(3)]
        prober.stop()

    def test_addressNotAvailable(self) -> None:
        """A local address that is not available fails, and leaves nothing open."""
        world = World()
        failed: list[Any] = []
        how = {"options": SocketOptions(("192.0.2.9", 0))}
        world.prober(Plan(count=1), **how).start().addErrback(failed.append)
        failed[0].trap(error.CannotListenError)
        world.leavesNothing()

    def test_stop(self) -> None:
        """stop() ends it at once, and leaves nothing open; outstanding probes stay so in the statistics."""
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
        """Cancelling the Deferred stops it, and the Deferred fires."""
        world = World()
        prober = world.prober(Plan())
        failed: list[Any] = []
        over = prober.start().addErrback(failed.append)
        over.cancel()
        assert over.called
        assert not failed
        assert not prober.running
        world.leavesNothing()

    def test_startsOnce(self) -> None:
        """A prober cannot be started twice."""
        world = World()
        prober = world.prober(Plan(count=1))
        prober.start()
        failed: list[Any] = []
        prober.start().addErrback(failed.append)
        failed[0].trap(RuntimeError)
        prober.stop()

    def test_iterated(self) -> None:
        """A coroutine may iterate over the events."""
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
        """An internal error ends it, and the Deferred fails with the error."""
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

    @pytest.mark.slow
    def test_flood(self) -> None:
        """A flood sends as fast as replies come."""
        world = World()
        statistics = world.run(Plan(flood=True, duration=1)).statistics
        assert statistics.received == statistics.sent
        # 256 in each round trip of 10 ms.
        assert statistics.sent == pytest.approx(25_600, rel=0.05)

    def test_unrelated(self) -> None:
        """A reply to another session, and a datagram that is not a reply, are unrelated."""
        world = World()
        prober = world.prober(Plan(count=1))
        prober.start()
        world.network.advance(0.1)
        flow = prober.flows[0]
        for datagram in (Codec(5, {64}).build(0, 64), b"hello"):
            flow.datagramsArrived(Arrivals((datagram,), (0,)))
        assert flow.statistics.count(Outcome.UNRELATED) == 2
        prober.stop()

    def test_optionsNotAvailable(self) -> None:
        """Socket options that a network in memory does not have are refused."""
        world = World()
        failed: list[Any] = []
        world.prober(Plan(), options=SocketOptions(hopLimit=3)).start().addErrback(failed.append)
        failed[0].trap(ValueError)


TARGET = Target.of("192.0.2.2:7")


class ArgumentTests:
    """Wrong arguments fail where they are given."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"targets": []}, "targets must be a list of one target or more, got []"),
            ({"targets": "192.0.2.2:7"}, "targets must be a list of one target or more, got '192.0.2.2:7'"),
            ({"targets": [7]}, "target must be a Target or text, got 7"),
            ({"sources": 0}, "sources must be 1 port or more, got 0"),
            ({"sources": 1.5}, "sources must be 1 port or more, got 1.5"),
            (
                {"sources": 3, "options": SocketOptions(("192.0.2.1", 65534))},
                "local ports must be 1 to 65535, got 65534 to 65536",
            ),
        ],
    )
    def test_wrong(self, arguments: dict[str, Any], message: str) -> None:
        """The message has what must be, and what was given."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            Prober(World().here, **{"targets": [TARGET], **arguments})
        assert str(caught.value) == message

    @pytest.mark.parametrize("text", ["192.0.2.2", "192.0.2.2:0", "[::1:7", ":7"])
    def test_wrongText(self, text: str) -> None:
        """A text that is not an address is refused at once, and not when it is looked up."""
        with pytest.raises(ValueError, match=r"must be .*, got"):
            Prober(World().here, [TARGET, text])

    @pytest.mark.parametrize("interval", [0, -1, float("inf"), float("nan")])
    def test_wrongInterval(self, interval: float) -> None:
        """Names can be looked up again at an interval that is a time."""
        with pytest.raises(ValueError, match="resolveInterval must be a number of seconds above 0, got"):
            Prober(World().here, [TARGET], resolveInterval=interval)

    def test_noDescriptors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a descriptor for what all flows share, no target can be probed, and that is the reason."""

        def refuse(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr("udpecho.probe.prober.openWatch", refuse)
        prober = Prober(World().here, [TARGET, TARGET])
        over: Any = prober.start()
        reason = over.result.value
        over.addErrback(lambda _: None)
        assert (type(reason), reason.errno) == (OSError, errno.EMFILE)
        assert [name for name, _ in prober.failures] == [TARGET.name] * 2

    def test_lastPorts(self) -> None:
        """The highest ports may be used."""
        prober = Prober(World().here, [TARGET], sources=2, options=SocketOptions(("192.0.2.1", 65534)))
        prober.start()
        assert [flow.source.port for flow in prober.flows] == [65534, 65535]
        prober.stop()


class LookUpTests:
    """Targets as text."""

    def test_address(self) -> None:
        """An address needs no lookup: the flows are there when start() returns."""
        world = World()
        prober = Prober(world.here, ["192.0.2.2:7"], Plan(count=1))
        prober.start()
        assert [(flow.target.name, tuple(flow.target.address)) for flow in prober.flows] == [("192.0.2.2:7", ("192.0.2.2", 7))]
        world.network.advance(2)
        assert prober.flows[0].statistics.received == 1

    def test_names(self) -> None:
        """start() looks names up; those that are unknown are in C{failures}, and the order of the others is kept."""
        world = World()
        prober = Prober(world.here, ["there:7", "nobody.invalid:7", TARGET], Plan(count=1))
        over = prober.start()
        world.network.advance(5)
        assert over.called
        assert [flow.target.name for flow in prober.flows] == ["there:7", "192.0.2.2:7"]
        assert [flow.statistics.received for flow in prober.flows] == [1, 1]
        ((name, reason),) = prober.failures
        assert name == "nobody.invalid:7"
        assert isinstance(reason, error.DNSLookupError)
        world.leavesNothing()

    def test_family(self) -> None:
        """A name is looked up for addresses of the family that probes are sent from."""
        world = World()
        for bound, peer in (("192.0.2.1", "192.0.2.2:7"), ("2001:db8::1", "[2001:db8::2]:7")):
            prober = Prober(world.here, ["there:7"], options=SocketOptions((bound, 0)))
            prober.start()
            world.network.advance(1)
            assert [str(flow.target.address) for flow in prober.flows] == [peer]
            prober.stop()

    def test_unknown(self) -> None:
        """If no name is known, the Deferred fails with the reason."""
        world = World()
        failed: list[Any] = []
        prober = Prober(world.here, ["nobody.invalid:7"])
        prober.start().addErrback(failed.append)
        world.network.advance(5)
        failed[0].trap(error.DNSLookupError)
        assert not prober.running

    @pytest.mark.parametrize("stop", [lambda prober, over: prober.stop(), lambda prober, over: over.cancel()])
    def test_stopped(self, stop: Callable[[Prober, defer.Deferred[None]], object]) -> None:
        """Stopping while names are looked up cancels the lookup, and opens nothing."""
        clock = ResolvingClock({})
        prober = Prober(clock, ["nobody.invalid:7"])
        over = prober.start()
        assert prober.running
        stop(prober, over)
        assert over.called
        assert over.result is None
        assert (prober.flows, prober.failures) == ([], [])
        assert not clock.getDelayedCalls()


class MemoryTests:
    """Memory."""

    @pytest.mark.slow
    def test_constant(self) -> None:
        """Memory does not grow with the number of probes."""
        world = World(FaultPlan(5, loss=0.01, jitter=0.002))
        prober = Prober(world.here, ["192.0.2.2:7"], Plan(interval=0.002))
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
        assert after - before < 200_000
        prober.stop()
