"""
Tests of L{udpecho.client.protocol}: in virtual time where no socket is needed, else on real sockets and each kind of reactor.
"""

from __future__ import annotations

import errno
import math
import random
import socket
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.support.running import Recorder, Run, hasIPv6, leftovers, openSockets, sleep, udpSocket, unusedPort
from tests.support.transports import PatientTransport, Resolver, ResolvingClock, StockTransport
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient, Reply
from udpecho.errors import (
    ClientClosed,
    EchoError,
    HostUnreachable,
    MessageTooLong,
    NetworkUnreachable,
    PortUnreachable,
    ResponseTimeout,
)
from udpecho.interfaces import IDatagramTransport, INetworkErrorReceiver
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")

PEER = ("192.0.2.7", 7)


class Outcome:
    """What a Deferred has fired with, each time."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.results: list[Any] = []
        deferred.addBoth(self.results.append)

    @property
    def result(self) -> Any:
        """The one result."""
        (result,) = self.results
        return result

    @property
    def failure(self) -> BaseException:
        """The exception of the one result."""
        assert isinstance(self.result, Failure)
        assert self.result.value is not None
        return self.result.value


class Lossy(DatagramProtocol):
    """
    A server that answers as the test wants.

    @ivar answer: from a datagram to the datagrams to send back.
    """

    noisy = False

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        for reply in self.answer(datagram):
            self.transport.write(reply, addr)  # type: ignore[union-attr]


def serve(reactor: Any, answer: Any = None, interface: str = "127.0.0.1") -> Any:
    """Start a server; without C{answer} it echoes."""
    return listen(reactor, 0, EchoServer() if answer is None else Lossy(answer), interface)


class VirtualTests:
    """L{EchoClient} on a transport in memory and a clock."""

    @pytest.fixture(autouse=True)
    def _client(self) -> None:
        self.clock = Clock()
        self.transport = StockTransport()
        self.client = self.make()

    def make(self, **options: Any) -> EchoClient:
        client = EchoClient(self.clock, **options)
        client.makeConnection(self.transport)
        client.connectedTo(DatagramAddress(PEER))
        return client

    def test_interfaces(self) -> None:
        """The client, and the transports of these tests, provide what they say."""
        assert verifyObject(INetworkErrorReceiver, self.client)
        assert verifyObject(IUDPTransport, self.transport)
        assert verifyObject(IDatagramTransport, PatientTransport())

    def test_echo(self) -> None:
        """The payload goes out; the same bytes coming back fire the Deferred with their count, and nothing is left."""
        outcome = Outcome(self.client.echo(b"hello"))
        assert self.transport.written == [(b"hello", None)]
        assert outcome.results == []
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == 5
        assert self.clock.getDelayedCalls() == []

    def test_exchange(self) -> None:
        """A reply has the payload, the peer and the round trip's seconds."""
        outcome = Outcome(self.client.exchange(b"hello"))
        self.clock.advance(0.25)
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == Reply(b"hello", PEER, 0.25)

    def test_roundTripClock(self) -> None:
        """The round trip is measured on the clock that was given."""
        readings = iter([100.0, 100.5])
        client = EchoClient(self.clock, now=lambda: next(readings))
        self.transport = StockTransport()
        client.makeConnection(self.transport)
        outcome = Outcome(client.exchange(b"hello"))
        client.datagramReceived(b"hello", PEER)
        assert outcome.result.roundTripTime == 0.5

    def test_empty(self) -> None:
        """An empty payload is an echo like any other."""
        outcome = Outcome(self.client.echo(b""))
        self.client.datagramReceived(b"", PEER)
        assert outcome.result == 0

    def test_timeout(self) -> None:
        """At the deadline, not before, the Deferred fails, and a reply that comes later is ignored."""
        outcome = Outcome(self.client.echo(b"hello", 2))
        self.clock.advance(1.999)
        assert outcome.results == []
        self.clock.advance(0.001)
        assert isinstance(outcome.failure, ResponseTimeout)
        assert isinstance(outcome.failure, defer.TimeoutError)
        assert str(outcome.failure) == "no reply from 192.0.2.7:7 within 2 s"
        self.client.datagramReceived(b"hello", PEER)
        assert len(outcome.results) == 1

    def test_defaultTimeout(self) -> None:
        """Without a timeout of its own a call has the client's: five seconds, or what was said."""
        for client, timeout in ((self.client, 5.0), (self.make(timeout=0.5), 0.5)):
            outcome = Outcome(client.echo(b"hello"))
            self.clock.advance(timeout - 0.01)
            assert outcome.results == []
            self.clock.advance(0.01)
            assert isinstance(outcome.failure, ResponseTimeout)

    def test_otherDatagramsIgnored(self) -> None:
        """A datagram that is not the payload is ignored and counted, and the timeout's message says how many came meanwhile."""
        self.client.datagramReceived(b"from before", PEER)
        outcome = Outcome(self.client.echo(b"hello", 2))
        for other in (b"hell", b"hello\0", b""):
            self.client.datagramReceived(other, PEER)
        assert outcome.results == []
        assert self.client.ignored == 4
        self.clock.advance(2)
        assert str(outcome.failure) == "no reply from 192.0.2.7:7 within 2 s; 3 other datagrams from it ignored"

    def test_noVerify(self) -> None:
        """
        Without verification the first datagram answers the oldest payload; one that is the same bytes as another on its way
        still answers that one.
        """
        client = self.make(verify=False)
        first, second, third = (Outcome(client.exchange(payload)) for payload in (b"one", b"two", b"three"))
        client.datagramReceived(b"three", PEER)
        client.datagramReceived(b"something", PEER)
        client.datagramReceived(b"", PEER)
        assert [outcome.result.payload for outcome in (first, second, third)] == [b"something", b"", b"three"]
        client.datagramReceived(b"too many", PEER)
        assert client.ignored == 1

    def test_manyOutstanding(self) -> None:
        """Many payloads may be on their way; replies in any order find their own."""
        payloads = [b"%d" % number for number in range(1000)]
        outcomes = {payload: Outcome(self.client.exchange(payload)) for payload in payloads}
        shuffled = payloads[:]
        random.Random(7).shuffle(shuffled)
        for payload in shuffled:
            self.client.datagramReceived(payload, PEER)
            assert outcomes[payload].result.payload == payload
        assert self.clock.getDelayedCalls() == []

    def test_samePayload(self) -> None:
        """Of several payloads of the same bytes the oldest is answered first."""
        first, second = Outcome(self.client.exchange(b"same")), Outcome(self.client.exchange(b"same"))
        self.client.datagramReceived(b"same", PEER)
        assert len(first.results) == 1
        assert second.results == []
        self.client.datagramReceived(b"same", PEER)
        assert len(second.results) == 1

    def test_lateReply(self) -> None:
        """A late reply does not answer a later call with another payload."""
        late = Outcome(self.client.echo(b"one", 1))
        self.clock.advance(1)
        outcome = Outcome(self.client.echo(b"two", 1))
        self.client.datagramReceived(b"one", PEER)
        assert outcome.results == []
        assert isinstance(late.failure, ResponseTimeout)
        self.client.datagramReceived(b"two", PEER)
        assert outcome.result == 3

    def test_ownDeadlines(self) -> None:
        """Each call has its own deadline."""
        outcomes = [Outcome(self.client.echo(b"%d" % number, number)) for number in (3, 1, 2)]
        for second in (1, 2, 3):
            self.clock.advance(1)
            assert [len(outcome.results) for outcome in outcomes] == [second >= number for number in (3, 1, 2)]

    def test_cancel(self) -> None:
        """Cancelling gives C{CancelledError} and leaves nothing; the others go on."""
        deferred = self.client.echo(b"one")
        cancelled, other = Outcome(deferred), Outcome(self.client.echo(b"two"))
        deferred.cancel()
        assert isinstance(cancelled.failure, defer.CancelledError)
        self.client.datagramReceived(b"one", PEER)
        self.client.datagramReceived(b"two", PEER)
        assert other.result == 3
        assert self.clock.getDelayedCalls() == []

    def test_refused(self) -> None:
        """A refusal fails everything that is on its way."""
        outcomes = [Outcome(self.client.echo(b"%d" % number)) for number in range(3)]
        self.client.connectionRefused()
        for outcome in outcomes:
            assert isinstance(outcome.failure, PortUnreachable)
            assert isinstance(outcome.failure, error.ConnectionRefusedError)
            assert str(outcome.failure) == "192.0.2.7:7 refused the datagram: nothing listens on that port"
        assert self.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("kind", [HostUnreachable, NetworkUnreachable])
    def test_unreachable(self, kind: type[EchoError]) -> None:
        """That the peer cannot be reached fails everything that is on its way, each with an exception of its own."""
        outcomes = [Outcome(self.client.echo(b"%d" % number)) for number in range(2)]
        self.client.networkError(kind("no way", errno.EHOSTUNREACH))
        first, second = (outcome.failure for outcome in outcomes)
        assert type(first) is type(second) is kind
        assert first is not second
        assert str(first) == "no way"

    def test_pathIsNarrower(self) -> None:
        """That the path carries less fails what is longer than that, and nothing else."""
        short, long = Outcome(self.client.echo(b"x" * 1252)), Outcome(self.client.echo(b"x" * 1253))
        self.client.networkError(MessageTooLong("narrow", errno.EMSGSIZE, 1252))
        assert isinstance(long.failure, MessageTooLong)
        assert short.results == []

    def test_writeRaises(self) -> None:
        """What the stock port raises from C{write} fails that call by its name."""
        for raised, kind in (
            (OSError(errno.EHOSTUNREACH, "no route"), HostUnreachable),
            (OSError(errno.ENETUNREACH, "no route"), NetworkUnreachable),
            (error.MessageLengthError("too long"), MessageTooLong),
        ):
            self.transport.failure = raised
            outcome = Outcome(self.client.echo(b"hello"))
            assert type(outcome.failure) is kind
        assert self.clock.getDelayedCalls() == []

    def test_refusedInWrite(self) -> None:
        """The stock port calls C{connectionRefused} from inside C{write}."""

        class Refusing(StockTransport):
            def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
                client.connectionRefused()

        self.transport = Refusing()
        client = self.make()
        assert isinstance(Outcome(client.echo(b"hello")).failure, PortUnreachable)

    def test_writeRaisesSomethingElse(self) -> None:
        """What else C{write} raises, on a transport that is not connected say, fails that call and leaves nothing of it."""
        self.transport.failure = error.InvalidAddressError("", "not connected")
        assert isinstance(Outcome(self.client.echo(b"hello")).failure, error.InvalidAddressError)
        self.transport.failure = None
        outcome = Outcome(self.client.echo(b"hello"))
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == 5
        assert self.clock.getDelayedCalls() == []

    def test_elapsed(self) -> None:
        """What is over of the timeout already is left out; what is no number fails at once."""
        outcome = Outcome(self.client.exchange(b"hello", 5, elapsed=4))
        self.clock.advance(1)
        assert str(outcome.failure) == "no reply from 192.0.2.7:7 within 5 s"
        wrong: Any = "a"
        assert isinstance(Outcome(self.client.exchange(b"hello", 5, elapsed=wrong)).failure, TypeError)
        assert self.clock.getDelayedCalls() == []

    def test_close(self) -> None:
        """Closing fails what is on its way, and later calls; it may be called twice."""
        outcome = Outcome(self.client.echo(b"hello"))
        first, second = Outcome(self.client.close()), Outcome(self.client.close())
        assert isinstance(outcome.failure, ClientClosed)
        assert (first.results, second.results) == ([None], [None])
        assert isinstance(Outcome(self.client.echo(b"hello")).failure, ClientClosed)
        assert self.clock.getDelayedCalls() == []

    def test_transportLost(self) -> None:
        """When the transport is gone, what is on its way fails, and closing is still right."""
        outcome = Outcome(self.client.echo(b"hello"))
        self.client.doStop()
        assert isinstance(outcome.failure, ClientClosed)
        assert Outcome(self.client.close()).results == [None]

    def test_callbackCloses(self) -> None:
        """A callback may close the client, cancel another call or make a new one."""
        other = self.client.echo(b"other")
        otherOutcome = Outcome(other)
        deferred = self.client.echo(b"hello")
        again = deferred.addCallback(lambda _: other.cancel()).addCallback(lambda _: self.client.echo(b"again"))
        outcome = Outcome(again)
        self.client.datagramReceived(b"hello", PEER)
        assert isinstance(otherOutcome.failure, defer.CancelledError)
        self.client.datagramReceived(b"again", PEER)
        assert outcome.result == 5

    def test_errbackOfARefusalCancelsTheNext(self) -> None:
        """When the errback of one refused call cancels the next, each still fires once."""
        second: Deferred[int]
        first = self.client.echo(b"one")
        first.addErrback(lambda _: second.cancel())
        second = self.client.echo(b"two")
        outcome = Outcome(second)
        self.client.connectionRefused()
        assert isinstance(outcome.failure, defer.CancelledError)

    @pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400])
    def test_wrongTimeout(self, timeout: float) -> None:
        """A timeout that is no number of seconds fails at once, with a sentence."""
        for deferred in (
            self.client.echo(b"hello", timeout),
            echo(self.clock, "127.0.0.1", 7, b"hello", timeout),
            connect(self.clock, "127.0.0.1", 7, timeout),
        ):
            failure = Outcome(deferred).failure
            assert isinstance(failure, ValueError)
            assert "timeout must be a number of seconds, 0 or more" in str(failure)
        with pytest.raises(ValueError, match="timeout must be a number of seconds"):
            EchoClient(self.clock, timeout)
        assert self.transport.written == []
        assert self.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("timeout", ["5", b"5", True, [5]])
    def test_timeoutOfAnotherType(self, timeout: Any) -> None:
        """So does one that is no number at all."""
        failure = Outcome(self.client.echo(b"hello", timeout)).failure
        assert isinstance(failure, TypeError)
        assert "timeout must be a number of seconds" in str(failure)

    @pytest.mark.parametrize("payload", ["hello", None, 5, ["hello"]])
    def test_wrongPayload(self, payload: Any) -> None:
        """A payload that is not bytes fails at once, with a sentence."""
        for deferred in (self.client.echo(payload), echo(self.clock, "127.0.0.1", 7, payload)):
            failure = Outcome(deferred).failure
            assert isinstance(failure, TypeError)
            assert "a payload is bytes" in str(failure)

    def test_otherBytes(self) -> None:
        """What is as good as bytes is sent as bytes; changing it afterwards changes nothing."""
        payload: Any = bytearray(b"hello")
        outcome = Outcome(self.client.echo(payload))
        payload[:] = b"jelly"
        assert self.transport.written == [(b"hello", None)]
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == 5

    def test_longerThanAnyDatagram(self) -> None:
        """A payload that no datagram can carry fails at once and says what can."""
        failure = Outcome(echo(self.clock, "127.0.0.1", 7, bytes(65528))).failure
        assert isinstance(failure, MessageTooLong)
        assert failure.limit == 65527

    @pytest.mark.parametrize("port", [0, 70000, -1, 65536])
    def test_wrongPort(self, port: int) -> None:
        """A port that cannot be sent to fails at once, with a sentence."""
        for deferred in (echo(self.clock, "127.0.0.1", port, b""), connect(self.clock, "127.0.0.1", port)):
            failure = Outcome(deferred).failure
            assert isinstance(failure, ValueError)
            assert f"{port} is not a port to send to" in str(failure)

    @pytest.mark.parametrize(("host", "port"), [(b"127.0.0.1", 7), (None, 7), ("127.0.0.1", "7"), ("127.0.0.1", 7.0)])
    def test_wrongTypes(self, host: Any, port: Any) -> None:
        """So does a host or a port of the wrong type."""
        assert isinstance(Outcome(echo(self.clock, host, port, b"")).failure, TypeError)


class ResolutionTests:
    """Names are resolved inside the deadline."""

    def test_timeout(self) -> None:
        """A resolver that never answers fails the call at its deadline; what it says later is not heard."""
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

    @pytest.mark.parametrize(
        "host",
        ["", "a" * 64 + ".example", "a..b", "nul\0.example", "fe80::1%nosuchinterface", "fe80::1%nul\0", "fe80::1%99999999999"],
    )
    def test_notAName(self, host: str) -> None:
        """What cannot be a name fails at once: Twisted's resolver would say nothing at all."""
        clock = ResolvingClock({})
        assert isinstance(Outcome(echo(clock, host, 7, b"hello")).failure, error.DNSLookupError)
        assert clock.nameResolver.asked == []

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
        """Wait for an ending, and look around in the very callback that hears of it."""
        seen: list[Any] = []

        def look(result: Any) -> None:
            seen.append(result)
            seen.append([left for left in leftovers(reactor, set(), 0) if "cancel" not in left and "socket" not in left])
            seen.append(len(openSockets()))

        heard: Deferred[None] = Deferred()
        deferred.addBoth(look).addBoth(heard.callback)
        await heard
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
        """Whatever UDP can carry comes back, and is counted."""

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
        """What UDP cannot carry fails as too long, and says what it can."""

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
        """A peer that says nothing, or only other things, lets the call fail at its deadline."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [datagram[:-1], datagram + b"\0"])
            before = len(openSockets())
            failure = await self.ended(reactor, echo(reactor, "127.0.0.1", server.getHost().port, b"hello", 0.05))
            assert type(failure) is ResponseTimeout
            assert "2 other datagrams from it ignored" in str(failure)
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
        """The datagram leaves from the local address that was asked for; one that cannot be had is an error of its own."""

        async def test(reactor: Any) -> None:
            heard = Recorder()
            server = listen(reactor, 0, heard)
            number: int = server.getHost().port
            waiting = echo(reactor, "127.0.0.1", number, b"hello", 0.01, bindAddress=("127.0.0.4", 0))
            with pytest.raises(ResponseTimeout):
                await waiting
            assert heard.datagrams[0][1][0] == "127.0.0.4"
            with udpSocket() as taken, pytest.raises(error.CannotListenError):
                await echo(reactor, "127.0.0.1", number, b"hello", bindAddress=taken.getsockname())
            await server.stopListening()

        run(test)

    def test_stranger(self, run: Run) -> None:
        """A stranger who guesses the client's port is not heard, though what he sends is the right bytes."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent, udpSocket("127.0.0.2", silent.getsockname()[1]) as stranger:
                host, number = silent.getsockname()
                deferred = echo(reactor, host, number, b"hello", 0.05)
                datagram, sender = silent.recvfrom(100)
                stranger.sendto(datagram, sender)
                with pytest.raises(ResponseTimeout, match=r"within 0\.05 s$"):
                    await deferred

        run(test)

    def test_wrongSourceAddress(self, runOnce: Run) -> None:
        """A server that answers from another address than was asked, as a naive one on a wildcard bind does, is not heard."""

        async def test(reactor: Any) -> None:
            with udpSocket("0.0.0.0") as naive:
                deferred = echo(reactor, "127.0.0.2", naive.getsockname()[1], b"hello", 0.05)
                datagram, sender = naive.recvfrom(100)
                naive.sendto(datagram, sender)
                with pytest.raises(ResponseTimeout):
                    await deferred

        runOnce(test)


class ConnectTests:
    """L{connect} on real sockets."""

    def test_manyOutstanding(self, run: Run) -> None:
        """A hundred payloads on their way at once each find their reply, which come in reverse."""

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
        """Closing, twice, fails what is on its way and leaves nothing."""

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

    def test_stockTransport(self, run: Run) -> None:
        """The client is a protocol for Twisted's own port too."""

        async def test(reactor: Any) -> None:
            server = serve(reactor)
            client = EchoClient(reactor)
            reactor.listenUDP(0, client, interface="127.0.0.1").connect("127.0.0.1", server.getHost().port)
            assert await client.echo(b"hello") == 5
            await client.close()
            await server.stopListening()

        run(test)

    def test_closeTwiceOnAStockTransport(self, run: Run, caught: Any) -> None:
        """Both of two closings in one turn fire, on Twisted's own port too, which does not bear to be told twice."""

        async def test(reactor: Any) -> None:
            client = EchoClient(reactor)
            reactor.listenUDP(0, client, interface="127.0.0.1")
            first, second = client.close(), client.close()
            await first
            await second

        run(test)

    def test_retryOnRefusal(self, run: Run) -> None:
        """Callers that try again at once when they are refused do not keep timers from running."""

        async def test(reactor: Any) -> None:
            client = await connect(reactor, "127.0.0.1", unusedPort())
            trying = True

            def again(result: Any = None) -> None:
                if trying:
                    client.echo(b"anybody there?").addErrback(again)

            for _ in range(5):
                again()
            for _ in range(10):
                await sleep(reactor, 0.01)
            trying = False
            await client.close()

        run(test)

    def test_oldRefusalsDoNotFailANewCall(self, run: Run) -> None:
        """Of several refusals of earlier datagrams none fails a call that is made when the first is heard of."""

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
        """That this machine has no socket to give is not told as the peer's fault."""

        def refuse(*arguments: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr("udpecho.client.connect.dial", refuse)

        async def test(reactor: Any) -> None:
            with pytest.raises(EchoError, match="cannot open a socket: Too many open files") as caught:
                await connect(reactor, "127.0.0.1", 7)
            assert type(caught.value) is EchoError

        runOnce(test)

    @pytest.mark.parametrize(
        ("bindAddress", "kind"),
        [
            (("127.0.0.1", 99999), ValueError),
            (("nonsense", 0), ValueError),
            ((b"127.0.0.1", 0), TypeError),
            ("127.0.0.1", TypeError),
            ("", TypeError),
            (5555, TypeError),
            (("127.0.0.1",), TypeError),
        ],
    )
    def test_wrongBindAddress(self, runOnce: Run, bindAddress: Any, kind: type[Exception]) -> None:
        """A local address that is none fails at once, with a sentence."""
        failure = Outcome(connect(runOnce.reactor, "127.0.0.1", 7, bindAddress=bindAddress)).failure
        assert isinstance(failure, kind)
        assert "local address" in str(failure) or "port to send from" in str(failure)

    def test_reactorWithoutDescriptors(self) -> None:
        """
        On a reactor that has no file descriptors the client is on that reactor's own port, and is closed if it cannot be
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
        client.datagramReceived(b"hello", PEER)
        assert outcome.result.roundTripTime == 1
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
