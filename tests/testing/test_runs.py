"""Tests of how a network in memory is run: until something happens, event by event, and what ends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import LoopingCall, deferLater

from tests.support.memory import open_, pair
from udpecho.client.connect import echo
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.testing.clock import NetworkClock
from udpecho.testing.events import EventLimit, NotFired
from udpecho.testing.memory_network import MemoryNetwork


def periodic(clock: Any, period: float, function: Callable[[], object]) -> None:
    loop = LoopingCall(function)
    loop.clock = clock
    loop.start(period, now=False)


class LimitTests:
    """Runs without an end."""

    def test_names(self) -> None:
        """The error names the timers that spin, and their hosts; the limit is exact, and the rest comes with the next run."""
        network = MemoryNetwork()
        made: list[str] = []

        def spinning(host: Any) -> None:
            made.append(host.name)
            host.callLater(0.001, partial(spinning, host))

        for number in range(5):
            spinning(network.host(f"h{number}"))
        periodic(network.hosts["h0"], 1, list)
        made.clear()
        expected = (
            r"^events must come to an end, got 100 at 0\.02 s; of the last 100 there were "
            r"100 times LimitTests\.test_names\.<locals>\.spinning \(at h0, h1, h2 and 2 more\)$"
        )
        with pytest.raises(EventLimit, match=expected):
            network.advance(10, limit=100)
        assert len(made) == 100
        network.advance(0.001)
        assert len(made) == 105
        with pytest.raises(EventLimit, match=r"5000 at 1\.0.* LoopingCall"):
            network.advance(10, limit=5000)

    @pytest.mark.parametrize("run", ["advance", "runUntil", "runUntilIdle"])
    def test_exact(self, run: str) -> None:
        """As many events as the limit are no error, though cancelled calls are behind them."""
        for more in (0, 1):
            clock = NetworkClock()
            for _ in range(10 + more):
                clock.fly(1, None, int)
            clock.callLater(1, int).cancel()
            arguments: dict[str, list[Any]] = {"advance": [1], "runUntil": [Deferred(), 1], "runUntilIdle": []}
            with pytest.raises(EventLimit) if more else suppress(NotFired):
                getattr(clock, run)(*arguments[run], limit=10)
            assert clock.flying == more

    @pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), -1e-9])
    def test_backwards(self, seconds: float) -> None:
        """Time goes on, and by a number."""
        network = MemoryNetwork()
        message = re.escape(f"seconds must be a finite number, 0 or more, got {seconds}")
        with pytest.raises(ValueError, match=message):
            network.advance(seconds)
        with pytest.raises(ValueError, match=message):
            network.runUntil(Deferred(), seconds)
        assert network.clock.seconds() == 0

    @pytest.mark.parametrize("inner", ["advance", "step", "runUntil", "runUntilIdle"])
    @pytest.mark.parametrize("outer", ["advance", "step", "runUntil", "runUntilIdle"])
    def test_inside(self, outer: str, inner: str) -> None:
        """A callback that runs its network gets an error, and the run goes on."""
        network = MemoryNetwork()
        arguments: dict[str, list[Any]] = {"advance": [1], "step": [], "runUntil": [Deferred(), 1], "runUntilIdle": []}
        caught: list[str] = []

        def again() -> None:
            assert network.clock.isRunning
            try:
                getattr(network, inner)(*arguments[inner])
            except RuntimeError as e:
                caught.append(str(e))
            arguments["runUntil"][0].callback(None)

        network.clock.callLater(0, again)
        getattr(network, outer)(*arguments[outer])
        assert caught == [f"a network must not be run by its own callbacks, got {inner}() inside {outer}()"]
        assert not network.clock.isRunning
        network.advance(1)


class UntilTests:
    """Runs until something happens."""

    def test_result(self) -> None:
        """The result of a Deferred, of one that has fired, and of a coroutine; time goes no further."""
        network = MemoryNetwork(latency=0.25)
        here, there = pair(network)
        listen(there, 7, EchoServer(), "0.0.0.0")
        periodic(here, 0.1, list)

        async def twice() -> list[int]:
            return [await echo(here, "two", 7, bytes(size)) for size in (3, 4)]

        done = echo(here, "two", 7, b"hello")
        assert network.runUntil(done) == 5
        assert network.clock.seconds() == 0.5
        assert network.runUntil(done) == 5
        assert network.clock.seconds() == 0.5
        assert network.runUntil(twice()) == [3, 4]
        assert network.clock.seconds() == 1.5

    def test_failure(self) -> None:
        """A failure is raised, and is not left in the Deferred."""
        network = MemoryNetwork()
        with pytest.raises(ZeroDivisionError):
            network.runUntil(fail(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            network.runUntil(deferLater(network.host("one"), 1, lambda: 1 / 0))

    def test_notFired(self) -> None:
        """The error says what was waited for, and whether the time is over or nothing is left. A late result is the next
        callback's.
        """
        network = MemoryNetwork()
        host = network.host("one")
        late: Deferred[int] = Deferred()
        host.callLater(1, int)
        with pytest.raises(NotFired, match=r"^<Deferred at .*> must fire, but nothing is left to do at 1 s$"):
            network.runUntil(late)
        host.callLater(3, late.callback, 5)
        host.callLater(3, int).cancel()
        with pytest.raises(
            NotFired, match=r"within 2 s, got nothing by 3 s; next come 4\.000000 s: Deferred\.callback at one$"
        ):
            network.runUntil(late, 2)
        results: list[int] = []
        late.addCallback(results.append)
        network.advance(1)
        assert results == [5]

    def test_flightsOnly(self) -> None:
        """What is in flight when the time is over is named too."""
        network = MemoryNetwork(latency=3)
        here, _ = pair(network)
        port, _ = open_(here, "10.0.0.1", 5000)
        port.write(b"hello", ("10.0.0.2", 7))
        with pytest.raises(NotFired, match=r"next come 3\.0+ s: datagram 10\.0\.0\.1:5000 > 10\.0\.0\.2:7 at two$"):
            network.runUntil(Deferred(), 1)

    def test_idle(self) -> None:
        """It runs until nothing is in flight and no timer is due; periodic timers run meanwhile, and do not keep it running."""
        network = MemoryNetwork(latency=0.25)
        here, there = pair(network)
        server = EchoServer()
        listen(there, 7, server, "0.0.0.0")
        ticks: list[float] = []
        periodic(here, 0.1, lambda: ticks.append(here.seconds()))
        echo(here, "two", 7, b"hello").addCallback(lambda _: here.callLater(0, ticks.append, -1))
        network.runUntilIdle()
        assert network.clock.seconds() == 0.5
        assert server.counters.echoed == 1
        assert ticks[-1] == -1
        assert 4 <= len(ticks) <= 6
        network.runUntilIdle()
        assert network.clock.seconds() == 0.5

    def test_step(self) -> None:
        """One event each: what it was, and nothing where nothing is left. Cancelled calls are none."""
        network = MemoryNetwork(latency=0.25)
        here, there = pair(network)
        port, _ = open_(here, "10.0.0.1", 5000)
        _, recorder = open_(there, "10.0.0.2", 7)
        port.write(b"hello", ("10.0.0.2", 7))
        here.callLater(0.1, int).cancel()
        here.callLater(0.2, int).delay(0.3)
        network.clock.callLater(0.5, int)
        assert str(network.step()) == "0.250000 s: datagram 10.0.0.1:5000 > 10.0.0.2:7 at two"
        assert len(recorder.datagrams) == 1
        assert str(network.step()) == "0.500000 s: int"
        assert str(network.step()) == "0.500000 s: int at one"
        assert network.step() is None
        assert network.clock.seconds() == 0.5

    def test_stop(self) -> None:
        """A run ends after the event that stops it."""
        clock = NetworkClock()
        made: list[int] = []
        clock.callLater(1, clock.stop)
        clock.callLater(1, made.append, 1)
        clock.run(10)
        assert (made, clock.seconds(), clock.isPending) == ([], 1, True)
        clock.run(10)
        assert (made, clock.seconds(), clock.isPending) == ([1], 1, False)
