"""Tests of L{udpecho.faults.proxy} on real sockets."""

from __future__ import annotations

import os
import socket
from collections import Counter
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock

from tests.support.guards import needsIPv6
from tests.support.proxy import Upstream, addressOf, open_, until
from tests.support.running import PATIENCE, Recorder, Run, hasIPv6, sleep, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import PortUnreachable, ResponseTimeout
from udpecho.faults.decision import Recording, Replay
from udpecho.faults.delay_line import DelayLine
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.server.protocol import EchoServer


def hasRawSockets() -> bool:
    """Whether this process may open raw sockets."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
            return True
    except OSError:
        return False


class Bench:
    """An upstream and a proxy before it."""

    def __init__(self, reactor: Any, host: str = "127.0.0.1", **options: Any) -> None:
        self.reactor = reactor
        self.upstream = Upstream()
        self._port = open_(reactor, self.upstream, host)
        self.proxy = FaultProxy(reactor, addressOf(self._port), **options)
        self.proxy.start(0, host)
        self._clients: list[EchoClient] = []

    async def client(self) -> EchoClient:
        """One more client."""
        client = await connect(self.reactor, *self.proxy.address)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        """Stop everything."""
        await gatherResults([client.close() for client in self._clients])
        self.proxy.stop()
        self._port.abort()


class DelayLineTests:
    """L{DelayLine}, in virtual time."""

    def setup_method(self) -> None:
        self.clock = Clock()
        self.line = DelayLine(self.clock)
        self.gone: list[tuple[str, float]] = []

    def hold(self, due: float, *names: str) -> None:
        for name in names:
            self.line.hold(due, lambda name=name: self.gone.append((name, self.clock.seconds())))  # type: ignore[misc]

    def test_raises(self) -> None:
        """A function that raises does not keep the others from being called."""

        def raising() -> None:
            raise ZeroDivisionError

        self.line.hold(1.0, raising)
        self.hold(2.0, "later")
        with pytest.raises(ZeroDivisionError):
            self.clock.advance(1)
        self.clock.advance(1)
        assert self.gone == [("later", 2.0)]

    def test_order(self) -> None:
        """Functions are called at their times, and in the order of addition where these are equal."""
        self.hold(2.0, *"abcdefghij")
        self.hold(1.0, "early")
        self.hold(3.0, "late")
        self.hold(2.0, "k")
        assert len(self.line) == 13
        self.clock.pump([0.5] * 7)
        assert [name for name, _ in self.gone] == ["early", *"abcdefghijk", "late"]
        assert [when for _, when in self.gone] == [1.0, *[2.0] * 11, 3.0]
        assert not len(self.line)
        assert not self.clock.getDelayedCalls()

    def test_oneCall(self) -> None:
        """However many functions wait, one delayed call is in the reactor, for the first of them."""
        self.hold(3.0, "a", "b")
        self.hold(2.0, "c")
        self.hold(4.0, "d")
        (call,) = self.clock.getDelayedCalls()
        assert call.getTime() == 2.0

    def test_lateReactor(self) -> None:
        """When the reactor is late, all functions that are due are called, in order, and no others."""
        self.hold(2.0, "b")
        self.hold(1.0, "a")
        self.hold(9.0, "c")
        self.clock.advance(5.0)
        assert self.gone == [("a", 5.0), ("b", 5.0)]
        assert len(self.line) == 1

    def test_late(self) -> None:
        """It says when a function is due that the reactor has not called yet."""
        self.hold(1.0, "a")
        assert not self.line.late
        self.clock.rightNow = 1.5
        assert self.line.late
        self.clock.advance(0)
        assert not self.line.late
        assert self.gone == [("a", 1.5)]

    def test_turn(self) -> None:
        """A turn of the reactor has a bound of time; what is left has the next turns, in its order."""

        def take(name: int) -> None:
            self.gone.append((str(name), self.clock.seconds()))
            self.clock.rightNow += 0.002

        for number in range(10):
            self.line.hold(1.0, lambda number=number: take(number))  # type: ignore[misc]
        turns = []
        self.clock.rightNow = 1.0
        while len(self.gone) < 10:
            before = len(self.gone)
            (call,) = self.clock.getDelayedCalls()
            call.cancel()
            self.line._release()
            turns.append(len(self.gone) - before)
        assert turns == [3, 3, 3, 1]
        assert [int(name) for name, _ in self.gone] == list(range(10))

    def test_close(self) -> None:
        """C{close} returns what waited, in order, and leaves nothing in the reactor."""
        self.hold(2.0, "b")
        self.hold(1.0, "a")
        held = self.line.close()
        assert not self.clock.getDelayedCalls()
        assert self.gone == []
        for release in held:
            release()
        assert [name for name, _ in self.gone] == ["a", "b"]


class SelfTests:
    """A proxy whose upstream is the proxy itself."""

    @pytest.mark.parametrize(("interface", "upstream"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.3")])
    def test_refused(self, runOnce: Run, interface: str, upstream: str) -> None:
        """It does not start: each datagram would come back without end."""

        async def test(reactor: Any) -> None:
            number = unusedPort()
            proxy = FaultProxy(reactor, (upstream, number))
            with pytest.raises(ValueError, match=rf"^upstream must not be the proxy itself, got {upstream}:{number}$"):
                proxy.start(number, interface)

        runOnce(test)


class LimitTests:
    """What a proxy is made with."""

    @pytest.mark.parametrize(
        ("name", "value", "least"),
        [("idleTimeout", 0, "1e-06"), ("idleTimeout", float("nan"), "1e-06"), ("maxClients", 0, "1"), ("maxHeld", -1, "0")],
    )
    def test_wrong(self, name: str, value: float, least: str) -> None:
        """A limit that no client could keep is refused."""
        limits: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"^{name} must be a number, {least} or more, got {value!r}$"):
            FaultProxy(Clock(), ("127.0.0.1", 7), **limits)


class FaultProxyTests:
    """L{FaultProxy} on real sockets."""

    def test_manyClients(self, run: Run) -> None:
        """Each client gets its own datagrams back, through a socket to the upstream that is its own."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor)
            clients = [await bench.client() for _ in range(50)]
            for turn in range(3):
                payloads = [b"%d %d" % (number, turn) for number in range(50)]
                replies = await gatherResults([client.exchange(payload) for client, payload in zip(clients, payloads)])
                assert [reply.payload for reply in replies] == payloads
            assert list(bench.upstream.requests.values()) == [3] * 50
            assert bench.proxy.clients == 50
            for direction in (bench.proxy.up, bench.proxy.down):
                assert direction.datagrams == 150
                assert direction.outcomes == {"delivered": 150}
            await bench.stop()

        run(test)

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_sizes(self, host: str, runOnce: Run) -> None:
        """Datagrams of every length pass whole: empty ones, and the longest that UDP carries."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, host)
            client = await bench.client()
            for size in (0, 1, 1472, 9000, 65507 if host == "127.0.0.1" else 65527):
                assert await client.echo(os.urandom(size)) == size
            assert bench.proxy.up.outcomes == bench.proxy.down.outcomes == {"delivered": 5}
            await bench.stop()

        runOnce(test)

    def test_idle(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """An idle client is forgotten and its socket closed; when it sends again it is a new client. An active one is not
        forgotten.
        """
        now = 1000.0
        monkeypatch.setattr(FaultProxy, "_now", lambda _: now)

        async def test(reactor: Any) -> None:
            nonlocal now
            bench = Bench(reactor, idleTimeout=60)

            async def after(seconds: float) -> int:
                """How many clients are known, so many seconds later."""
                nonlocal now
                now += seconds
                bench.proxy._sweep.cancel()
                bench.proxy._sweep.schedule(0)
                await sleep(reactor)
                await sleep(reactor)
                return bench.proxy.clients

            silent, talking = await bench.client(), await bench.client()
            await silent.echo(b"hello")
            await talking.echo(b"hello")
            assert await after(59) == 2
            await talking.echo(b"still here")
            assert await after(1) == 1
            assert len(bench.upstream.requests) == 2
            assert await silent.echo(b"hello") == 5
            assert len(bench.upstream.requests) == 3
            assert bench.proxy.clients == 2
            # The first is idle since a second longer.
            assert await after(59) == 1
            assert await after(1) == 0
            await bench.stop()

        run(test)

    def test_maxClients(self, run: Run) -> None:
        """For one client too many, the longest idle one is forgotten."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, maxClients=3)
            clients = [await bench.client() for _ in range(4)]
            for client in (clients[0], clients[1], clients[2], clients[0], clients[3]):
                await client.echo(b"hello")
            assert bench.proxy.clients == 3
            assert len(bench.upstream.requests) == 4
            # All but the second are known still.
            for number in (0, 2, 3):
                await clients[number].echo(b"hello")
            assert len(bench.upstream.requests) == 4
            await clients[1].echo(b"hello")
            assert len(bench.upstream.requests) == 5
            assert bench.proxy.clients == 3
            await bench.stop()

        run(test)

    def test_change(self, run: Run) -> None:
        """A changed plan, and a new one in its place, hold from the next datagram on; each outcome is counted
        by its direction.
        """

        async def test(reactor: Any) -> None:
            up, down = FaultPlan(), FaultPlan()
            bench = Bench(reactor, up=up, down=down)
            client = await bench.client()

            async def lose(payload: bytes, outcomes: Counter[str], outcome: str) -> None:
                """Send a payload that does not come back."""
                waiting = client.echo(payload, timeout=PATIENCE)
                await until(reactor, lambda: outcomes[outcome] == 1, outcome)
                waiting.cancel()
                with pytest.raises(CancelledError):
                    await waiting

            assert await client.echo(b"hello") == 5
            up.change(loss=1)
            await lose(b"hello", bench.proxy.up.outcomes, "lost")
            up.change(loss=0)
            down.change(loss=1)
            await lose(b"hello", bench.proxy.down.outcomes, "lost")
            bench.proxy.down.plan = FaultPlan(mtu=5)
            assert await client.echo(b"hello") == 5
            await lose(b"hello!", bench.proxy.down.outcomes, "too_long")
            assert bench.proxy.up.outcomes == {"delivered": 4, "lost": 1}
            assert bench.proxy.down.outcomes == {"delivered": 2, "lost": 1, "too_long": 1}
            assert str(bench.proxy).splitlines() == [
                "up: datagrams=5 delivered=4 lost=1",
                "down: datagrams=4 delivered=2 lost=1 too_long=1",
                "refusals=0 passed-back=0",
            ]
            await bench.stop()

        run(test)

    def test_duplicate(self, runOnce: Run) -> None:
        """A duplicated datagram arrives twice, a truncated one shorter, a corrupted one with one bit flipped."""

        async def test(reactor: Any) -> None:
            plan = FaultPlan(duplicate=1)
            bench = Bench(reactor, down=plan)
            recorder = Recorder()
            port = open_(reactor, recorder)
            port.write(b"hello", bench.proxy.address)
            await recorder.count(2)
            assert recorder.datagrams == [(b"hello", bench.proxy.address)] * 2
            plan.change(duplicate=0, corrupt=1)
            port.write(b"hello", bench.proxy.address)
            await recorder.count(3)
            flipped = int.from_bytes(recorder.datagrams[2][0], "big") ^ int.from_bytes(b"hello", "big")
            assert flipped.bit_count() == 1
            plan.change(corrupt=0, truncate=1)
            port.write(b"hello", bench.proxy.address)
            await recorder.count(4)
            assert len(recorder.datagrams[3][0]) < 5
            assert b"hello".startswith(recorder.datagrams[3][0])
            assert bench.proxy.down.outcomes == {"duplicated": 1, "corrupted": 1, "truncated": 1}
            port.abort()
            await bench.stop()

        runOnce(test)

    def test_delayKeepsOrder(self, run: Run) -> None:
        """Datagrams with the same delay arrive in their order, and not before their time."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, up=FaultPlan(delay=0.05), down=FaultPlan(delay=0.02))
            recorder = Recorder()
            port = open_(reactor, recorder)
            begin = reactor.seconds()
            for number in range(200):
                port.write(b"%d" % number, bench.proxy.address)
            await recorder.count(1)
            # The clock of reactors has steps.
            assert reactor.seconds() - begin > 0.065
            await recorder.count(200)
            assert [int(datagram) for datagram, _ in recorder.datagrams] == list(range(200))
            port.abort()
            await bench.stop()

        run(test)

    def test_stop(self, run: Run) -> None:
        """A proxy that is stopped counts delayed datagrams as its own losses, each in its direction, and leaves nothing;
        stopped again, it does nothing.
        """

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, up=FaultPlan(), down=FaultPlan(delay=60))
            recorder = Recorder()
            port = open_(reactor, recorder)
            for _ in range(3):
                port.write(b"hello", bench.proxy.address)
            await until(reactor, lambda: bench.proxy.down.datagrams == 3, "the replies")
            bench.proxy.up.plan = FaultPlan(delay=60)
            for _ in range(2):
                port.write(b"hello", bench.proxy.address)
            await until(reactor, lambda: bench.proxy.up.datagrams == 5, "the last datagrams")
            bench.proxy.stop()
            assert bench.proxy.up.outcomes == {"delivered": 3, "delayed": 2, "own_loss": 2}
            assert bench.proxy.down.outcomes == {"delayed": 3, "own_loss": 3}
            assert bench.proxy.clients == 0
            bench.proxy.stop()
            assert bench.proxy.down.outcomes["own_loss"] == 3
            assert recorder.datagrams == []
            port.abort()
            await bench.stop()

        run(test)

    def test_portInUse(self, runOnce: Run) -> None:
        """A port that is taken is refused as Twisted does, and there is nothing to stop."""

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", 9))
            with udpSocket() as sock, pytest.raises(error.CannotListenError):
                proxy.start(sock.getsockname()[1])
            proxy.stop()

        runOnce(test)

    def test_noRoute(self, runOnce: Run) -> None:
        """Where the system refuses to send to the upstream, each datagram is counted as the proxy's own loss."""

        async def test(reactor: Any) -> None:
            # A socket that was not allowed to broadcast.
            proxy = FaultProxy(reactor, ("255.255.255.255", 9))
            proxy.start()
            port = open_(reactor, Recorder())
            for _ in range(3):
                port.write(b"hello", proxy.address)
            await until(reactor, lambda: proxy.up.outcomes["own_loss"] == 3, "the losses")
            assert proxy.up.datagrams == 3
            port.abort()
            proxy.stop()

        runOnce(test)

    @needsIPv6
    def test_scope(self) -> None:
        """A link-local upstream keeps its scope."""
        upstream = DatagramAddress(("fe80::1", 7))
        upstream.scopeID = 4
        assert FaultProxy(Clock(), upstream).upstream.addresses[0].scopeID == 4

    def test_wildcard(self, runOnce: Run) -> None:
        """On a wildcard address a reply leaves from the address that the client sent to last."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor)
            proxy = FaultProxy(reactor, bench.proxy.address)
            proxy.start(0, "0.0.0.0")
            recorder = Recorder()
            port = open_(reactor, recorder)
            for number, host in enumerate(["127.0.0.2", "127.0.0.1", "127.0.0.3"], 1):
                port.write(b"hello", (host, proxy.address[1]))
                await recorder.count(number)
                assert recorder.datagrams[-1] == (b"hello", (host, proxy.address[1]))
            port.abort()
            proxy.stop()
            await bench.stop()

        runOnce(test)


class RefusalTests:
    """An upstream that refuses."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    @pytest.mark.isolated
    def test_passedBack(self, host: str, run: Run) -> None:
        """With the right to open raw sockets the client is refused in turn, with a datagram of any size."""
        if not hasRawSockets():
            pytest.skip("passing refusals back takes the right to open raw sockets")

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, (host, unusedPort(host)))
            proxy.start(0, host)
            for number, size in enumerate([5, 0, 60000], 1):
                with pytest.raises(PortUnreachable) as caught:
                    await echo(reactor, *proxy.address, bytes(size), timeout=PATIENCE / 2)
                assert str(proxy.address[1]) in str(caught.value)
                assert (proxy.refusals, proxy.refusalsPassed) == (number, number)
            assert str(proxy).endswith("refusals=3 passed-back=3")
            proxy.stop()

        run(test)

    @pytest.mark.isolated
    def test_dualStack(self, runOnce: Run) -> None:
        """A client of IPv4 at a proxy that listens on all of IPv6 is refused, too."""
        if not hasRawSockets() or not hasIPv6():
            pytest.skip("it takes IPv6, and the right to open raw sockets")

        async def test(reactor: Any) -> None:
            proxy = FaultProxy(reactor, ("127.0.0.1", unusedPort()))
            proxy.start(0, "::")
            with pytest.raises(PortUnreachable):
                await echo(reactor, "127.0.0.1", proxy.address[1], b"hello", timeout=PATIENCE / 2)
            proxy.stop()

        runOnce(test)

    def test_counted(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without that right refusals are counted but not passed back; once the upstream is back, clients get its replies."""
        monkeypatch.setattr("udpecho.faults.proxy.icmp.refuse", lambda *arguments: False)

        async def test(reactor: Any) -> None:
            port = unusedPort()
            proxy = FaultProxy(reactor, ("127.0.0.1", port))
            proxy.start()
            client = await connect(reactor, *proxy.address)
            for number in (1, 2, 3):
                with pytest.raises(ResponseTimeout):
                    await client.echo(b"hello", timeout=0.05)
                await until(reactor, lambda number=number: proxy.refusals == number, "the refusal")  # type: ignore[misc]
            assert proxy.refusalsPassed == 0
            upstream = open_(reactor, EchoServer(), "127.0.0.1", port)
            assert await client.echo(b"hello") == 5
            assert proxy.clients == 1
            await client.close()
            upstream.abort()
            proxy.stop()

        run(test)


class RepeatTests:
    """Repeated runs."""

    FAULTS: dict[str, Any] = {
        "loss": 0.2,
        "duplicate": 0.2,
        "reorder": 0.1,
        "corrupt": 0.2,
        "truncate": 0.1,
        "delay": 0.001,
        "jitter": 0.004,
    }

    def once(self, up: Any, down: Any) -> tuple[str, str, Counter[bytes]]:
        """Send 200 datagrams through a proxy.

        @return: the printed decisions of each direction, and the replies.
        """
        runner = Run("select")
        plans = Recording(up), Recording(down)

        async def test(reactor: Any) -> Counter[bytes]:
            bench = Bench(reactor, up=plans[0], down=plans[1])
            recorder = Recorder()
            port = open_(reactor, recorder)
            for number in range(200):
                port.write(b"%20d" % number, bench.proxy.address)
            await until(reactor, lambda: bench.proxy.up.datagrams == 200, "all of them")
            arrived = sum(len(decision.delays) for decision in plans[0].decisions)
            await until(reactor, lambda: bench.proxy.down.datagrams == arrived, "all at the upstream, and back")
            await recorder.count(sum(len(decision.delays) for decision in plans[1].decisions))
            port.abort()
            await bench.stop()
            return Counter(datagram for datagram, _ in recorder.datagrams)

        try:
            replies = runner(test)
        finally:
            runner.close()
        return str(plans[0]), str(plans[1]), replies

    def test_sameSeed(self) -> None:
        """Two runs with one seed make the same decisions, and so does a run that replays those printed; with another seed they
        differ.
        """
        first = self.once(FaultPlan("7 up", **self.FAULTS), FaultPlan("7 down"))
        assert "lost" in first[0]
        assert first == self.once(FaultPlan("7 up", **self.FAULTS), FaultPlan("7 down"))
        assert first == self.once(Replay(first[0]), Replay(first[1]))
        assert first[0] != self.once(FaultPlan("8 up", **self.FAULTS), FaultPlan("7 down"))[0]
