"""What listeners, observers of the log and callbacks do to a prober and a probe service."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.support.depth import stackDepth
from tests.support.probes import World
from tests.support.reaction import Reaction
from tests.support.running import Run, sleep, udpSocket
from udpecho.faults.plan import FaultPlan
from udpecho.net.open import listen
from udpecho.probe.flow import Flow
from udpecho.probe.io.socket import Arrivals, SocketOptions
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.service import ProbeService
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

#: How many frames callbacks may differ in their depth, at the most.
SAME_DEPTH = 100


class ListenerTests:
    """The listener of a prober."""

    def start(self, world: World, plan: Plan, stopAt: int) -> tuple[Prober, list[Event], list[dict[Outcome, int]]]:
        """A prober whose listener stops it at an event.

        @return: it, the events, and the counts when the Deferred of its start fired, which are those of the end.
        """
        events: list[Event] = []
        counts: list[dict[Outcome, int]] = []

        def listener(flow: Flow, event: Event) -> None:
            events.append(event)
            if len(events) == stopAt:
                prober.stop()

        prober = Prober(world.here, ["192.0.2.2:7"], plan, listener=listener)
        prober.start().addCallback(lambda _: counts.append(self.counts(prober)))
        return prober, events, counts

    def counts(self, prober: Prober) -> dict[Outcome, int]:
        statistics = prober.flows[0].statistics
        return {outcome: statistics.count(outcome) for outcome in Outcome}

    @pytest.mark.parametrize("how", ["replies", "lost", "waited", "late"])
    def test_stops(self, how: str) -> None:
        """A listener that stops it in the middle of many events gets no more, and nothing is counted any more."""
        world = World(FaultPlan(1, loss=1.0) if how in ("lost", "waited") else None)
        plan = Plan(interval=0.01, count=50, timeout=0.2 if how == "lost" else 50, wait=1.0 if how == "waited" else None)
        prober, events, counts = self.start(world, plan, 3)
        if how == "late":
            # This process was stopped for a while: many probes are given up at once.
            clock = world.network.clock
            clock.rightNow += 30
        elif how == "replies":
            flow = prober.flows[0]
            extra = Arrivals((b"unrelated",) * 10, (0,) * 10)
            flow.datagramsArrived(extra)
        world.network.advance(60)
        assert len(events) == 3
        assert counts == [self.counts(prober)]
        assert not prober.running
        world.leavesNothing()

    def test_lastEvent(self) -> None:
        """The event at which a listener stops it still reaches C{events}, which then ends, and then the Deferred fires."""
        world = World()
        prober, events, counts = self.start(world, Plan(interval=0.01), 3)
        found: list[object] = []

        async def consume() -> None:
            async for _, event in prober.events():
                found.append(event)
            found.append(list(counts))

        # Before the start: it was started already, so that only the iterator that is there counts.
        consuming = Deferred.fromCoroutine(consume())
        world.network.advance(1)
        assert consuming.called
        assert found == [*events, []]

    def test_cancels(self) -> None:
        """A listener that cancels the Deferred of the start stops it, as at any other time: the result is no failure."""
        world = World()
        results: list[object] = []

        def listener(flow: Flow, event: Event) -> None:
            running.cancel()

        prober = Prober(world.here, ["192.0.2.2:7"], Plan(interval=0.01), listener=listener)
        running = prober.start()
        running.addBoth(results.append)
        world.network.advance(1)
        assert results == [None]
        world.leavesNothing()

    def test_raises(self, caught: Any) -> None:
        """What a listener raises is logged, and the others get the event."""
        world = World()

        def listener(flow: Flow, event: Event) -> None:
            raise ZeroDivisionError

        prober = Prober(world.here, ["192.0.2.2:7"], Plan(count=3, interval=0.01), listener=listener)
        events = prober.events()
        prober.start()
        world.network.advance(1)
        assert len(caught.flush(ZeroDivisionError)) == 3
        assert events.pending  # type: ignore[attr-defined]

    def test_manyProbers(self) -> None:
        """Each of many probers stops the next one when it ends."""
        world = World()
        probers = [Prober(world.here, ["192.0.2.2:7"]) for _ in range(300)]
        depths: list[int] = []

        def ended(_: object) -> None:
            depths.append(stackDepth())
            if len(depths) < len(probers):
                probers[len(depths)].stop()

        for prober in probers:
            prober.start().addCallback(ended)
        probers[0].stop()
        assert len(depths) == 300
        assert max(depths) - min(depths) <= SAME_DEPTH
        world.leavesNothing()

    def test_stopsWhileReopened(self, runOnce: Run) -> None:
        """A listener that stops it when the last replies of a socket are read leaves no other socket open."""

        async def test(reactor: Any) -> None:
            with udpSocket() as free:
                port = free.getsockname()[1]
            server = listen(reactor, 0, EchoServer())
            target = f"127.0.0.1:{server.getHost().port}"
            options = SocketOptions(bindAddress=("127.0.0.1", port))
            prober = Prober(reactor, [target], Plan(interval=10), options=options, listener=lambda flow, event: prober.stop())
            prober.start()
            flow = prober.flows[0]
            flow.send(prober._clocks.monotonic())
            await sleep(reactor, 0)
            server.doRead()
            if prober.running:
                prober._reopen(flow, flow.target)
            assert not prober.running
            await server.stopListening()

        runOnce(test)


class LogTests:
    """An observer of the log stops what writes a line."""

    def service(self, *targets: str) -> tuple[MemoryNetwork, Any, ProbeService]:
        network = MemoryNetwork(latency=0.001)
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        listen(there, 7, EchoServer(), "192.0.2.2")
        return network, here, ProbeService(here, targets, Plan(interval=0.1))

    def test_probing(self) -> None:
        """When it begins to probe."""
        network, here, service = self.service("there:7", "192.0.2.2:7")
        with Reaction("probing there:7 at", service.stopService) as reaction:
            service.startService()
            network.advance(30)
        assert reaction.count == 1
        assert not service.flows
        assert not here.getDelayedCalls()

    @pytest.mark.parametrize("how", ["stop", "restart", "remove"])
    def test_cannotProbe(self, how: str) -> None:
        """When a target cannot be probed: it is not tried again."""
        network, here, service = self.service("nowhere:7", "there:7")

        def react() -> None:
            if how == "remove":
                service.configure(["there:7"])
                return
            service.stopService()
            if how == "restart" and reaction.count == 1:
                service.startService()

        service.startService()
        with Reaction("cannot probe nowhere:7", react) as reaction:
            network.advance(0.5)
        assert reaction.count == (2 if how == "restart" else 1)
        assert not [call for call in here.getDelayedCalls() if call.func == service._start]
        service.stopService()
        assert not here.getDelayedCalls()
