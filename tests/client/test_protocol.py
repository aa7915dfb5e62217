"""Tests of L{udpecho.client.protocol}."""

from __future__ import annotations

import errno
import random
import tracemalloc
from typing import Any

import pytest
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.client import Outcome, serve
from tests.support.running import Run
from tests.support.transports import PatientTransport, StockTransport
from udpecho.addresses import DatagramAddress
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

PEER = ("192.0.2.7", 7)


class EchoClientTests:
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
        """The client, and the transports of these tests, provide their interfaces."""
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
        """Without a timeout of its own a call has the client's: five seconds, or what was given."""
        for client, timeout in ((self.client, 5.0), (self.make(timeout=0.5), 0.5)):
            outcome = Outcome(client.echo(b"hello"))
            self.clock.advance(timeout - 0.01)
            assert outcome.results == []
            self.clock.advance(0.01)
            assert isinstance(outcome.failure, ResponseTimeout)

    def test_otherDatagramsIgnored(self) -> None:
        """A datagram that is not the payload is ignored and counted, and the timeout's message has their number."""
        self.client.datagramReceived(b"from before", PEER)
        outcome = Outcome(self.client.echo(b"hello", 2))
        for other in (b"hell", b"hello\0", b""):
            self.client.datagramReceived(other, PEER)
        assert outcome.results == []
        assert self.client.ignored == 4
        self.clock.advance(2)
        assert str(outcome.failure) == "no reply from 192.0.2.7:7 within 2 s; 3 other datagrams from it ignored"

    def test_noVerify(self) -> None:
        """Without verification the first datagram answers the oldest payload; one with the same bytes as another
        outstanding payload still answers that one.
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
        """Many payloads may be outstanding; replies in any order find their own."""
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
        """A refusal fails all outstanding calls."""
        outcomes = [Outcome(self.client.echo(b"%d" % number)) for number in range(3)]
        self.client.connectionRefused()
        for outcome in outcomes:
            assert isinstance(outcome.failure, PortUnreachable)
            assert isinstance(outcome.failure, error.ConnectionRefusedError)
            assert str(outcome.failure) == "192.0.2.7:7 refused the datagram: nothing listens on that port"
        assert self.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("kind", [HostUnreachable, NetworkUnreachable])
    def test_unreachable(self, kind: type[EchoError]) -> None:
        """An unreachable peer fails all outstanding calls, each with an exception of its own."""
        outcomes = [Outcome(self.client.echo(b"%d" % number)) for number in range(2)]
        self.client.networkError(kind("no way", errno.EHOSTUNREACH))
        first, second = (outcome.failure for outcome in outcomes)
        assert type(first) is type(second) is kind
        assert first is not second
        assert str(first) == "no way"

    def test_pathIsNarrower(self) -> None:
        """A narrow path fails the payloads that it does not carry, and no others."""
        short, long = Outcome(self.client.echo(b"x" * 1252)), Outcome(self.client.echo(b"x" * 1253))
        self.client.networkError(MessageTooLong("narrow", errno.EMSGSIZE, 1252))
        assert isinstance(long.failure, MessageTooLong)
        assert short.results == []

    def test_writeRaises(self) -> None:
        """What Twisted's port raises from C{write} fails that call, by its name."""
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
        """Twisted's port calls C{connectionRefused} from inside C{write}."""

        class Refusing(StockTransport):
            def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
                client.connectionRefused()

        self.transport = Refusing()
        client = self.make()
        assert isinstance(Outcome(client.echo(b"hello")).failure, PortUnreachable)

    def test_writeRaisesSomethingElse(self) -> None:
        """Another exception of C{write} fails that call and leaves nothing of it."""
        self.transport.failure = error.InvalidAddressError("", "not connected")
        assert isinstance(Outcome(self.client.echo(b"hello")).failure, error.InvalidAddressError)
        self.transport.failure = None
        outcome = Outcome(self.client.echo(b"hello"))
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == 5
        assert self.clock.getDelayedCalls() == []

    def test_elapsed(self) -> None:
        """Seconds that the caller has used already are subtracted; what is no number fails at once."""
        outcome = Outcome(self.client.exchange(b"hello", 5, elapsed=4))
        self.clock.advance(1)
        assert str(outcome.failure) == "no reply from 192.0.2.7:7 within 5 s"
        outcome = Outcome(self.client.exchange(b"hello", 5))
        self.clock.advance(4.5)
        assert outcome.results == []
        self.client.datagramReceived(b"hello", PEER)
        wrong: Any = "a"
        assert isinstance(Outcome(self.client.exchange(b"hello", 5, elapsed=wrong)).failure, TypeError)
        assert self.clock.getDelayedCalls() == []

    def test_tooLongForThisSystem(self) -> None:
        """The message of a payload that the system refuses, but the protocol allows, does not name a limit."""
        self.transport.failure = error.MessageLengthError()
        for size, limit, message in (
            (65507, None, "this system does not send 65507 bytes in a datagram to 192.0.2.7:7"),
            (65508, 65507, "payload to 192.0.2.7:7 must be at most 65507 bytes, got 65508"),
        ):
            failure = Outcome(self.client.echo(bytes(size))).failure
            assert isinstance(failure, MessageTooLong)
            assert (failure.limit, str(failure)) == (limit, message)

    def test_unnamedPeer(self) -> None:
        """On a transport that does not name the peer, messages do not either."""
        client = EchoClient(self.clock)
        client.makeConnection(StockTransport())
        outcome = Outcome(client.echo(b"hello", 2))
        self.clock.advance(2)
        assert str(outcome.failure) == "no reply from the peer within 2 s"

    def test_memory(self) -> None:
        """A payload that is answered takes no more memory."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(500):
                payload = number.to_bytes(2, "big") * 500
                self.client.echo(payload)
                self.client.datagramReceived(payload, PEER)
                self.transport.written.clear()
            assert tracemalloc.get_traced_memory()[0] - before < 50_000
        finally:
            tracemalloc.stop()

    def test_close(self) -> None:
        """Closing fails outstanding and later calls; it may be called twice."""
        outcome = Outcome(self.client.echo(b"hello"))
        first, second = Outcome(self.client.close()), Outcome(self.client.close())
        assert isinstance(outcome.failure, ClientClosed)
        assert (first.results, second.results) == ([None], [None])
        assert isinstance(Outcome(self.client.echo(b"hello")).failure, ClientClosed)
        assert self.clock.getDelayedCalls() == []

    def test_transportLost(self) -> None:
        """When the transport is gone, outstanding calls fail, and closing still works."""
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

    def test_otherBytes(self) -> None:
        """A buffer is sent as bytes; changing it afterwards changes nothing."""
        payload: Any = bytearray(b"hello")
        outcome = Outcome(self.client.echo(payload))
        payload[:] = b"jelly"
        assert self.transport.written == [(b"hello", None)]
        self.client.datagramReceived(b"hello", PEER)
        assert outcome.result == 5


class TwistedTransportTests:
    """L{EchoClient} on Twisted's own port."""

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
        """Two calls of C{close} in one turn both fire, although Twisted's own port may be stopped only once."""

        async def test(reactor: Any) -> None:
            client = EchoClient(reactor)
            reactor.listenUDP(0, client, interface="127.0.0.1")
            first, second = client.close(), client.close()
            await first
            await second

        run(test)
