"""Tests of L{udpecho.testing.memory_tcp}: Twisted's transports, endpoints and programs on TCP in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IReactorTCP, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.names import client, dns, secondary, server
from twisted.names.authority import FileAuthority
from twisted.web import resource
from twisted.web import server as web
from twisted.web.client import Agent, readBody
from zope.interface.verify import verifyClass, verifyObject

from tests.support.memory import pair, wait
from tests.support.memory_tcp import Connecting, HalfCloser, Talker, connected
from udpecho.faults.plan import FaultPlan
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork


class TransportTests:
    """What protocols see of their transports."""

    def test_interfaces(self) -> None:
        """A host provides TCP, and transports are Twisted's."""
        network = MemoryNetwork()
        here, _ = connected(network)
        assert verifyClass(IReactorTCP, MemoryHost)
        assert verifyObject(IReactorTCP, network.hosts["one"])
        descriptor: Any = SimpleNamespace(socket="a real one")
        with pytest.raises(ValueError, match="socket of this network in memory, got 'a real one'"):
            network.hosts["one"].addReader(descriptor)
        assert verifyObject(ITCPTransport, here.transport)
        for set_, get in (("setTcpNoDelay", "getTcpNoDelay"), ("setTcpKeepAlive", "getTcpKeepAlive")):
            assert not getattr(here.transport, get)()
            getattr(here.transport, set_)(True)
            assert getattr(here.transport, get)()

    def test_addresses(self) -> None:
        """Both sides know both addresses; a client may choose its own."""
        network = MemoryNetwork()
        here, there = connected(network)
        assert (here.transport.getPeer().host, here.transport.getPeer().port) == ("10.0.0.2", 80)
        assert here.transport.getHost() == there.transport.getPeer()
        assert here.transport.getPeer() == there.transport.getHost()
        chosen = Talker()
        network.hosts["one"].connectTCP("10.0.0.2", 80, Connecting(chosen), bindAddress=("10.0.0.1", 5000))
        network.advance(1)
        assert (chosen.transport.getHost().host, chosen.transport.getHost().port) == ("10.0.0.1", 5000)

    @pytest.mark.parametrize("loss", [0.0, 0.3])
    def test_wholeStream(self, loss: float) -> None:
        """All that is written arrives, in order, whatever is lost, doubled, reordered or corrupted; C{loseConnection}
        sends it first.
        """
        network = MemoryNetwork(FaultPlan(3, loss=loss, duplicate=loss, reorder=loss, corrupt=loss, jitter=0.05), latency=0.01)
        here, there = connected(network)
        data = bytes(range(256)) * 2000
        here.transport.write(data)
        there.transport.write(data[::-1])
        network.advance(2000)
        assert here.received == data[::-1]
        here.transport.write(data)
        here.transport.loseConnection()
        network.advance(2000)
        assert there.received == data + data
        assert here.lost == there.lost == [error.ConnectionDone]

    def test_latency(self) -> None:
        """A connection takes a round trip, and data one way."""
        network = MemoryNetwork(latency=0.25)
        one, two = pair(network)
        here, there = Talker(), Talker()
        two.listenTCP(80, Connecting(there))
        one.connectTCP("10.0.0.2", 80, Connecting(here))
        network.advance(0.49)
        assert not here.made
        network.advance(0.02)
        assert here.made
        here.transport.write(b"x")
        network.advance(1)
        assert there.times == [pytest.approx(0.76)]

    def test_halfClose(self) -> None:
        """One direction ends, the other goes on."""
        network = MemoryNetwork()
        here, there = connected(network, HalfCloser)
        assert isinstance(here, HalfCloser)
        assert isinstance(there, HalfCloser)
        here.transport.write(b"request")
        here.transport.loseWriteConnection()
        network.advance(1)
        assert (here.ends, there.ends, there.received) == (["write"], ["read"], b"request")
        there.transport.write(b"answer")
        there.transport.loseConnection()
        network.advance(1)
        assert here.received == b"answer"
        assert there.lost == [error.ConnectionDone]

    def test_abort(self) -> None:
        """An aborted connection is lost to the peer."""
        network = MemoryNetwork()
        here, there = connected(network)
        here.transport.abortConnection()
        network.advance(1)
        assert here.lost == [error.ConnectionAborted]
        assert there.lost == [error.ConnectionLost]

    def test_closedPeer(self) -> None:
        """Who writes to a connection that the peer has closed loses it."""
        network = MemoryNetwork(latency=0.1)
        here, there = connected(network)
        here.transport.loseConnection()
        there.transport.write(b"too late")
        network.advance(1)
        assert here.lost
        assert there.lost

    def test_stopped(self) -> None:
        """A host that stops closes its connections: both sides lose them, and nobody is accepted any more."""
        network = MemoryNetwork()
        here, there = connected(network)
        network.hosts["two"].stop()
        network.advance(1)
        assert there.lost == [error.ConnectionLost]
        assert here.lost == [error.ConnectionDone]
        refused = Connecting(Talker())
        network.hosts["one"].connectTCP("10.0.0.2", 80, refused)
        network.advance(1)
        assert refused.failures == [error.ConnectionRefusedError]

    def test_producers(self) -> None:
        """A push producer is paused while the peer does not read, and a pull producer asked only when there is space."""
        network = MemoryNetwork()
        here, there = connected(network)
        calls: list[str] = []

        class Producer:
            left = 5

            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")
                if not isPush:
                    here.transport.write(b"p" * 100)
                    self.left -= 1
                    if not self.left:
                        here.transport.unregisterProducer()

            def stopProducing(self) -> None:
                calls.append("stop")

        isPush = True
        there.transport.pauseProducing()
        here.transport.registerProducer(Producer(), True)
        here.transport.write(b"x" * 300_000)
        network.advance(1)
        assert calls == ["pause"]
        assert there.received == b""
        there.transport.resumeProducing()
        network.advance(1)
        assert calls == ["pause", "resume"]
        assert len(there.received) == 300_000
        here.transport.unregisterProducer()
        isPush = False
        here.transport.registerProducer(Producer(), False)
        network.advance(1)
        assert calls[2:] == ["resume"] * 5
        assert there.received.endswith(b"p" * 500)


class ConnectTests:
    """Attempts to connect."""

    def test_refused(self) -> None:
        """Where nobody listens it is refused after a round trip; where no host is there is no route."""
        network = MemoryNetwork(latency=0.25)
        one, _ = pair(network)
        refused, nowhere = Connecting(Talker()), Connecting(Talker())
        one.connectTCP("10.0.0.2", 80, refused)
        one.connectTCP("10.9.9.9", 80, nowhere)
        network.advance(0.4)
        assert refused.failures == []
        network.advance(0.2)
        assert refused.failures == [error.ConnectionRefusedError]
        assert nowhere.failures == [error.NoRouteError]

    def test_timeout(self) -> None:
        """Without an answer the attempt ends at its timeout; a name that is unknown ends it at once."""
        network = MemoryNetwork(FaultPlan(1, loss=1.0))
        one, _ = pair(network)
        silent, unknown, stopped = (Connecting(Talker()) for _ in range(3))
        one.connectTCP("10.0.0.2", 80, silent, timeout=10)
        one.connectTCP("nobody", 80, unknown)
        one.connectTCP("10.0.0.2", 80, stopped).stopConnecting()
        network.advance(9.9)
        assert silent.failures == []
        network.advance(0.2)
        assert silent.failures == [error.TimeoutError]
        assert unknown.failures == [error.DNSLookupError]
        assert stopped.failures == [error.UserError]

    def test_listen(self) -> None:
        """An address is listened on once, until that stops; others' addresses are refused."""
        network = MemoryNetwork()
        one, _ = pair(network)
        port = one.listenTCP(80, Factory.forProtocol(Talker), interface="10.0.0.1")
        for interface in ("10.0.0.1", ""):
            with pytest.raises(error.CannotListenError):
                one.listenTCP(80, Factory.forProtocol(Talker), interface=interface)
        with pytest.raises(error.CannotListenError):
            one.listenTCP(81, Factory.forProtocol(Talker), interface="10.0.0.2")
        wait(network, port.stopListening())
        other = one.listenTCP(80, Factory.forProtocol(Talker))
        assert other.getHost().port == 80
        assert one.listenTCP(0, Factory.forProtocol(Talker)).getHost().port >= 32768

    def test_lostForGood(self) -> None:
        """When no segment arrives any more, the connection is given up after a quarter of an hour."""
        network = MemoryNetwork()
        here, _ = connected(network)
        one, two = network.hosts["one"], network.hosts["two"]
        network.setPlan(one, two, FaultPlan(1, loss=1.0))
        here.transport.write(b"x")
        network.advance(600)
        assert here.lost == []
        network.advance(1200)
        assert here.lost == [error.ConnectionLost]

    @pytest.mark.parametrize("how", ["string", "name", "address", "six"])
    def test_endpoints(self, how: str) -> None:
        """Twisted's endpoints work on it, by name and of both families."""
        network = MemoryNetwork(latency=0.01)
        one, two = pair(network)
        factory = Factory.forProtocol(Talker)
        listening = TCP6ServerEndpoint(two, 80) if how == "six" else serverFromString(two, "tcp:80")
        wait(network, listening.listen(factory))
        endpoint: Any = {
            "string": lambda: clientFromString(one, "tcp:two:80"),
            "name": lambda: HostnameEndpoint(one, "two", 80),
            "address": lambda: TCP4ClientEndpoint(one, "10.0.0.2", 80),
            "six": lambda: clientFromString(one, "tcp:fd00\\:\\:2:80"),
        }[how]()
        protocol = wait(network, endpoint.connect(factory))
        assert protocol.transport.getPeer().host == ("fd00::2" if how == "six" else "10.0.0.2")


class ProgramTests:
    """Whole programs of others."""

    def zone(self, network: MemoryNetwork) -> tuple[MemoryHost, MemoryHost]:
        """A host that asks, and one with a name server on UDP and TCP whose zone has an answer that UDP truncates."""
        one, two = pair(network)
        soa = dns.Record_SOA(mname=b"ns.example.com", serial=1, refresh=100, minimum=100)
        texts = [dns.Record_TXT(b"%d" % number + b"x" * 100, ttl=60) for number in range(20)]

        class Zone(FileAuthority):
            soa: Any
            records: Any

            def loadFile(self, filename: Any) -> None:
                self.soa = (b"example.com", soa)
                self.records = {b"example.com": [soa, dns.Record_NS(b"ns.example.com")], b"long.example.com": texts}

        factory = server.DNSServerFactory([Zone("")])
        two.listenTCP(53, factory)
        two.listenUDP(53, dns.DNSDatagramProtocol(factory, two))
        return one, two

    @pytest.mark.parametrize("loss", [0.0, 0.2])
    def test_truncated(self, loss: float) -> None:
        """An answer that is truncated on UDP comes by TCP."""
        network = MemoryNetwork(FaultPlan(5, loss=loss), latency=0.01)
        one, two = self.zone(network)

        class Truncating(dns.DNSDatagramProtocol):
            def writeMessage(self, message: Any, address: Any) -> None:
                message.trunc, message.answers = 1, []
                super().writeMessage(message, address)

        (port,) = (port for ports in two._byNumber.values() for port in ports)
        protocol: Any = port.protocol
        controller = protocol.controller
        port.abort()
        two.listenUDP(53, Truncating(controller, two))
        resolver = client.Resolver(servers=[("10.0.0.2", 53)], reactor=one)
        answers, _, _ = wait(network, resolver.lookupText(b"long.example.com"), 60)
        assert len(answers) == 20

    def test_zoneTransfer(self) -> None:
        """A secondary server transfers a zone, within the context of its host: it takes the global reactor."""
        network = MemoryNetwork(latency=0.01)
        one, _ = self.zone(network)
        with network.running(one):
            service = secondary.SecondaryAuthority("10.0.0.2", "example.com")
            wait(network, service.transfer())
        answers, _, _ = wait(network, service.lookupText(b"long.example.com"))
        assert len(answers) == 20

    @pytest.mark.filterwarnings("ignore:Using readBody with a transport:DeprecationWarning")  # Twisted issue 8227
    def test_web(self) -> None:
        """A web server answers a web client, with a pool of connections."""
        network = MemoryNetwork(FaultPlan(2, loss=0.1), latency=0.01)
        one, two = pair(network)

        class Page(resource.Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"page " * 5000

        two.listenTCP(80, web.Site(Page(), reactor=two))

        async def fetch() -> bytes:
            response = await Agent(one).request(b"GET", b"http://two/")
            return await readBody(response)

        assert wait(network, defer.Deferred.fromCoroutine(fetch()), 60) == b"page " * 5000
