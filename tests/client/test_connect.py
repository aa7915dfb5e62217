"""Tests of L{udpecho.client.connect}, on real sockets where one is needed."""

from __future__ import annotations

import errno
import random
import resource
import socket
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.support.client import Outcome, outstandingClient, serve
from tests.support.descriptors import noDescriptors
from tests.support.guards import needsIPv6
from tests.support.running import Recorder, Run, leftovers, openSockets, sleep, udpSocket, unusedPort
from tests.support.transports import Resolver, ResolvingClock, StockTransport
from udpecho.client.connect import connect, echo
from udpecho.errors import (
    ClientClosed,
    EchoError,
    HostUnreachable,
    MessageTooLong,
    NetworkUnreachable,
    PortUnreachable,
    ResponseTimeout,
)
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer

PEER = ("192.0.2.7", 7)


class ResolutionTests:
    """Names are resolved inside the deadline."""

    def test_noDescriptorsLeft(self, runOnce: Run) -> None:
        """A lookup for which no descriptor is left fails at once, with that reason, and nothing is logged."""

        async def test(reactor: Any) -> None:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                with pytest.raises(EchoError, match=r"^cannot look up localhost: Too many open files$") as caught:
                    await connect(reactor, "localhost", 7)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert (type(caught.value), caught.value.errno) == (EchoError, errno.EMFILE)

        runOnce(test)

    def test_timeout(self) -> None:
        """A resolver that never answers fails the call at its deadline; a later answer is ignored."""
        clock = ResolvingClock({})
        outcome = Outcome(echo(clock, "slow.example", 7, b"hello", 2))
        clock.advance(1.99)
        assert outcome.results == []
        clock.advance(0.01)
        assert isinstance(outcome.failure, ResponseTimeout)
        assert str(outcome.failure) == "no address for slow.example within 2 s"
        (receiver,) = clock.nameResolver.receivers
        receiver.addressResolved(IPv4Address("UDP", "127.0.0.1", 7))
        receiver.resolutionComplete()
        assert clock.getDelayedCalls() == []

    def test_cancel(self) -> None:
        """Cancelling while the name is resolved leaves nothing."""
        clock = ResolvingClock({})
        deferred = echo(clock, "slow.example", 7, b"hello")
        outcome = Outcome(deferred)
        deferred.cancel()
        assert isinstance(outcome.failure, defer.CancelledError)
        assert clock.getDelayedCalls() == []

    def test_noAddress(self) -> None:
        """A name without addresses is the resolver's failure."""
        clock = ResolvingClock({"nobody.example": []})
        failure = Outcome(echo(clock, "nobody.example", 7, b"hello")).failure
        assert isinstance(failure, error.DNSLookupError)
        assert "nobody.example" in str(failure)
        assert clock.getDelayedCalls() == []

    @pytest.mark.isolated
    def test_noDescriptor(self) -> None:
        """That this machine has no descriptor to look a name up with is not the fault of the name."""
        clock = ResolvingClock({"nobody.example": []})
        with noDescriptors():
            failure = Outcome(echo(clock, "nobody.example", 7, b"hello")).failure
        assert type(failure) is EchoError
        assert str(failure) == "cannot look up nobody.example: Too many open files"

    @pytest.mark.parametrize(
        "host",
        ["", "a" * 64 + ".example", "a..b", "nul\0.example", "fe80::1%nosuchinterface", "fe80::1%nul\0", "fe80::1%99999999999"],
    )
    def test_notAName(self, host: str) -> None:
        """What cannot be a name fails at once: Twisted's resolver would never answer."""
        clock = ResolvingClock({})
        assert isinstance(Outcome(echo(clock, host, 7, b"hello")).failure, error.DNSLookupError)
        assert clock.nameResolver.names == []

    def test_familyOfTheLocalAddress(self) -> None:
        """With a local address only addresses of its family are looked for."""
        clock = ResolvingClock({"six.example": [IPv6Address("UDP", "::1", 7)]})
        failure = Outcome(connect(clock, "six.example", 7, bindAddress=("127.0.0.1", 0))).failure
        assert isinstance(failure, error.DNSLookupError)
        assert "no IPv4 address for 'six.example'" in str(failure)
        failure = Outcome(connect(clock, "::1", 7, bindAddress=("127.0.0.1", 0))).failure
        assert isinstance(failure, ValueError)
        assert "not of the same family" in str(failure)

    def test_nextAddress(self, run: Run) -> None:
        """Where the system refuses to connect to one address, the next one is tried; each only once."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            number = server.getHost().port
            resolver = Resolver(
                {
                    "two.example": [
                        IPv4Address("UDP", "255.255.255.255", number),
                        IPv4Address("UDP", "255.255.255.255", number),
                        IPv4Address("UDP", "127.0.0.1", number),
                    ],
                    "none.example": [IPv4Address("UDP", "255.255.255.255", number)],
                }
            )
            reactor.installNameResolver(resolver)
            assert await echo(reactor, "two.example", number, b"hello") == 5
            with pytest.raises(HostUnreachable, match=r"255\.255\.255\.255"):
                await echo(reactor, "none.example", number, b"hello")
            await server.stopListening()

        run(test)

    def test_name(self, run: Run) -> None:
        """A name goes through the reactor's own resolver."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            client = await connect(reactor, "localhost", server.getHost().port, bindAddress=("127.0.0.1", 0))
            reply = await client.exchange(b"hello")
            assert tuple(reply.peer) == ("127.0.0.1", server.getHost().port)
            await client.close()
            await server.stopListening()

        run(test)


class EchoTests:
    """L{echo} on real sockets: after each ending nothing is left, at the moment that the Deferred fires."""

    @pytest.fixture(autouse=True)
    def _watch(self) -> None:
        self.sockets = openSockets()

    async def ended(self, reactor: Any, deferred: Deferred[int]) -> Any:
        """Wait for the result, and look for what is left in the very callback that gets it."""
        seen: list[Any] = []

        def look(result: Any) -> None:
            seen.append(result)
            seen.append([left for left in leftovers(reactor, set(), 0) if "cancel" not in left and "socket" not in left])
            seen.append(len(openSockets()))

        looked: Deferred[None] = Deferred()
        deferred.addBoth(look).addBoth(looked.callback)
        await looked
        result, left, sockets = seen
        self.left = left
        self.openSockets = sockets
        return result.value if isinstance(result, Failure) else result

    @pytest.mark.parametrize(
        ("host", "sizes"),
        [
            ("127.0.0.1", [0, 1, 5, 1024, 1472, 1473, 8192, 8193, 65506, 65507]),
            pytest.param("::1", [0, 1, 5, 1024, 65507, 65508, 65527], marks=needsIPv6),
        ],
    )
    def test_sizes(self, run: Run, host: str, sizes: list[int]) -> None:
        """Every size that UDP can carry comes back, and is counted."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, None, host)
            number = server.getHost().port
            before = len(openSockets())
            for size in sizes:
                payload = random.Random(size).randbytes(size)
                assert await self.ended(reactor, echo(reactor, host, number, payload)) == size
                assert [left for left in self.left if str(server) not in left] == []
                assert self.openSockets == before
            await server.stopListening()

        run(test)

    def test_everySize(self, runOnce: Run) -> None:
        """Every size from 0 to 1500 bytes comes back byte for byte: random bytes, NULs, trailing NULs."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            client = await connect(reactor, "127.0.0.1", server.getHost().port)
            for size in range(1501):
                for payload in (random.Random(size).randbytes(size), bytes(size), b"x" * (size // 2) + bytes(size - size // 2)):
                    assert (await client.exchange(payload)).payload == payload
            await client.close()
            await server.stopListening()

        runOnce(test)

    @pytest.mark.parametrize(
        ("host", "size"), [("127.0.0.1", 65508), ("127.0.0.1", 65527), pytest.param("::1", 65528, marks=needsIPv6)]
    )
    def test_tooLong(self, run: Run, host: str, size: int) -> None:
        """A payload that UDP cannot carry fails as too long, with the limit."""

        async def test(reactor: Any) -> None:
            failure = await self.ended(reactor, echo(reactor, host, 9, bytes(size)))
            assert type(failure) is MessageTooLong
            assert failure.limit == (65507 if host == "127.0.0.1" else 65527)
            assert self.left == []

        run(test)

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_refused(self, run: Run, host: str) -> None:
        """Where nothing listens the call fails at once."""

        async def test(reactor: Any) -> None:
            before = len(openSockets())
            failure = await self.ended(reactor, echo(reactor, host, unusedPort(host), b"hello", 25))
            assert type(failure) is PortUnreachable
            assert self.left == []
            assert self.openSockets == before

        run(test)

    def test_timeout(self, run: Run) -> None:
        """Other datagrams from the peer are ignored, and the call fails at its deadline."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [datagram[:-1], datagram + b"\0"])
            before = len(openSockets())
            deferred = echo(reactor, "127.0.0.1", server.getHost().port, b"hello", 25)
            client, deadline = outstandingClient(reactor)
            while client.ignored < 2:
                await sleep(reactor)
            deadline.reset(0)
            failure = await self.ended(reactor, deferred)
            assert type(failure) is ResponseTimeout
            assert str(failure).endswith(" within 25 s; 2 other datagrams from it ignored")
            assert [left for left in self.left if str(server) not in left] == []
            assert self.openSockets == before
            await server.stopListening()

        run(test)

    def test_noVerify(self, run: Run) -> None:
        """Without verification the byte count is that of the first datagram from the peer."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [datagram + b"?", datagram])
            assert await echo(reactor, "127.0.0.1", server.getHost().port, b"hello", verify=False) == 6
            await server.stopListening()

        run(test)

    def test_cancel(self, run: Run) -> None:
        """Cancelling gives C{CancelledError}, and nothing is left when it does."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent:
                host, number = silent.getsockname()
                deferred = echo(reactor, host, number, b"hello")
                before = len(openSockets())
                reactor.callLater(0, deferred.cancel)
                failure = await self.ended(reactor, deferred)
                assert type(failure) is defer.CancelledError
                assert self.left == []
                assert self.openSockets == before - 1

        run(test)

    def test_cancelAtOnce(self, run: Run) -> None:
        """So does cancelling in the turn of the call, and cancelling twice."""

        async def test(reactor: Any) -> None:
            deferred = echo(reactor, "127.0.0.1", unusedPort(), b"hello")
            outcome = Outcome(deferred)
            deferred.cancel()
            deferred.cancel()
            assert isinstance(outcome.failure, defer.CancelledError)
            await sleep(reactor, 0.01)

        run(test)

    def test_bind(self, run: Run) -> None:
        """The datagram leaves from the given local address; one that the system refuses is an error of its own."""

        async def test(reactor: Any) -> None:
            recorder = Recorder()
            server = listen(reactor, 0, recorder)
            number: int = server.getHost().port
            waiting = echo(reactor, "127.0.0.1", number, b"hello", bindAddress=("127.0.0.4", 0))
            await recorder.count(1)
            assert recorder.datagrams[0][1][0] == "127.0.0.4"
            waiting.cancel()
            with pytest.raises(defer.CancelledError):
                await waiting
            with udpSocket() as taken, pytest.raises(error.CannotListenError):
                await echo(reactor, "127.0.0.1", number, b"hello", bindAddress=taken.getsockname())
            await server.stopListening()

        run(test)

    def test_otherSource(self, run: Run) -> None:
        """The right bytes from another source are not a reply, whether its port or its host is the peer's."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent, udpSocket("127.0.0.2", silent.getsockname()[1]) as host, udpSocket() as port:
                own = silent.getsockname()
                deferred = echo(reactor, own[0], own[1], b"hello", 25)
                client, deadline = outstandingClient(reactor)
                datagram, sender = silent.recvfrom(100)
                for other in (host, port):
                    other.sendto(datagram, sender)
                # What is not the payload is counted, so that it shows that the socket was read.
                silent.sendto(b"something else", sender)
                while not client.ignored:
                    await sleep(reactor)
                deadline.reset(0)
                with pytest.raises(ResponseTimeout, match=r"; 1 other datagram from it ignored$"):
                    await deferred

        run(test)

    def test_wrongSourceAddress(self, runOnce: Run) -> None:
        """A reply from another address than the peer's, as a naive server on a wildcard address sends it, is not a reply."""

        async def test(reactor: Any) -> None:
            with udpSocket("0.0.0.0") as naive:
                deferred = echo(reactor, "127.0.0.2", naive.getsockname()[1], b"hello", 25)
                client, deadline = outstandingClient(reactor)
                datagram, sender = naive.recvfrom(100)
                naive.sendto(datagram, sender)
                for _ in range(3):
                    await sleep(reactor)
                deadline.reset(0)
                with pytest.raises(ResponseTimeout):
                    await deferred
                assert client.ignored == 0

        runOnce(test)


class ConnectTests:
    """L{connect} on real sockets."""

    def test_manyOutstanding(self, run: Run) -> None:
        """A hundred outstanding payloads each get their reply, although these come in reverse."""

        async def test(reactor: Any) -> None:
            held: list[bytes] = []

            def answer(datagram: bytes) -> list[bytes]:
                held.append(datagram)
                return held[::-1] if len(held) == 100 else []

            server = serve(reactor, answer)
            client = await connect(reactor, "127.0.0.1", server.getHost().port)
            calls = [client.exchange(b"%d" % number) for number in range(100)]
            for number, call in enumerate(calls):
                reply = await call
                assert reply.payload == b"%d" % number
                assert reply.roundTripTime >= 0
            assert client.ignored == 0
            await client.close()
            await server.stopListening()

        run(test)

    def test_livesThroughRefusals(self, run: Run) -> None:
        """One client is refused, and refused again, and answered when the server is there."""

        async def test(reactor: Any) -> None:
            number = unusedPort()
            client = await connect(reactor, "127.0.0.1", number)
            for _ in range(3):
                with pytest.raises(PortUnreachable):
                    await client.echo(b"hello", 25)
            server = listen(reactor, number, EchoServer())
            assert await client.echo(b"hello") == 5
            await client.close()
            await server.stopListening()

        run(test)

    def test_closeFailsOutstanding(self, run: Run) -> None:
        """Closing, twice, fails the outstanding calls and leaves nothing."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent:
                client = await connect(reactor, *silent.getsockname())
                outcome = Outcome(client.echo(b"hello"))
                await client.close()
                await client.close()
                assert isinstance(outcome.failure, ClientClosed)

        run(test)

    def test_closeInACallback(self, run: Run) -> None:
        """A callback that closes the client while more datagrams wait to be read is right."""

        async def test(reactor: Any) -> None:
            with udpSocket() as peer:
                client = await connect(reactor, *peer.getsockname())
                first = client.echo(b"one").addCallback(lambda _: client.close())
                second = Outcome(client.echo(b"two"))
                for _ in range(2):
                    peer.sendto(*peer.recvfrom(100))
                await first
                assert isinstance(second.failure, ClientClosed)

        run(test)

    def test_retryOnRefusal(self, run: Run) -> None:
        """Callers that try again at once when they are refused do not keep timers from running."""

        async def test(reactor: Any) -> None:
            client = await connect(reactor, "127.0.0.1", unusedPort())
            refusals = timers = 0
            trying = True

            def again(reason: Any) -> None:
                nonlocal refusals
                reason.trap(PortUnreachable, ClientClosed)
                refusals += 1
                if trying and refusals < 10_000:
                    client.echo(b"anybody there?").addErrback(again)

            for _ in range(5):
                client.echo(b"anybody there?").addErrback(again)
            while refusals < 1000:
                await sleep(reactor)
                timers += 1
            trying = False
            await client.close()
            assert timers > 2

        run(test)

    def test_oldRefusalsDoNotFailANewCall(self, run: Run) -> None:
        """Of several refusals of earlier datagrams none fails a call that is made after the first was reported."""

        async def test(reactor: Any) -> None:
            number = unusedPort()
            client = await connect(reactor, "127.0.0.1", number)
            servers: list[Any] = []

            def again(_: Any) -> Deferred[int]:
                servers.append(listen(reactor, number, EchoServer()))
                return client.echo(b"again")

            first = client.echo(b"one").addErrback(again)
            others = [Outcome(client.echo(payload)) for payload in (b"two", b"three")]
            assert await first == 5
            for outcome in others:
                assert isinstance(outcome.failure, PortUnreachable)
            await client.close()
            await servers[0].stopListening()

        run(test)

    def test_noDescriptorsLeft(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """That this machine has no socket to give is not reported as unreachable."""

        def refuse(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr("udpecho.client.connect.dial", refuse)

        async def test(reactor: Any) -> None:
            with pytest.raises(EchoError, match="cannot open a socket: Too many open files") as caught:
                await connect(reactor, "127.0.0.1", 7)
            assert type(caught.value) is EchoError

        runOnce(test)

    def test_reactorWithoutDescriptors(self) -> None:
        """On a reactor that has no file descriptors the client is on that reactor's own port, and is closed if it cannot be
        connected.
        """
        clock = Clock()

        class Transport(StockTransport):
            connected: tuple[str, int] | None = None

            def connect(self, host: str, port: int) -> None:
                if host == "192.0.2.99":
                    raise OSError(errno.ENETUNREACH, "no route")
                self.connected = (host, port)

        transport = Transport()
        listened: list[Any] = []

        def listenUDP(port: int, protocol: DatagramProtocol, interface: str, maxPacketSize: int) -> Any:
            listened.append((port, interface, maxPacketSize))
            protocol.makeConnection(transport)
            return transport

        from twisted.internet.interfaces import IReactorUDP
        from zope.interface import directlyProvides

        clock.listenUDP = listenUDP  # type: ignore[attr-defined]
        directlyProvides(clock, IReactorUDP)
        client = Outcome(connect(clock, *PEER)).result
        assert transport.connected == PEER
        assert listened == [(0, "0.0.0.0", 65535)]
        outcome = Outcome(client.exchange(b"hello"))
        clock.advance(1)
        client.datagramReceived(b"other", PEER)
        assert outcome.results == []
        client.datagramReceived(b"hello", PEER)
        assert outcome.result.roundTripTime == 1
        assert Outcome(connect(clock, "2001:db8::1", 7)).result is not client
        assert listened[1:] == [(0, "::", 65535)]
        assert isinstance(Outcome(connect(clock, "192.0.2.99", 7)).failure, NetworkUnreachable)
        assert transport.stopped == 1

    def test_connectsBeforeAnythingIsQueued(self, runOnce: Run) -> None:
        """The socket is connected when the protocol gets it."""

        async def test(reactor: Any) -> None:
            with udpSocket() as peer:
                client = await connect(reactor, *peer.getsockname())
                transport: Any = client.transport
                assert transport.socket.getpeername() == peer.getsockname()
                assert transport.socket.type == socket.SOCK_DGRAM
                await client.close()

        runOnce(test)
