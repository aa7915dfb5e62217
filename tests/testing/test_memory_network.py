"""Tests of L{udpecho.testing.memory_network}: several hosts, their links, and other people's code on them."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.defer import succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IListeningPort,
    IMulticastTransport,
    IReactorMulticast,
    IReactorPluggableNameResolver,
    IReactorTime,
    IReactorUDP,
    IUDPTransport,
)
from twisted.internet.task import LoopingCall
from twisted.names import client, dns, server
from zope.interface import Interface
from zope.interface.verify import verifyClass, verifyObject

from tests.support.memory import open_, pair, wait
from tests.support.running import CuriousRecorder, Recorder
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import MessageTooLong, NetworkUnreachable, PortUnreachable, ResponseTimeout
from udpecho.faults.decision import Replay
from udpecho.faults.plan import FaultPlan
from udpecho.interfaces import IDatagramTransport
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.memory_port import MemoryPort
from udpecho.testing.trace import TraceEntry


class InterfaceTests:
    """In memory only: what hosts and ports provide."""

    @pytest.mark.parametrize("interface", [IReactorUDP, IReactorTime, IReactorPluggableNameResolver, IReactorMulticast])
    def test_host(self, interface: type[Interface]) -> None:
        """A host provides the interfaces of a reactor that has to do with UDP."""
        assert verifyClass(interface, MemoryHost)
        assert verifyObject(interface, MemoryNetwork().host("one"))

    @pytest.mark.parametrize("interface", [IListeningPort, IUDPTransport, IDatagramTransport, IMulticastTransport])
    def test_port(self, interface: type[Interface]) -> None:
        """A port provides Twisted's interfaces of UDP ports and transports, and ours."""
        assert verifyClass(interface, MemoryPort)
        assert verifyObject(interface, MemoryNetwork().host("one").listenUDP(0, Recorder()))

    def test_resolver(self) -> None:
        """A host's resolver provides C{IHostnameResolver}, and another can be installed."""
        host = MemoryNetwork().host("one")
        resolver = host.nameResolver
        assert verifyObject(IHostnameResolver, resolver)
        other: Any = object()
        assert host.installNameResolver(other) is resolver
        assert host.nameResolver is other

    def test_number(self) -> None:
        """C{listenUDP} refuses what is no port number, as a socket does."""
        host = MemoryNetwork().host("one")
        for number in (-1, 65536):
            with pytest.raises(OverflowError):
                host.listenUDP(number, Recorder())


class HostsTests:
    """In memory only: several hosts."""

    def test_addresses(self) -> None:
        """Names and addresses are unique, and what is no host's address is refused with a sentence."""
        network = MemoryNetwork()
        network.host("one", "10.0.0.1", "FD00:0::1")
        with pytest.raises(ValueError, match=r"^name of a host must be new, got 'one' again$"):
            network.host("one")
        for taken in ("10.0.0.1", "fd00::1", "127.0.0.1", "::1"):
            with pytest.raises(ValueError, match=r"must be its own, got .*, which is taken$"):
                network.host("two", taken)
        with pytest.raises(ValueError, match=r"must be its own, got .*, which is taken$"):
            network.host("two", "10.0.0.2", "10.0.0.2")
        for wrong in ("0.0.0.0", "::", "239.1.1.1", "ff02::1", "255.255.255.255", "::ffff:10.0.0.9"):
            with pytest.raises(ValueError, match="must be that of a single host"):
                network.host("two", wrong)
        for wrong in ("two", "", "10.0.0"):
            with pytest.raises(ValueError, match=r"^address must be an IP address, got "):
                network.host("two", wrong)
        assert list(network.hosts) == ["one"]

    def test_latency(self) -> None:
        """A datagram between hosts takes the latency, exactly; one to the host itself takes none; loopback is a host's own."""
        network = MemoryNetwork(latency=0.25)
        one, two = pair(network)
        port, onOne = open_(one, "0.0.0.0", 7)
        _, onTwo = open_(two, "0.0.0.0", 7)
        times: list[float] = []
        onTwo.until(lambda: bool(onTwo.datagrams)).addCallback(lambda _: times.append(network.clock.seconds()))
        port.write(b"x", ("10.0.0.2", 7))
        port.write(b"y", ("10.0.0.1", 7))
        port.write(b"z", ("127.0.0.1", 7))
        network.advance(0)
        assert onOne.datagrams == [(b"y", ("10.0.0.1", 7)), (b"z", ("127.0.0.1", 7))]
        network.advance(1)
        assert times == [0.25]
        assert onTwo.datagrams == [(b"x", ("10.0.0.1", 7))]

    def test_refusalTakesTime(self) -> None:
        """A refusal comes one round trip after the datagram."""
        network = MemoryNetwork(latency=0.25)
        one, _ = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        port.connect("10.0.0.2", 9)
        assert port.getHost().host == "10.0.0.1"
        port.write(b"x")
        network.advance(0.49)
        assert protocol.refusals == 0
        network.advance(0.02)
        assert protocol.refusals == 1
        assert [entry.outcome for entry in network.trace] == ["refused"]

    def test_ports(self) -> None:
        """Each host has its own ports, and cannot listen on another's address."""
        network = MemoryNetwork()
        one, two = pair(network)
        for host in (one, two):
            open_(host, "127.0.0.1", 7)
            open_(host, host.addresses[0], 7)
            open_(host, host.addresses[1], 7)
        with pytest.raises(error.CannotListenError) as caught:
            open_(one, "10.0.0.2", 7)
        assert caught.value.socketError.errno == errno.EADDRNOTAVAIL

    def test_noRoute(self) -> None:
        """Where no host is, there is no route: connecting fails, after which the port works; a datagram is counted, and a
        connected port is notified later.
        """
        network = MemoryNetwork()
        one, _ = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        for host in ("10.0.0.3", "192.0.2.1"):
            with pytest.raises(OSError, match="unreachable") as caught:
                port.connect(host, 9)
            assert caught.value.errno == errno.ENETUNREACH
        port.write(b"x", ("10.0.0.3", 9))
        assert port.dropped == {"send_failed": 1}
        port.connect("10.0.0.2", 9)
        one.leave()
        port.write(b"x")
        assert protocol.errors == []
        network.advance(0)
        assert [type(reason) for reason in protocol.errors] == [NetworkUnreachable]
        with pytest.raises(NetworkUnreachable):
            wait(network, echo(one, "10.0.0.3", 9, b"x"))

    def test_loopbackStaysInside(self) -> None:
        """From a loopback address no other host can be written to, as Linux has it: nobody could answer."""
        network = MemoryNetwork()
        one, two = pair(network)
        open_(two, "0.0.0.0", 7)
        port, _ = open_(one, "127.0.0.1")
        with pytest.raises(OSError, match="Invalid argument"):
            port.write(b"x", ("10.0.0.2", 7))
        assert port.dropped == {"send_failed": 1}
        with pytest.raises(OSError, match="Invalid argument"):
            port.connect("10.0.0.2", 7)
        assert not network.trace

    def test_plans(self) -> None:
        """Each direction has its own plan, links without one that of the network, and a host's loopback can have one."""
        network = MemoryNetwork(FaultPlan(1, delay=0.5))
        one, two = pair(network)
        network.setPlan(one, two, FaultPlan(1, duplicate=1.0))
        network.setPlan(two, two, FaultPlan(1, loss=1.0))
        port, onOne = open_(one, "0.0.0.0", 7)
        other, onTwo = open_(two, "0.0.0.0", 7)
        port.write(b"a", ("10.0.0.2", 7))
        other.write(b"b", ("10.0.0.1", 7))
        other.write(b"c", ("10.0.0.2", 7))
        network.advance(0.4)
        assert onTwo.datagrams == [(b"a", ("10.0.0.1", 7))] * 2
        assert onOne.datagrams == []
        network.advance(0.2)
        assert onOne.datagrams == [(b"b", ("10.0.0.2", 7))]
        assert len(onTwo.datagrams) == 2

    def test_corruption(self) -> None:
        """What a plan does to the bytes is what the receiver sees."""
        network = MemoryNetwork(Replay("corrupted flip=0\ntruncated truncated=2 +0.000000000\ncorrupted flip=0 +0.000000000"))
        one, two = pair(network)
        port, _ = open_(one, "0.0.0.0")
        _, recorder = open_(two, "0.0.0.0", 7)
        for _ in range(4):
            port.write(b"abc", ("10.0.0.2", 7))
        network.advance(0)
        assert [datagram for datagram, _ in recorder.datagrams] == [b"ab", b"`bc", b"abc"]

    def test_broadcast(self) -> None:
        """What is broadcast reaches the wildcard ports of every host, the sender's included; nobody is refused, and the
        addresses that receivers get are marked as not unicast.
        """
        network = MemoryNetwork()
        hosts = [network.host(name, f"10.0.0.{number}") for number, name in enumerate(("one", "two", "three", "four"), 1)]
        recorders = [open_(host, "0.0.0.0", 7)[1] for host in hosts[:3]]
        _, deaf = open_(hosts[3], "10.0.0.4", 7)
        port, _ = open_(hosts[0], "0.0.0.0")
        port.setBroadcastAllowed(True)
        port.write(b"x", ("<broadcast>", 7))
        network.advance(1)
        assert [len(recorder.datagrams) for recorder in recorders] == [1, 1, 1]
        assert not recorders[1].datagrams[0][1].unicast
        assert not deaf.datagrams
        assert [entry.outcome for entry in network.trace] == ["delivered"] * 3 + ["nobody listens"]

    @pytest.mark.parametrize(("interface", "group"), [("0.0.0.0", "239.1.1.1"), ("::", "ff05::7")])
    def test_groups(self, interface: str, group: str) -> None:
        """What is sent to a group is received on the hosts that have joined, on the sender's own if it wants."""
        network = MemoryNetwork()
        one, two = pair(network)
        three = network.host("three", "10.0.0.3", "fd00::3")
        recorders = []
        for host in (one, two, three):
            port = host.listenMulticast(7, recorder := CuriousRecorder(), interface)
            recorders.append(recorder)
            if host is not three:
                wait(network, port.joinGroup(group))
        sender = one.listenMulticast(0, CuriousRecorder(), interface)
        sender.write(b"x", (group, 7))
        network.advance(0)
        assert [len(recorder.datagrams) for recorder in recorders] == [1, 1, 0]
        assert not recorders[1].datagrams[0][1].unicast
        assert sender.getLoopbackMode()
        sender.setLoopbackMode(False)
        sender.write(b"y", (group, 7))
        network.advance(0)
        assert [len(recorder.datagrams) for recorder in recorders] == [1, 2, 0]
        for wrong in ("10.0.0.1", "nonsense"):
            with pytest.raises(error.MulticastJoinError):
                wait(network, sender.joinGroup(wrong))

    def test_stopInMidFlight(self) -> None:
        """A datagram that is on its way to a port that stops is refused when it arrives; a port that stops before the refusal
        arrives is not notified.
        """
        network = MemoryNetwork(latency=1)
        one, two = pair(network)
        port, protocol = open_(one, "0.0.0.0")
        other, recorder = open_(two, "0.0.0.0", 7)
        port.connect("10.0.0.2", 7)
        port.write(b"x")
        network.advance(0.5)
        other.abort()
        network.advance(1)
        assert [entry.outcome for entry in network.trace] == ["refused"]
        port.abort()
        network.advance(1)
        assert not recorder.datagrams
        assert protocol.refusals == 0

    def test_names(self) -> None:
        """Hosts resolve each other's names, C{localhost}, and addresses as they are; others are not known."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
        EchoService(one, 8, ["127.0.0.1"], logDatagrams=0).startService()
        assert wait(network, echo(one, "two", 7, b"hello")) == 5
        assert wait(network, echo(one, "10.0.0.2", 7, b"hello")) == 5
        assert wait(network, echo(one, "localhost", 8, b"hello")) == 5
        with pytest.raises(error.DNSLookupError):
            wait(network, echo(one, "three", 7, b"hello"))
        assert not one.getDelayedCalls()


class TraceTests:
    """The record of what was sent."""

    def test_readable(self) -> None:
        """It prints as aligned lines: time, source, destination, size and outcome."""
        network = MemoryNetwork(latency=0.125)
        one, two = pair(network)
        network.setPlan(one, two, Replay("delivered +0.000000000\nlost\nduplicated,delayed +0.500000000 +0.750000000"))
        assert str(network.trace) == ""
        port, _ = open_(one, "0.0.0.0", 5000)
        other, _ = open_(two, "0.0.0.0", 7)
        for size in (5, 1000, 64):
            port.write(b"x" * size, ("10.0.0.2", 7))
            assert network.trace[-1].outcome in ("in flight", "lost", "duplicated,delayed")
            network.advance(0.1)
        network.advance(9.9)
        other.write(b"", ("10.0.0.1", 50))
        network.advance(1)
        assert str(network.trace).splitlines() == [
            " 0.000000  10.0.0.1:5000 > 10.0.0.2:7      5 B  delivered",
            " 0.100000  10.0.0.1:5000 > 10.0.0.2:7   1000 B  lost",
            " 0.200000  10.0.0.1:5000 > 10.0.0.2:7     64 B  duplicated,delayed: delivered, delivered",
            "10.200000  10.0.0.2:7    > 10.0.0.1:50     0 B  refused",
        ]
        assert network.trace[1] == TraceEntry(
            0.1, DatagramAddress(("10.0.0.1", 5000)), DatagramAddress(("10.0.0.2", 7)), 1000, "lost"
        )

    def test_sameSeedSameTrace(self) -> None:
        """The same seeds and the same program give the identical trace, another seed another."""

        def run(seed: int) -> str:
            network = MemoryNetwork(
                FaultPlan(seed, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, truncate=0.1, jitter=0.05), latency=0.01
            )
            one, two = pair(network)
            EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
            echoing = wait(network, connect(one, "two", 7, 0.2))
            for number in range(200):
                echoing.echo(b"%d" % number).addErrback(lambda failure: failure.trap(ResponseTimeout))
                network.advance(0.05)
            return str(network.trace)

        first = run(1)
        assert first == run(1)
        assert first != run(2)
        assert "lost" in first
        assert "corrupted" in first


class OthersCodeTests:
    """Code that was not written for it runs on it, and ours."""

    def test_echo(self) -> None:
        """C{EchoServer} and C{EchoClient} run on it in virtual time: the round trip is twice the latency, and a lost datagram
        times out at its time.
        """
        network = MemoryNetwork(latency=0.05)
        one, two = pair(network)
        server = EchoServer()
        two.listenUDP(7, server, maxPacketSize=65535)
        echoing: EchoClient = wait(network, connect(one, "two", 7))
        reply = wait(network, echoing.exchange(b"x" * 65507))
        assert reply.roundTripTime == pytest.approx(0.1, abs=1e-9)
        assert (reply.payload, reply.peer) == (b"x" * 65507, ("10.0.0.2", 7))
        network.setPlan(two, one, FaultPlan(0, loss=1.0))
        started = network.clock.seconds()
        with pytest.raises(ResponseTimeout):
            wait(network, echoing.exchange(b"lost", 3.0))
        assert network.clock.seconds() - started == pytest.approx(3.0, abs=0.02)
        assert (server.counters.received, server.counters.echoed) == (2, 2)
        assert echoing.close().called
        assert not one.getDelayedCalls()

    def test_refused(self) -> None:
        """C{echo} fails with L{PortUnreachable} where nothing listens, after a round trip to each address of the name."""
        network = MemoryNetwork(latency=0.05)
        one, _ = pair(network)
        with pytest.raises(PortUnreachable):
            wait(network, echo(one, "two", 7, b"x"))
        assert network.clock.seconds() == pytest.approx(0.2, abs=1e-9)
        assert not one.getDelayedCalls()

    def test_service(self) -> None:
        """An L{EchoService} starts, answers and stops on a host, leaving nothing."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        service = EchoService(two, 0, ["0.0.0.0", "::1"], logDatagrams=0)
        service.startService()
        (number, other) = (address.port for address in service.addresses)
        assert number == other
        assert wait(network, echo(one, "10.0.0.2", number, b"hello")) == 5
        wait(network, service.stopService())
        assert service.counters.echoed == 1
        with pytest.raises(PortUnreachable):
            wait(network, echo(one, "10.0.0.2", number, b"hello"))
        assert not two._byNumber
        assert not two.getDelayedCalls()

    def test_hour(self) -> None:
        """An hour of one-second probes through 10 % loss each way: the number of replies is that of the trace, and the
        losses are within the binomial's 99.99 %.
        """
        network = MemoryNetwork(FaultPlan(7, loss=0.1), latency=0.02)
        one, two = pair(network)
        EchoService(two, 7, ["0.0.0.0"], logDatagrams=0).startService()
        echoing = wait(network, connect(one, "two", 7, 0.5))
        outcomes: list[bool] = []

        def probe() -> None:
            echoing.exchange(b"%d" % len(outcomes)).addCallbacks(
                lambda _: outcomes.append(True),
                lambda failure: outcomes.append(failure.check(ResponseTimeout) is None),
            )

        loop = LoopingCall(probe)
        loop.clock = one
        loop.start(1.0)
        network.advance(3599.9)
        loop.stop()
        assert len(outcomes) == 3600
        back = [entry for entry in network.trace if entry.source == ("10.0.0.2", 7)]
        assert sum(outcomes) == sum(entry.outcome == "delivered" for entry in back)
        # 0.9 * 0.9 = 0.81 of 3600, and 3.89 standard deviations of it.
        assert abs(sum(outcomes) - 2916) <= 3.89 * (3600 * 0.81 * 0.19) ** 0.5

    def dns(self, network: MemoryNetwork) -> client.Resolver:
        """A name server of C{twisted.names} on one host, and a resolver of it on another."""
        asking, answering = pair(network)

        class Authority(client.Resolver):
            def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:
                return succeed(([dns.RRHeader(name, dns.A, dns.IN, 60, dns.Record_A("192.0.2.7", 60))], [], []))

        factory = server.DNSServerFactory(clients=[Authority(servers=[("10.0.0.2", 53)], reactor=answering)])
        factory.noisy = False
        protocol = dns.DNSDatagramProtocol(factory, reactor=answering)
        protocol.noisy = False
        answering.listenUDP(53, protocol)
        return client.Resolver(servers=[("10.0.0.2", 53)], reactor=asking)

    def test_names(self) -> None:
        """C{twisted.names} queries and answers over it."""
        network = MemoryNetwork(latency=0.02)
        resolver = self.dns(network)
        answers, _, _ = wait(network, resolver.lookupAddress("example.org"))
        assert answers[0].payload.dottedQuad() == "192.0.2.7"
        question, answer = network.trace
        assert (question.destination, answer.source) == (("10.0.0.2", 53),) * 2
        assert answer.time == pytest.approx(0.02)
        assert [question.outcome, answer.outcome] == ["delivered", "delivered"]

    def test_namesRetry(self) -> None:
        """When the question is lost, and the answer of the next, the trace shows the resolver's retries, after 1 and 3 s as it
        was made to, and it has its answer in the end.
        """
        network = MemoryNetwork(latency=0.02)
        resolver = self.dns(network)
        asking, answering = network.hosts["one"], network.hosts["two"]
        network.setPlan(asking, answering, Replay("lost"))
        network.setPlan(answering, asking, Replay("burst_lost"))
        answers, _, _ = wait(network, resolver.lookupAddress("example.org"))
        assert answers[0].payload.dottedQuad() == "192.0.2.7"
        assert [(round(entry.time, 6), entry.outcome) for entry in network.trace] == [
            (0, "lost"),
            (1, "delivered"),
            (1.02, "burst_lost"),
            (4, "delivered"),
            (4.02, "delivered"),
        ]
        network.advance(60)
        assert not asking.getDelayedCalls()

    def test_namesTimeOut(self) -> None:
        """When all is lost, the resolver gives up after its last try, 60 s in virtual time."""
        network = MemoryNetwork(FaultPlan(0, loss=1.0))
        resolver = self.dns(network)
        with pytest.raises(defer.TimeoutError):
            wait(network, resolver.lookupAddress("example.org"), 100)
        assert [round(entry.time, 6) for entry in network.trace] == [0, 1, 4, 15]
        assert network.clock.seconds() == pytest.approx(60, abs=0.1)


class OptionTests:
    """Options of C{listen}, and narrow paths."""

    def test_bothFamilies(self) -> None:
        """The service is on all of IPv4 and on all of IPv6, which are two ports of one number."""
        network = MemoryNetwork()
        server = network.host("server", "192.0.2.1", "2001:db8::1")
        client = network.host("client", "192.0.2.2", "2001:db8::2")
        service = EchoService(server, 7, ["0.0.0.0", "::"])
        service.startService()
        counts: list[Any] = []
        for address in ("192.0.2.1", "2001:db8::1"):
            echo(client, address, 7, b"hello").addBoth(counts.append)
        network.advance(1)
        assert counts == [5, 5]
        service.stopService()
        network.advance(1)

    def test_narrowPath(self) -> None:
        """A connected sender is notified how much the path carries; an outstanding shorter payload does not fail."""
        network = MemoryNetwork(FaultPlan(mtu=100), latency=0.01)
        server, client = network.host("server", "192.0.2.1"), network.host("client", "192.0.2.2")
        listen(server, 7, EchoServer(), "192.0.2.1")
        results: list[Any] = []
        connect(client, "192.0.2.1", 7).addCallback(results.append)
        for size in (101, 100):
            results[0].echo(bytes(size)).addBoth(results.append)
        network.advance(1)
        failure, count = results[1:]
        assert isinstance(failure.value, MessageTooLong)
        assert failure.value.limit == 100
        assert count == 100
