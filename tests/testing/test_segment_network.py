"""Tests of L{udpecho.testing.segment_network}: TCP over links that are cut, through NATs, and of hosts with bad days."""

from __future__ import annotations

import pytest
from twisted.internet import error
from twisted.internet.protocol import DatagramProtocol, Factory

from tests.support.memory import pair
from tests.support.memory_tcp import Connecting, HalfCloser, Talker, connected
from udpecho.faults.decision import Decision
from udpecho.faults.plan import FaultPlan
from udpecho.testing.memory_network import MemoryNetwork


class LinkTests:
    """Links that are cut, held, narrow or slow."""

    @pytest.mark.parametrize("how", ["cut", "partition", "one way", "plug"])
    def test_cut(self, how: str) -> None:
        """What is sent while a link is cut arrives when it is restored; if it never is, the connection times out."""
        network = MemoryNetwork(latency=0.01)
        here, there = connected(network)
        one, two = network.hosts["one"], network.hosts["two"]
        link = network.link(one, two)
        cut, restore = {
            "cut": (link.cut, link.restore),
            "partition": (lambda: network.partition([one], [two]), network.heal),
            # The acknowledgements are lost.
            "one way": (link.to(one).cut, link.to(one).restore),
            "plug": (two.leave, two.rejoin),
        }[how]
        cut()
        here.transport.write(b"late")
        network.advance(60)
        assert there.received == (b"late" if how == "one way" else b"")
        restore()
        network.advance(60)
        assert there.received == b"late"
        cut()
        here.transport.write(b"never")
        network.advance(900)
        assert here.lost == []
        network.advance(200)
        assert here.lost == [error.ConnectionLost]
        assert there.lost == []
        refused = Connecting(Talker())
        one.connectTCP("10.0.0.2", 80, refused, timeout=7)
        now = network.clock.seconds()
        network.advance(6.9)
        assert refused.failures == []
        network.advance(0.2)
        assert refused.failures == [error.TimeoutError]
        assert network.clock.seconds() == pytest.approx(now + 7.1)

    def test_inFlight(self) -> None:
        """What was sent over a plain network does not arrive over a link that is cut meanwhile."""
        network = MemoryNetwork(latency=0.1)
        here, there = connected(network)
        here.transport.write(b"x")
        network.advance(0.05)
        link = network.link(network.hosts["one"], network.hosts["two"])
        link.cut()
        network.advance(0.1)
        assert there.received == b""
        link.restore()
        network.advance(1)
        assert there.received == b"x"
        link.hold()
        here.transport.write(b"y")
        network.advance(0.2)
        assert there.received == b"x"
        link.release()
        network.advance(0.01)
        assert there.received == b"xy"

    def test_step(self) -> None:
        """A step names what has crossed a link."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        network.link(one, two)
        one.connectTCP("10.0.0.2", 80, Connecting(Talker()))
        one.listenUDP(5000, DatagramProtocol()).write(b"x", ("10.0.0.2", 9))
        steps = [event.what for event in iter(network.step, None)]
        assert "datagram 10.0.0.1:5000 > 10.0.0.2:9" in steps
        assert "TCP segment 10.0.0.2:80 > 10.0.0.1:32768" in steps

    def test_settings(self) -> None:
        """A link's delay, MTU and plan count for segments."""
        network = MemoryNetwork()
        here, there = connected(network)
        sizes: list[int] = []

        class Watching(FaultPlan):
            def decide(self, size: int, now: float) -> Decision:
                sizes.append(size)
                return super().decide(size, now)

        direction = network.link(network.hosts["one"], network.hosts["two"]).to(network.hosts["two"])
        direction.set(latency=0.5, mtu=576, plan=Watching(1, loss=0.2, corrupt=0.2))
        sent = network.clock.seconds()
        here.transport.write(b"x" * 20_000)
        network.advance(100)
        assert there.received == b"x" * 20_000
        assert there.times[0] >= sent + 0.5
        assert max(sizes) == 536

    def test_nat(self) -> None:
        """Hosts behind a NAT connect to those outside, which see its address; from outside it takes a forwarded port."""
        network = MemoryNetwork(latency=0.01)
        outside = network.host("outside", "192.0.2.2")
        nat = network.nat("nat", "192.0.2.1")
        inside = nat.host("inside", "10.0.0.1")
        ends = [Talker() for _ in range(4)]
        outside.listenTCP(80, Connecting(ends[0]))
        inside.connectTCP("outside", 80, Connecting(ends[1]))
        inside.listenTCP(8080, Connecting(ends[2]))
        nat.forward(443, inside, 8080)
        outside.connectTCP("nat", 443, Connecting(ends[3]))
        dropped = Connecting(Talker())
        outside.connectTCP("nat", 444, dropped, timeout=5)
        network.advance(10)
        assert [end.made for end in ends] == [True] * 4
        assert ends[0].transport.getPeer().host == "192.0.2.1"
        assert ends[1].transport.getHost().host == "10.0.0.1"
        assert dropped.failures == [error.TimeoutError]
        for end in ends:
            end.transport.write(b"x" * 3000)
        network.advance(1)
        assert [len(end.received) for end in ends] == [3000] * 4


class HostTests:
    """Hosts that crash, restart, move and stop."""

    def test_crash(self) -> None:
        """A host without power says nothing. When it has power again it knows nothing of its connections, and resets them."""
        network = MemoryNetwork(latency=0.01)
        here, there = connected(network)
        two = network.hosts["two"]
        two.onStart(lambda host: host.listenTCP(81, Factory.forProtocol(Talker)))
        two.crash()
        with pytest.raises(error.CannotListenError, match="down"):
            two.listenTCP(82, Factory())
        here.transport.write(b"x")
        network.advance(60)
        assert here.lost == there.lost == []
        two.restart()
        network.advance(60)
        assert here.lost == [error.ConnectionLost]
        assert (there.received, there.lost) == (b"", [])
        again, refused = Connecting(Talker()), Connecting(Talker())
        network.hosts["one"].connectTCP("two", 81, again)
        network.hosts["one"].connectTCP("two", 80, refused)
        network.advance(1)
        assert isinstance(again.made, Talker)
        assert again.made.made
        assert refused.failures == [error.ConnectionRefusedError]

    def test_restartedClient(self) -> None:
        """A client that has power again connects at once, though its peer knows its former connection still."""
        network = MemoryNetwork(latency=0.01)
        _, there = connected(network)
        network.hosts["one"].restart()
        again = Talker()
        network.hosts["one"].connectTCP("two", 80, Connecting(again))
        network.advance(0.1)
        assert again.made
        assert there.lost == []

    def test_move(self) -> None:
        """A connection does not survive that its host gets another address; a new one does."""
        network = MemoryNetwork(latency=0.01)
        here, there = connected(network)
        one = network.hosts["one"]
        one.setAddresses("10.0.0.7")
        here.transport.write(b"x")
        network.advance(2000)
        assert here.lost == [error.ConnectionLost]
        assert there.received == b""
        again = Talker()
        one.connectTCP("two", 80, Connecting(again))
        network.advance(1)
        assert again.transport.getHost().host == "10.0.0.7"

    def test_unplugged(self) -> None:
        """What a host sends without its cable is lost, and it has no route; it reaches itself nevertheless."""
        network = MemoryNetwork(latency=0.01)
        here, there = connected(network)
        one = network.hosts["one"]
        one.leave()
        here.transport.write(b"x")
        noRoute, own = Connecting(Talker()), Connecting(Talker())
        one.connectTCP("10.0.0.2", 80, noRoute)
        one.listenTCP(81, Factory.forProtocol(Talker))
        one.connectTCP("10.0.0.1", 81, own)
        network.advance(0.005)
        assert noRoute.failures == [error.NoRouteError]
        one.rejoin()
        network.advance(0.1)
        assert there.received == b""
        network.advance(1)
        assert there.received == b"x"
        assert isinstance(own.made, Talker)
        assert own.made.made

    def test_stop(self) -> None:
        """A program that stops closes all its connections, those that it does not read too; one that has ended reads none."""
        network = MemoryNetwork()
        here, there = connected(network, HalfCloser)
        there.transport.pauseProducing()
        network.hosts["two"].stop()
        network.advance(1)
        assert isinstance(here, HalfCloser)
        assert here.ends == ["read"]
        here, there = connected(MemoryNetwork())
        there.transport.reactor.end()
        here.transport.write(b"x")
        here.transport.reactor.network.advance(1)
        assert there.received == b""

    def test_wrongClock(self) -> None:
        """A host with a wrong clock has TCP as others do."""
        network = MemoryNetwork(FaultPlan(1, loss=0.2), latency=0.01)
        one, two = pair(network)
        one.setClock(offset=1e6, drift=0.5)
        here, there = Talker(), Talker()
        two.listenTCP(80, Connecting(there))
        one.connectTCP("10.0.0.2", 80, Connecting(here))
        network.advance(10)
        here.transport.write(b"x" * 50_000)
        network.advance(30)
        assert there.received == b"x" * 50_000
