"""Tests of ports on sockets that another program has made, and has still: whatever it sets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.guards import loopbacks, needsIPv6, onlyLinux
from tests.support.hosts import until
from tests.support.passed_options import MISSING, OPTIONS, change
from tests.support.ports import path as path
from tests.support.running import PATIENCE, DetailedRecorder, Recorder, Run, udpSocket
from tests.support.server import check
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.adopted import resetOptions
from udpecho.net.open import adopt, listen
from udpecho.net.options import PortOptions
from udpecho.server.protocol import EchoServer

pytestmark = onlyLinux

#: Sets an option of a socket.
Change = Callable[[socket.socket], object]

#: Longer than a segment, empty, longer than the MTU of a usual link, and the longest.
_PAYLOADS = (b"x" * 25, b"", b"y" * 3000, b"z" * 65507)


def bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def hopLimits(sock: socket.socket) -> int | None:
    """Receive a datagram, and what is left of its hop limit."""
    _, received, _ = cmsg.receive(sock, bytearray(65535))
    return cmsg.readControls(received).hopLimit


class Server:
    """An echo server on an adopted socket.

    @ivar sock: the socket, as the program has it that made it.
    """

    def __init__(self, reactor: Any, sock: socket.socket, path: str) -> None:
        self.sock = sock
        self.server = EchoServer()
        self.counters = self.server.counters
        self.port = adopt(reactor, sock, self.server, PortOptions(decrementHopLimit=True, batches=path == "batch"))
        self._reactor = reactor

    async def ask(self, client: socket.socket, payload: bytes) -> bool:
        """Send a datagram, and check that it is answered from where it was sent to, with one hop less and the same bytes, or
        dropped and counted.

        @return: whether it is answered.
        """
        dropped = self.counters.dropped.total()
        before = self.counters.received
        client.send(payload)
        await until(self._reactor, lambda: self.counters.received > before, "the datagram comes")
        await until(self._reactor, lambda: not self.counters.waiting, "the datagram is answered or dropped")
        check(self.counters)
        if self.counters.dropped.total() > dropped:
            assert set(self.counters.dropped) == {"unanswerable"}
            return False
        buffer = bytearray(65535)
        size, received, _ = cmsg.receive(client, buffer)
        assert buffer[:size] == payload
        assert cmsg.readControls(received).hopLimit == 63
        with pytest.raises(BlockingIOError):
            client.recv(65535)
        return True

    def client(self, source: str, target: str) -> socket.socket:
        """A connected socket, which receives from that address only."""
        client = bound(source)
        client.connect((target, self.sock.getsockname()[1]))
        client.setblocking(False)
        assert sockopt.enableRecvHopLimit(client)
        for level, option in ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)):
            with suppress(OSError):
                client.setsockopt(level, option, 64)
        return client


#: Where to bind, from where to ask, and at which address.
PLACES = [
    pytest.param("0.0.0.0", "127.0.0.1", "127.0.0.9", id="wildcard"),
    pytest.param("127.0.0.1", "127.0.0.1", "127.0.0.1", id="one"),
    pytest.param("::", "::1", "::1", id="IPv6", marks=needsIPv6),
    pytest.param("::", "::ffff:127.0.0.1", "::ffff:127.0.0.9", id="both", marks=needsIPv6),
]


class AdoptedTests:
    """Any option of the socket: the same bytes, from the same address, with one hop less; or a drop that is counted."""

    @pytest.mark.parametrize(("host", "source", "target"), PLACES)
    def test_before(self, runOnce: Run, path: str, host: str, source: str, target: str) -> None:
        """All options at once, set before the socket was adopted, lose nothing."""

        async def test(reactor: Any) -> None:
            with bound(host) as sock:
                change(sock, *OPTIONS, *MISSING)
                server = Server(reactor, sock, path)
                with server.client(source, target) as client:
                    for payload in _PAYLOADS:
                        assert await server.ask(client, payload)
                await server.port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize(("host", "source", "target"), PLACES)
    def test_after(self, runOnce: Run, path: str, host: str, source: str, target: str) -> None:
        """Each of them, and then all, set while it is served, lose nothing but the first datagram where it cannot be answered;
        nor does blocking mode, which does not stop the reactor.
        """

        async def test(reactor: Any) -> None:
            with bound(host) as sock:
                server = Server(reactor, sock, path)
                with server.client(source, target) as client:
                    for name in (*OPTIONS, *MISSING):
                        change(sock, name)
                        sock.setblocking(True)
                        # What would be the next time to look is now.
                        server.port._context._restoreAfter = 0
                        answered = [await server.ask(client, payload) for payload in _PAYLOADS[:3]]
                        assert answered[1:] == [True, True], name
                        assert answered[0] or name in MISSING, name
                    change(sock, *OPTIONS)
                    server.port._context._restoreAfter = 0
                    for payload in _PAYLOADS:
                        assert await server.ask(client, payload)
                await server.port.stopListening()

        runOnce(test)

    @loopbacks
    def test_loop(self, runOnce: Run, path: str, host: str) -> None:
        """A forged datagram between two such servers goes round for as long as it has hops, and its last one is counted."""

        async def test(reactor: Any) -> None:
            with bound(host) as one, bound(host) as other:
                for sock in (one, other):
                    change(sock, *OPTIONS)
                first, second = Server(reactor, one, path), Server(reactor, other, path)
                change(one, *(name for name in OPTIONS if name != "UDP_CORK"))
                one.sendto(b"forged", other.getsockname())
                counters = [server.counters for server in (first, second)]
                await until(reactor, lambda: any(each.dropped for each in counters), "the loop ends")
                assert sum(each.received for each in counters) < 255
                for each in counters:
                    check(each)
                for server in (first, second):
                    await server.port.stopListening()

        runOnce(test)

    def test_otherKind(self, runOnce: Run, path: str) -> None:
        """A control message of the same length as another is not taken for it."""

        async def test(reactor: Any) -> None:
            with bound("127.0.0.1") as sock:
                server = Server(reactor, sock, path)
                server.port._context.restore = None
                change(sock, "no IP_RECVTTL", "IP_RECVTOS")
                with server.client("127.0.0.1", "127.0.0.1") as client:
                    client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xF8)
                    assert not await server.ask(client, b"hello")
                await server.port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize("space", [0, 20, 40, 60, 80])
    def test_truncated(self, runOnce: Run, path: str, monkeypatch: pytest.MonkeyPatch, space: int) -> None:
        """When there is no space for all control messages, nothing is answered, and all is counted."""
        monkeypatch.setattr(cmsg, "CONTROL_SIZE", space)

        async def test(reactor: Any) -> None:
            with bound("0.0.0.0") as sock:
                server = Server(reactor, sock, path)
                server.port._context.restore = None
                change(sock, "SO_TIMESTAMPNS", "IP_RECVTOS")
                with server.client("127.0.0.1", "127.0.0.9") as client:
                    assert not await server.ask(client, b"hello")
                await server.port.stopListening()

        # The memory of a batch has the size that it is made with; the layout goes beyond it.
        if path == "batch" and space < 80:
            pytest.skip("the usual control messages need more")
        runOnce(test)

    def test_userProtocol(self, runOnce: Run, path: str) -> None:
        """A protocol of the user gets the datagram, and a reply to it is dropped and counted; one to the pair is sent."""

        async def test(reactor: Any) -> None:
            with bound("0.0.0.0") as sock, udpSocket() as client:
                recorder = DetailedRecorder()
                port = adopt(reactor, sock, recorder)
                port._context.restore = None
                change(sock, "no IP_PKTINFO")
                client.sendto(b"hello", ("127.0.0.1", sock.getsockname()[1]))
                await recorder.count(1)
                ((datagram, address),) = recorder.datagrams
                assert (datagram, address.localHost, address.answerable) == (b"hello", None, False)
                outcomes: list[str | None] = []
                port.send(b"no", address, outcomes.append)
                port.write(b"no", address)
                assert (outcomes, port.dropped) == (["unanswerable"], {"unanswerable": 2})
                port.write(b"yes", tuple(address))
                assert client.recv(100) == b"yes"
                await port.stopListening()

        runOnce(test)

    def test_queuedBatches(self, runOnce: Run, path: str) -> None:
        """GRO batches that are queued come as the datagrams that they are, whether the port wants batches or not."""

        async def test(reactor: Any) -> None:
            with bound("127.0.0.1") as sock, udpSocket() as client:
                change(sock, "UDP_GRO")
                client.connect(sock.getsockname())
                client.sendmsg([bytes(250)], cmsg.replyControls(False, None, None, 100))
                recorder = Recorder()
                port = adopt(reactor, sock, recorder, PortOptions(offload=False))
                await recorder.count(3)
                assert [len(datagram) for datagram, _ in recorder.datagrams] == [100, 100, 50]
                await port.stopListening()

        runOnce(test)

    def test_queuedBeforeConnect(self, runOnce: Run, path: str) -> None:
        """So do those that are queued when a port is connected."""

        async def test(reactor: Any) -> None:
            with udpSocket() as client:
                recorder = Recorder()
                port = listen(reactor, 0, recorder, "127.0.0.1")
                change(port.socket, "UDP_GRO")
                client.connect(port.socket.getsockname())
                client.sendmsg([bytes(250)], cmsg.replyControls(False, None, None, 100))
                port.connect(*client.getsockname())
                client.sendmsg([bytes(150)], cmsg.replyControls(False, None, None, 100))
                await recorder.count(5)
                assert [len(datagram) for datagram, _ in recorder.datagrams] == [100, 100, 50, 100, 50]
                await port.stopListening()

        runOnce(test)

    def test_notUDP(self, runOnce: Run) -> None:
        """A socket of another protocol is refused."""
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
        except OSError:
            pytest.skip("this kernel has no UDP-Lite")
        with sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(ValueError, match="must be a UDP socket"):
                adopt(runOnce.reactor, sock, Recorder())

    @loopbacks
    def test_resetOptions(self, host: str) -> None:
        """Nothing is left of what adds control messages or changes what is sent, and it can be done again."""
        with bound(host) as sock, udpSocket(host) as client:
            change(sock, *(name for name in OPTIONS if name != "UDP_GRO"), *MISSING)
            sock.settimeout(PATIENCE)
            resetOptions(sock)
            resetOptions(sock)
            sockopt.enablePktinfo(sock, False)
            sockopt.enableRecvHopLimit(sock, False)
            client.sendto(b"hello", sock.getsockname())
            datagram, ancillary, flags, source = sock.recvmsg(100, 1000)
            assert (datagram, ancillary, flags) == (b"hello", [], 0)
            assert sock.sendto(b"x" * 100, source) == 100
            assert client.recv(200) == b"x" * 100
