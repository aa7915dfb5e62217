"""Tests of L{udpecho.server.service} on sockets that somebody else has bound."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import error

from tests.support.descriptors import noDescriptors
from tests.support.guards import needsIPv6, onlyLinux
from tests.support.running import Run, sleep, udpSocket
from tests.support.server import Lines
from udpecho.client.connect import echo
from udpecho.net.linux import cmsg, sockopt
from udpecho.server.service import EchoService


class SocketsTests:
    """L{EchoService} on sockets that it did not bind."""

    @needsIPv6
    def test_serves(self, run: Run, lines: Lines) -> None:
        """It answers on them all, also what came before it was started, and can be started again: they stay open."""

        async def test(reactor: Any) -> None:
            with udpSocket() as four, udpSocket("::1") as six, udpSocket() as peer:
                addresses = [sock.getsockname()[:2] for sock in (four, six)]
                service = EchoService(reactor, sockets=[four, six])
                for round_ in (1, 2):
                    peer.sendto(b"early", addresses[0])
                    service.privilegedStartService()
                    service.startService()
                    assert service.addresses == addresses
                    for host, port in addresses:
                        assert await echo(reactor, host, port, b"hello") == 5
                    assert peer.recv(100) == b"early"
                    await service.stopService()
                    assert lines.texts[-1].startswith(f"stopped: received={3 * round_} echoed={3 * round_} ")

        run(test)

    @needsIPv6
    def test_bothFamilies(self, run: Run) -> None:
        """On a socket that serves both families IPv4 is guarded and answered too, with one hop less; so is each segment of
        GRO, which the socket's owner enabled.
        """

        async def test(reactor: Any) -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as both, udpSocket() as peer:
                both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                both.bind(("::", 0))
                sockopt.enableGRO(both)
                service = EchoService(reactor, sockets=[both])
                service.startService()
                port = both.getsockname()[1]
                for host in ("127.0.0.1", "127.0.0.2", "::1"):
                    assert await echo(reactor, host, port, b"hello") == 5
                assert sockopt.enableRecvHopLimit(peer)
                peer.connect(("127.0.0.1", port))
                for hops in (1, 9):
                    peer.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    peer.sendmsg([bytes(250)], cmsg.replyControls(False, None, None, 100))
                while service.counters.received < 9:
                    await sleep(reactor, 0.01)
                for size in (100, 100, 50):
                    payload, ((_, _, hopLimit), *_), _, _ = peer.recvmsg(1000, 100)
                    assert (len(payload), int.from_bytes(hopLimit, "little")) == (size, 8)
                await service.stopService()
                assert service.counters.dropped == {"loop_guard": 3}

        run(test)

    @onlyLinux
    def test_noDescriptor(self, runOnce: Run) -> None:
        """Without a descriptor for its duplicate, a socket is refused as an address is."""
        with udpSocket() as sock:
            service = EchoService(runOnce.reactor, sockets=[sock])
            with noDescriptors(), pytest.raises(error.CannotListenError, match="Too many open files") as caught:
                service.privilegedStartService()
            assert (caught.value.interface, caught.value.port) == sock.getsockname()

    def test_wrong(self, runOnce: Run) -> None:
        """None, unbound ones, interfaces in addition, and several workers, are refused with a sentence."""
        with pytest.raises(ValueError, match=r"sockets must have a socket, got \[\]"):
            EchoService(runOnce.reactor, sockets=[])
        with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="must be bound"):
            EchoService(runOnce.reactor, sockets=[sock])
        with udpSocket() as sock:
            with pytest.raises(ValueError, match="interfaces must be left out with sockets"):
                EchoService(runOnce.reactor, 0, ["127.0.0.1"], sockets=[sock])
            with pytest.raises(ValueError, match="sockets must be left out with several workers"):
                EchoService(runOnce.reactor, sockets=[sock], workers=2)
