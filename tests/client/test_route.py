"""Tests of L{udpecho.client.route}: in virtual time, and through L{connect} and L{echo} on real sockets."""

from __future__ import annotations

import errno
import select
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from tests.support.client import Outcome, serve
from tests.support.guards import needsIPv6
from tests.support.processes import Processes
from tests.support.running import PATIENCE, Run, openSockets, sleep, udpSocket, unusedPort
from tests.support.transports import Resolver, StockTransport
from udpecho.addresses import DatagramAddress
from udpecho.client import route as module
from udpecho.client.connect import connect, echo
from udpecho.client.route import Route
from udpecho.errors import ClientClosed, EchoError, NetworkUnreachable, PortUnreachable, ResponseTimeout, unreachable
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer

ONE, TWO, THREE = (DatagramAddress((f"192.0.2.{number}", 7)) for number in (1, 2, 3))


def refusal(address: DatagramAddress) -> EchoError:
    return unreachable(errno.ECONNREFUSED, str(address))


class RouteTests:
    """L{Route} in virtual time."""

    def setup_method(self) -> None:
        self.clock = Clock()
        self.opened: list[DatagramAddress] = []
        self.failures: dict[DatagramAddress, Exception] = {}
        self.lookUps: list[defer.Deferred[list[DatagramAddress]]] = []
        self.route = Route(self.clock, self.lookUp, self.open)

    def lookUp(self) -> defer.Deferred[list[DatagramAddress]]:
        self.lookUps.append(defer.Deferred())
        return self.lookUps[-1]

    def open(self, address: DatagramAddress) -> None:
        if address in self.failures:
            raise self.failures[address]
        self.opened.append(address)

    def lose(self, seconds: float = 2.0) -> None:
        """Let two calls fail after a time."""
        self.clock.advance(seconds)
        self.route.failed()
        self.route.failed()

    def test_start(self) -> None:
        """The first address that the system takes is used."""
        self.failures = {ONE: OSError(errno.ENETUNREACH, "")}
        self.route.start([ONE, TWO, THREE])
        assert self.opened == [TWO]

    def test_startFails(self) -> None:
        """If it takes none, the failure names all."""
        self.failures = {ONE: OSError(errno.EHOSTUNREACH, ""), TWO: OSError(errno.ENETUNREACH, "")}
        both = r"^192\.0\.2\.1:7 cannot .*; 192\.0\.2\.2:7 cannot be reached"
        with pytest.raises(NetworkUnreachable, match=both):
            self.route.start([ONE, TWO])

    @pytest.mark.parametrize(
        ("raised", "expected"),
        [(OSError(errno.EMFILE, ""), EchoError), (error.CannotListenError("192.0.2.9", 0, None), error.CannotListenError)],
    )
    def test_startFailsAtOnce(self, raised: Exception, expected: type[Exception]) -> None:
        """What is no matter of the peer's address is reported at once."""
        self.failures = {ONE: raised}
        with pytest.raises(expected):
            self.route.start([ONE, TWO])
        assert self.opened == []

    def test_refused(self) -> None:
        """A refusal leads to the next address; when all have refused, the failure names them. The next call tries all."""
        self.route.start([ONE, TWO])
        for first, second in ((ONE, TWO), (TWO, ONE), (ONE, TWO)):
            assert self.route.refused(refusal(first)) is None
            assert self.opened[-1] == second
            failure = self.route.refused(refusal(second))
            assert type(failure) is PortUnreachable
            assert str(failure).startswith(f"{first} refused the datagram")
            assert f"; {second} refused the datagram" in str(failure)

    def test_refusedAfterAReply(self) -> None:
        """A peer that has answered is the one to talk to: a refusal is the failure of the call."""
        self.route.start([ONE, TWO])
        self.route.answered()
        reason = refusal(ONE)
        assert self.route.refused(reason) is reason
        assert self.opened == [ONE]

    def test_nextCannotBeOpened(self) -> None:
        """The reason why the next address cannot be used is named, too."""
        self.route.start([ONE, TWO])
        self.failures = {TWO: OSError(errno.EMFILE, "")}
        assert "; cannot open a socket: Too many open files" in str(self.route.refused(refusal(ONE)))

    def test_run(self) -> None:
        """Two calls that fail, with nothing heard for two seconds, open a new socket; the pause doubles up to a minute."""
        self.route.start([ONE])
        self.clock.advance(10)
        self.route.failed()
        assert self.lookUps == []
        pauses: list[float] = []
        for _ in range(7):
            waited = self.clock.seconds()
            while len(self.lookUps) == len(pauses):
                self.lose(1)
            pauses.append(self.clock.seconds() - waited)
            self.lookUps[-1].callback([ONE])
        assert pauses[1:] == [4, 8, 16, 32, 60, 60]
        assert self.opened == [ONE] * 8
        self.route.answered()
        self.lose(2)
        assert len(self.lookUps) == 8

    def test_refusalsOpenNothing(self) -> None:
        """After refusals the same address from a new socket would help nothing, but another address is used."""
        self.route.start([ONE])
        for answer, opened in (([ONE], [ONE]), ([ONE, TWO], [ONE, TWO]), ([THREE], [ONE, TWO, THREE])):
            self.route.answered()
            self.clock.advance(2)
            for _ in range(2):
                assert self.route.refused(refusal(ONE)) is not None
            self.lookUps[-1].callback(answer)
            assert self.opened == opened

    def test_lookUpFails(self) -> None:
        """The client goes on with what it has."""
        self.route.start([ONE])
        self.lose()
        self.lookUps[0].errback(error.DNSLookupError("no"))
        assert self.opened == [ONE]
        self.lose(4)
        self.lookUps[1].callback([TWO])
        assert self.opened == [ONE, TWO]

    def test_cannotReopen(self) -> None:
        """So it does if nothing can be opened."""
        self.route.start([ONE])
        for raised in (OSError(errno.ENETUNREACH, ""), OSError(errno.EMFILE, ""), error.CannotListenError("", 0, None)):
            self.failures = {ONE: raised}
            self.route.answered()
            self.lose()
            self.lookUps[-1].callback([ONE])
        assert self.opened == [ONE]

    def test_close(self) -> None:
        """A lookup that goes on is cancelled."""
        self.route.start([ONE])
        self.lose()
        self.route.close()
        assert self.lookUps[0].called
        assert self.opened == [ONE]


def table(reactor: Any, *hosts: str) -> dict[str, Any]:
    """Have a name with these addresses, and return the table that has it."""
    names: dict[str, Any] = {}
    reactor.installNameResolver(Resolver(names))
    names["name.example"] = [(IPv6Address if ":" in host else IPv4Address)("UDP", host, 7) for host in hosts]
    return names


class SeveralAddressesTests:
    """A name with several addresses."""

    @pytest.mark.parametrize("refusing", ["127.0.0.2", pytest.param("::1", marks=needsIPv6)])
    def test_echo(self, run: Run, refusing: str) -> None:
        """L{echo} goes on to the next address within its deadline; no socket is left."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            before = len(openSockets())
            table(reactor, refusing, "127.0.0.1")
            assert await echo(reactor, "name.example", server.getHost().port, b"hello", PATIENCE) == 5
            assert len(openSockets()) == before
            await server.stopListening()

        run(test)

    def test_outstanding(self, run: Run) -> None:
        """All outstanding payloads of a client are sent to the next address; each call fires once."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            number = server.getHost().port
            table(reactor, "127.0.0.2", "127.0.0.3", "127.0.0.1")
            client = await connect(reactor, "name.example", number)
            calls = [Outcome(client.echo(b"%d" % index, PATIENCE)) for index in range(20)]
            assert await client.echo(b"last", PATIENCE) == 4
            assert sum(call.result for call in calls) == 30
            await client.close()
            await server.stopListening()

        run(test)

    def test_allRefuse(self, run: Run) -> None:
        """When all refuse, the failure names them."""

        async def test(reactor: Any) -> None:
            table(reactor, "127.0.0.2", "127.0.0.3")
            before = len(openSockets())
            number = unusedPort()
            with pytest.raises(
                PortUnreachable, match=rf"^127\.0\.0\.2:{number} ref.*; 127\.0\.0\.3:{number} refused"
            ) as caught:
                await echo(reactor, "name.example", number, b"hello", PATIENCE)
            assert isinstance(caught.value, error.ConnectionRefusedError)
            assert len(openSockets()) == before

        run(test)

    def test_cancel(self, run: Run) -> None:
        """Cancelling after the first refusal gives C{CancelledError}, and nothing is left."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent:
                table(reactor, "127.0.0.2", "127.0.0.1")
                before = len(openSockets())
                call = echo(reactor, "name.example", silent.getsockname()[1], b"hello", PATIENCE)
                outcome = Outcome(call)
                while not select.select([silent], [], [], 0)[0]:
                    await sleep(reactor, 0.005)
                call.cancel()
                while not outcome.results:
                    await sleep(reactor)
                assert isinstance(outcome.failure, defer.CancelledError)
                assert len(openSockets()) == before

        run(test)

    def test_bind(self, runOnce: Run) -> None:
        """The local address and port are the same for each peer."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            table(reactor, "127.0.0.2", "127.0.0.1")
            local = ("127.0.0.4", unusedPort())
            client = await connect(reactor, "name.example", server.getHost().port, bindAddress=local)
            assert await client.echo(b"hello", PATIENCE) == 5
            transport: Any = client.transport
            assert (transport.getHost().host, transport.getHost().port) == local
            await client.close()
            await server.stopListening()

        runOnce(test)

    def test_sizes(self, runOnce: Run) -> None:
        """What the next family does not carry fails by name."""

        async def test(reactor: Any) -> None:
            table(reactor, "::1", "127.0.0.1")
            with pytest.raises(EchoError, match=r"must be at most 65507 bytes|nothing listens"):
                await echo(reactor, "name.example", unusedPort(), bytes(65527), PATIENCE)

        runOnce(test)

    def test_send(self, processes: Processes) -> None:
        """C{udpecho send} to a name whose addresses all refuse says so of each, and has status 3."""
        number = unusedPort()
        sent = processes.run("udpecho", "send", f"localhost:{number}", feed=b"hello")
        assert sent.status == 3
        assert f"127.0.0.1:{number} refused the datagram" in sent.stderr


class LongLifeTests:
    """A client that lives long."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "QUIET", 0.0)

    @pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
    def test_nameMoves(self, run: Run, silent: bool) -> None:
        """The server moves, and so does the name: the client goes there."""

        async def test(reactor: Any) -> None:
            names = table(reactor, "127.0.0.1")
            first = serve(reactor)
            number = first.getHost().port
            client = await connect(reactor, "name.example", number)
            assert await client.echo(b"hello", PATIENCE) == 5
            first.abort()
            second = listen(reactor, number, EchoServer(), "127.0.0.2")
            names["name.example"] = [IPv4Address("UDP", "127.0.0.2", 7)]
            with udpSocket("127.0.0.1" if silent else "127.0.0.3", number):
                for _ in range(2):
                    with pytest.raises(ResponseTimeout if silent else PortUnreachable):
                        await client.echo(b"hello", 0.2 if silent else PATIENCE)
                reply = await client.exchange(b"hello", PATIENCE)
            assert tuple(reply.peer) == ("127.0.0.2", number)
            await client.close()
            second.abort()

        run(test)

    def test_newSocket(self, run: Run) -> None:
        """After losses the client sends from a new socket; what is outstanding keeps its deadline, and its own socket."""

        async def test(reactor: Any) -> None:
            before = len(openSockets())
            with udpSocket() as peer:
                client = await connect(reactor, *peer.getsockname())
                long = Outcome(client.echo(b"long", PATIENCE))
                for _ in range(2):
                    with pytest.raises(ResponseTimeout):
                        await client.echo(b"lost", 0.1)
                last = client.echo(b"last", PATIENCE)
                received = [peer.recvfrom(100) for _ in range(4)]
                assert [datagram for datagram, _ in received] == [b"long", b"lost", b"lost", b"last"]
                assert received[3][1] != received[0][1]
                peer.sendto(*received[3])
                assert await last == 4
                assert long.results == []
                assert len(openSockets()) == before + 3
                peer.sendto(*received[0])
                while not long.results:
                    await sleep(reactor)
                assert long.result == 4
                assert len(openSockets()) == before + 2

                long = Outcome(client.echo(b"long", PATIENCE))
                for _ in range(2):
                    with pytest.raises(ResponseTimeout):
                        await client.echo(b"lost", 0.1)
                assert len(openSockets()) == before + 3
                await client.close()
                assert isinstance(long.failure, EchoError)
            assert len(openSockets()) == before

        run(test)


class StoppingTransport(StockTransport):
    """Is stopped when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping: defer.Deferred[None] = defer.Deferred()

    def stopListening(self) -> defer.Deferred[None]:
        self.stopped += 1
        return self.stopping


class FormerSocketTests:
    """The sockets that a client had before, in virtual time."""

    def setup_method(self) -> None:
        self.links: list[DatagramProtocol] = []
        self.transports: list[StoppingTransport] = []
        self.clock = Clock()
        self.clock.listenUDP = self.listenUDP  # type: ignore[attr-defined]
        directlyProvides(self.clock, IReactorUDP)
        self.client = Outcome(connect(self.clock, *ONE)).result

    def listenUDP(self, port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int) -> StoppingTransport:
        self.links.append(protocol)
        self.transports.append(StoppingTransport())
        protocol.makeConnection(self.transports[-1])
        return self.transports[-1]

    def reopen(self) -> None:
        """Let calls fail until the client has a new socket."""
        before = len(self.links)
        while len(self.links) == before:
            call = Outcome(self.client.echo(b"lost", 1.0))
            self.clock.advance(1)
            assert isinstance(call.failure, ResponseTimeout)

    def stopped(self) -> list[int]:
        return [transport.stopped for transport in self.transports]

    def test_ownCalls(self) -> None:
        """Each socket is open for as long as a call that was sent by it is outstanding, and not longer."""
        calls = []
        for name in (b"one", b"two"):
            calls.append(Outcome(self.client.echo(name, 1000)))
            self.reopen()
        self.reopen()
        assert self.stopped() == [0, 0, 1, 0]
        self.links[1].datagramReceived(b"two", ONE)
        assert self.stopped() == [0, 1, 1, 0]
        self.links[0].datagramReceived(b"one", ONE)
        assert self.stopped() == [1, 1, 1, 0]
        assert [call.result for call in calls] == [3, 3]

    def test_errors(self) -> None:
        """What a former socket reports fails no call: it is perhaps about another address."""
        call = Outcome(self.client.echo(b"hello", 1000))
        self.reopen()
        former: Any = self.links[0]
        former.connectionRefused()
        former.networkError(unreachable(errno.EHOSTUNREACH, str(ONE)))
        assert call.results == []
        self.links[1].connectionRefused()
        assert isinstance(call.failure, PortUnreachable)
        assert self.stopped() == [1, 0]

    def test_heard(self) -> None:
        """A late reply does not keep the client at an address that does not answer."""
        for number in range(3):
            Outcome(self.client.echo(b"%d" % number, 1000))
        self.reopen()
        for number in range(2):
            Outcome(self.client.echo(b"lost", 1.0))
            self.links[0].datagramReceived(b"%d" % number, ONE)
            self.clock.advance(2)
        assert len(self.links) == 3

    def test_close(self) -> None:
        """Closing closes them all, and fires when the last is closed."""
        call = Outcome(self.client.echo(b"hello", 1000))
        self.reopen()
        self.reopen()
        closed = Outcome(self.client.close())
        assert isinstance(call.failure, ClientClosed)
        assert self.stopped() == [1, 1, 1]
        for transport in reversed(self.transports):
            assert closed.results == []
            transport.stopping.callback(None)
        assert closed.results == [None]
        assert self.clock.getDelayedCalls() == []

    def test_lost(self) -> None:
        """When the transport is gone, the former ones are closed."""
        Outcome(self.client.echo(b"hello", 1000))
        self.reopen()
        self.links[1].doStop()
        assert self.stopped() == [1, 0]
        assert self.client.transport is None
        self.links[0].doStop()
        assert isinstance(Outcome(self.client.echo(b"hello")).failure, ClientClosed)
