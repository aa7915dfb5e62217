"""Tests of L{udpecho.testing.links} and L{udpecho.testing.linked_network}: links that are cut, held or long, and partitions."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.conftest import CaughtErrors
from tests.support.memory import open_, pair, wait
from udpecho.client.connect import connect, echo
from udpecho.errors import HostUnreachable, PortUnreachable, ResponseTimeout
from udpecho.faults.decision import Replay
from udpecho.faults.plan import FaultPlan
from udpecho.server.service import EchoService
from udpecho.testing.flight import CE, ECT_0
from udpecho.testing.links import Link
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.memory_port import MemoryPort


class Two:
    """Two hosts with a link of one second; what C{one} writes arrives at C{received}."""

    def __init__(self, plan: Any = None) -> None:
        self.network = MemoryNetwork(plan, latency=1.0)
        self.one, self.two = pair(self.network)
        self.link: Link = self.network.link(self.one, self.two)
        self.port, self.sender = open_(self.one, "0.0.0.0")
        _, self.receiver = open_(self.two, "0.0.0.0", 7)

    @property
    def received(self) -> list[bytes]:
        return [datagram for datagram, _ in self.receiver.datagrams]

    @property
    def outcomes(self) -> list[str]:
        return [entry.outcome for entry in self.network.trace]

    def write(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.port.write(datagram, ("10.0.0.2", 7))


class LinkTests:
    """One link."""

    def test_cut(self) -> None:
        """What is sent over a link that is cut is lost, and what would arrive meanwhile; then all is as before."""
        two = Two()
        two.write(b"in flight")
        two.network.at(0.5, two.link.cut)
        two.network.at(1.5, two.link.restore)
        two.network.advance(1.25)
        two.write(b"cut")
        two.network.advance(0.25)
        two.write(b"restored")
        two.network.advance(2)
        assert two.received == [b"restored"]
        assert two.outcomes == ["link cut", "link cut", "delivered"]

    def test_oneDirection(self) -> None:
        """One direction can be cut alone: requests arrive, and the replies do not."""
        two = Two()
        two.link.to(two.one).cut()
        service = EchoService(two.two, 8, ["0.0.0.0"], logDatagrams=0)
        service.startService()
        with pytest.raises(ResponseTimeout):
            wait(two.network, echo(two.one, "10.0.0.2", 8, b"x", timeout=5))
        assert service.counters.echoed == 1
        assert two.outcomes == ["delivered", "link cut"]
        with pytest.raises(ValueError, match=r"^node must be one of <Link one - two>, got "):
            two.link.to(two.network.host("three"))

    def test_hold(self) -> None:
        """What a link holds arrives in its order when it is released; what would arrive later still does so."""
        two = Two()
        two.write(b"1")
        two.network.advance(0.5)
        two.link.hold()
        two.write(b"2", b"3")
        two.network.advance(1)
        two.write(b"4")
        two.network.advance(0.25)
        assert two.received == []
        assert two.outcomes == ["in flight"] * 4
        two.link.release()
        two.network.advance(0)
        assert two.received == [b"1", b"2", b"3"]
        two.network.advance(1)
        assert two.received == [b"1", b"2", b"3", b"4"]
        assert two.network.inFlight.take(two.port, 100 * 2**20)

    def test_set(self) -> None:
        """A link has a plan and a latency of its own, both ways or one, and refuses what is none."""
        two = Two()
        two.link.set(latency=0.25)
        two.link.to(two.two).set(plan=Replay("lost\ndelayed +0.500000000"))
        two.write(b"a", b"b")
        two.network.advance(0.74)
        assert two.received == []
        two.network.advance(0.02)
        assert two.received == [b"b"]
        assert two.outcomes == ["lost", "delayed: delivered"]
        for wrong in ({"latency": -1}, {"mtu": 67}, {"mtu": 1.5}, {"hops": 256}, {"hops": True}):
            with pytest.raises(ValueError, match="must be"):
                two.link.set(**{"plan": FaultPlan(loss=1.0), **wrong})
        with pytest.raises(TypeError, match=r"^setting of a link must be one of plan, latency, .*, got 'loss'$"):
            two.link.set(loss=1)
        two.write(b"c")
        two.network.advance(1)
        assert two.received == [b"b", b"c"]

    def test_setPlanLater(self) -> None:
        """C{setPlan} of the network is the same as setting the plan of the direction."""
        two = Two()
        two.network.setPlan(two.one, two.two, Replay("lost"))
        two.write(b"a", b"b")
        two.network.advance(1)
        assert two.received == [b"b"]

    def test_failingPlan(self, caught: CaughtErrors) -> None:
        """A plan that raises loses the datagram, and is logged; the sender goes on."""

        class Bad:
            def decide(self, size: int, now: float) -> Any:
                raise RuntimeError("bad plan")

        two = Two()
        two.link.to(two.two).set(plan=Bad())
        two.write(b"a")
        two.network.advance(2)
        assert two.outcomes == ["plan failed"]
        assert len(caught.flush(RuntimeError)) == 1

    def test_inFlightBefore(self) -> None:
        """A datagram that was sent before there was any link is lost with the link like others."""
        network = MemoryNetwork(latency=1.0)
        one, two = pair(network)
        port, _ = open_(one, "0.0.0.0")
        _, receiver = open_(two, "0.0.0.0", 7)
        port.write(b"a", ("10.0.0.2", 7))
        network.link(one, two).cut()
        network.advance(2)
        assert receiver.datagrams == []
        assert [entry.outcome for entry in network.trace] == ["link cut"]

    def test_at(self) -> None:
        """A time that is over is refused, and what is scheduled can be cancelled."""
        two = Two()
        two.network.advance(2)
        with pytest.raises(ValueError, match=r"^time must be 2 s, which it is now, or later, got 1 s$"):
            two.network.at(1, two.link.cut)
        two.network.at(3, two.link.cut).cancel()
        two.network.advance(2)
        two.write(b"x")
        two.network.advance(1)
        assert two.outcomes == ["delivered"]

    def test_sameAsPlain(self) -> None:
        """With links that do nothing in particular all is as without: the same seed gives the same trace."""

        def run(links: bool) -> str:
            network = MemoryNetwork(
                FaultPlan(3, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, truncate=0.1, jitter=0.05), latency=0.01
            )
            one, two = pair(network)
            if links:
                network.link(one, two)
            EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
            echoing = wait(network, connect(one, "two", 7, 0.2))
            for number in range(200):
                echoing.echo(b"%d" % number).addErrback(lambda failure: failure.trap(ResponseTimeout))
                network.advance(0.05)
            with pytest.raises(PortUnreachable):
                wait(network, echo(one, "10.0.0.2", 9, b"x" * 50, timeout=30))
            return str(network.trace)

        assert run(True) == run(False)


class HopTests:
    """Hop limits that count."""

    def test_routers(self) -> None:
        """Each router takes a hop; a datagram without enough of them does not arrive, and a connected sender is notified."""
        two = Two()
        two.link.set(hops=3)
        receiver = open_(two.two, "0.0.0.0", 8, decrementHopLimit=True)[1]
        port, sender = open_(two.one, "0.0.0.0")
        port.connect("10.0.0.2", 8)
        for hops in (3, 4, 64):
            port.hopLimit = hops
            port.write(b"%d" % hops)
        two.network.advance(3)
        # The one with one hop left could not be answered.
        assert [(datagram, address.hopLimit) for datagram, address in receiver.datagrams] == [(b"64", 61)]
        (error,) = sender.errors
        assert isinstance(error, HostUnreachable)
        assert (error.errno, two.outcomes) == (errno.EHOSTUNREACH, ["expired", "delivered", "delivered"])

    def test_traceroute(self) -> None:
        """Routers that report nothing do not."""
        two = Two()
        two.link.set(hops=3, reports=False)
        two.port.connect("10.0.0.2", 7)
        two.port.hopLimit = 1
        two.port.write(b"x")
        two.network.advance(3)
        assert two.outcomes == ["expired"]
        assert two.sender.errors == []

    def test_groups(self) -> None:
        """What is for a group goes as far as its time to live, and nobody reports the rest. Broadcasts pass no router."""
        two = Two()
        near = two.network.host("near", "10.0.0.3")
        two.link.set(hops=2)
        recorders = []
        for host in (two.two, near):
            port, recorder = open_(host, "0.0.0.0", 9)
            wait(two.network, port.joinGroup("239.1.1.1"))
            recorders.append(recorder)
        sender: MemoryPort = two.port
        sender.setLoopbackMode(False)
        sender.setBroadcastAllowed(True)
        for ttl in (1, 2, 3):
            sender.setTTL(ttl)
            sender.write(b"%d" % ttl, ("239.1.1.1", 9))
        sender.write(b"all", ("<broadcast>", 9))
        two.network.advance(2)
        far, close = ([datagram for datagram, _ in recorder.datagrams] for recorder in recorders)
        assert (far, close) == ([b"3"], [b"1", b"2", b"3", b"all"])
        assert two.outcomes.count("expired") == 2
        assert two.sender.errors == []


class PartitionTests:
    """Partitions."""

    def test_groups(self) -> None:
        """Hosts reach those in their groups; those in none reach each other; one in two groups reaches both, until C{heal}."""
        network = MemoryNetwork()
        hosts = {name: network.host(name, f"10.0.0.{number}") for number, name in enumerate("abcde", 1)}
        ports = {name: open_(host, "0.0.0.0", 7) for name, host in hosts.items()}

        def reached(source: str) -> str:
            for name, host in hosts.items():
                ports[source][0].write(name.encode(), (host.addresses[0], 7))
            network.advance(1)
            found = "".join(name for name, (_, recorder) in ports.items() if recorder.datagrams)
            for _, recorder in ports.values():
                recorder.datagrams.clear()
            return found

        a, b, c, *_ = hosts.values()
        network.partition([a, b], [b, c])
        assert [reached(name) for name in hosts] == ["ab", "abc", "bc", "de", "de"]
        assert "partitioned" in {entry.outcome for entry in network.trace}
        network.partition([a])
        assert [reached(name) for name in hosts] == ["a", "bcde", "bcde", "bcde", "bcde"]
        network.heal()
        assert [reached(name) for name in hosts] == ["abcde"] * 5


class MarkTests:
    """Explicit congestion notification (RFC 3168)."""

    def test_queue(self) -> None:
        """What joins a long queue is congested, and marked if it is ECN-capable. A replay does the same."""
        for replayed in ("", "one > two 2: delayed,congested +0.300000000\none > two 3: delayed,congested +0.400000000"):
            network = MemoryNetwork()
            one, two = network.host("one", "10.0.0.1"), network.host("two", "10.0.0.2")
            network.plan = FaultPlan(rate=1000.0, mark=250)
            if replayed:
                network.replay(replayed)
            port, recorder = open_(two, "10.0.0.2", 7)
            port.reportsECN = True
            senders = [open_(one, "10.0.0.1")[0] for _ in range(2)]
            senders[0].ecn = ECT_0
            for sender in (*senders, *senders):
                sender.write(bytes(100), ("10.0.0.2", 7))
            network.advance(1)
            assert [address.ecn for _, address in recorder.datagrams] == [ECT_0, 0, CE, 0]
            assert [entry.outcome for entry in network.trace[2:]] == ["delayed,congested: delivered"] * 2
            senders[0].write(bytes(100), ("10.0.0.2", 7))
            network.advance(1)
            assert recorder.datagrams[-1][1].ecn == ECT_0
