"""Tests between hosts: several addresses, link-local addresses, broadcast and multicast."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from select import select
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from tests.support.batches import bench, take
from tests.support.guards import needsBatches
from tests.support.hosts import (
    PORT,
    SO_BINDTODEVICE,
    bothFamilies,
    listenOn,
    needsIPv6,
    received,
    socketOn,
    stop,
    until,
)
from tests.support.namespaces import (
    IPV4,
    IPV6,
    LINK_LOCAL_HOST,
    LINK_LOCAL_ROUTER,
    Network,
    Plan,
)
from tests.support.processes import Processes
from tests.support.running import PATIENCE, DetailedRecorder, Run, sleep, udpSocket
from udpecho.client.connect import connect, echo
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService

pytestmark = pytest.mark.namespaces


class SourceAddressTests:
    """The reply leaves from the address the request was sent to: a connected client receives no other."""

    @bothFamilies
    @pytest.mark.parametrize("target", ["server", "second"])
    def test_wildcard(self, net: Network, runOnce: Run, plan: Plan, target: str) -> None:
        """A server on all addresses gets requests at the first and at the second one of its interface."""

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, plan.wildcard, EchoServer())
            assert await echo(reactor, getattr(plan, target), PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @needsIPv6
    def test_bothFamiliesOnOneSocket(self, net: Network, runOnce: Run) -> None:
        """So is one on all addresses of both families."""

        async def test(reactor: Any) -> None:
            peer: Any = net.server.call(listen, reactor, PORT, EchoServer(), "::")
            for plan in (IPV4, IPV6):
                for address in (plan.server, plan.second):
                    assert await echo(reactor, address, PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_addressOfAnotherInterface(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """The router gets a request at the address that it has on its other link."""

        async def test(reactor: Any) -> None:
            peer = listenOn(net.router, reactor, plan.wildcard, EchoServer())
            assert await echo(reactor, plan.far, PORT, b"hello", 10) == 5
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_writtenLater(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """So does a reply that is written later, to the address object that came with the datagram."""

        async def test(reactor: Any) -> None:
            protocol = DetailedRecorder()
            peer = listenOn(net.server, reactor, plan.wildcard, protocol)
            client = await connect(reactor, plan.second, PORT, 10)
            done = client.echo(b"hello")
            await protocol.count(1)
            datagram, address = protocol.datagrams[0]
            assert address.localHost == plan.second
            await sleep(reactor, 0.01)
            peer.write(datagram, address)
            assert await done == 5
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)


@needsIPv6
class LinkLocalTests:
    """Addresses that mean something on one link only."""

    @pytest.mark.parametrize("interface", ["::", f"{LINK_LOCAL_ROUTER}%eth0"], ids=["wildcard", "own"])
    def test_echo(self, net: Network, run: Run, interface: str) -> None:
        """A link-local peer is answered, by a server on all addresses and by one on that address, and the server knows its
        scope.
        """

        async def test(reactor: Any) -> None:
            protocol = DetailedRecorder()
            peer = listenOn(net.router, reactor, interface, protocol)
            client = await connect(reactor, f"{LINK_LOCAL_ROUTER}%eth0", PORT, 10)
            done = client.exchange(b"hello")
            await protocol.count(1)
            datagram, address = protocol.datagrams[0]
            index = net.router.call(socket.if_nametoindex, "eth0")
            assert (address.host, address.scopeID, address.localHost) == (LINK_LOCAL_HOST, index, LINK_LOCAL_ROUTER)
            assert str(address) == f"[{LINK_LOCAL_HOST}%{index}]:{address.port}"
            peer.write(datagram, address)
            assert (await done).peer == (LINK_LOCAL_ROUTER, PORT)
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    def test_sameAddressOnTwoLinks(self, net: Network, run: Run) -> None:
        """Two peers of one address and port, each on its own link, get each its own reply."""

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer = listenOn(net.router, reactor, "::", server)
            clients = [
                await host.call(
                    connect, reactor, f"{LINK_LOCAL_ROUTER}%eth0", PORT, 10, bindAddress=(f"{LINK_LOCAL_HOST}%eth0", 5000)
                )
                for host in (net.client, net.server)
            ]
            for payload in (b"both", b"both again"):
                assert await gatherResults([client.echo(payload) for client in clients]) == [len(payload)] * 2
            for number, client in enumerate(clients):
                assert await client.echo(b"one: %d" % number) == 6
            assert [client.ignored for client in clients] == [0, 0]
            assert (server.counters.received, server.counters.echoed) == (6, 6)
            for client in clients:
                await client.close()
            await stop(peer)

        net.client.call(run, test)

    def test_service(self, net: Network, runOnce: Run) -> None:
        """L{EchoService} serves a link-local address, and its C{addresses} have the scope."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, [f"{LINK_LOCAL_ROUTER}%eth0"])
            net.router.call(service.startService)
            (address,) = service.addresses
            assert (address.host, address.scopeID) == (LINK_LOCAL_ROUTER, net.router.call(socket.if_nametoindex, "eth0"))
            assert await echo(reactor, f"{LINK_LOCAL_ROUTER}%eth0", address.port, b"hello", 10) == 5
            await service.stopService()
            assert (service.counters.received, service.counters.echoed) == (1, 1)

        net.client.call(runOnce, test)

    def test_commands(self, net: Network, processes: Processes) -> None:
        """C{twistd udpecho} serves a link-local address, and C{udpecho send} gets its reply from there, also from an address of
        its own that is named.
        """
        server = net.router.call(processes.server, "--interface", f"{LINK_LOCAL_ROUTER}%eth0")
        ((host, port),) = server.addresses
        assert host.partition("%")[0] == LINK_LOCAL_ROUTER
        index = net.client.call(socket.if_nametoindex, "eth0")
        for scope in ("eth0", str(index)):
            peer = f"[{LINK_LOCAL_ROUTER}%{scope}]:{port}"
            for options in ([], ["--bind", f"{LINK_LOCAL_HOST}%eth0"]):
                sent = net.client.call(processes.run, "udpecho", "send", *options, peer, feed=b"hello")
                assert (sent.status, sent.stderr) == (0, "")
                lines = sent.stdout.splitlines()
                assert lines[0] == "packet-written: bytes=5"
                assert lines[1].startswith(f"packet-received: bytes=5 from=[{LINK_LOCAL_ROUTER}")
        assert server.stop()["echoed"] == 4

    def test_wrongScope(self, net: Network, processes: Processes) -> None:
        """An interface that does not exist is reported in one line."""
        sent = net.client.call(processes.run, "udpecho", "send", f"[{LINK_LOCAL_ROUTER}%eth9]:{PORT}", feed=b"hello")
        assert sent.status == 2
        assert sent.stderr == f"udpecho: this machine has no interface 'eth9' to reach {LINK_LOCAL_ROUTER} by\n"


class BroadcastTests:
    """What was sent to more hosts than one is not answered."""

    def _check(
        self, net: Network, runOnce: Run, interface: str, target: str, datagrams: Callable[[socket.socket], int]
    ) -> None:
        """@param interface: where the router listens.
        @param target: its address, for a request that is answered.
        @param datagrams: sends from a client's socket what is not, and returns how many.
        """

        async def test(reactor: Any) -> None:
            server = EchoServer()
            peer: Any = net.router.call(listen, reactor, PORT, server, interface)
            for group in ("224.0.0.251", "239.1.2.3"):
                if ":" not in interface:
                    membership = socket.inet_aton(group) + socket.inet_aton(IPV4.near)
                    peer.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            with socketOn(net.client, IPV6.client if ":" in target else IPV4.client) as sock:
                sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
                number = datagrams(sock)
                sock.sendto(b"to one", (target, PORT))
                await until(reactor, lambda: server.counters.received == number + 1, "all requests")
                assert sock.recv(100) == b"to one"
                assert received(sock) == []
            assert server.counters.dropped == {"not_allowed": number}
            assert server.counters.echoed == 1
            await stop(peer)

        net.client.call(runOnce, test)

    @pytest.mark.parametrize("interface", ["0.0.0.0", pytest.param("::", marks=needsIPv6)])
    def test_broadcast(self, net: Network, runOnce: Run, interface: str) -> None:
        """Requests to the link's broadcast address and to all ones are counted as C{not_allowed}; the next one is answered."""

        def datagrams(sock: socket.socket) -> int:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for address in ("198.18.1.255", "255.255.255.255"):
                sock.sendto(b"to all", (address, PORT))
            return 2

        net.client.ip(f"address change {IPV4.client}/24 broadcast + dev eth0")
        net.router.ip(f"address change {IPV4.near}/24 broadcast + dev eth0")
        self._check(net, runOnce, interface, IPV4.near, datagrams)

    def test_multicast(self, net: Network, runOnce: Run) -> None:
        """So are requests to a group that the host is in: all hosts, and two that the port has joined."""

        def datagrams(sock: socket.socket) -> int:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(IPV4.client))
            for group in ("224.0.0.1", "224.0.0.251", "239.1.2.3"):
                sock.sendto(b"to many", (group, PORT))
            return 3

        self._check(net, runOnce, "0.0.0.0", IPV4.near, datagrams)

    @needsIPv6
    def test_multicastIPv6(self, net: Network, runOnce: Run) -> None:
        """So are requests to all nodes and all routers of a link."""

        def datagrams(sock: socket.socket) -> int:
            index = socket.if_nametoindex("eth0")
            for group in ("ff02::1", "ff02::2"):
                sock.sendto(b"to many", (group, PORT, 0, index))
            return 2

        self._check(net, runOnce, "::", IPV6.near, datagrams)


@needsIPv6
@needsBatches
class JoinedRepliesTests:
    """Replies over IPv6 that are alike but for one address are not joined into a GSO batch."""

    def test_localAddress(self, net: Network) -> None:
        """Requests of one flow to two local addresses are answered each from the one that was asked."""

        def test() -> None:
            with bench("::", segmentation=True) as bed, udpSocket(IPV6.server) as sock:
                hosts = [IPV6.server] * 3 + [IPV6.second] * 3
                for host in hosts:
                    sock.sendto(b"hello", (host, bed.sock.getsockname()[1]))
                assert bed.receive() == len(hosts)
                asked = bed.limitCalls([])
                bed.send()
                assert asked == [2]
                assert [sock.recvfrom(100)[1][0] for _ in hosts] == hosts

        net.server.call(test)

    def test_source(self, net: Network) -> None:
        """Requests from one port of two hosts go back each to its own."""

        def test() -> None:
            with bench("::", segmentation=True) as bed, udpSocket(IPV6.server) as one:
                port = one.getsockname()[1]
                with udpSocket(IPV6.second, port) as other:
                    for number, sock in enumerate([one] * 3 + [other] * 3):
                        sock.sendto(bytes([number]), (IPV6.server, bed.sock.getsockname()[1]))
                    assert bed.receive() == 6
                    bed.send()
                    assert (take(one, 3), take(other, 3)) == ([b"\0", b"\1", b"\2"], [b"\3", b"\4", b"\5"])

        net.server.call(test)

    def test_scope(self, net: Network) -> None:
        """Requests from one link-local address and port on two links go back each over its own."""
        with ExitStack() as stack:
            bed = net.router.call(lambda: stack.enter_context(bench("::", segmentation=True)))
            number = bed.sock.getsockname()[1]

            def client(port: int) -> socket.socket:
                sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                sock.settimeout(PATIENCE)
                scope = socket.if_nametoindex("eth0")
                sock.bind((LINK_LOCAL_HOST, port, 0, scope))
                sock.connect((LINK_LOCAL_ROUTER, number, 0, scope))
                return sock

            def answer(count: int) -> None:
                while count:
                    assert select([bed.sock], [], [], PATIENCE)[0], "nothing came"
                    count -= bed.receive()
                    bed.send()

            one = net.client.call(client, 0)
            other = net.server.call(client, one.getsockname()[1])
            # When each side knows the other's link address, datagrams arrive while they are sent.
            for sock in (one, other):
                sock.send(b"first")
                answer(1)
                assert take(sock, 1) == [b"first"]
            for value, sock in enumerate([one] * 3 + [other] * 3):
                sock.send(bytes([value]))
            answer(6)
            assert (take(one, 3), take(other, 3)) == ([b"\0", b"\1", b"\2"], [b"\3", b"\4", b"\5"])
