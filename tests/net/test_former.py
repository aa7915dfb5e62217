"""Tests of L{udpecho.net.former} and L{udpecho.net.connection}; those where routes move are in C{namespaces}."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.running import CuriousRecorder, Run, openSockets, sleep, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.net import former as module
from udpecho.net.connection import Connection
from udpecho.net.open import dial


def replaced(reactor: Any, protocol: CuriousRecorder, peer: socket.socket) -> tuple[Any, socket.socket]:
    """A port whose socket was replaced, and the former one."""
    address = DatagramAddress(peer.getsockname())
    port: Any = dial(reactor, protocol, address)
    before: socket.socket = port.socket
    port._replaceSocket(Connection(address).open())
    assert port.socket is not before
    return port, before


class FormerSocketTests:
    """What comes to a port's former socket."""

    def test_time(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is closed after a time; until then the protocol has what comes."""
        monkeypatch.setattr(module, "KEPT", 0.1)

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            with udpSocket() as peer:
                port, before = replaced(reactor, protocol, peer)
                peer.sendto(b"late", before.getsockname())
                await protocol.count(1)
                while before.fileno() >= 0:
                    await sleep(reactor)
                port.write(b"hello")
                peer.sendto(*peer.recvfrom(100))
                await protocol.count(2)
                assert [datagram for datagram, _ in protocol.datagrams] == [b"late", b"hello"]
                port.abort()

        run(test)

    def test_error(self, run: Run) -> None:
        """An error there closes it, and the protocol is not notified; the port goes on."""

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            with udpSocket() as peer:
                port, before = replaced(reactor, protocol, peer)
                # Nothing listens at the peer's port of another address.
                before.connect(("127.0.0.9", peer.getsockname()[1]))
                before.send(b"refused")
                while before.fileno() >= 0:
                    await sleep(reactor)
                assert (protocol.refusals, protocol.errors) == (0, [])
                port.write(b"hello")
                peer.sendto(*peer.recvfrom(100))
                await protocol.count(1)
                port.abort()

        run(test)

    def test_unwanted(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the protocol wants nothing, what comes is kept, within a bound."""
        monkeypatch.setattr(module, "MAX_BACKLOG", 3)

        async def test(reactor: Any) -> None:
            protocol = CuriousRecorder()
            with udpSocket() as peer:
                port, before = replaced(reactor, protocol, peer)
                port.stopReading()
                for number in range(3):
                    peer.sendto(b"%d" % number, before.getsockname())
                while before.fileno() >= 0:
                    await sleep(reactor)
                assert protocol.datagrams == []
                port.startReading()
                await protocol.count(3)
                port.abort()

        runOnce(test)


class ConnectionTests:
    """L{Connection}."""

    def test_closedSocket(self) -> None:
        """A comparison with a socket that cannot be asked leaves none open."""
        with udpSocket() as peer:
            connection = Connection(DatagramAddress(peer.getsockname()))
            sock = connection.open()
            sock.close()
            before = openSockets()
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                connection.renew(sock)
            assert openSockets() == before
            del caught
