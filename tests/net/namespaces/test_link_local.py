"""Tests of link-local addresses on one side of an exchange or on both, on hosts with several interfaces."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.batches import sendSegments
from tests.support.hosts import PORT, needsIPv6, socketOn, until
from tests.support.namespaces import IPV4, IPV6, LINK_LOCAL_HOST, LINK_LOCAL_ROUTER, Host, Network
from tests.support.ports import path as path
from tests.support.ports import script
from tests.support.processes import Processes
from tests.support.running import Run
from tests.support.server import check
from udpecho.net.linux.sockopt import enableRecvHopLimit
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer

pytestmark = pytest.mark.namespaces

#: Links of the router: its interface, and the host at the other end.
LINKS = (("eth0", "client"), ("eth1", "server"))


async def exchange(reactor: Any, server: EchoServer, sock: socket.socket, *payloads: bytes) -> None:
    """Send datagrams through a connected socket, which receives from that address only, and get the same ones back."""
    for payload in payloads:
        before = server.counters.received
        sock.send(payload)
        await until(reactor, lambda before=before: server.counters.received > before, "the request comes")  # type: ignore[misc]
    await until(reactor, lambda: not server.counters.waiting, "the replies leave")
    check(server.counters)
    assert not server.counters.dropped
    assert [sock.recv(65535) for _ in payloads] == list(payloads)


def closing(test: Callable[[Any, ExitStack], Coroutine[Any, Any, None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Have a test close its sockets."""

    async def run(reactor: Any) -> None:
        with ExitStack() as stack:
            await test(reactor, stack)

    return run


def connectedSocket(stack: ExitStack, host: Host, source: str, target: str, interface: str = "eth0") -> socket.socket:
    """A socket of a host that is connected to L{PORT} of another one."""

    def make() -> socket.socket:
        sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        scope = socket.if_nametoindex(interface)
        sock.settimeout(10)
        for address, port, act in ((source, 0, sock.bind), (target, PORT, sock.connect)):
            act((address, port, 0, scope if address.startswith("fe80") else 0))
        return sock

    return host.call(make)


@needsIPv6
class LinkLocalTests:
    """A server on C{"::"} of the router answers from the address that was asked, by the interface that the request came by."""

    @pytest.mark.parametrize("both", [False, True], ids=["IPv6", "both"])
    def test_mixed(self, net: Network, runOnce: Run, path: str, both: bool) -> None:
        """A global source asks a link-local address, a link-local one a global address, and each its own kind, on each link."""

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, "::", ipv6Only=not both, decrementHopLimit=True)
            for number, (_, role) in enumerate(LINKS):
                host, source = getattr(net, role), (IPV6.client, IPV6.server)[number]
                for one in (source, LINK_LOCAL_HOST):
                    for target in (LINK_LOCAL_ROUTER, (IPV6.near, IPV6.far)[number]):
                        sock = connectedSocket(stack, host, one, target)
                        assert enableRecvHopLimit(sock)
                        await exchange(reactor, server, sock, b"one", b"two")
            await port.stopListening()

        runOnce(closing(test))

    def test_segments(self, net: Network, runOnce: Run, path: str) -> None:
        """So are GRO batches, and datagrams of one flow that are joined."""

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, "::", ipv6Only=True)
            for number, (_, role) in enumerate(LINKS):
                source = (IPV6.client, IPV6.server)[number]
                sock = connectedSocket(stack, getattr(net, role), source, LINK_LOCAL_ROUTER)
                await exchange(reactor, server, sock, b"first")
                before = server.counters.received
                sendSegments(sock, bytes(250), 100)
                for _ in range(8):
                    sock.send(b"alike")
                await until(reactor, lambda before=before: server.counters.received == before + 11, "all come")  # type: ignore[misc]
                assert sorted(len(sock.recv(1000)) for _ in range(11)) == [5] * 8 + [50, 100, 100]
            assert not server.counters.dropped
            await port.stopListening()

        runOnce(closing(test))

    def test_fullQueue(self, net: Network, runOnce: Run, path: str) -> None:
        """So are those whose replies wait for the send queue."""

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, "::", ipv6Only=True)
            sock = connectedSocket(stack, net.server, IPV6.server, LINK_LOCAL_ROUTER)
            failing = script(port, sends=[errno.EAGAIN] * 2)
            await exchange(reactor, server, sock, b"late")
            assert not failing.sends
            await port.stopListening()

        runOnce(closing(test))

    def test_workers(self, net: Network, processes: Processes) -> None:
        """So do workers."""
        server = net.router.call(processes.server, "--interface", "::", "--workers", "2", "--allow", "::/0")
        number = next(port for host, port in server.addresses if ":" in host)
        with ExitStack() as stack:
            for _, role in LINKS:
                source = IPV6.client if role == "client" else IPV6.server
                for _ in range(4):
                    sock = stack.enter_context(socketOn(getattr(net, role), source))
                    scope = getattr(net, role).call(socket.if_nametoindex, "eth0")
                    sock.connect((LINK_LOCAL_ROUTER, number, 0, scope))
                    sock.send(b"hello")
                    assert sock.recv(100) == b"hello"
        assert server.stop()["echoed"] == 8

    def test_ownAddress(self, net: Network, runOnce: Run, path: str) -> None:
        """So does the host itself, from one of its interfaces."""

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, "::", ipv6Only=True)
            for (interface, _), source in zip(LINKS, (IPV6.near, IPV6.far)):
                for one in (source, LINK_LOCAL_ROUTER):
                    sock = connectedSocket(stack, net.router, one, LINK_LOCAL_ROUTER, interface)
                    await exchange(reactor, server, sock, b"hello")
            await port.stopListening()

        runOnce(closing(test))


class LinkLocalIPv4Tests:
    """169.254/16 (RFC 3927) on two interfaces, of which the routing table knows one."""

    @pytest.mark.parametrize("interface", ["0.0.0.0", "169.254.1.1"])
    def test_twoLinks(self, net: Network, runOnce: Run, path: str, interface: str) -> None:
        """Clients on both links get their replies, and so does the host itself."""
        for link, role in LINKS:
            net.router.take("169.254.1.1/16", link)
            getattr(net, role).take(f"169.254.{2 + LINKS.index((link, role))}.1/16")

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, interface)
            for host, source in ((net.client, "169.254.2.1"), (net.server, "169.254.3.1"), (net.router, "169.254.1.1")):
                sock = stack.enter_context(socketOn(host, source))
                sock.connect(("169.254.1.1", PORT))
                await exchange(reactor, server, sock, b"one", b"two")
            await port.stopListening()

        runOnce(closing(test))

    def test_globalPeer(self, net: Network, runOnce: Run, path: str) -> None:
        """A global peer of a link-local address, wherever that is, is answered by the route to it."""
        net.router.ip("address add 169.254.9.9/32 dev lo")
        net.client.ip(f"route add 169.254.9.9 via {IPV4.near}")

        async def test(reactor: Any, stack: ExitStack) -> None:
            server = EchoServer()
            port: Any = net.router.call(listen, reactor, PORT, server, "0.0.0.0")
            sock = stack.enter_context(socketOn(net.client, IPV4.client))
            sock.connect(("169.254.9.9", PORT))
            await exchange(reactor, server, sock, b"one", b"two")
            await port.stopListening()

        runOnce(closing(test))
