"""Tests of L{udpecho.server.protocol} on batches: real ports that receive a batch when the test calls for it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.conftest import CaughtErrors
from tests.support.guards import needsBatches
from tests.support.ports import inOneTurn, script
from tests.support.running import udpSocket
from tests.support.server import EvenPortsOnly, Lines, check
from udpecho.interfaces import IBatchGuard, IBatchReceiver, IDatagramBatch
from udpecho.net.batch_reader import BatchReader
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.sockets import MAX_DATAGRAM
from udpecho.server.counters import Counters
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.protocol import EchoServer

pytestmark = needsBatches


@contextmanager
def serving(
    server: EchoServer, interface: str = "127.0.0.1", maxPacketSize: int = MAX_DATAGRAM, **options: Any
) -> Iterator[tuple[DatagramPort, socket.socket]]:
    """A port that reads when the test calls its C{doRead}, and a client connected to it."""
    port = DatagramPort(0, server, interface, maxPacketSize, installed, PortOptions(receiveBuffer=2**22, **options))
    port.startListening()
    inOneTurn(port)
    try:
        with udpSocket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
            client.connect(("127.0.0.1", port.getHost().port))
            yield port, client
    finally:
        port.abort()


def replies(client: socket.socket) -> list[bytes]:
    """All that has come."""
    client.setblocking(False)
    found = []
    try:
        while True:
            found.append(client.recv(65535))
    except BlockingIOError:
        return found


@implementer(IBatchGuard)
class NoFirst(EvenPortsOnly):
    """Refuses the first entry of every batch."""

    def refuseEntries(self, batch: IDatagramBatch) -> None:
        batch.drop(0, "rate_limited")


class NoneAtAll(NoFirst):
    """Fails."""

    def refuseEntries(self, batch: IDatagramBatch) -> None:
        raise ZeroDivisionError


class BatchTests:
    """L{EchoServer.datagramsReceived}."""

    def test_interface(self) -> None:
        """It provides its interfaces."""
        assert verifyObject(IBatchReceiver, EchoServer())
        assert verifyObject(IBatchGuard, NoFirst())

    def test_counted(self) -> None:
        """What came in one call is counted so, and all of it is answered."""
        server = EchoServer(log=DatagramLog(0))
        with serving(server) as (port, client):
            for size in range(10):
                client.send(bytes(size))
            port.doRead()
            assert replies(client) == [bytes(size) for size in range(10)]
        assert (server.counters.received, server.counters.echoed, server.counters.receivedBytes) == (10, 10, 45)
        assert (server.counters.batchedEntries, sum(server.counters.batches)) == (10, 1)
        check(server.counters)

    def test_lines(self, lines: Lines) -> None:
        """The first datagrams of a second have their lines, the others their sum, and no line is formatted for those."""
        server = EchoServer(log=DatagramLog(3))
        with serving(server) as (port, client):
            for _ in range(2):
                for _ in range(5):
                    client.send(b"hello")
                port.doRead()
                assert replies(client) == [b"hello"] * 5
        where = "127.0.0.1:{}".format(client.getsockname()[1] if client.fileno() != -1 else "")
        assert [text.partition(where[:10])[0] for text in lines.texts[:6]] == [
            "packet-received: bytes=5 from=",
            "packet-written: bytes=5 to=",
        ] * 3
        assert lines.texts[6:] == ["datagrams-not-logged: received=7 bytes=35 written=7 bytes=35"]
        check(server.counters)

    @pytest.mark.parametrize("rate", [0, None])
    def test_dropped(self, rate: int | None) -> None:
        """What is too long for the port or for the server, or not for this host alone, is counted, line by line or not."""
        counters = Counters()
        server = EchoServer(None, counters, 100, DatagramLog(rate))
        with serving(server, "0.0.0.0", maxPacketSize=1000) as (port, client), udpSocket() as shouting:
            shouting.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for size in (100, 101, 1000, 1001, 65507, 0):
                client.send(bytes(size))
            shouting.sendto(b"all", ("127.255.255.255", port.getHost().port))
            client.send(b"last")
            port.doRead()
            assert replies(client) == [bytes(100), b"", b"last"]
            assert port.dropped == {"truncated": 2}
        assert counters.received == 8
        assert counters.dropped == {"too_large": 2, "truncated": 2, "not_allowed": 1}
        check(counters)

    @pytest.mark.parametrize("what", ["connect", "stopListening", "abort"])
    @pytest.mark.parametrize("size", [5, 0])
    def test_inTheMiddle(self, what: str, size: int) -> None:
        """A protocol may connect or close its port while it has a batch in its hands; each datagram is accounted for."""

        class Restless(EchoServer):
            def datagramsReceived(self, batch: IDatagramBatch) -> None:
                other = ("127.0.0.1", 9)
                getattr(port, what)(*other if what == "connect" else ())
                super().datagramsReceived(batch)

        server = Restless(log=DatagramLog(0))
        with serving(server) as (port, client):
            for _ in range(70):
                client.send(bytes(size))
            client.sendmsg([bytes(250)], cmsg.replyControls(False, None, None, 100))
            port.doRead()
            came = len(replies(client))
        assert server.counters.received == 64
        assert came == server.counters.echoed == (64 if what == "stopListening" else 0)
        check(server.counters)

    def test_connectUnderAFlood(self) -> None:
        """Connecting comes to an end although datagrams come as fast as they are read."""
        with serving(EchoServer(log=DatagramLog(0))) as (port, client), udpSocket() as peer:
            assert isinstance(port._reader, BatchReader)
            batch = port._reader.batch
            real = batch.calls
            taken = 0

            def recvmmsg(*arguments: Any) -> int:
                nonlocal taken
                taken += 1
                assert taken < 100000
                client.send(b"")
                return real.recvmmsg(*arguments)

            batch.calls = real._replace(recvmmsg=recvmmsg)
            port.connect(*peer.getsockname())
            assert taken > 1

    @pytest.mark.parametrize(("limit", "reason"), [({}, "too_large"), ({"maxPacketSize": 1000}, "truncated")])
    @pytest.mark.parametrize("offload", [True, False])
    def test_lastSegment(self, limit: dict[str, Any], reason: str, offload: bool) -> None:
        """The last segment of a GRO batch is answered if it is short enough, though the others are not; so is the datagram that
        it is without GRO.
        """
        server = EchoServer(maxPayload=None if limit else 1000, log=DatagramLog(0))
        with serving(server, offload=offload, **limit) as (port, client):
            client.send(b"single")
            client.sendmsg([bytes(3 * 1200 + 500)], cmsg.replyControls(False, None, None, 1200))
            client.sendmsg([bytes(3 * 1000)], cmsg.replyControls(False, None, None, 1000))
            port.doRead()
            assert list(map(len, replies(client))) == [6, 500, 1000, 1000, 1000]
        assert server.counters.dropped == {reason: 3}
        check(server.counters)

    def test_guards(self) -> None:
        """A guard that takes batches has them, one that does not is called for each datagram."""
        for guard, kept in ((NoFirst(), 4), (EvenPortsOnly(), None)):
            server = EchoServer(guard, log=DatagramLog(0))
            with serving(server) as (port, client):
                for _ in range(5):
                    client.send(b"hello")
                port.doRead()
                expected = (0 if client.getsockname()[1] % 2 else 5) if kept is None else kept
                assert len(replies(client)) == expected
            assert server.counters.echoed == expected
            check(server.counters)

    def test_guardThatFails(self, caught: CaughtErrors) -> None:
        """A guard that fails lets nobody in, and all are accounted for."""
        server = EchoServer(NoneAtAll(), log=DatagramLog(0))
        with serving(server) as (port, client):
            client.send(b"hello")
            client.send(b"there")
            port.doRead()
            assert replies(client) == []
        assert server.counters.dropped == {"not_allowed": 2}
        check(server.counters)
        assert len(caught.flush(ZeroDivisionError)) == 1

    def test_hops(self) -> None:
        """With hops counted, each reply has one less than what it replies to, and what has none left is dropped; so two servers
        that a forged datagram has made talk to each other come to an end.
        """
        server = EchoServer(log=DatagramLog(0))
        with serving(server, decrementHopLimit=True) as (port, client):
            assert sockopt.enableRecvHopLimit(client)
            for hops in (64, 2, 1):
                client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                client.send(b"hello")
            port.doRead()
            for hops in (63, 1):
                ((_, _, hopLimit),) = client.recvmsg(100, 100)[1]
                assert int.from_bytes(hopLimit, "little") == hops
        assert server.counters.dropped == {"loop_guard": 1}
        check(server.counters)

    @pytest.mark.parametrize("batches", [True, False])
    def test_loopEnds(self, batches: bool) -> None:
        """A datagram with a forged source goes back and forth between two servers no more often than it has hops, without any
        option: an application that listens with its own guard is no more open than the daemon.
        """
        counters = Counters()
        here, there = (EchoServer(None, counters, log=DatagramLog(0)) for _ in range(2))
        with serving(here, batches=batches) as (one, _), serving(there) as (other, _):
            one.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
            one.socket.sendto(b"and so on", ("127.0.0.1", other.getHost().port))
            turns = -1
            while counters.received != turns:
                turns = counters.received
                other.doRead()
                one.doRead()
        assert turns == 64
        assert counters.dropped == {"loop_guard": 1}
        check(counters)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.integers(0, 1500), min_size=1, max_size=200),
        st.lists(st.sampled_from([0, 0, errno.EAGAIN, errno.EPERM, errno.ENOBUFS, errno.EINTR, errno.EINVAL]), max_size=20),
        st.lists(st.sampled_from([0, 0, 0, errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED]), max_size=6),
        st.booleans(),
    )
    def test_accounts(self, sizes: list[int], sends: list[int], receives: list[int], offload: bool) -> None:
        """System calls fail with any errors: what was received is echoed, is dropped or waits, and what is echoed arrives."""
        server = EchoServer(log=DatagramLog(0))
        with serving(server, offload=offload) as (port, client):
            for size in sizes:
                client.send(bytes(size))
            script(port, list(sends), list(receives))
            while server.counters.received < len(sizes):
                port.doRead()
                if port._sender.waiting:
                    port.doWrite()
            while port._sender.waiting:
                port.doWrite()
            assert len(replies(client)) == server.counters.echoed
            assert port.dropped == server.counters.dropped
        assert server.counters.received == len(sizes)
        assert server.counters.receivedBytes == sum(sizes)
        assert server.counters.waiting == 0
        check(server.counters)
