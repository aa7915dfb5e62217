"""Tests between hosts: a connected port goes on when the addresses, routes or interfaces of its machine change."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.hosts import PORT, bothFamilies, listenOn, needsIPv6, stop, until
from tests.support.namespaces import IPV4, LINK_LOCAL_HOST, LINK_LOCAL_ROUTER, Network, Plan
from tests.support.running import PATIENCE, Recorder, Run, openSockets, sleep
from udpecho.client.connect import connect
from udpecho.client.protocol import EchoClient
from udpecho.errors import EchoError, HostUnreachable, ResponseTimeout
from udpecho.net import connection, former
from udpecho.server.protocol import EchoServer

pytestmark = pytest.mark.namespaces


class Sources(EchoServer):
    """Echoes, and keeps the source of each datagram."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def datagramsReceived(self, batch: Any) -> None:
        self.seen += [batch.address(entry).host for entry in range(batch.entries)]
        super().datagramsReceived(batch)


@implementer(ILogObserver)
class Log:
    """The lines about sockets that were opened again."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __enter__(self) -> Log:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: Any) -> None:
        if event.get("log_namespace") == "udpecho.net.connection":
            self.lines.append(event["log_format"].format(**event))


async def answered(reactor: Any, client: EchoClient) -> list[EchoError]:
    """Send until there is an answer.

    @return: what the attempts before it have failed with.
    """
    failures: list[EchoError] = []
    deadline = reactor.seconds() + PATIENCE / 2
    while True:
        try:
            await client.echo(b"hello", 0.3)
        except EchoError as e:
            failures.append(e)
            assert reactor.seconds() < deadline, failures
            await sleep(reactor, 0.05)
        else:
            return failures


def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare before each datagram."""
    monkeypatch.setattr(connection, "QUIET", 0.0)
    monkeypatch.setattr(connection, "PAUSE", 0.0)


def other(address: str) -> str:
    """Another address of the same network."""
    return address[:-1] + "3"


class RenewalTests:
    """What C{connect(2)} has chosen is chosen again."""

    @bothFamilies
    def test_address(self, net: Network, run: Run, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        """The address of the machine changes: the client sends from the new one, and the log has a line."""
        monkeypatch.setattr(former, "KEPT", 0.1)

        async def test(reactor: Any) -> None:
            server = Sources()
            peer = listenOn(net.server, reactor, plan.server, server)
            client = await connect(reactor, plan.server, PORT)
            assert await client.echo(b"hello") == 5
            before = len(openSockets())
            net.client.ip(f"address del {plan.client}/{plan.prefix} dev eth0")
            net.client.take(f"{other(plan.client)}/{plan.prefix}")
            net.client.ip(f"route replace {plan.site} via {plan.near}")
            with Log() as log:
                assert len(await answered(reactor, client)) < 10
                assert await answered(reactor, client) == []
            assert server.seen[0] == plan.client
            assert server.seen[-1] == other(plan.client)
            await until(reactor, lambda: len(openSockets()) == before, "the former socket is kept")
            (line,) = log.lines
            assert f" {other(plan.client)}:" in line.replace("[", "").replace("]", "")
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_route(self, net: Network, runOnce: Run, plan: Plan) -> None:
        """The route moves to another interface, and nothing gets back to the address of the first: it sends from the second."""
        near = plan.near.replace("18.1.", "18.3.").replace("fd00:1:", "fd00:3:")
        own = plan.client.replace("18.1.", "18.3.").replace("fd00:1:", "fd00:3:")
        net.client.ip(f"link add eth1 type veth peer name eth2 netns {net.router.name}", "link set eth1 up")
        net.router.ip("link set eth2 up")
        net.router.take(f"{near}/{plan.prefix}", "eth2")
        net.client.take(f"{own}/{plan.prefix}", "eth1")

        async def test(reactor: Any) -> None:
            server = Sources()
            peer = listenOn(net.server, reactor, plan.server, server)
            client = await connect(reactor, plan.server, PORT)
            assert await client.echo(b"hello") == 5
            net.client.ip(f"route del {plan.site} via {plan.near}", f"route add {plan.site} via {near}")
            net.router.ip(f"route add blackhole {plan.client}/{128 if ':' in near else 32}")
            assert {type(e) for e in await answered(reactor, client)} <= {ResponseTimeout}
            assert server.seen[-1] == own
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_interfaceAnew(self, net: Network, run: Run, plan: Plan) -> None:
        """The interface is made anew, with its addresses: what was sent meanwhile has failed, what is sent then is answered."""

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, plan.server, EchoServer())
            client = await connect(reactor, plan.server, PORT)
            assert await client.echo(b"hello") == 5
            net.client.ip("link del eth0")
            with pytest.raises(HostUnreachable):
                await client.echo(b"hello", 10)
            rebuild(net, [plan])
            net.client.ip(f"route add {plan.site} via {plan.near}")
            await answered(reactor, client)
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    @needsIPv6
    def test_linkLocal(self, net: Network, run: Run) -> None:
        """So it is for a link-local peer: the interface has its name, and another index."""

        async def test(reactor: Any) -> None:
            client = await connect(reactor, f"{LINK_LOCAL_ROUTER}%eth0", PORT, bindAddress=(f"{LINK_LOCAL_HOST}%eth0", 4567))
            peer = listenOn(net.router, reactor, "::", EchoServer())
            assert await client.echo(b"hello") == 5
            net.client.ip("link del eth0")
            with pytest.raises(HostUnreachable):
                await client.echo(b"hello", 10)
            rebuild(net, [])
            await answered(reactor, client)
            transport: Any = client.transport
            assert transport.getHost().port == 4567
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    @bothFamilies
    def test_boundAddressGone(self, net: Network, run: Run, plan: Plan) -> None:
        """The local address that the caller has chosen is gone: calls fail by name, until it is there again."""

        async def test(reactor: Any) -> None:
            server = Sources()
            peer = listenOn(net.server, reactor, plan.server, server)
            client = await connect(reactor, plan.server, PORT, bindAddress=(plan.client, 4568))
            assert await client.echo(b"hello") == 5
            net.client.ip(f"address del {plan.client}/{plan.prefix} dev eth0")
            net.client.take(f"{other(plan.client)}/{plan.prefix}")
            net.client.ip(f"route replace {plan.site} via {plan.near}")
            found: list[Any] = []

            async def fails() -> bool:
                try:
                    await client.echo(b"hello", 0.3)
                except HostUnreachable as e:
                    found.append(e)
                    return True
                except ResponseTimeout:
                    await sleep(reactor, 0.05)
                return False

            while not await fails():
                pass
            assert await fails(), "it fails again"
            assert found[-1].errno in (errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EINVAL)
            net.client.take(f"{plan.client}/{plan.prefix}")
            await answered(reactor, client)
            assert server.seen[-1] == plan.client
            await client.close()
            await stop(peer)

        net.client.call(run, test)

    def test_nothingChanged(self, net: Network, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that is silent costs no socket: nothing is opened again, and a late reply is no loss of ours."""
        always(monkeypatch)

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            peer = listenOn(net.server, reactor, IPV4.server, protocol)
            client = await connect(reactor, IPV4.server, PORT)
            transport: Any = client.transport
            sock = transport.socket
            first = client.echo(b"first", PATIENCE)
            others = [client.echo(b"other", PATIENCE) for _ in range(20)]
            await protocol.count(21)
            assert transport.socket is sock
            peer.write(*protocol.datagrams[0])
            assert await first == 5
            await client.close()
            for call in others:
                call.addErrback(lambda _: None)
            await stop(peer)

        net.client.call(runOnce, test)

    def test_otherNamespace(self, net: Network, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A socket that was opened in another network namespace is left as it is."""
        always(monkeypatch)

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, IPV4.server, EchoServer())
            client = await net.client.call(connect, reactor, IPV4.server, PORT)
            assert await answered(reactor, client) == []
            await client.close()
            await stop(peer)

        net.server.call(runOnce, test)

    @bothFamilies
    def test_queued(self, net: Network, runOnce: Run, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reply that is queued when the socket is replaced is not lost."""
        always(monkeypatch)

        async def test(reactor: Any) -> None:
            peer = listenOn(net.server, reactor, plan.server, EchoServer())
            client = await connect(reactor, plan.server, PORT)
            transport: Any = client.transport
            transport.stopReading()
            first = client.echo(b"first", PATIENCE)
            await until(reactor, lambda: _isQueued(transport.socket), "no reply comes")
            net.client.ip(f"address add {other(plan.client)}/{plan.prefix} dev eth0{' nodad' if ':' in plan.client else ''}")
            net.client.ip(f"route replace {plan.site} via {plan.near} src {other(plan.client)}")
            sock = transport.socket
            second: Any = client.echo(b"second", PATIENCE)
            assert transport.socket is not sock
            transport.startReading()
            assert not isinstance(await first, Failure)
            assert await second == 6
            await client.close()
            await stop(peer)

        net.client.call(runOnce, test)

    @bothFamilies
    def test_onItsWay(self, net: Network, run: Run, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reply that is on its way when the route moves, and the socket is replaced, is not lost. Closing closes both."""
        always(monkeypatch)

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            peer = listenOn(net.server, reactor, plan.server, protocol)
            client = await connect(reactor, plan.server, PORT)
            first = client.echo(b"first", PATIENCE)
            await protocol.count(1)
            net.client.ip(f"address add {other(plan.client)}/{plan.prefix} dev eth0{' nodad' if ':' in plan.client else ''}")
            net.client.ip(f"route replace {plan.site} via {plan.near} src {other(plan.client)}")
            second = client.echo(b"second", PATIENCE)
            await protocol.count(2)
            assert [address[0] for _, address in protocol.datagrams] == [plan.client, other(plan.client)]
            for datagram, address in protocol.datagrams:
                peer.write(datagram, address)
            assert [await first, await second] == [5, 6]
            await client.close()
            await stop(peer)

        net.client.call(run, test)


def rebuild(net: Network, plans: list[Plan]) -> None:
    """Make the client's interface anew, after it was deleted."""
    net.client.ip(f"link add eth0 type veth peer name eth0 netns {net.router.name}", "link set eth0 addrgenmode none up")
    net.router.ip("link set eth0 addrgenmode none up")
    for plan in plans:
        net.router.ip(f"address add {plan.near}/{plan.prefix} dev eth0")
        net.client.ip(f"address add {plan.client}/{plan.prefix} dev eth0")
    if not plans:
        net.router.ip(f"address add {LINK_LOCAL_ROUTER}/64 dev eth0")
        net.client.ip(f"address add {LINK_LOCAL_HOST}/64 dev eth0")
    for host in (net.client, net.router):
        host.waitUntilReady()


def _isQueued(sock: Any) -> bool:
    try:
        sock.recv(1, 2)
    except BlockingIOError:
        return False
    return True
