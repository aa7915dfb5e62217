"""Tests that nothing in a network in memory goes on without end, and of what callbacks do in it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from tests.conftest import CaughtErrors
from tests.support.depth import stackDepth
from tests.support.memory import open_, pair
from tests.support.running import DetailedRecorder, Recorder
from udpecho.client.connect import connect
from udpecho.faults.decision import Decision
from udpecho.faults.plan import FaultPlan
from udpecho.guard.guard import Guard
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService
from udpecho.testing import clock, memory_network
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork


class Answering(DatagramProtocol):
    """Answers with all hops again, as other people's servers do."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(datagram, (addr[0], addr[1]))


class LoopTests:
    """Servers that a forged datagram connects. What a server's port sends is as good as forged."""

    @pytest.mark.parametrize("duplicate", [0.0, 1.0])
    @pytest.mark.parametrize("latency", [0.0, 0.01])
    @pytest.mark.parametrize("kind", ["service", "guard", "listenUDP"])
    def test_ends(self, kind: str, latency: float, duplicate: float) -> None:
        """Two guarded servers come to an end, and all copies do; each datagram has one fate."""
        network = MemoryNetwork(FaultPlan(duplicate=duplicate), latency)
        counters = []
        for number, host in enumerate(pair(network), 5000):
            if kind == "service":
                service = EchoService(host, number, ["0.0.0.0"])
                service.startService()
                counters.append(service.counters)
                port: Any = service._listeners.ports[0]
            else:
                server = EchoServer(Guard(ownPorts=[number]))
                counters.append(server.counters)
                port = listen(host, number, server, "0.0.0.0") if kind == "guard" else host.listenUDP(number, server)
        port.write(b"forged", ("10.0.0.1", 5000))
        network.advance(100)
        assert not network.clock.isPending
        assert 1 < len(network.trace) < 129
        assert sum(counter.dropped["loop_guard"] for counter in counters) >= 1
        for counter in counters:
            assert counter.received == counter.echoed + sum(counter.dropped.values())

    def test_withoutEnd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two other servers never end: without latency a test is told, and with it the time that it asked for passes."""
        monkeypatch.setattr(clock, "MAX_AT_ONCE", 100)
        network = MemoryNetwork()
        for host in pair(network):
            port = host.listenUDP(5000, Answering())
        port.write(b"forged", ("10.0.0.1", 5000))
        expected = (
            r"^events of one time must come to an end, got 100 at 0 s; of the last 100 there were "
            r"50 times datagram 10\.0\.0\.2:5000 > 10\.0\.0\.1:5000 \(at one\), "
            r"50 times datagram 10\.0\.0\.1:5000 > 10\.0\.0\.2:5000 \(at two\)$"
        )
        for _ in range(2):
            with pytest.raises(RuntimeError, match=expected):
                network.advance(1)
        late = MemoryNetwork(latency=0.01)
        for host in pair(late):
            port = host.listenUDP(5000, Answering())
        port.write(b"forged", ("10.0.0.1", 5000))
        late.advance(2)
        assert late.clock.seconds() == 2

    def test_hopLimit(self) -> None:
        """As on a socket, a reply has one hop less only where hops are counted; the first of them can be set."""
        network = MemoryNetwork()
        here, there = pair(network)
        server, sender = DetailedRecorder(), DetailedRecorder()
        counting = listen(there, 5000, server, "0.0.0.0", decrementHopLimit=True)
        port = listen(here, 5000, sender, "0.0.0.0", decrementHopLimit=True)
        plain, recorder = open_(here, "0.0.0.0")
        port.hopLimit = 10  # type: ignore[attr-defined]
        for source in (plain, port):
            source.write(b"hello", ("10.0.0.2", 5000))
        network.advance(0)
        addresses: list[Any] = [address for _, address in server.datagrams]
        assert [address.hopLimit for address in addresses] == [64, 10]
        for address in addresses:
            counting.write(b"reply", address)
        network.advance(0)
        assert [getattr(address, "hopLimit", None) for _, address in sender.datagrams] == [9]
        assert [getattr(address, "hopLimit", None) for _, address in recorder.datagrams] == [None]
        port.hopLimit = 1  # type: ignore[attr-defined]
        port.write(b"the last", ("10.0.0.2", 5000))
        network.advance(0)
        assert len(server.datagrams) == 2
        assert counting.dropped == {"loop_guard": 1}

    def test_groups(self) -> None:
        """What is sent to a group has one hop, and arrives nevertheless; with none it stays on its host."""
        network = MemoryNetwork()
        here, there = pair(network)
        recorders = []
        for host in (here, there):
            recorders.append(Recorder())
            port = host.listenMulticast(5000, recorders[-1], "", listenMultiple=True)
            port.countsHops = True
            port.joinGroup("224.0.0.9")
        port.write(b"hello", ("224.0.0.9", 5000))
        port.setTTL(0)
        port.write(b"here", ("224.0.0.9", 5000))
        network.advance(0)
        assert [[datagram for datagram, _ in recorder.datagrams] for recorder in recorders] == [[b"hello"], [b"hello", b"here"]]

    def test_inFlight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is in flight has a bound, of which one port gets half; the rest is lost, as in a router."""
        monkeypatch.setattr(memory_network, "MAX_IN_FLIGHT", 100_000)
        network = MemoryNetwork(latency=1e6)
        here, _ = pair(network)
        for _ in range(2):
            port, _ = open_(here, "0.0.0.0")
            for _ in range(100):
                port.write(bytes(488), ("10.0.0.2", 5000))
        outcomes = [entry.outcome for entry in network.trace]
        assert outcomes.count("no buffer") == 200 - 50 - 25
        network.advance(2e6)
        port.write(bytes(488), ("10.0.0.2", 5000))
        assert network.trace[-1].outcome == "in flight"


class BrokenTests:
    """Other people's parts that raise."""

    @pytest.mark.parametrize("decision", [None, Decision(("odd",), (float("nan"),)), Decision(("odd",), (-1.0,))])
    def test_plan(self, caught: CaughtErrors, decision: Any) -> None:
        """A plan that fails loses its datagram, and neither the sender nor the network fails."""

        class Broken:
            def decide(self, size: int, now: float) -> Any:
                return decision

        network = MemoryNetwork(Broken())
        here, there = pair(network)
        server = EchoServer()
        listen(there, 5000, server, "0.0.0.0")
        port, _ = open_(here, "0.0.0.0")
        outcomes: list[Any] = []
        port.send(b"hello", ("10.0.0.2", 5000), outcomes.append)
        network.advance(1)
        assert outcomes == [None]
        assert network.trace[0].outcome == "plan failed"
        assert len(caught.flush(Exception)) == 1

    def test_protocol(self, caught: CaughtErrors) -> None:
        """A protocol that raises in every method stops no other one."""

        class Broken(EchoServer):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                raise ZeroDivisionError

            def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
                raise ZeroDivisionError

            def stopProtocol(self) -> None:
                raise ZeroDivisionError

        network = MemoryNetwork()
        here, there = pair(network)
        port = listen(there, 5000, Broken(), "0.0.0.0", maxPacketSize=100)
        other = EchoServer()
        listen(there, 5001, other, "0.0.0.0")
        source, recorder = open_(here, "0.0.0.0")
        for number in (5000, 5001):
            for size in (5, 200):
                source.write(bytes(size), ("10.0.0.2", number))
        network.advance(1)
        stopped: list[Any] = []
        port.stopListening().addBoth(stopped.append)
        network.advance(1)
        assert stopped == [None]
        assert other.counters.echoed == len(recorder.datagrams) == 2
        assert len(caught.flush(ZeroDivisionError)) == 3


def expected(failure: Failure) -> None:
    """What the actions raise is not left in a Deferred."""
    failure.trap(ZeroDivisionError)


class Starting(DatagramProtocol):
    """Does something when it starts.

    @ivar stopped: how often it was stopped.
    """

    noisy = False

    def __init__(self, action: str) -> None:
        self.action = action
        self.stopped = 0

    def startProtocol(self) -> None:
        if self.action == "raise":
            raise ZeroDivisionError
        getattr(self.transport, self.action)()

    def stopProtocol(self) -> None:
        self.stopped += 1


class StartTests:
    """What C{startProtocol} may do."""

    def test_raises(self) -> None:
        """What it raises comes out of C{listenUDP}, and the number is free again."""
        host = MemoryNetwork().host("machine")
        with pytest.raises(ZeroDivisionError):
            host.listenUDP(5000, Starting("raise"))
        assert host._byNumber == {}

    @pytest.mark.parametrize("action", ["abort", "stopListening"])
    def test_stops(self, action: str) -> None:
        """It may stop its port: then it is stopped once."""
        network = MemoryNetwork()
        host = network.host("machine")
        protocol = Starting(action)
        port = host.listenUDP(5000, protocol)
        network.advance(0)
        assert protocol.stopped == 1
        assert not port.connected
        assert host._byNumber == {}
        stopped: list[Any] = []
        port.stopListening().addBoth(stopped.append)
        assert stopped == [None]


class Actor(DatagramProtocol):
    """Does something at random in each of its callbacks."""

    noisy = False

    def __init__(self, world: World) -> None:
        self.world = world

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.world.act()

    def connectionRefused(self) -> None:
        self.world.act()

    def stopProtocol(self) -> None:
        self.world.act()


class World:
    """Random actions in a network, from its callbacks.

    @ivar outcomes: how often each call's callback was called, by its number.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        plan = FaultPlan(seed, duplicate=0.1, loss=0.1, reorder=0.1, delay=0.001)
        self.network = MemoryNetwork(plan)
        self.hosts = pair(self.network)
        self.left = 20_000
        self.calls = 0
        self.outcomes: Counter[int] = Counter()
        self.base = self.deepest = 0
        self.ports: list[Any] = []
        self.clients: list[Any] = []
        self.failures: Counter[str] = Counter()
        for _ in range(40):
            self.open()

    def open(self) -> None:
        host = self.random.choice(self.hosts)
        self.ports.append(host.listenUDP(0, Actor(self), self.random.choice(["127.0.0.1", "0.0.0.0"])))

    def called(self, result: object, number: int) -> None:
        self.outcomes[number] += 1
        self.act()

    def act(self) -> None:
        """Do one thing or two, as long as there is something left to do."""
        self.deepest = max(self.deepest, stackDepth() - self.base)
        for _ in range(self.random.choice([0, 1, 1, 2])):
            if self.left:
                self.left -= 1
                self.random.choice([self.send, self.send, self.send, self.stop, self.open, self.echo, self.close, self.fail])()

    def number(self) -> int:
        self.calls += 1
        return self.calls - 1

    def send(self) -> None:
        port, other = self.random.choice(self.ports), self.random.choice(self.ports)
        number = self.number()
        if port.peer is None and port.host is other.host:
            port.send(bytes(9), ("127.0.0.1", other.number), lambda reason: self.called(reason, number))
        else:
            self.outcomes[number] += 1

    def stop(self) -> None:
        if len(self.ports) > 20:
            port = self.ports.pop(self.random.randrange(len(self.ports)))
            number = self.number()
            self.random.choice([port.stopListening, port.abort])()
            port.stopListening().addBoth(self.called, number).addErrback(expected)

    def echo(self) -> None:
        if self.clients:
            number = self.number()
            self.random.choice(self.clients).echo(b"hello", 0.5).addBoth(self.called, number).addErrback(expected)

    def close(self) -> None:
        if len(self.clients) > 2:
            number = self.number()
            self.clients.pop().close().addBoth(self.called, number).addErrback(expected)

    def fail(self) -> None:
        self.failures["raised"] += 1
        raise ZeroDivisionError


class RandomTests:
    """Random actions in random callbacks."""

    @pytest.mark.parametrize("seed", range(3))
    def test_oneOutcome(self, seed: int, caught: CaughtErrors) -> None:
        """With 1000 calls outstanding, and callbacks that send, stop, open, close and raise, each call has one outcome. Nothing
        is left, and the stack has a bound.
        """
        world = World(seed)
        server = EchoServer()
        there = world.hosts[1]
        port = listen(there, 7000, server, "0.0.0.0")
        for _ in range(10):
            connect(world.hosts[0], "10.0.0.2", 7000).addCallback(world.clients.append)
        world.network.advance(0)
        assert len(world.clients) == 10
        for client in world.clients:
            for _ in range(100):
                number = world.number()
                client.echo(b"hello", 0.5).addBoth(world.called, number).addErrback(expected)
        world.base = stackDepth()
        for _ in range(100):
            world.network.advance(0.1)
        world.left = 0
        world.network.advance(10)
        assert world.calls > 1000
        assert world.outcomes == Counter(dict.fromkeys(range(world.calls), 1))
        assert world.deepest < 150
        assert server.counters.received == server.counters.echoed + sum(server.counters.dropped.values())
        assert server.counters.received > 500
        for left in (*world.ports, port):
            left.stopListening()
        for client in world.clients:
            client.close()
        world.network.advance(1)
        assert world.network.clock.calls == []
        assert [host._byNumber for host in world.hosts] == [{}, {}]
        caught.flush(ZeroDivisionError)

    def test_toItself(self) -> None:
        """A thousand ports that send to themselves without a delay, again from inside, are not ever deeper."""
        network = MemoryNetwork()
        host: MemoryHost = network.host("machine")
        depths: set[int] = set()

        class ToItself(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                depths.add(stackDepth())
                if datagram:
                    assert self.transport is not None
                    self.transport.write(datagram[1:], addr)

        for _ in range(1000):
            port = host.listenUDP(0, ToItself(), "127.0.0.1")
            port.write(bytes(20), ("127.0.0.1", port.number))
        network.advance(0)
        assert len(network.trace) == 21_000
        assert len(depths) == 1

    def test_callbacks(self) -> None:
        """A callback of a send that sends again is not inside the one before, and what it closes has been sent."""
        network = MemoryNetwork()
        here, there = pair(network)
        recorder = Recorder()
        listen(there, 5000, recorder, "0.0.0.0")
        port, _ = open_(here, "0.0.0.0")
        depths: list[int] = []

        def sent(reason: str | None) -> None:
            depths.append(stackDepth())
            if len(depths) < 1000:
                port.send(b"again", ("10.0.0.2", 5000), sent)
            else:
                port.abort()

        port.send(b"first", ("10.0.0.2", 5000), sent)
        network.advance(0)
        assert len(recorder.datagrams) == len(depths) == 1000
        assert len(set(depths)) == 1
