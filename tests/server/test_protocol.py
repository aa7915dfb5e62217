"""Tests of L{udpecho.server.protocol}."""

from __future__ import annotations

import errno
import random
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.guards import onlyLinux
from tests.support.ports import inOneTurn
from tests.support.running import Run, udpSocket
from tests.support.server import PEER, EvenPortsOnly, check
from tests.support.transports import PatientTransport, StockTransport
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDropReceiver, IGuard
from udpecho.net.open import listen
from udpecho.server.counters import Counters
from udpecho.server.protocol import EchoServer


class EchoServerTests:
    """L{EchoServer} on transports in memory."""

    def test_interface(self) -> None:
        """It provides its interfaces."""
        assert verifyObject(IDropReceiver, EchoServer())
        assert verifyObject(IGuard, EvenPortsOnly())

    @given(st.binary(max_size=2000))
    def test_sameBytes(self, payload: bytes) -> None:
        """What comes in goes back to where it came from, the same bytes."""
        server, transport = EchoServer(), StockTransport()
        server.makeConnection(transport)
        server.datagramReceived(payload, PEER)
        assert transport.written == [(payload, PEER)]
        assert (server.counters.received, server.counters.receivedBytes) == (1, len(payload))
        assert (server.counters.echoed, server.counters.echoedBytes) == (1, len(payload))
        check(server.counters)

    @pytest.mark.parametrize(
        "failure",
        [OSError(errno.EINVAL, "port 0"), BlockingIOError(errno.EAGAIN, "full"), error.MessageLengthError("too long")],
    )
    def test_stockTransportRaises(self, failure: Exception) -> None:
        """What a stock transport raises costs that datagram, and is counted."""
        server, transport = EchoServer(), StockTransport()
        server.makeConnection(transport)
        transport.failure = failure
        server.datagramReceived(b"lost", PEER)
        transport.failure = None
        server.datagramReceived(b"hello", PEER)
        assert transport.written == [(b"hello", PEER)]
        assert server.counters.dropped == {"send_failed": 1}
        check(server.counters)

    def test_outcome(self) -> None:
        """On a transport that has callbacks, a reply is counted when its outcome is known."""
        server, transport = EchoServer(), PatientTransport()
        server.makeConnection(transport)
        for payload in (b"one", b"two", b"three"):
            server.datagramReceived(payload, PEER)
            check(server.counters)
        assert (server.counters.received, server.counters.echoed, server.counters.waiting) == (3, 0, 3)
        for (_, address, callback), outcome in zip(transport.sent, ("send_timeout", None, "send_failed")):
            assert address == PEER
            callback(outcome)
            check(server.counters)
        assert server.counters.echoedBytes == 3
        assert server.counters.dropped == {"send_timeout": 1, "send_failed": 1}
        assert server.counters.waiting == 0

    def test_maxPayload(self) -> None:
        """What is longer than the limit is dropped; what is just as long is answered."""
        server, transport = EchoServer(maxPayload=5), StockTransport()
        server.makeConnection(transport)
        for payload in (b"12345", b"123456", b""):
            server.datagramReceived(payload, PEER)
        assert [payload for payload, _ in transport.written] == [b"12345", b""]
        assert server.counters.dropped == {"too_large": 1}
        check(server.counters)

    def test_guard(self) -> None:
        """Whom the guard refuses is not answered."""
        server, transport = EchoServer(EvenPortsOnly()), StockTransport()
        server.makeConnection(transport)
        for port in range(10):
            server.datagramReceived(b"hello", ("192.0.2.7", port))
        assert server.counters.dropped == {"not_allowed": 5}
        assert len(transport.written) == 5
        check(server.counters)

    def test_guardThatFails(self) -> None:
        """A guard that raises lets nobody in, and the datagram is accounted for."""

        @implementer(IGuard)
        class Broken:
            def refuse(self, size: int, address: tuple[str, int]) -> str | None:
                raise ZeroDivisionError

        server, transport = EchoServer(Broken()), StockTransport()
        server.makeConnection(transport)
        with pytest.raises(ZeroDivisionError):
            server.datagramReceived(b"hello", PEER)
        assert transport.written == []
        assert server.counters.dropped == {"not_allowed": 1}
        check(server.counters)

    def test_notUnicast(self) -> None:
        """What was sent to a broadcast or multicast address is not answered."""
        server, transport = EchoServer(), StockTransport()
        server.makeConnection(transport)
        address = DatagramAddress(PEER)
        address.unicast = False
        server.datagramReceived(b"everybody", address)
        assert transport.written == []
        assert server.counters.dropped == {"not_allowed": 1}
        check(server.counters)

    def test_droppedByTheTransport(self) -> None:
        """What the transport dropped is counted as received, and as dropped."""
        counters = Counters()
        EchoServer(counters=counters).datagramDropped("truncated", 101, PEER)
        assert (counters.received, counters.dropped) == (1, {"truncated": 1})
        check(counters)

    def test_sumsRead(self) -> None:
        """The counters read as one line, the reasons in the order of the design."""
        counters = Counters()
        for reason in ("send_timeout", "loop_guard", None):
            counters.receive(5)
            if reason is None:
                counters.echo(5)
            else:
                counters.drop(reason, 5)
        assert str(counters) == (
            "received=3 echoed=1 dropped=2 (loop_guard=1 send_timeout=1) received-bytes=15 echoed-bytes=5 dropped-bytes=10"
        )


class RealEchoTests:
    """L{EchoServer} on real sockets."""

    @pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
    def test_echo(self, run: Run, stock: bool) -> None:
        """It echoes on our port and on the stock port."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            port: Any = reactor.listenUDP(0, server, "127.0.0.1") if stock else listen(reactor, 0, server)
            if not stock:
                inOneTurn(port)
            with udpSocket() as sock:
                sock.connect(("127.0.0.1", port.getHost().port))
                for payload in (b"hello", b"", bytes(100), b"x" * (8191 if stock else 65507)):
                    sock.send(payload)
                    port.doRead()
                    assert sock.recv(65536) == payload
            assert server.counters.received == server.counters.echoed == 4
            check(server.counters)
            await port.stopListening()

        run(test)

    def test_truncatedByTheStockPort(self, runOnce: Run) -> None:
        """A datagram that fills the buffer of Twisted's own port may have been truncated, and is dropped."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            port: Any = reactor.listenUDP(0, server, "127.0.0.1")
            with udpSocket() as sock:
                for size in (8192, 9000):
                    sock.sendto(bytes(size), ("127.0.0.1", port.getHost().port))
                port.doRead()
            assert server.counters.dropped == {"truncated": 2}
            check(server.counters)
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    def test_multicast(self, runOnce: Run) -> None:
        """What was sent to a group is not answered."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            port: Any = listen(reactor, 0, server, "0.0.0.0")
            membership = socket.inet_aton("239.1.2.3") + socket.inet_aton("127.0.0.1")
            inOneTurn(port)
            port.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            with udpSocket() as sock:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                sock.sendto(b"everybody", ("239.1.2.3", port.getHost().port))
                sock.sendto(b"you", ("127.0.0.1", port.getHost().port))
                port.doRead()
                assert sock.recv(100) == b"you"
            assert server.counters.dropped == {"not_allowed": 1}
            check(server.counters)
            await port.stopListening()

        runOnce(test)

    def test_anyTraffic(self, run: Run) -> None:
        """Datagrams of any sizes are all accounted for, under a limit of the port and one of the server."""

        async def test(reactor: Any) -> None:
            server = EchoServer(maxPayload=500)
            port: Any = listen(reactor, 0, server, maxPacketSize=1000, receiveBuffer=2**22)
            inOneTurn(port)
            chance = random.Random(862)
            sizes = [chance.choice((0, 1, 499, 500, 501, 1000, 1001, 65507)) for _ in range(300)]
            with udpSocket() as sock:
                for size in sizes:
                    sock.sendto(bytes(size), ("127.0.0.1", port.getHost().port))
                    port.doRead()
            assert server.counters.received == 300
            assert server.counters.echoed == sum(size <= 500 for size in sizes)
            assert server.counters.dropped == {
                "too_large": sum(500 < size <= 1000 for size in sizes),
                "truncated": sum(size > 1000 for size in sizes),
            }
            check(server.counters)
            await port.stopListening()

        run(test)
