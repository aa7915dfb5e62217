"""Tests of L{udpecho.net.reuseport}."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.task import Clock

from tests.support.guards import needsIPv6, needsSharing, onlyLinux
from tests.support.running import DetailedRecorder, Recorder, Run, hasIPv6, openSockets, udpSocket
from udpecho.net.open import adopt, listen
from udpecho.net.reuseport import SocketGroup
from udpecho.net.sockets import hasQueued


@pytest.fixture
def group() -> Iterator[SocketGroup]:
    """Three sockets on one address."""
    made = SocketGroup(0, "127.0.0.1", 3)
    yield made
    made.close()


def queued(sock: socket.socket) -> int:
    """Take all datagrams that are queued on a socket."""
    number = 0
    while True:
        try:
            sock.recv(100)
        except BlockingIOError:
            return number
        number += 1


@needsSharing
class SocketGroupTests:
    """L{SocketGroup}."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", *(["::1", "::"] if hasIPv6() else [])])
    def test_shares(self, host: str) -> None:
        """Each socket gets some of the flows, and a flow keeps to its socket; nothing is lost, in either family."""
        group = SocketGroup(0, host, 3)
        port = group.getHost().port
        assert group.getHost().host == host
        to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        with ExitStack() as stack:
            flows = [stack.enter_context(udpSocket(to)) for _ in range(60)]
            shares = []
            for _ in range(2):
                for flow in flows:
                    flow.sendto(b"hello", (to, port))
                shares.append([queued(sock) for sock in group.sockets])
        group.close()
        assert shares[0] == shares[1]
        assert sum(shares[0]) == 60
        assert all(shares[0])

    def test_addresses(self, group: SocketGroup) -> None:
        """All are on the address that it reports; closed, they are closed."""
        host = group.getHost()
        sockets = group.sockets
        assert {sock.getsockname() for sock in sockets} == {(host.host, host.port)}
        group.close()
        assert {sock.fileno() for sock in sockets} == {-1}
        group.close()
        with udpSocket(host.host, host.port):
            pass

    def test_alone(self, group: SocketGroup) -> None:
        """An address that another group has is refused, and so is one that any other socket has; nothing is left open."""
        number = group.getHost().port
        before = openSockets()
        with pytest.raises(error.CannotListenError) as caught:
            SocketGroup(number, "127.0.0.1", 2)
        assert (caught.value.interface, caught.value.port) == ("127.0.0.1", number)
        assert caught.value.socketError.errno == errno.EADDRINUSE
        with udpSocket() as taken, pytest.raises(error.CannotListenError):
            SocketGroup(taken.getsockname()[1], "127.0.0.1", 2)
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)), udpSocket("127.0.0.1", number):
            pass
        assert openSockets() == before

    def test_wrongAddress(self) -> None:
        """A name is no address."""
        with pytest.raises(error.InvalidAddressError):
            SocketGroup(0, "localhost", 2)

    @needsIPv6
    def test_bothFamilies(self) -> None:
        """All of IPv6 is nothing of IPv4: both go together."""
        four = SocketGroup(0, "0.0.0.0", 2)
        six = SocketGroup(four.getHost().port, "::", 2)
        assert (four.getHost().host, six.getHost().host) == ("0.0.0.0", "::")
        assert four.getHost().port == six.getHost().port
        for group in (four, six):
            group.close()

    def test_receiveBuffer(self) -> None:
        """A receive buffer is requested for each socket."""
        group = SocketGroup(0, "127.0.0.1", 2, receiveBuffer=50_000)
        assert group.getReceiveBuffer() == 50_000
        assert {sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in group.sockets} == {100_000}
        group.close()

    def test_kernelDrops(self) -> None:
        """What the kernel dropped is reported of all sockets together, and what is queued of one."""
        group = SocketGroup(0, "127.0.0.1", 2, receiveBuffer=4096)
        assert [hasQueued(sock) for sock in group.sockets] == [False, False]
        with udpSocket() as sock:
            for _ in range(100):
                sock.sendto(bytes(500), ("127.0.0.1", group.getHost().port))
        assert sorted(map(hasQueued, group.sockets)) == [False, True]
        assert group.getKernelDrops() == 100 - sum(queued(sock) for sock in group.sockets)
        group.close()


class AdoptTests:
    """L{adopt}."""

    def test_listens(self, run: Run) -> None:
        """What is queued already is received, a reply goes out, and the socket stays its owner's when the port is closed."""

        async def test(reactor: Any) -> None:
            with udpSocket() as sock, udpSocket() as peer:
                peer.sendto(b"early", sock.getsockname())
                recorder = Recorder()
                port = adopt(reactor, sock, recorder)
                await recorder.count(1)
                assert recorder.datagrams == [(b"early", peer.getsockname())]
                assert port.getHost().port == sock.getsockname()[1]
                port.write(b"reply", peer.getsockname())
                assert peer.recv(100) == b"reply"
                await port.stopListening()
                peer.sendto(b"late", sock.getsockname())
                assert sock.recv(100) == b"late"

        run(test)

    @onlyLinux
    @needsSharing
    def test_earlyDestination(self, runOnce: Run) -> None:
        """What came to a group on all addresses before anybody read is answered from the address it was sent to."""

        async def test(reactor: Any) -> None:
            group = SocketGroup(0, "0.0.0.0", 1)
            with udpSocket() as peer:
                peer.sendto(b"early", ("127.0.0.2", group.getHost().port))
                recorder = DetailedRecorder()
                port = adopt(reactor, group.sockets[0], recorder)
                await recorder.count(1)
                address = recorder.datagrams[0][1]
                assert (address.localHost, address.unicast) == ("127.0.0.2", True)
                port.write(b"reply", address)
                assert peer.recvfrom(100) == (b"reply", ("127.0.0.2", group.getHost().port))
            await port.stopListening()
            group.close()

        runOnce(test)

    def test_wrong(self, runOnce: Run) -> None:
        """What is no bound UDP socket is refused with a sentence; so is a reactor without sockets."""
        reactor: Any = runOnce.reactor
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="must be bound"):
            adopt(reactor, sock, Recorder())
        with socket.socket() as sock, pytest.raises(ValueError, match="must be a UDP socket"):
            adopt(reactor, sock, Recorder())
        clock: Any = Clock()
        with udpSocket() as sock, pytest.raises(TypeError, match="reactor must provide IReactorFDSet"):
            adopt(clock, sock, Recorder())

    def test_failure(self, runOnce: Run) -> None:
        """If the protocol will not have it, the duplicate is closed."""

        class Unwilling(Recorder):
            def startProtocol(self) -> None:
                raise RuntimeError("no")

        with udpSocket() as sock:
            before = openSockets()
            with pytest.raises(RuntimeError):
                adopt(runOnce.reactor, sock, Unwilling())
            assert openSockets() == before

    def test_asListen(self, runOnce: Run) -> None:
        """A port that was adopted is of the same class as one that was listened on."""

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                adopted, own = adopt(reactor, sock, Recorder()), listen(reactor, 0, Recorder())
                assert type(adopted) is type(own)
                await adopted.stopListening()
                await own.stopListening()

        runOnce(test)
