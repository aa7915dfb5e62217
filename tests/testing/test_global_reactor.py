"""Tests of L{udpecho.testing.global_reactor} and what is with it: programs that import the reactor, the time and chance."""

from __future__ import annotations

import importlib
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet import defer, task, threads
from twisted.internet.interfaces import IReactorCore, IReactorTime, IReactorUDP
from twisted.internet.protocol import DatagramProtocol

from tests.support.memory import pair
from tests.support.source import ROOT, run
from udpecho.testing.memory_network import MemoryNetwork

#: A module that holds the reactor in every way.
STRANGER = """
import functools
import os
import random
import time
import twisted.internet
from os import urandom
from time import monotonic, time as now
from random import randrange, Random
from twisted.internet import reactor
from twisted.internet import reactor as r
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall

def default(clock=reactor):
    return clock

def keyword(*, clock=reactor):
    return clock

def decorated(clock):
    def wrapper(function):
        def call():
            return clock
        return call
    return wrapper

@decorated(reactor)
def closure():
    pass

def inside():
    from twisted.internet import reactor
    return reactor

positional = functools.partial(default, reactor)
named = functools.partial(default, clock=reactor)

class Holder:
    attribute = reactor
    static = staticmethod(lambda clock=reactor: clock)

    class Nested:
        attribute = reactor

    def method(self, clock=reactor):
        return clock

class Single:
    def __init__(self, clock):
        self.clock = clock

single = Single(reactor)

def ways():
    return [reactor, r, default(), keyword(), closure(), inside(), positional(), named(), Holder.attribute, Holder.static(),
            Holder.Nested.attribute, Holder().method(), single.clock, twisted.internet.reactor]

class Peer(DatagramProtocol):
    def __init__(self):
        self.seen = []

    def startProtocol(self):
        self.seen.append(("start", reactor.name))
        LoopingCall(lambda: self.seen.append(("loop", reactor.name, reactor.seconds()))).start(1, now=False)
        reactor.callLater(0.5, lambda: self.seen.append(("timer", inside().name)))

    def datagramReceived(self, datagram, address):
        self.seen.append(("datagram", r.name))

def numbers():
    return [random.random(), randrange(10**9), Random().random(), random.Random().random(), os.urandom(8), urandom(8)]
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module with the text above, by any name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def import_(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(STRANGER)
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name)

    yield import_
    for name in names:
        del sys.modules[name]


class ReactorTests:
    """What modules find as the reactor."""

    def test_held(self, load: Callable[[str], ModuleType]) -> None:
        """A module that was imported before has the host in whatever way it holds the reactor, one that is imported meanwhile
        too; afterwards both have the installed one, exactly.
        """
        from twisted.internet import reactor as installed

        one, two = pair(MemoryNetwork())
        before = load("stranger_before")
        assert all(way is installed for way in before.ways())
        with one.network.running(one) as host:  # type: ignore[attr-defined]
            assert host is one
            meanwhile = load("stranger_meanwhile")
            for module in (before, meanwhile):
                assert [way.name for way in module.ways()] == ["one"] * 14
            with two.network.running(two):  # type: ignore[attr-defined]
                assert {way.name for way in before.ways()} == {"two"}
            assert {way.name for way in before.ways()} == {"one"}
        for module in (before, meanwhile):
            assert all(way is installed for way in module.ways())
        assert sys.modules["twisted.internet.reactor"] is installed  # type: ignore[comparison-overlap]

    def test_raises(self, load: Callable[[str], ModuleType]) -> None:
        """What the context raises leaves the installed reactor in place, and so does a host that is another network's."""
        from twisted.internet import reactor as installed

        stranger = load("stranger_raises")
        network = MemoryNetwork()
        one, _ = pair(network)
        with pytest.raises(ZeroDivisionError), network.running(one):
            1 / 0  # noqa: B018
        wrong = MemoryNetwork().running(one)
        with pytest.raises(ValueError, match=r"^host must be one of this network, got <MemoryHost one>$"), wrong:
            pass
        assert all(way is installed for way in stranger.ways())

    def test_current(self, load: Callable[[str], ModuleType]) -> None:
        """In each callback of a host the reactor is that host: timers, loops, datagrams and what starts."""
        stranger = load("stranger_current")
        network = MemoryNetwork(latency=0.1)
        one, two = pair(network)
        first, second = stranger.Peer(), stranger.Peer()
        with network.running(one):
            stranger.reactor.listenUDP(7, first)
        with network.running(two):
            stranger.reactor.listenUDP(7, second).write(b"x", ("10.0.0.1", 7))
            network.advance(2)
        seen = [("timer", "one"), ("loop", "one", 1.0), ("loop", "one", 2.0)]
        assert first.seen == [("start", "one"), ("datagram", "one"), *seen]
        assert second.seen == [("start", "two"), ("timer", "two"), ("loop", "two", 1.0), ("loop", "two", 2.0)]

    def test_interfaces(self) -> None:
        """The global reactor provides what a host does, and attributes that are set are the host's."""
        network = MemoryNetwork()
        one, _ = pair(network)
        with network.running(one):
            from twisted.internet import reactor

            anything: Any = reactor
            for interface in (IReactorCore, IReactorTime, IReactorUDP):
                assert interface.providedBy(reactor)
                assert interface(reactor) is reactor
            anything.mark = 1
            assert vars(one)["mark"] == 1
            assert "mark" in dir(reactor)
            del anything.mark
            assert "mark" not in vars(one)
            assert repr(reactor) == "<the global reactor, now <MemoryHost one>>"

    def test_twistedItself(self) -> None:
        """What of Twisted takes the global reactor by default takes the host."""
        network = MemoryNetwork()
        one, _ = pair(network)
        done: list[object] = []
        with network.running(one):
            from twisted.internet import reactor

            threads.deferToThread(lambda: "in a thread").addCallback(done.append)
            task.deferLater(reactor, 1, done.append, "later")
            task.LoopingCall(lambda: done.append(one.seconds())).start(1, now=False)
            never: defer.Deferred[None] = defer.Deferred()
            never.addTimeout(1.5, reactor)
            never.addErrback(lambda failure: done.append(failure.type))
            network.advance(1.9)
        assert done == ["in a thread", "later", 1.0, defer.TimeoutError]

    def test_withoutInstalled(self) -> None:
        """Where no reactor is installed none gets installed, and a module that was imported meanwhile finds the one that
        is installed later.
        """
        code = (
            "import sys, types\n"
            "from udpecho import MemoryNetwork\n"
            "network = MemoryNetwork()\n"
            "with network.running(network.host('one')):\n"
            "    from twisted.internet import reactor\n"
            "    name = reactor.name\n"
            "import twisted.internet\n"
            "absent = 'twisted.internet.reactor' not in sys.modules and not hasattr(twisted.internet, 'reactor')\n"
            "from twisted.internet import selectreactor\n"
            "selectreactor.install()\n"
            "print(name, absent, type(reactor.callLater.__self__).__name__)"
        )
        assert run([sys.executable, "-c", code], ROOT) == "one True SelectReactor\n"


class TimeTests:
    """The time of a network."""

    def test_own(self, load: Callable[[str], ModuleType]) -> None:
        """Where asked, C{time} is the host's, also for a module that has imported its functions; otherwise it is the
        machine's.
        """
        stranger = load("stranger_time")
        network = MemoryNetwork()
        one, _ = pair(network)
        functions = [time.time, time.monotonic, time.perf_counter, time.time_ns]
        network.advance(5)
        with network.running(one):
            assert time.time() > 1e9
        with network.running(one, ownTime=True):
            assert time.time() == time.monotonic() == time.perf_counter() == stranger.now() == stranger.monotonic() == 5
            assert time.time_ns() == time.monotonic_ns() == 5_000_000_000
            network.advance(0.5)
            assert stranger.now() == stranger.time.time() == one.seconds() == 5.5
            assert str(uuid.uuid4())
        assert [time.time, time.monotonic, time.perf_counter, time.time_ns] == functions
        assert stranger.now is time.time
        assert stranger.monotonic is time.monotonic


class ChanceTests:
    """The chance of a network."""

    def test_seed(self, load: Callable[[str], ModuleType]) -> None:
        """With the same seed all that programs take for chance is the same, and goes on in a later context; another seed, or
        none, gives other numbers; the machine's own goes on afterwards as if nothing had been.
        """
        stranger = load("stranger_chance")

        def played(seed: int | None) -> list[object]:
            network = MemoryNetwork()
            one, _ = pair(network)
            found: list[object] = []
            for _ in range(2):
                with network.running(one, seed=seed):
                    found += [*stranger.numbers(), secrets.token_bytes(4), secrets.randbelow(10**9), uuid.uuid4()]
            return found

        state, system, seeding = random.getstate(), os.urandom, random.Random.seed
        first = played(1)
        assert random.getstate() == state
        assert first == played(1)
        assert len(set(map(str, first))) == len(first)
        others = played(2) + played(None)
        assert not set(map(str, first)) & set(map(str, others))
        assert os.urandom is system
        assert stranger.urandom is system
        assert random.Random.seed is seeding

    def test_sameTrace(self) -> None:
        """A program whose identifiers are by chance leaves the same trace each time."""

        class Chatty(DatagramProtocol):
            def startProtocol(self) -> None:
                from twisted.internet import reactor

                loop = task.LoopingCall(self.send)
                self.reactor: Any = reactor
                loop.start(0.5)

            def send(self) -> None:
                assert self.transport is not None
                self.transport.write(b"x" * random.randrange(1, 1000), ("10.0.0.2", 7))
                if random.random() < 0.3:
                    self.reactor.callLater(random.random(), self.send)

        def played(seed: int) -> str:
            network = MemoryNetwork()
            one, _ = pair(network)
            with network.running(one, seed=seed, ownTime=True):
                one.listenUDP(7, Chatty())
                network.advance(20)
            return str(network.trace)

        assert played(1) == played(1) != played(2)
