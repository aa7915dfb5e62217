"""Tests of L{udpecho.faults.upstream}, and of the proxy as far as its upstream changes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.logger import capturedLogs, formatEvent

from tests.support.client import Outcome
from tests.support.descriptors import noDescriptors
from tests.support.guards import needsIPv6
from tests.support.namespaces import Network, network
from tests.support.running import PATIENCE, Run, sleep, udpSocket, unusedPort
from tests.support.transports import Resolver, ResolvingClock
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import connect
from udpecho.errors import EchoError
from udpecho.faults import carrier
from udpecho.faults import proxy as module
from udpecho.faults.proxy import FaultProxy
from udpecho.faults.upstream import Upstream
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer

OWN = "10.97.0.1"


@pytest.fixture
def net() -> Iterator[Network]:
    """A network for one test."""
    with network() as made:
        yield made


async def until(reactor: Any, condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = reactor.seconds() + PATIENCE / 2
    while not condition():
        assert reactor.seconds() < deadline, what
        await sleep(reactor, 0.005)


def send(proxy: FaultProxy, count: int = 1, host: str = "127.0.0.1") -> None:
    """Send from as many new clients."""
    for _ in range(count):
        with udpSocket(host) as sock:
            sock.sendto(b"hello", (host, proxy.address[1]))


@pytest.mark.namespaces
class SelfTests:
    """An upstream that is the proxy itself."""

    @pytest.mark.parametrize(
        ("interface", "upstream"),
        [
            ("0.0.0.0", OWN),
            ("0.0.0.0", "127.0.0.9"),
            ("0.0.0.0", "0.0.0.0"),
            ("127.0.0.1", "0.0.0.0"),
            (OWN, OWN),
            pytest.param("::", OWN, marks=needsIPv6),
            pytest.param("::", f"::ffff:{OWN}", marks=needsIPv6),
            pytest.param(OWN, f"::ffff:{OWN}", marks=needsIPv6),
            pytest.param("::", "fd97::1", marks=needsIPv6),
            pytest.param("::", "0:0:0:0:0:0:0:1", marks=needsIPv6),
            pytest.param("::1", "::", marks=needsIPv6),
        ],
    )
    @pytest.mark.parametrize("nonlocalBind", [0, 1])
    def test_refused(self, net: Network, runOnce: Run, interface: str, upstream: str, nonlocalBind: int) -> None:
        """It is refused at the start."""
        self.own(net, nonlocalBind)

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, (upstream, 9000))
            with pytest.raises(ValueError, match=r"^upstream must not be the proxy itself, got \S+:9000$"):
                proxy.start(9000, interface)

        net.client.call(runOnce, test)

    @pytest.mark.parametrize(
        ("interface", "upstream", "port"),
        [
            ("0.0.0.0", OWN, 9001),
            ("0.0.0.0", "198.18.2.1", 9000),
            (OWN, "127.0.0.1", 9000),
            ("127.0.0.1", "127.0.0.2", 9000),
            pytest.param("0.0.0.0", "fd97::1", 9000, marks=needsIPv6),
        ],
    )
    @pytest.mark.parametrize("nonlocalBind", [0, 1])
    def test_ordinary(self, net: Network, runOnce: Run, interface: str, upstream: str, port: int, nonlocalBind: int) -> None:
        """A server on the same machine, or one with the same port elsewhere, is none of it."""
        self.own(net, nonlocalBind)

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, (upstream, port))
            proxy.start(9000, interface)
            proxy.stop()

        net.client.call(runOnce, test)

    def own(self, net: Network, nonlocalBind: int) -> None:
        net.client.ip(f"address add {OWN}/32 dev lo", "address add fd97::1/128 dev lo nodad")
        net.client.configure(f"net.ipv4.ip_nonlocal_bind={nonlocalBind}", f"net.ipv6.ip_nonlocal_bind={nonlocalBind}")

    def test_becomesOwn(self, net: Network, runOnce: Run) -> None:
        """An address that becomes this machine's own later gets nothing: each datagram is counted, and none goes round."""

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, (OWN, 9000))
            proxy.start(9000, "0.0.0.0")
            net.client.ip(f"address add {OWN}/32 dev lo")
            send(proxy, 3)
            await until(reactor, lambda: proxy.up.datagrams == 3, "the datagrams")
            assert proxy.up.outcomes["loop_guard"] == 3
            proxy.stop()

        net.client.call(runOnce, test)


class CircleTests:
    """Proxies that point at each other."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_two(self, run: Run, host: str) -> None:
        """A datagram goes round until it has no hop left, and is counted then."""

        async def test(reactor: Any) -> None:
            number = unusedPort(host)
            first = FaultProxy(reactor, (host, number))
            first.start(0, host)
            second = FaultProxy(reactor, first.address)
            second.start(number, host)
            send(first, 1, host)

            def dropped() -> int:
                return first.up.outcomes["loop_guard"] + second.up.outcomes["loop_guard"]

            await until(reactor, dropped, "the end")
            assert dropped() == 1
            assert 10 < first.up.datagrams + second.up.datagrams < 256
            first.stop()
            second.stop()

        run(test)

    @pytest.mark.parametrize("prefix", ["", pytest.param("::ffff:", marks=needsIPv6)], ids=["IPv4", "mapped"])
    def test_hopLimit(self, runOnce: Run, prefix: str) -> None:
        """The upstream gets each datagram with one hop less than the proxy got it, at a mapped address, too."""

        async def test(reactor: Any) -> None:
            with udpSocket() as upstream, udpSocket() as client:
                upstream.setsockopt(socket.IPPROTO_IP, 12, 1)
                upstream.settimeout(PATIENCE)
                host, port = upstream.getsockname()
                proxy = FaultProxy(reactor, (prefix + host, port))
                proxy.start()
                for number, hops in enumerate([9, 30], 1):
                    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    client.sendto(b"hello", proxy.address)
                    await until(reactor, lambda number=number: proxy.up.datagrams == number, "the datagram")  # type: ignore[misc]
                    _, ((_, _, value),), _, _ = upstream.recvmsg(100, 100)
                    assert int.from_bytes(value, "little") == hops - 1
                proxy.stop()

        runOnce(test)


class NameTests:
    """An upstream with a name."""

    def test_newClients(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A new client goes to the present address of the name; a known one stays; without an answer the last one is used."""
        monkeypatch.setattr("udpecho.faults.upstream._CACHED", 0.0)
        monkeypatch.setattr("udpecho.faults.upstream._TIMEOUT", 0.05)

        async def test(reactor: Any) -> None:
            number = unusedPort()
            before, after = EchoServer(), EchoServer()
            ports = [listen(reactor, number, before, "127.0.0.1"), listen(reactor, number, after, "127.0.0.2")]
            table: dict[str, Any] = {"up.example": [IPv4Address("UDP", "127.0.0.1", 7)]}
            reactor.installNameResolver(Resolver(table))
            proxy = FaultProxy(reactor, ("up.example", number))
            proxy.start()
            clients = [await connect(reactor, *proxy.address)]
            assert await clients[0].echo(b"hello") == 5
            table["up.example"] = [IPv4Address("UDP", "127.0.0.2", 7)]
            for _ in range(2):
                clients.append(await connect(reactor, *proxy.address))
                assert await clients[-1].echo(b"hello") == 5
                assert await clients[0].echo(b"hello") == 5
                # First there is no address, then no answer.
                table["up.example"] = []
            del table["up.example"]
            clients.append(await connect(reactor, *proxy.address))
            assert await clients[-1].echo(b"hello") == 5
            assert (before.counters.echoed, after.counters.echoed) == (3, 3)
            for client in clients:
                await client.close()
            proxy.stop()
            for port in ports:
                port.abort()

        with capturedLogs() as events:
            run(test)
        (told,) = {formatEvent(event) for event in events if "last lookup" in (event["log_format"] or "")}
        assert told == (
            "no address for 'up.example': is the name right, and can it be looked up from here?;"
            " the address from the last lookup is used"
        )

    def test_moves(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that hears nothing goes to the present address of the name."""
        monkeypatch.setattr("udpecho.faults.upstream._CACHED", 0.0)
        monkeypatch.setattr(module, "_QUIET", 0.0)

        async def test(reactor: Any) -> None:
            number = unusedPort()
            port = listen(reactor, number, EchoServer(), "127.0.0.2")
            with udpSocket("127.0.0.1", number):
                table: dict[str, Any] = {"up.example": [IPv4Address("UDP", "127.0.0.1", 7)]}
                reactor.installNameResolver(Resolver(table))
                proxy = FaultProxy(reactor, ("up.example", number))
                proxy.start()
                client = await connect(reactor, *proxy.address)
                first = Outcome(client.echo(b"hello", 60))
                await until(reactor, lambda: proxy.up.outcomes["delivered"], "the datagram")
                table["up.example"] = [IPv4Address("UDP", "127.0.0.2", 7)]
                second = Outcome(client.echo(b"moved", 60))
                third = Outcome(client.echo(b"there", 60))
                await until(reactor, lambda: third.results or second.results, "the reply")
                assert first.results == []
                assert proxy.clients == 1
                await client.close()
                proxy.stop()
            port.abort()

        runOnce(test)

    def test_nextAddress(self, runOnce: Run) -> None:
        """After a refusal the client's next datagram goes to the next address, and new clients go there at once."""

        async def test(reactor: Any) -> None:
            number = unusedPort()
            port = listen(reactor, number, EchoServer(), "127.0.0.2")
            addresses = [IPv4Address("UDP", f"127.0.0.{last}", 7) for last in (1, 2)]
            reactor.installNameResolver(Resolver({"up.example": addresses}))
            proxy = FaultProxy(reactor, ("up.example", number))
            proxy.start()
            client = await connect(reactor, *proxy.address)
            with pytest.raises(EchoError):
                await client.echo(b"hello", 0.5)
            for other in (client, await connect(reactor, *proxy.address)):
                assert await other.echo(b"hello") == 5
                await other.close()
            assert proxy.refusals == 1
            proxy.stop()
            port.abort()

        runOnce(test)

    def test_allRefused(self) -> None:
        """When all addresses have refused, it begins with the first again."""
        upstream = Upstream(
            ResolvingClock({"a.example": [IPv4Address("UDP", f"192.0.2.{n}", 7) for n in (1, 2)]}), ("a.example", 7)
        )
        assert upstream.address is None
        Outcome(upstream.lookUp())
        first, second = upstream.addresses
        assert upstream.address == first
        assert upstream.refused(first)
        assert upstream.address == second
        assert upstream.refused(second)
        assert upstream.address == first

    def test_waiting(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What waits for a lookup is bounded, and lost when the proxy stops; all is counted, and nothing is logged."""
        monkeypatch.setattr(carrier, "_maxWaiting", 2)

        async def test(reactor: Any) -> None:
            reactor.installNameResolver(Resolver({}))
            proxy = FaultProxy(reactor, ("slow.example", 7))
            proxy.start()
            with udpSocket() as client:
                for _ in range(5):
                    client.sendto(b"hello", proxy.address)
                await until(reactor, lambda: proxy.up.outcomes["own_loss"] == 3, "the losses")
            assert proxy.up.datagrams == 5
            with capturedLogs() as events:
                proxy.stop()
            assert proxy.up.outcomes["own_loss"] == 5
            assert [event for event in events if event["log_namespace"].startswith("udpecho.faults.")] == []

        runOnce(test)

    def test_virtualTime(self) -> None:
        """The proxy and the lookups of its name have one clock, the reactor's: an idle client is forgotten by it."""
        clock = ResolvingClock({})
        proxy = FaultProxy(clock, ("slow.example", 7), idleTimeout=60.0)
        proxy.datagramReceived(b"hello", DatagramAddress(("192.0.2.1", 4321)))
        clock.advance(59)
        assert (proxy.clients, proxy.up.outcomes["own_loss"]) == (1, 1)
        clock.advance(1)
        assert proxy.clients == 0
        assert clock.getDelayedCalls() == []


@pytest.mark.isolated
class DescriptorTests:
    """No descriptor is left."""

    def test_counted(self, runOnce: Run) -> None:
        """What new clients send is counted by its reason; those that are known go on, and so do new ones afterwards."""

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            proxy = FaultProxy(reactor, (server.getHost().host, server.getHost().port))
            proxy.start()
            known = await connect(reactor, *proxy.address)
            new = await connect(reactor, *proxy.address)
            assert await known.echo(b"hello") == 5
            with noDescriptors():
                lost = Outcome(new.echo(b"lost", 60))
                await until(reactor, lambda: proxy.up.outcomes["no_socket"] == 1, "the drop")
                assert await known.echo(b"hello") == 5
            assert await new.echo(b"hello") == 5
            assert lost.results == []
            assert proxy.up.datagrams == proxy.up.outcomes["delivered"] == 4
            await known.close()
            await new.close()
            proxy.stop()
            server.abort()

        runOnce(test)

    def test_idleGoes(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that has been idle gives its descriptor up for a new one."""
        monkeypatch.setattr(module, "_DISPENSABLE", 0.0)

        async def test(reactor: Any) -> None:
            server: Any = listen(reactor, 0, EchoServer())
            proxy = FaultProxy(reactor, (server.getHost().host, server.getHost().port))
            proxy.start()
            clients = [await connect(reactor, *proxy.address) for _ in range(2)]
            assert await clients[0].echo(b"hello") == 5
            with noDescriptors():
                assert await clients[1].echo(b"hello") == 5
            assert proxy.clients == 1
            assert proxy.up.outcomes == {"delivered": 2}
            for client in clients:
                await client.close()
            proxy.stop()
            server.abort()

        runOnce(test)
