"""Tests that nothing goes round through a proxy without end, and that what waits in it has a bound."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any, cast

import pytest

from tests.conftest import CaughtErrors
from tests.support.guards import needsIPv6
from tests.support.proxy import Upstream, addressOf, open_, until
from tests.support.running import PATIENCE, Recorder, Run, sleep, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.faults.decision import Decision
from udpecho.faults.delay_line import OVERHEAD, HeldBytes
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.server.protocol import EchoServer


class Forgetful(Upstream):
    """Echoes with all hops again, as other people's servers do."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        super().datagramReceived(datagram, (addr[0], addr[1]))


def hopLimits(sock: socket.socket, count: int) -> list[int]:
    """The hop limits of the next datagrams."""
    limits = []
    for _ in range(count):
        ((_, _, value),) = sock.recvmsg(100, 100)[1]
        limits.append(int.from_bytes(value, "little"))
    return limits


class ForgedSourceTests:
    """One datagram with a forged source. Who sends it from that very source does the same."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    @pytest.mark.parametrize("duplicate", [0.0, 1.0])
    def test_fromUpstream(self, run: Run, host: str, duplicate: float) -> None:
        """What comes from the upstream itself is dropped: its answer would come back."""

        async def test(reactor: Any) -> None:
            server = Forgetful()
            port = open_(reactor, server, host)
            proxy = FaultProxy(reactor, addressOf(port), FaultPlan(duplicate=duplicate), FaultPlan(duplicate=duplicate))
            proxy.start(0, host)
            port.write(b"forged", proxy.address)
            await until(reactor, lambda: proxy.up.datagrams, "the datagram")  # type: ignore[arg-type, return-value]
            assert proxy.up.outcomes == {"loop_guard": 1}
            assert (proxy.clients, server.requests) == (0, {})
            proxy.stop()
            port.abort()

        run(test)

    @needsIPv6
    def test_mapped(self, runOnce: Run) -> None:
        """So is what comes from its IPv4 address on a socket for both families."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Forgetful())
            proxy = FaultProxy(reactor, addressOf(port))
            proxy.start(0, "::")
            port.write(b"forged", ("127.0.0.1", proxy.address[1]))
            await until(reactor, lambda: proxy.up.datagrams, "the datagram")  # type: ignore[arg-type, return-value]
            assert proxy.up.outcomes == {"loop_guard": 1}
            proxy.stop()
            port.abort()

        runOnce(test)

    def test_fromProxy(self, runOnce: Run) -> None:
        """What the proxy seems to have sent to itself is dropped."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Forgetful())
            proxy = FaultProxy(reactor, addressOf(port))
            proxy.start()
            assert proxy._carrier.port is not None
            proxy._carrier.port.write(b"forged", proxy.address)
            await until(reactor, lambda: proxy.up.datagrams, "the datagram")  # type: ignore[arg-type, return-value]
            assert proxy.up.outcomes == {"loop_guard": 1}
            proxy.stop()
            port.abort()

        runOnce(test)

    @pytest.mark.parametrize("number", [7, 13, 17, 19, 37])
    def test_answeringPorts(self, runOnce: Run, number: int) -> None:
        """So is what comes from a service that answers everything."""

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", 9))
            proxy.start()
            proxy.datagramReceived(b"forged", DatagramAddress(("192.0.2.1", number)))
            assert proxy.up.outcomes == {"loop_guard": 1}
            assert proxy.clients == 0
            proxy.stop()

        runOnce(test)

    @pytest.mark.parametrize("server", [Forgetful, EchoServer])
    @pytest.mark.parametrize("duplicate", [0.0, 1.0])
    def test_twoProxies(self, run: Run, server: Any, duplicate: float) -> None:
        """Two proxies of one server that a forged source makes each other's clients come to an end, and so do all copies."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, server())
            proxies = [
                FaultProxy(reactor, addressOf(port), *(FaultPlan(duplicate=duplicate, delay=0.001) for _ in "ud"))  # type: ignore[arg-type]
                for _ in range(2)
            ]
            for proxy in proxies:
                proxy.start()
            assert proxies[0]._carrier.port is not None
            proxies[0]._carrier.port.write(b"forged", proxies[1].address)

            def passed() -> int:
                return sum(proxy.up.datagrams + proxy.down.datagrams for proxy in proxies)

            ways = [way for proxy in proxies for way in (proxy.up, proxy.down)]
            await until(reactor, lambda: any(way.outcomes["loop_guard"] for way in ways), "the end")
            before = 0
            while before != passed() or any(len(proxy._carrier.line) for proxy in proxies):
                before = passed()
                assert before < 512
                for _ in range(50):
                    await sleep(reactor, 0.001)
            for proxy in proxies:
                proxy.stop()
            port.abort()

        run(test)


class HopTests:
    """A router's hop limits."""

    @pytest.mark.parametrize("prefix", ["", pytest.param("::ffff:", marks=needsIPv6)], ids=["IPv4", "mapped"])
    def test_replies(self, runOnce: Run, prefix: str) -> None:
        """A client gets each reply with one hop less than the proxy got it, and than the client itself sent with."""

        async def test(reactor: Any) -> None:
            with udpSocket() as upstream, udpSocket() as client:
                client.setsockopt(socket.IPPROTO_IP, 12, 1)
                client.settimeout(PATIENCE)
                host, port = upstream.getsockname()
                proxy = FaultProxy(reactor, (prefix + host, port))
                proxy.start()
                for hops in (9, 30, 50):
                    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 40)
                    client.sendto(b"hello", proxy.address)
                    seen = proxy.up.datagrams
                    await until(reactor, lambda seen=seen: proxy.up.datagrams > seen, "the datagram")  # type: ignore[misc]
                    upstream.settimeout(PATIENCE)
                    _, address = upstream.recvfrom(100)
                    upstream.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    upstream.sendto(b"hello", address)
                    seen = proxy.down.datagrams
                    await until(reactor, lambda seen=seen: proxy.down.datagrams > seen, "the reply")  # type: ignore[misc]
                assert hopLimits(client, 3) == [8, 29, 39]
                # None is left for the way from the proxy.
                upstream.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
                upstream.sendto(b"hello", address)
                await until(reactor, lambda: proxy.down.outcomes["loop_guard"] == 1, "the drop")
                proxy.stop()

        runOnce(test)

    def test_held(self, runOnce: Run) -> None:
        """Each delayed datagram keeps its own hop limit; what is duplicated shares it."""

        async def test(reactor: Any) -> None:
            with udpSocket() as upstream, udpSocket() as client:
                upstream.setsockopt(socket.IPPROTO_IP, 12, 1)
                upstream.settimeout(PATIENCE)
                proxy = FaultProxy(reactor, upstream.getsockname(), FaultPlan(delay=0.05))
                proxy.start()
                for hops in (9, 64, 3):
                    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    client.sendto(b"hello", proxy.address)
                await until(reactor, lambda: proxy.up.datagrams == 3 and not len(proxy._carrier.line), "all")
                assert hopLimits(upstream, 3) == [8, 63, 2]
                proxy.up.plan = FaultPlan(duplicate=1)
                for hops in (20, 3):
                    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    client.sendto(b"hello", proxy.address)
                await until(reactor, lambda: proxy.up.outcomes["loop_guard"] == 2, "the drops")
                assert hopLimits(upstream, 2) == [9, 9]
                proxy.stop()

        runOnce(test)


class Somebody:
    """Whose datagrams wait."""

    held = 0


class HeldBytesTests:
    """L{HeldBytes}."""

    def test_shares(self) -> None:
        """One has half of it, two have a third each, and the next one always gets something; all of it comes back."""
        held = HeldBytes(1000 * (OVERHEAD + 488))
        holders = [Somebody() for _ in range(4)]
        taken = []
        for holder in holders:
            count = 0
            while held.take(holder, 488):
                count += 1
            taken.append(count)
        assert taken == [500, 250, 125, 63]
        for holder, count in zip(holders, taken):
            for _ in range(count):
                held.give(holder, 488)
        assert [holder.held for holder in holders] == [0] * 4
        assert held.take(holders[3], 1000 * (OVERHEAD + 488) // 2 - OVERHEAD)

    def test_proxy(self, runOnce: Run) -> None:
        """What has no place is dropped and counted; another client gets its own; what is released makes place."""

        async def test(reactor: Any) -> None:
            recorder = Recorder()
            port = open_(reactor, recorder)
            proxy = FaultProxy(reactor, addressOf(port), FaultPlan(delay=60), maxHeld=100_000)
            proxy.start()
            with udpSocket() as greedy, udpSocket() as other:
                for _ in range(20):
                    greedy.sendto(bytes(10_000 - OVERHEAD), proxy.address)
                await until(reactor, lambda: proxy.up.datagrams == 20, "all")
                assert proxy.up.outcomes == {"delayed": 20, "held_full": 15}
                other.sendto(bytes(10_000 - OVERHEAD), proxy.address)
                await until(reactor, lambda: proxy.up.datagrams == 21, "the other")
                assert proxy.up.outcomes["held_full"] == 15
                for release in proxy._carrier.line.close():
                    release()
                await recorder.count(6)
                for _ in range(5):
                    greedy.sendto(bytes(10_000 - OVERHEAD), proxy.address)
                await until(reactor, lambda: proxy.up.datagrams == 26, "the last")
                assert proxy.up.outcomes["held_full"] == 15
            proxy.stop()
            assert proxy.up.outcomes["own_loss"] == 5
            port.abort()

        runOnce(test)


class EndTests:
    """L{FaultProxy.stop} at any time."""

    @pytest.mark.parametrize("name", ["select", "poll", "epoll", "asyncio"])
    @pytest.mark.parametrize("end", ["stop", "crash"])
    def test_afterReactor(self, name: str, end: str) -> None:
        """After the reactor has ended, the accounts are those that they would have been before."""
        script = f"""
import socket
from twisted.internet import {name}reactor
{name}reactor.install()
from twisted.internet import reactor
from udpecho import FaultPlan, FaultProxy

proxy = FaultProxy(reactor, ("127.0.0.1", 9), FaultPlan(delay=60))
proxy.start()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.sendto(b"hello", proxy.address)

def look():
    if proxy.up.datagrams:
        reactor.{end}()
    else:
        reactor.callLater(0.01, look)

reactor.callWhenRunning(look)
reactor.run()
proxy.stop()
proxy.stop()
print(proxy)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.splitlines()[0] == "up: datagrams=1 delayed=1 own_loss=1"

    def test_cancelledCalls(self, runOnce: Run) -> None:
        """So it is after somebody has cancelled all delayed calls, as trial does."""

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", 9), FaultPlan(delay=60))
            proxy.start()
            proxy.datagramReceived(b"hello", DatagramAddress(("127.0.0.1", 54321)))
            for call in reactor.getDelayedCalls():
                call.cancel()
            proxy.stop()
            assert proxy.up.outcomes == {"delayed": 1, "own_loss": 1}

        runOnce(test)

    def test_beforeStart(self, runOnce: Run) -> None:
        """Before the start there is nothing to stop, and no address; twice is refused; after a stop it starts again."""

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", 9))
            proxy.stop()
            with pytest.raises(RuntimeError, match=r"^proxy must be started to have an address$"):
                proxy.address  # noqa: B018
            for _ in range(2):
                proxy.start()
                with pytest.raises(RuntimeError, match=r"^proxy must be stopped before it is started again$"):
                    proxy.start()
                proxy.stop()

        runOnce(test)


class CallbackTests:
    """What callbacks do: plans and watchers of applications."""

    @pytest.mark.parametrize("place", ["plan", "watcher"])
    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("delay", [0.0, 60.0])
    def test_stops(self, runOnce: Run, place: str, again: bool, delay: float) -> None:
        """A callback may stop the proxy, and start it again: its datagram is counted as lost, once, and nothing is left."""

        async def test(reactor: Any) -> None:
            def act(*arguments: object) -> Decision:
                proxy.stop()
                if again:
                    proxy.start()
                return Decision(("of the test",), (delay,))

            class Plan:
                decide = staticmethod(act)

            plan: Any = Plan() if place == "plan" else FaultPlan(delay=delay)
            watcher: Any = act if place == "watcher" else None
            proxy = FaultProxy(reactor, ("127.0.0.1", 9), plan, watcher=watcher)
            proxy.start()
            with udpSocket() as client:
                client.sendto(b"hello", proxy.address)
                await until(reactor, lambda: proxy.up.datagrams == 1, "the datagram")
            proxy.stop()
            assert proxy.up.outcomes["own_loss"] == 1
            assert proxy.clients == 0

        runOnce(test)

    @pytest.mark.parametrize(
        "decision",
        [None, ("lost",), *(Decision(("odd",), (delay,)) for delay in (-1.0, float("nan"), float("inf"), cast(float, "1")))],
    )
    def test_brokenPlan(self, runOnce: Run, caught: CaughtErrors, decision: Any) -> None:
        """A plan that fails lets nothing through, and all is counted."""

        class Broken:
            def decide(self, size: int, now: float) -> Decision:
                if size == 5:
                    raise ZeroDivisionError
                return decision  # type: ignore[no-any-return]

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", 9), Broken())
            proxy.start()
            with udpSocket() as client:
                for payload in (b"hello", b"all"):
                    client.sendto(payload, proxy.address)
                await until(reactor, lambda: proxy.up.outcomes["own_loss"] == 2, "the losses")
            assert proxy.up.datagrams == 2
            proxy.stop()

        runOnce(test)
        assert len(caught.flush(ZeroDivisionError)) == 1
        assert len(caught.flush(Exception)) == 1

    def test_brokenWatcher(self, runOnce: Run, caught: CaughtErrors) -> None:
        """A watcher that fails keeps no datagram back."""

        async def test(reactor: Any) -> None:
            recorder = Recorder()
            port = open_(reactor, recorder)
            proxy = FaultProxy(reactor, addressOf(port), watcher=lambda *_: 1 / 0)  # type: ignore[arg-type]
            proxy.start()
            with udpSocket() as client:
                client.sendto(b"hello", proxy.address)
                await recorder.count(1)
            proxy.stop()
            port.abort()

        runOnce(test)
        assert len(caught.flush(ZeroDivisionError)) == 1


class ClientsTests:
    """Which clients are forgotten."""

    def test_forgedSources(self, runOnce: Run) -> None:
        """Those that never answer a reply do not push out one that does."""

        async def test(reactor: Any) -> None:
            server = Upstream()
            port = open_(reactor, server)
            proxy = FaultProxy(reactor, addressOf(port), maxClients=8)
            proxy.start()
            with udpSocket() as client:
                for number in (1, 2):
                    client.sendto(b"hello", proxy.address)
                    await until(reactor, lambda number=number: proxy.down.datagrams == number, "the reply")  # type: ignore[misc]
                for number in range(30):
                    with udpSocket() as forged:
                        forged.sendto(b"forged", proxy.address)
                        await until(reactor, lambda n=number: proxy.up.datagrams == n + 3, "it")  # type: ignore[misc]
                assert proxy.clients == 8
                client.sendto(b"hello", proxy.address)
                await until(reactor, lambda: 3 in server.requests.values(), "the third, from one socket")
            proxy.stop()
            port.abort()

        runOnce(test)

    def test_longDelay(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client whose datagram is delayed for days keeps no others that are idle."""
        now = 1000.0
        monkeypatch.setattr(FaultProxy, "_now", lambda _: now)

        async def test(reactor: Any) -> None:
            nonlocal now
            plan = FaultPlan(delay=1e6)
            proxy = FaultProxy(reactor, ("127.0.0.1", 9), plan)
            proxy.start()
            for number in range(5):
                proxy.datagramReceived(b"hello", DatagramAddress(("127.0.0.1", 50_000 + number)))
                plan.change(loss=1)
            now += 60
            proxy._forgetIdle()
            assert proxy.clients == 1
            proxy.stop()

        runOnce(test)
