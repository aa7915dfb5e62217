"""Tests of L{udpecho.testing.memory_port}: refusals and stopping, alike on sockets and in memory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.guards import needsIPv6
from tests.support.memory import Play, addressOf, close, open_, unused
from tests.support.running import CuriousRecorder, sleep


class RefusalTests:
    """On sockets and in memory: nothing listens at the peer."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_connected(self, play: Play, host: str) -> None:
        """C{connectionRefused} is called later, not from C{write}, once for each datagram; the port works when the peer is
        there.
        """

        async def test(reactor: Any) -> None:
            number = await unused(reactor, host)
            port, protocol = open_(reactor, host)
            port.connect(host, number)
            for refusals in (1, 2, 3):
                port.write(b"anybody there?")
                assert protocol.refusals == refusals - 1
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            peer, recorder = open_(reactor, host, number)
            port.write(b"hello")
            await recorder.count(1)
            peer.write(b"welcome", recorder.datagrams[0][1])
            await protocol.count(1)
            assert (protocol.refusals, protocol.errors) == (3, [])
            assert not port.dropped
            await close(port, peer)

        play(test)

    def test_unconnected(self, play: Play) -> None:
        """An unconnected port is not notified."""

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor)
            port.write(b"anybody there?", ("127.0.0.1", number))
            port.write(b"still there", addressOf(port))
            await protocol.count(1)
            await sleep(reactor, 0.01)
            assert (protocol.refusals, protocol.errors) == (0, [])
            await close(port)

        play(test)

    def test_peerConnectedElsewhere(self, play: Play) -> None:
        """A peer that is connected to somebody else refuses, as if it were not there."""

        async def test(reactor: Any) -> None:
            peer, recorder = open_(reactor)
            elsewhere, _ = open_(reactor)
            peer.connect(*addressOf(elsewhere))
            port, protocol = open_(reactor)
            port.connect(*addressOf(peer))
            port.write(b"anybody there?")
            await protocol.until(lambda: protocol.refusals == 1)
            assert not recorder.datagrams
            await close(peer, elsewhere, port)

        play(test)

    def test_closeOnBeingRefused(self, play: Play) -> None:
        """A port may be aborted in C{connectionRefused}, and is not notified of other refusals."""

        class Protocol(CuriousRecorder):
            def connectionRefused(self) -> None:
                transport: Any = self.transport
                transport.abort()
                super().connectionRefused()

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor, protocol=Protocol())
            port.connect("127.0.0.1", number)
            port.write(b"one")
            port.write(b"two")
            await protocol.until(lambda: protocol.refusals == 1)
            await sleep(reactor, 0.01)
            assert (protocol.refusals, protocol.stops) == (1, 1)

        play(test)

    def test_protocolFails(self, play: Play, caught: Any) -> None:
        """An exception in C{connectionRefused} is logged, and the port goes on."""

        class Protocol(CuriousRecorder):
            def connectionRefused(self) -> None:
                super().connectionRefused()
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            number = await unused(reactor)
            port, protocol = open_(reactor, protocol=Protocol())
            port.connect("127.0.0.1", number)
            for refusals in (1, 2):
                port.write(b"anybody there?")
                await protocol.until(lambda: protocol.refusals >= refusals)  # noqa: B023
            await close(port)

        play(test)
        assert len(caught.flush(ZeroDivisionError)) == 2


class StopTests:
    """On sockets and in memory: the end."""

    def test_twice(self, play: Play) -> None:
        """C{stopListening} may be called twice, and later again; each Deferred fires, and the protocol is stopped once."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            first, second = port.stopListening(), port.stopListening()
            assert protocol.stops == 0
            assert (await first, await second) == (None, None)
            assert await port.stopListening() is None
            assert protocol.stops == 1
            assert protocol.transport is None

        play(test)

    def test_nothingAfterStopping(self, play: Play) -> None:
        """Once C{stopListening} was called no datagram is delivered, those that had been sent already included."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            sender, _ = open_(reactor)
            sender.write(b"on its way", addressOf(port))
            stopped = port.stopListening()
            sender.write(b"too late", addressOf(port))
            await stopped
            await sleep(reactor, 0.01)
            assert protocol.datagrams == []
            await close(sender)

        play(test)

    def test_refusedAfterStopping(self, play: Play) -> None:
        """A port that has stopped refuses datagrams."""

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor)
            sender, refused = open_(reactor)
            sender.connect(*addressOf(port))
            sender.write(b"hello")
            await protocol.count(1)
            await close(port)
            sender.write(b"hello?")
            await refused.until(lambda: refused.refusals == 1)
            await close(sender)

        play(test)

    def test_writeAfterStopping(self, play: Play) -> None:
        """What is written to a port that has stopped is counted and reported as failed."""

        async def test(reactor: Any) -> None:
            port, _ = open_(reactor)
            await close(port)
            outcomes: list[str | None] = []
            port.write(b"x", ("127.0.0.1", 9))
            port.send(b"x", ("127.0.0.1", 9), outcomes.append)
            assert outcomes == ["send_failed"]
            assert port.dropped == {"send_failed": 2}

        play(test)

    def test_abort(self, play: Play) -> None:
        """C{abort} stops at once: the number is free when it returns. It may be called twice, and in C{datagramReceived}, after
        which no more datagrams come.
        """

        class Protocol(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                transport: Any = self.transport
                transport.abort()
                transport.abort()
                super().datagramReceived(datagram, addr)

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, protocol=Protocol())
            address = addressOf(port)
            for payload in (b"one", b"two"):
                port.write(payload, address)
            await protocol.count(1)
            again, _ = open_(reactor, number=address[1])
            await sleep(reactor, 0.01)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"one"]
            assert protocol.stops == 1
            await close(again)

        play(test)

    def test_abortWhileStopping(self, play: Play) -> None:
        """C{abort} after C{stopListening} does what is left to do at once, and leaves nothing for later."""

        async def test(reactor: Any) -> None:
            before = len(reactor.getDelayedCalls())
            port, protocol = open_(reactor)
            stopped = port.stopListening()
            port.abort()
            assert stopped.called
            assert len(reactor.getDelayedCalls()) == before
            await sleep(reactor, 0.01)
            assert protocol.stops == 1

        play(test)

    def test_stopInTheLastDatagram(self, play: Play) -> None:
        """C{stopListening} in C{datagramReceived} ends the delivery of those that wait behind."""

        class Protocol(CuriousRecorder):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                transport: Any = self.transport
                transport.stopListening()
                super().datagramReceived(datagram, addr)

        async def test(reactor: Any) -> None:
            port, protocol = open_(reactor, protocol=Protocol())
            for payload in (b"one", b"two", b"three"):
                port.write(payload, addressOf(port))
            await protocol.count(1)
            await port.stopListening()
            await sleep(reactor, 0.01)
            assert [datagram for datagram, _ in protocol.datagrams] == [b"one"]

        play(test)
