"""Tests of L{udpecho.probe.lookup}, and of probers whose targets' names change their addresses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs, formatEvent

from tests.support.probes import World
from tests.support.sums import checkSums
from tests.support.transports import Resolver, ResolvingClock
from udpecho.addresses import DatagramAddress
from udpecho.net.open import listen
from udpecho.probe.lookup import PAUSE, Lookup
from udpecho.probe.outcomes import Outcome
from udpecho.probe.schedule import Plan
from udpecho.probe.target import LOOKUP_TIMEOUT, Target, addressesOf, failureMessage
from udpecho.server.protocol import EchoServer


def addresses(*hosts: str) -> list[IPv4Address]:
    return [IPv4Address("UDP", host, 7) for host in hosts]


class LookupTests:
    """L{Lookup} in virtual time."""

    def lookup(self, interval: float | None, **table: Sequence[Any]) -> tuple[ResolvingClock, Lookup, list[Any]]:
        clock = ResolvingClock({name: list(found) for name, found in table.items()})
        found: list[Any] = []
        target = Target("there:7", DatagramAddress(("192.0.2.2", 7)))
        return clock, Lookup(clock, target, interval, lambda name, each: found.append((name, each))), found

    def test_interval(self) -> None:
        """A name is looked up within each interval, and not more than twice in it."""
        clock, lookup, found = self.lookup(60, there=addresses("192.0.2.3", "192.0.2.4"))
        assert clock.nameResolver.names == []
        for _ in range(600):
            clock.advance(1)
        assert 10 <= len(found) <= 20
        assert found[0] == ("there:7", [("192.0.2.3", 7), ("192.0.2.4", 7)])
        lookup.stop()
        assert not clock.getDelayedCalls()

    def test_request(self) -> None:
        """While a target does not answer it is looked up at once, and then seldom."""
        clock, lookup, found = self.lookup(None, there=addresses("192.0.2.3"))
        for _ in range(25):
            lookup.request()
            clock.advance(1)
        assert len(found) == 3
        assert PAUSE == 10
        lookup.stop()

    def test_fails(self) -> None:
        """A failure is logged once, and looking up goes on."""
        clock, lookup, found = self.lookup(1, there=[])
        with capturedLogs() as events:
            for _ in range(20):
                clock.advance(1)
        text = "cannot look up there:7 again: no address for 'there': is the name right, and can it be looked up from here?"
        assert [formatEvent(event) for event in events] == [text]
        clock.nameResolver.table["there"] = addresses("192.0.2.3")
        clock.advance(1)
        assert found
        lookup.stop()

    def test_neverAnswered(self) -> None:
        """A resolver that does not answer ends a lookup, and no more: not two are under way at once."""
        clock, lookup, found = self.lookup(1)
        with capturedLogs() as events:
            for _ in range(round(10 * LOOKUP_TIMEOUT)):
                clock.advance(1)
                lookup.request()
        assert len(events) == 1
        assert len(clock.nameResolver.names) <= 10
        lookup.stop()
        assert not clock.getDelayedCalls()
        assert not found

    def test_noDescriptors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a lookup fails because no descriptor is left, that is the reason given, and not the name."""

        def refuse(*_: Any) -> Any:
            raise OSError(24, "Too many open files")

        clock = ResolvingClock({"there": []})
        work = defer.Deferred.fromCoroutine(addressesOf(clock, "there:7"))
        assert isinstance(work.result.value, error.DNSLookupError)  # type: ignore[attr-defined]
        work.addErrback(lambda _: None)
        monkeypatch.setattr(os, "pipe", refuse)
        work = defer.Deferred.fromCoroutine(addressesOf(clock, "there:7"))
        reason = work.result.value  # type: ignore[attr-defined]
        work.addErrback(lambda _: None)
        assert failureMessage(reason) == "no file descriptor is left: Too many open files (ulimit -n, LimitNOFILE=)"


class ProberTests:
    """L{Prober} and a name with other addresses, in virtual time."""

    def world(self, interval: float | None, **how: Any) -> tuple[World, Any, Any, Any]:
        """@return: a world, the resolver's table, a prober of C{server:7} that was started, and the second server's address."""
        world = World()
        other = world.network.host("other", "192.0.2.3")
        listen(other, 7, EchoServer(), "192.0.2.3")
        resolver: Any = Resolver({"server": addresses("192.0.2.2")})
        world.here.installNameResolver(resolver)
        prober = world.prober(Plan(interval=0.5), "server:7", resolveInterval=interval, **how)
        prober.start()
        world.network.advance(3)
        return world, resolver.table, prober, other

    def test_moved(self) -> None:
        """A target whose address is not its name's any more is probed at the new one, with the same numbers and statistics."""
        world, table, prober, _ = self.world(20)
        flow = prober.flows[0]
        table["server"] = addresses("192.0.2.3", "192.0.2.4")
        with capturedLogs() as events:
            world.network.advance(40)
        assert prober.flows == [flow]
        assert flow.target.address == ("192.0.2.3", 7)
        assert {event.peer for event in world.events} == {"192.0.2.2:7", "192.0.2.3:7"}
        assert [event.sequence for event in world.events] == list(range(len(world.events)))
        assert flow.statistics.count(Outcome.ANSWERED) == len(world.events)
        texts = [str(formatEvent(event)) for event in events if event["log_namespace"].startswith("udpecho.probe")]
        assert [text.partition(" from ")[0] for text in texts] == ["probing server:7 at 192.0.2.3:7"]
        assert "was at 192.0.2.2:7 from 192.0.2.1:" in texts[0]
        prober.stop()
        checkSums(flow.statistics)

    def test_kept(self) -> None:
        """An address that is still one of the name's is kept, and so it is when the lookup fails."""
        world, table, prober, _ = self.world(5)
        table["server"] = addresses("192.0.2.3", "192.0.2.2")
        world.network.advance(20)
        table["server"] = []
        with capturedLogs() as events:
            world.network.advance(20)
        assert len([event for event in events if event["log_namespace"].startswith("udpecho.probe")]) == 1
        assert {event.peer for event in world.events} == {"192.0.2.2:7"}
        prober.stop()

    @pytest.mark.parametrize("sources", [1, 3])
    def test_unanswered(self, sources: int) -> None:
        """A target that does not answer is looked up without waiting for the interval; all its flows move."""
        world, table, prober, _ = self.world(None, sources=sources)
        world.port.stopListening()
        table["server"] = addresses("192.0.2.3")
        world.network.advance(3)
        world.events.clear()
        world.network.advance(2)
        assert {event.peer for event in world.events} == {"192.0.2.3:7"}
        assert {event.outcome for event in world.events} == {Outcome.ANSWERED}
        assert [str(flow.target.address) for flow in prober.flows] == ["192.0.2.3:7"] * sources
        prober.stop()
        for flow in prober.flows:
            checkSums(flow.statistics)
