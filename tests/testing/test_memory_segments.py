"""Tests of L{udpecho.testing.memory_segments}: what a bad network does to streams, and what is left of them."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import error, posixbase
from twisted.internet.protocol import Factory

from tests.support.memory import pair
from tests.support.memory_tcp import Connecting, HalfCloser, Talker, connected
from udpecho.faults.matching import matching
from udpecho.faults.plan import FaultPlan
from udpecho.faults.rules import duplicate, lose
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.memory_segments import Segment


def left(network: MemoryNetwork) -> list[Any]:
    """What is not over yet."""
    streams = [stream for host in network.hosts.values() for stream in host._streams() if stream.backlog is None]
    watched = [each for host in network.hosts.values() for each in (*host._readers, *host._writers) if each.backlog is None]
    return [
        *streams,
        *watched,
        *network.clock.calls,
        *[host._connections for host in network.hosts.values() if host._connections],
    ]


def talk(seed: int) -> list[Any]:
    """A conversation on a network with faults that a seed chooses. Returns what the protocols saw, and when."""
    chance = random.Random(seed)
    faults: dict[str, Any] = {name: chance.choice([0.0, 0.2]) for name in ("loss", "duplicate", "reorder", "corrupt")}
    plan = FaultPlan(seed, jitter=chance.choice([0.0, 0.1]), mtu=chance.choice([None, 300]), **faults)
    network = MemoryNetwork(plan, latency=chance.choice([0.0, 0.3]))
    here, there = connected(network)
    request, answer = (chance.randbytes(chance.choice([0, 1, 100_000])) for _ in range(2))
    if chance.random() < 0.5:
        there.transport.pauseProducing()
    here.transport.write(request)
    network.advance(chance.choice([0, 0.1, 100]))
    there.transport.resumeProducing()
    there.transport.write(answer)
    network.advance(3000)
    assert here.received == answer
    chance.choice([here, there]).transport.loseConnection()
    network.advance(3000)
    assert there.received == request
    assert len(here.lost) == len(there.lost) == 1
    assert left(network) == []
    return [here.times, there.times, here.lost, there.lost]


class StreamTests:
    """Streams on a network that loses, repeats, reorders and corrupts segments."""

    @pytest.mark.parametrize("seed", range(12))
    def test_anyFaults(self, seed: int) -> None:
        """Whatever happens, all bytes arrive once and in order, both sides get to know the end, nothing is left in the hosts,
        and the same seed gives the same.
        """
        assert talk(seed) == talk(seed)

    @pytest.mark.parametrize("which", range(6))
    def test_eachLost(self, which: int) -> None:
        """Any segment may be lost: it is sent again after a fifth of a second, the first ones after one."""
        network = MemoryNetwork()
        network.record()
        one, two = pair(network)
        here, there = Talker(), Talker()
        there.connectionMade = lambda: there.transport.write(b"hello")  # type: ignore[method-assign]
        two.listenTCP(80, Connecting(there))
        one.connectTCP("10.0.0.2", 80, Connecting(here))
        network.setPlan(*((one, two) if which % 2 else (two, one)), lose(matching().nth(which // 2 + 1)))
        network.advance(1.1)
        here.transport.write(b"question")
        network.advance(0.3)
        assert (here.received, there.received) == (b"hello", b"question")
        here.transport.loseConnection()
        network.advance(0.5)
        assert here.lost == there.lost == [error.ConnectionDone]
        network.advance(1)
        assert left(network) == []
        assert network.journal is not None
        assert str(network.journal).count("lost") == 1

    def test_paused(self) -> None:
        """A reader that pauses for a day gets all the same, also when the writer has closed meanwhile."""
        network = MemoryNetwork(latency=0.01)
        here, there = connected(network)
        there.transport.pauseProducing()
        # More than a window: the rest has to come afterwards.
        here.transport.write(b"x" * 100_000)
        here.transport.loseConnection()
        network.advance(86400)
        assert there.received == b""
        there.transport.resumeProducing()
        network.advance(200)
        assert there.received == b"x" * 100_000
        assert there.lost == [error.ConnectionDone]
        assert left(network) == []

    def test_unread(self) -> None:
        """Who closes without having read everything has sent what it wrote, and the peer that goes on is reset."""
        network = MemoryNetwork(FaultPlan(5, loss=0.3), latency=0.01)
        here, there = connected(network, HalfCloser)
        here.transport.pauseProducing()
        there.transport.write(b"unread")
        network.advance(10)
        here.transport.write(b"x" * 50_000)
        here.transport.loseConnection()
        network.advance(100)
        assert there.received == b"x" * 50_000
        there.transport.write(b"more")
        network.advance(100)
        assert there.lost == [error.ConnectionLost]
        assert left(network) == []

    def test_deadlock(self) -> None:
        """If neither side reads and one closes, that host is free after two minutes."""
        network = MemoryNetwork()
        here, there = connected(network)
        for end in (here, there):
            end.transport.pauseProducing()
            end.transport.write(b"x" * 1000)
        here.transport.loseConnection()
        network.advance(120)
        assert not network.hosts["one"]._streams()
        there.transport.resumeProducing()
        network.advance(1)
        assert (here.received, there.received) == (b"", b"x" * 1000)
        assert here.lost == there.lost == [error.ConnectionDone]
        assert left(network) == []

    def test_atOnce(self) -> None:
        """A connection ends without any pause, also if its halves end one after the other."""
        network = MemoryNetwork()
        here, there = connected(network, HalfCloser)
        here.transport.loseWriteConnection()
        network.runUntilIdle()
        there.transport.loseConnection()
        network.runUntilIdle()
        here.transport.loseConnection()
        network.runUntilIdle()
        assert here.lost == there.lost == [error.ConnectionDone]
        assert network.clock.seconds() == 10
        assert left(network) == []

    def test_askedTwice(self) -> None:
        """A request that arrives twice is answered twice: the loss of the first answer costs nothing."""
        network = MemoryNetwork()
        one, two = pair(network)
        network.setPlan(one, two, duplicate(matching().first(1)))
        network.setPlan(two, one, lose(matching().first(1)))
        two.listenTCP(80, Factory.forProtocol(Talker))
        end = Talker()
        one.connectTCP("10.0.0.2", 80, Connecting(end))
        network.advance(0.1)
        assert end.made

    def test_forged(self) -> None:
        """Segments with numbers that are far from those of the connection do it no harm."""
        network = MemoryNetwork(latency=1)
        one, two = pair(network)
        here, there = Talker(), Talker()
        two.listenTCP(80, Connecting(there))
        one.connectTCP("10.0.0.2", 80, Connecting(here))
        network.advance(0.5)
        (ends,) = one._connections
        forged = Segment(ends[1], ends[0], 7, 7, b"forged")
        one.arriveSegment(forged._replace(data=b"", isReset=True))
        network.advance(10)
        assert here.made
        for number in (7, 2**60):
            one.arriveSegment(forged._replace(number=number))
            one.arriveSegment(forged._replace(number=number, data=b"", isReset=True))
            one.arriveSegment(forged._replace(number=number, data=b"", isFin=True))
        (stream,) = one._connections.values()
        assert not stream._early
        there.transport.write(b"true")
        network.advance(10)
        assert here.received == b"true"
        assert here.lost == []

    def test_idle(self) -> None:
        """C{runUntilIdle} waits for segments that fly, not for those that may have to be sent again; a step names them."""
        network = MemoryNetwork(latency=0.5)
        here, there = connected(network)
        now = network.clock.seconds()
        here.transport.write(b"x")
        network.runUntilIdle()
        assert there.received == b"x"
        assert network.clock.seconds() == now + 1
        network.setPlan(network.hosts["one"], network.hosts["two"], FaultPlan(1, loss=1.0))
        here.transport.write(b"x")
        network.runUntilIdle()
        assert network.clock.seconds() == now + 1
        there.transport.write(b"y")
        assert network.step() is not None
        event = network.step()
        assert event is not None
        assert event.what == f"TCP segment 10.0.0.2:80 > 10.0.0.1:{here.transport.getHost().port}"


class VanishTests:
    """Hosts that forget their connections."""

    def test_forgets(self) -> None:
        """A host that has lost its power resets what arrives afterwards, and tells nobody before."""
        network = MemoryNetwork()
        here, there = connected(network)
        network.hosts["two"].vanishStreams()
        network.advance(1000)
        assert here.lost == there.lost == []
        here.transport.write(b"x")
        network.advance(1)
        assert here.lost == [error.ConnectionLost]
        assert there.lost == []
        assert left(network) == []

    def test_sameNumber(self) -> None:
        """A client that begins anew with the number of a connection that only its peer remembers gets a new one."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        factory = Factory.forProtocol(Talker)
        two.listenTCP(80, factory)
        first, second = Talker(), Talker()
        one.connectTCP("10.0.0.2", 80, Connecting(first), bindAddress=("10.0.0.1", 5000))
        network.advance(1)
        one.vanishStreams()
        one.connectTCP("10.0.0.2", 80, Connecting(second), bindAddress=("10.0.0.1", 5000))
        network.advance(5)
        assert (first.made, second.made) == (True, True)
        assert len(two.getReaders()) == 2

    def test_noSpace(self) -> None:
        """A port that does not accept keeps as many connections waiting as its backlog, and others have to ask again."""
        network = MemoryNetwork()
        one, two = pair(network)
        port = two.listenTCP(80, Factory.forProtocol(Talker), backlog=2)
        port.stopReading()
        ends = [Talker() for _ in range(4)]
        for end in ends:
            one.connectTCP("10.0.0.2", 80, Connecting(end))
            network.advance(0.1)
        assert [end.made for end in ends] == [True, True, False, False]
        port.startReading()
        network.advance(5)
        assert [end.made for end in ends] == [True] * 4
        port.stopReading()
        waiting = Talker()
        one.connectTCP("10.0.0.2", 80, Connecting(waiting))
        network.advance(1)
        port.stopListening()
        network.advance(1)
        assert waiting.lost == [error.ConnectionLost]

    def test_stopsMeanwhile(self) -> None:
        """A port that stops while it is being connected to resets the connection."""
        network = MemoryNetwork(latency=0.5)
        one, two = pair(network)
        port = two.listenTCP(80, Factory.forProtocol(Talker))
        end = Talker()
        one.connectTCP("10.0.0.2", 80, Connecting(end))
        network.advance(0.7)
        port.stopListening()
        network.advance(2)
        assert (end.made, end.lost) == (True, [error.ConnectionLost])
        assert left(network) == []


class SSLTests:
    """TLS over TCP in memory."""

    def test_wrapped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C{listenSSL} and C{connectSSL} wrap the protocols in TLS, as Twisted's other reactors do."""
        wrapped: list[tuple[Any, bool]] = []

        def wrap(contextFactory: Any, isClient: bool, factory: Any) -> Any:
            wrapped.append((contextFactory, isClient))
            return factory

        monkeypatch.setattr(posixbase, "tls", SimpleNamespace(TLSMemoryBIOFactory=wrap))
        network = MemoryNetwork()
        one, two = pair(network)
        here, there = Talker(), Talker()
        two.listenSSL(443, Connecting(there), "server's context")
        one.connectSSL("10.0.0.2", 443, Connecting(here), "client's context")
        network.advance(1)
        assert here.made
        assert there.made
        assert wrapped == [("server's context", False), ("client's context", True)]
