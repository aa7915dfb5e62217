"""Tests that TCP of a host in memory does what Linux does: each runs on sockets, too."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from tests.support.hosts import needsIPv6
from tests.support.memory import Play


class Talker(Protocol):
    """Records what happens to it, and lets a test wait for it."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.events: list[str] = []
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def connectionMade(self) -> None:
        first = getattr(self.factory, "first", None)
        if first is not None and not first.called:
            first.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.events.append(reason.type.__name__)
        self._look()

    def until(self, condition: Any) -> Deferred[None]:
        """Wait until a condition holds of it."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0](self):
                self._waiting.remove(entry)
                entry[1].callback(None)

    def lost(self) -> Deferred[None]:
        return self.until(lambda talker: talker.events)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Talker):
    """Notices each direction that ends."""

    def readConnectionLost(self) -> None:
        self.events.append("read")
        self._look()

    def writeConnectionLost(self) -> None:
        self.events.append("write")


class Listening(Factory):
    """Makes a protocol for each connection; C{first} fires with the first one."""

    noisy = False

    def __init__(self, kind: type[Talker]) -> None:
        self.protocol = kind
        self.first: Deferred[Any] = Deferred()


async def connected(reactor: Any, kind: type[Talker] = Talker) -> tuple[Any, Any, Any]:
    """Both protocols of a connection, and the port."""
    factory = Listening(kind)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    here = await endpoint.connect(Factory.forProtocol(kind))
    return here, await factory.first, port


class AddressTests:
    """Addresses of ports and connections."""

    @pytest.mark.parametrize(
        ("first", "second", "clash"),
        [
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.2", False),
            ("127.0.0.1", "", True),
            ("", "127.0.0.1", True),
            pytest.param("", "::1", False, marks=needsIPv6),
            pytest.param("", "::", True, marks=needsIPv6),
            pytest.param("::", "127.0.0.1", True, marks=needsIPv6),
            pytest.param("::1", "::", True, marks=needsIPv6),
            pytest.param("::1", "127.0.0.1", False, marks=needsIPv6),
        ],
    )
    def test_inUse(self, play: Play, first: str, second: str, clash: bool) -> None:
        """A number that is taken on an overlapping address is refused, and free again afterwards."""

        async def test(reactor: Any) -> None:
            one = reactor.listenTCP(0, Factory(), interface=first)
            number = one.getHost().port
            if clash:
                with pytest.raises(error.CannotListenError, match="in use"):
                    reactor.listenTCP(number, Factory(), interface=second)
                await one.stopListening()
            await reactor.listenTCP(number, Factory(), interface=second).stopListening()
            if not clash:
                await one.stopListening()

        play(test)

    # Twisted leaves the socket of such an attempt to the garbage collector.
    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_notLocal(self, play: Play) -> None:
        """An address of others cannot be listened on, nor be connected from."""

        async def test(reactor: Any) -> None:
            with pytest.raises(error.CannotListenError):
                reactor.listenTCP(0, Factory(), interface="192.0.2.1")
            port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, bindAddress=("192.0.2.1", 0))
            with pytest.raises(error.ConnectBindError):
                await endpoint.connect(Factory.forProtocol(Talker))
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, bindAddress=("", port.getHost().port))
            with pytest.raises(error.ConnectBindError):
                await endpoint.connect(Factory.forProtocol(Talker))
            await port.stopListening()

        play(test)

    @pytest.mark.parametrize(
        ("interface", "target", "seen"),
        [
            ("", "127.0.0.1", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2", "127.0.0.1"),
            pytest.param("::", "127.0.0.1", "::ffff:127.0.0.1", marks=needsIPv6),
            pytest.param("::", "::1", "::1", marks=needsIPv6),
        ],
    )
    def test_addresses(self, play: Play, interface: str, target: str, seen: str) -> None:
        """Both sides know both addresses, in the family of their socket."""

        async def test(reactor: Any) -> None:
            factory = Listening(Talker)
            port = reactor.listenTCP(0, factory, interface=interface)
            number = port.getHost().port
            endpoint: Any = TCP6ClientEndpoint if ":" in target else TCP4ClientEndpoint
            here = await endpoint(reactor, target, number).connect(Factory.forProtocol(Talker))
            there = await factory.first
            kind = IPv6Address if ":" in target else IPv4Address
            assert here.transport.getPeer() == kind("TCP", target, number)
            assert type(here.transport.getHost()) is kind
            source = here.transport.getHost()
            assert (there.transport.getPeer().host, there.transport.getPeer().port) == (seen, source.port)
            assert type(there.transport.getPeer()) is type(port.getHost())
            here.transport.loseConnection()
            await there.lost()
            await here.lost()
            await port.stopListening()

        play(test)


class EndTests:
    """The ends of connections."""

    def test_lose(self, play: Play) -> None:
        """All that was written arrives before the end, which is clean for both."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor)
            data = bytes(range(256)) * 4000
            here.transport.write(data)
            here.transport.loseConnection()
            await here.lost()
            await there.lost()
            assert there.received == data
            assert here.events == there.events == ["ConnectionDone"]
            await port.stopListening()

        play(test)

    def test_abort(self, play: Play) -> None:
        """An aborted connection is lost, for the peer too."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor)
            here.transport.abortConnection()
            await there.lost()
            assert here.events == ["ConnectionAborted"]
            assert there.events == ["ConnectionLost"]
            await port.stopListening()

        play(test)

    def test_halves(self, play: Play) -> None:
        """Each direction ends alone."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor, HalfCloser)
            here.transport.write(b"request")
            here.transport.loseWriteConnection()
            await there.until(lambda talker: talker.events)
            assert (here.events, there.events, there.received) == (["write"], ["read"], b"request")
            there.transport.write(b"answer")
            there.transport.loseConnection()
            await here.until(lambda talker: len(talker.events) > 1)
            assert here.received == b"answer"
            assert here.events == ["write", "read"]
            assert there.events == ["read", "ConnectionDone"]
            here.transport.loseConnection()
            await here.until(lambda talker: len(talker.events) > 2)
            assert here.events[2:] == ["ConnectionDone"]
            await port.stopListening()

        play(test)

    def test_writesToTheClosed(self, play: Play) -> None:
        """Who writes to a program that has closed its connection is reset."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor, HalfCloser)
            here.transport.loseConnection()
            await there.until(lambda talker: talker.events)
            there.transport.write(b"too late")
            while len(there.events) < 2:
                there.transport.write(b"and again")
                pause: Deferred[None] = Deferred()
                reactor.callLater(0.01, pause.callback, None)
                await pause
            assert there.events == ["read", "ConnectionLost"]
            await port.stopListening()

        play(test)

    def test_refused(self, play: Play) -> None:
        """Where nobody listens any more it is refused."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor)
            number = port.getHost().port
            await port.stopListening()
            with pytest.raises(error.ConnectionRefusedError):
                await TCP4ClientEndpoint(reactor, "127.0.0.1", number).connect(Factory.forProtocol(Talker))
            # What was accepted before goes on, and a new port may have the number.
            again = reactor.listenTCP(number, Factory(), interface="127.0.0.1")
            here.transport.write(b"still there")
            await there.until(lambda talker: talker.received)
            there.transport.loseConnection()
            await here.lost()
            await there.lost()
            await again.stopListening()

        play(test)

    def test_paused(self, play: Play) -> None:
        """A writer of whom nobody reads is paused, and goes on when somebody does."""

        async def test(reactor: Any) -> None:
            here, there, port = await connected(reactor)
            calls: list[str] = []

            class Producer:
                def pauseProducing(self) -> None:
                    calls.append("pause")

                def resumeProducing(self) -> None:
                    calls.append("resume")
                    here.transport.unregisterProducer()
                    here.transport.loseConnection()

                def stopProducing(self) -> None:
                    calls.append("stop")

            there.transport.pauseProducing()
            here.transport.registerProducer(Producer(), True)
            # More than any system keeps for a socket.
            here.transport.write(bytes(20_000_000))
            assert calls == ["pause"]
            there.transport.resumeProducing()
            await there.lost()
            assert calls == ["pause", "resume"]
            assert len(there.received) == 20_000_000
            await port.stopListening()

        play(test)
