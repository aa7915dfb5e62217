"""Tests of L{udpecho.faults.proxy} on real sockets, and of C{udpecho proxy} as real processes."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from math import exp, lgamma, log
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from tests.support.processes import Process, Processes, Server, eventually, tool
from tests.support.running import PATIENCE, Recorder, Run, hasIPv6, sleep, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import PortUnreachable, ResponseTimeout
from udpecho.faults.decision import Recording, Replay
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import DelayLine, FaultProxy
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")


def hasRawSockets() -> bool:
    """Whether this process may open raw sockets."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
            return True
    except OSError:
        return False


class Upstream(DatagramProtocol):
    """
    Echoes, and remembers who asked.

    @ivar asked: how many datagrams came from each address.
    """

    noisy = False

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.asked[addr] += 1
        assert self.transport is not None
        self.transport.write(datagram, addr)


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


def open_(reactor: Any, protocol: DatagramProtocol, host: str = "127.0.0.1", port: int = 0) -> DatagramPort:
    listening = listen(reactor, port, protocol, host)
    assert isinstance(listening, DatagramPort)
    return listening


def addressOf(port: DatagramPort) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port


async def until(reactor: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait for what nothing tells of; the test's own patience ends it."""
    for _ in range(PATIENCE * 1000):
        if condition():
            return
        await sleep(reactor, 0.001)
    raise AssertionError(what)


class SelfTests:
    """A proxy whose upstream is itself."""

    @pytest.mark.parametrize(("interface", "upstream"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.3")])
    def test_refused(self, runOnce: Run, interface: str, upstream: str) -> None:
        """It does not start: each datagram would go round for ever."""

        async def test(reactor: Any) -> None:
            number = unusedPort()
            proxy = FaultProxy(reactor, (upstream, number))
            with pytest.raises(ValueError, match="is the proxy itself"):
                proxy.start(number, interface)

        runOnce(test)


class DelayLineTests:
    """L{DelayLine}, in virtual time."""

    def setup_method(self) -> None:
        self.clock = Clock()
        self.line = DelayLine(self.clock, self.clock.seconds)
        self.gone: list[tuple[str, float]] = []

    def hold(self, due: float, *names: str) -> None:
        for name in names:
            self.line.hold(due, lambda name=name: self.gone.append((name, self.clock.seconds())))  # type: ignore[misc]

    def test_raises(self) -> None:
        """A thing that raises on being let go keeps no other."""

        def raising() -> None:
            raise ZeroDivisionError

        self.line.hold(1.0, raising)
        self.hold(2.0, "later")
        with pytest.raises(ZeroDivisionError):
            self.clock.advance(1)
        self.clock.advance(1)
        assert self.gone == [("later", 2.0)]

    def test_order(self) -> None:
        """Things go at their times, in the order of these, and of their coming where these are equal."""
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
        """However much is held, one delayed call is in the reactor, for the first of it."""
        self.hold(3.0, "a", "b")
        self.hold(2.0, "c")
        self.hold(4.0, "d")
        (call,) = self.clock.getDelayedCalls()
        assert call.getTime() == 2.0

    def test_late(self) -> None:
        """A reactor that comes late lets everything go that is due by then, in order, and nothing else."""
        self.hold(2.0, "b")
        self.hold(1.0, "a")
        self.hold(9.0, "c")
        self.clock.advance(5.0)
        assert self.gone == [("a", 5.0), ("b", 5.0)]
        assert len(self.line) == 1

    def test_releaseDue(self) -> None:
        """Asked to, it lets what is due go before the reactor does, and what is not stays."""
        self.hold(1.0, "a")
        self.hold(2.0, "b")
        self.line.releaseDue()
        assert self.gone == []
        self.clock.rightNow = 1.5
        self.line.releaseDue()
        assert self.gone == [("a", 1.5)]
        self.clock.advance(0.5)
        assert self.gone == [("a", 1.5), ("b", 2.0)]
        assert not self.clock.getDelayedCalls()

    def test_close(self) -> None:
        """Closed, it hands back what it held, in order, and leaves nothing in the reactor."""
        self.hold(2.0, "b")
        self.hold(1.0, "a")
        held = self.line.close()
        assert not self.clock.getDelayedCalls()
        assert self.gone == []
        for release in held:
            release()
        assert [name for name, _ in self.gone] == ["a", "b"]


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
            assert list(bench.upstream.asked.values()) == [3] * 50
            assert bench.proxy.clients == 50
            for direction in (bench.proxy.up, bench.proxy.down):
                assert direction.datagrams == 150
                assert direction.fates == {"delivered": 150}
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
            assert bench.proxy.up.fates == bench.proxy.down.fates == {"delivered": 5}
            await bench.stop()

        runOnce(test)

    def test_idle(self, run: Run) -> None:
        """
        A client that was silent is forgotten, its socket closed; it is a new one when it comes again. One that goes on is not.
        """

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, idleTimeout=0.2)
            silent, talking = await bench.client(), await bench.client()
            await silent.echo(b"hello")

            async def talk() -> None:
                while bench.proxy.clients != 1 or len(bench.upstream.asked) < 2:
                    await talking.echo(b"still here")
                    await sleep(reactor, 0.01)

            await talk()
            assert len(bench.upstream.asked) == 2
            assert await silent.echo(b"hello") == 5
            assert len(bench.upstream.asked) == 3
            assert bench.proxy.clients == 2
            # The replies of the upstream count, too.
            await until(reactor, lambda: not bench.proxy.clients, "both are forgotten")
            await bench.stop()

        run(test)

    def test_maxClients(self, run: Run) -> None:
        """For one client too many, the one that was silent longest is forgotten."""

        async def test(reactor: Any) -> None:
            bench = Bench(reactor, maxClients=3)
            clients = [await bench.client() for _ in range(4)]
            for client in (clients[0], clients[1], clients[2], clients[0], clients[3]):
                await client.echo(b"hello")
            assert bench.proxy.clients == 3
            assert len(bench.upstream.asked) == 4
            # All but the second are known still.
            for number in (0, 2, 3):
                await clients[number].echo(b"hello")
            assert len(bench.upstream.asked) == 4
            await clients[1].echo(b"hello")
            assert len(bench.upstream.asked) == 5
            assert bench.proxy.clients == 3
            await bench.stop()

        run(test)

    def test_change(self, run: Run) -> None:
        """
        A plan that is changed, and one that is put in its place, hold for the next datagram; each fate is counted by its
        direction.
        """

        async def test(reactor: Any) -> None:
            up, down = FaultPlan(), FaultPlan()
            bench = Bench(reactor, up=up, down=down)
            client = await bench.client()
            assert await client.echo(b"hello") == 5
            up.change(loss=1)
            with pytest.raises(ResponseTimeout):
                await client.echo(b"hello", timeout=0.05)
            up.change(loss=0)
            down.change(loss=1)
            with pytest.raises(ResponseTimeout):
                await client.echo(b"hello", timeout=0.05)
            bench.proxy.down.plan = FaultPlan(mtu=5)
            assert await client.echo(b"hello") == 5
            with pytest.raises(ResponseTimeout):
                await client.echo(b"hello!", timeout=0.05)
            assert bench.proxy.up.fates == {"delivered": 4, "lost": 1}
            assert bench.proxy.down.fates == {"delivered": 2, "lost": 1, "too_long": 1}
            assert str(bench.proxy).splitlines() == [
                "up: datagrams=5 delivered=4 lost=1",
                "down: datagrams=4 delivered=2 lost=1 too_long=1",
                "refusals=0 passed-back=0",
            ]
            await bench.stop()

        run(test)

    def test_duplicate(self, runOnce: Run) -> None:
        """A duplicated datagram arrives twice, a truncated one cut, a corrupted one with one bit flipped."""

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
            assert bench.proxy.down.fates == {"duplicated": 1, "corrupted": 1, "truncated": 1}
            port.abort()
            await bench.stop()

        runOnce(test)

    def test_delayKeepsOrder(self, run: Run) -> None:
        """Datagrams that all take equally long come in their order, and not before their time."""

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
        """
        Stopped while it holds datagrams, it counts them as its own losses, each in its direction, and leaves nothing; stopped
        again, it does nothing.
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
            assert bench.proxy.up.fates == {"delivered": 3, "delayed": 2, "own_loss": 2}
            assert bench.proxy.down.fates == {"delayed": 3, "own_loss": 3}
            assert bench.proxy.clients == 0
            bench.proxy.stop()
            assert bench.proxy.down.fates["own_loss"] == 3
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
            await until(reactor, lambda: proxy.up.fates["own_loss"] == 3, "the losses")
            assert proxy.up.datagrams == 3
            port.abort()
            proxy.stop()

        runOnce(test)

    @needsIPv6
    def test_scope(self) -> None:
        """A link-local upstream keeps its scope."""
        upstream = DatagramAddress(("fe80::1", 7))
        upstream.scopeID = 4
        clock: Any = Clock()
        proxy = FaultProxy.__new__(FaultProxy)
        FaultProxy.__init__(proxy, _Timeless(clock), upstream)
        assert proxy._upstream.scopeID == 4

    def test_wildcard(self, runOnce: Run) -> None:
        """On a wildcard address a reply leaves from the address that the client asked last."""

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


class _Timeless:
    """A clock as far as an adapter goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __conform__(self, interface: Any) -> Any:
        return self._clock


class RefusalTests:
    """What the proxy does when the upstream refuses."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_passedBack(self, host: str, run: Run) -> None:
        """With the right to open raw sockets the client is refused in turn, whatever the size of what it sent."""
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
        """
        Without that right refusals are counted, and clients hear nothing; once the upstream is back, they get its replies.
        """
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

    def test_refuseWithoutRight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system does not let raw sockets be opened, C{refuse} says so and raises nothing."""
        from udpecho.net.linux import icmp

        class Forbidden(socket.socket):
            def __init__(self, *arguments: Any) -> None:
                raise PermissionError(1, "as the test wants it")

        monkeypatch.setattr("udpecho.net.linux.icmp.socket.socket", Forbidden)
        assert not icmp.refuse(DatagramAddress(("127.0.0.1", 1234)), ("127.0.0.1", 4321), 5)

    @pytest.mark.parametrize(
        ("message", "sum_"),
        # The example of RFC 1071, section 3, and the same with one more byte.
        [("0001f203f4f5f6f7", 0x220D), ("0001f203f4f5f6f780", 0xA20C), ("", 0xFFFF)],
    )
    def test_checksum(self, message: str, sum_: int) -> None:
        """The checksum is that of RFC 1071, for an odd number of bytes, too."""
        from udpecho.net.linux import icmp

        assert icmp.checksum(bytes.fromhex(message)) == sum_


class RepeatTests:
    """The same again."""

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
        """
        Send 200 datagrams through a proxy, one after the other as far as its upstream can tell.

        @return: the decisions of each direction, printed, and what came back.
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
            came = runner(test)
        finally:
            runner.close()
        return str(plans[0]), str(plans[1]), came

    def test_sameSeed(self) -> None:
        """
        Two runs with one seed make the same decisions, and so does a run that replays those printed; with another seed they
        differ.
        """
        first = self.once(FaultPlan("7 up", **self.FAULTS), FaultPlan("7 down"))
        assert "lost" in first[0]
        assert first == self.once(FaultPlan("7 up", **self.FAULTS), FaultPlan("7 down"))
        assert first == self.once(Replay(first[0]), Replay(first[1]))
        assert first[0] != self.once(FaultPlan("8 up", **self.FAULTS), FaultPlan("7 down"))[0]


# The command


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture
def server(processes: Processes) -> Server:
    """Our server."""
    return processes.server("--log-datagrams", "0", "--interface", "127.0.0.1")


class Proxy:
    """
    C{udpecho proxy} in a process of its own, which has said where it listens.

    @ivar process: the process.
    @ivar address: where the clients send to.
    """

    def __init__(self, processes: Processes, upstream: tuple[str, int], *options: str, listen: str = "127.0.0.1:0") -> None:
        self.process: Process = processes.start("udpecho", "proxy", listen, formatAddress(upstream), *options)
        said = self.process.until(r"^udpecho: passing datagrams from (\S+):(\d+) to (\S+)$", "stderr")
        assert said[3] == formatAddress(upstream)
        self.address = said[1].strip("[]"), int(said[2])

    @property
    def written(self) -> str:
        """Its address, as people write it."""
        return formatAddress(self.address)

    def stop(self, number: int = signal.SIGINT) -> dict[str, dict[str, int]]:
        """
        Stop it by a signal, and look that it goes as it should.

        @return: the sums that it prints, for C{up}, C{down} and the last line.
        """
        self.process.signal(number)
        self.process.finish()
        assert self.process.status == 128 + number, self.process
        assert len(self.process.stderr.splitlines()) == 1, self.process
        lines = self.process.stdout.splitlines()[-3:]
        found = {}
        for name, line in zip(("up", "down", ""), lines):
            assert line.startswith(f"{name}: " if name else "refusals="), self.process
            found[name] = {key: int(number) for key, number in re.findall(r"([a-z_-]+)=(\d+)", line)}
        return found


class ProxyCommandTests:
    """C{udpecho proxy} between real programs."""

    OPTIONS = ("--loss", "10%", "--delay", "50ms", "--jitter", "10ms", "--seed", "7")

    def test_ours(self, processes: Processes, server: Server) -> None:
        """
        Between our client and our server, with loss, delay and jitter, those datagrams are answered that the seed says, in
        every run.
        """
        plans = [FaultPlan(f"7 {direction}", loss=0.1, delay=0.05, jitter=0.01) for direction in ("up", "down")]
        # The second plan is asked about those only that the first lets through.
        expected = [all(plan.decide(1, 0).delays for plan in plans) for _ in range(20)]
        assert 0 < expected.count(False) < 5
        proxy = Proxy(processes, server.addresses[0], *self.OPTIONS)
        sent = processes.run("udpecho", "send", "--chunk", "1", "--timeout", "300ms", proxy.written, feed=os.urandom(20))
        sums = proxy.stop()
        lines = re.sub("^packet-", "", sent.stdout, flags=re.MULTILINE)
        answered = [group.count("received") == 1 for group in lines.split("written")[1:]]
        assert answered == expected, (sent, proxy.process)
        assert sent.status == 1
        assert sums["up"]["datagrams"] == 20
        assert sums["up"]["delayed"] == sums["down"]["datagrams"]
        assert sums["down"]["delayed"] == expected.count(True)

    def test_socat(self, processes: Processes) -> None:
        """Between socat and socat, each way."""
        socat = tool("socat")
        port = unusedPort()
        upstream = processes.start(socat, "-u", "-b", "65536", f"UDP4-RECV:{port},bind=127.0.0.1", "-")
        eventually(lambda: _isBound(port), "socat's socket")
        proxy = Proxy(processes, ("127.0.0.1", port), "--delay", "50ms", "--jitter", "10ms", "--seed", "7")
        for word in ("one", "two", "three"):
            assert processes.run(socat, "-u", "-", f"UDP4-SENDTO:{proxy.written}", feed=f"{word}\n".encode()).status == 0
            upstream.until(f"^{word}$")
        upstream.kill()
        assert proxy.stop()["up"] == {"datagrams": 3, "delayed": 3}

    def test_socatEchoes(self, processes: Processes) -> None:
        """A socat that echoes answers a socat that asks, with the command line of the issue but for the loss."""
        socat = tool("socat")
        port = unusedPort()
        upstream = processes.start(socat, f"UDP4-LISTEN:{port},bind=127.0.0.1,fork", "SYSTEM:cat")
        eventually(lambda: _isBound(port), "socat's socket")
        proxy = Proxy(processes, ("127.0.0.1", port), *self.OPTIONS, "--loss", "0")
        client = processes.start(socat, "-t", "5", "-", f"UDP4:{proxy.written}", stdin=-1)
        for word in ("one", "two", "three"):
            client.write(f"{word}\n".encode())
            client.until(f"^{word}$")
        client.kill()
        # With what it has forked.
        os.killpg(upstream.pid, signal.SIGKILL)
        sums = proxy.stop()
        assert sums["up"]["delayed"] >= 3
        assert sums["down"]["delayed"] >= 3

    def test_verbose(self, processes: Processes, server: Server) -> None:
        """
        With C{--verbose} there is a line for each datagram each way, and those of one direction are decisions that can be
        replayed.
        """
        options = ("--verbose", "--direction", "up", "--corrupt", "50%", "--delay", "1ms", "--duplicate", "50%", "--seed", "x")
        proxy = Proxy(processes, server.addresses[0], *options)
        with udpSocket() as sock:
            sock.connect(proxy.address)
            client = formatAddress(sock.getsockname())
            for _ in range(20):
                sock.send(b"hello")
                sock.recv(100)
            proxy.process.until(r"(?s)(^up: .*?){20}")
        sums = proxy.stop()
        lines = proxy.process.stdout.splitlines()[:-3]
        ups = [line for line in lines if line.startswith("up: ")]
        downs = [line for line in lines if line.startswith("down: ")]
        assert len(lines) == len(ups) + len(downs)
        plan = FaultPlan("x up", corrupt=0.5, delay=0.001, duplicate=0.5)
        assert ups == [f"up: bytes=5 client={client} {plan.decide(5, 0)}" for _ in range(20)]
        replay = Replay("\n".join(line.partition(f"{client} ")[2] for line in ups))
        assert sum("duplicated" in replay.decide(5, 0).reasons for _ in range(20)) == sums["up"]["duplicated"]
        assert set(downs) == {f"down: bytes=5 client={client} delivered +0.000000000"}
        assert len(downs) == sums["down"]["datagrams"]

    def test_quiet(self, processes: Processes, server: Server) -> None:
        """Without it nothing but the sums is printed, at an interrupt as at a termination."""
        for number in (signal.SIGINT, signal.SIGTERM):
            proxy = Proxy(processes, server.addresses[0])
            with udpSocket() as sock:
                sock.sendto(b"hello", proxy.address)
                assert sock.recvfrom(100) == (b"hello", proxy.address)
            assert proxy.stop(number) == {
                "up": {"datagrams": 1, "delivered": 1},
                "down": {"datagrams": 1, "delivered": 1},
                "": {"refusals": 0, "passed-back": 0},
            }
            assert len(proxy.process.stdout.splitlines()) == 3

    def test_nobodyReads(self, processes: Processes, server: Server) -> None:
        """When nobody reads what it prints it ends, without a traceback."""
        read, write = os.pipe()
        process = processes.start("udpecho", "proxy", "-v", "127.0.0.1:0", formatAddress(server.addresses[0]), stdout=write)
        os.close(write)
        said = process.until(r"from (\S+):(\d+) to", "stderr")
        os.close(read)
        with udpSocket() as sock:
            sock.sendto(b"hello", (said[1], int(said[2])))
            process.finish()
        assert process.status == 1, process
        assert "Traceback" not in process.stderr, process

    @needsIPv6
    def test_ipv6(self, processes: Processes, server: Server) -> None:
        """It takes clients of IPv6 to an upstream of IPv4, which may have a name."""
        upstream = f"localhost:{server.addresses[0][1]}"
        process = processes.start("udpecho", "proxy", "[::1]:0", upstream)
        port = int(process.until(r"^udpecho: passing datagrams from \[::1\]:(\d+) to \S+$", "stderr")[1])
        if f"to 127.0.0.1:{server.addresses[0][1]}" in process.stderr:
            sent = processes.run("udpecho", "send", f"[::1]:{port}", feed=b"hello")
            assert sent.status == 0, sent
        process.stop()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--loss", "110%"),
                "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got '110%'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--loss", "-1"),
                "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got '-1'",
            ),
            (("127.0.0.1:0", "127.0.0.1:9", "--loss", "x"), "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got 'x'"),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--delay", "-1"),
                "argument --delay: duration must be 0s to 366 days, as in 0.5s or 500ms, got '-1'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--jitter", "1 day"),
                "argument --jitter: duration must be 0s to 366 days, as in 0.5s or 500ms, got '1 day'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--rate", "0"),
                "argument --rate: size must be 1 byte to less than 1g, as in 65536 or 64k, got '0'",
            ),
            (("127.0.0.1:0", "127.0.0.1:9", "--burst", "1%"), "argument --burst: '1%' is not a bursty loss"),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--burst", "1%,x"),
                "argument --burst: share must be 0 to 1, as in 0.1 or 10%, got 'x'",
            ),
            (("127.0.0.1", "127.0.0.1:9"), "argument LISTEN: '127.0.0.1' has no port"),
            (("::1", "127.0.0.1:9"), "argument LISTEN: '::1' has no port"),
            (("::1:0", "127.0.0.1:9"), "argument LISTEN: '::1:0' has no port"),
            (("[::1]", "127.0.0.1:9"), "argument LISTEN: '[::1]' has no port"),
            (
                ("localhost:0", "127.0.0.1:9"),
                "argument LISTEN: local address must be an IP address, as in 127.0.0.1, got 'localhost:0'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1"),
                "argument UPSTREAM: address must be HOST:PORT, as in localhost:1234, got '127.0.0.1'",
            ),
            (("127.0.0.1:0", "127.0.0.1:0"), "argument UPSTREAM: port must be 1 to 65535, got '0'"),
            (("192.0.2.1:0", "127.0.0.1:9"), "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
            (("127.0.0.1:0", "nowhere.invalid:9"), "nowhere.invalid"),
        ],
    )
    def test_wrong(self, arguments: tuple[str, ...], sentence: str, processes: Processes) -> None:
        """A wrong value is refused in one line that says what was wrong, with status 2."""
        done = processes.run("udpecho", "proxy", *arguments)
        assert done.status == 2, done
        assert not done.stdout
        (line,) = done.stderr.splitlines()
        assert sentence in line, done

    def test_portInUse(self, processes: Processes) -> None:
        """So is a port that is taken."""
        with udpSocket() as sock:
            address = formatAddress(sock.getsockname())
            done = processes.run("udpecho", "proxy", address, "127.0.0.1:9")
        assert (done.status, done.stdout) == (2, ""), done
        assert done.stderr == f"udpecho: cannot listen on {address}: Address already in use\n"


def _isBound(port: int) -> bool:
    """Whether somebody has bound a port of 127.0.0.1."""
    try:
        with udpSocket(port=port):
            return False
    except OSError:
        return True


def interval(number: int, probability: float) -> range:
    """
    The numbers of successes among which a binomial variable is with a probability of at least 99.99 %.

    @param number: how many trials.
    """
    tail = 0.00005
    weights = _binomial(number, probability)
    below = above = 0.0
    low, high = 0, number
    while below + weights[low] < tail:
        below += weights[low]
        low += 1
    while above + weights[high] < tail:
        above += weights[high]
        high -= 1
    return range(low, high + 1)


def _binomial(number: int, probability: float) -> list[float]:
    full = lgamma(number + 1)
    return [
        exp(
            full
            - lgamma(count + 1)
            - lgamma(number - count + 1)
            + count * log(probability)
            + (number - count) * log(1 - probability)
        )
        for count in range(number + 1)
    ]


class Measurement:
    """
    Numbered datagrams through C{udpecho proxy}, whose faults are on the way back.

    @ivar sums: what the proxy says of the way back.
    @ivar numbers: what arrived whole, in its order.
    @ivar corrupted: what arrived with some bits flipped.
    @ivar cut: what arrived short.
    """

    NUMBER = 10000
    #: So few that no queue is filled by them.
    BUNDLE = 100
    #: The last ones.
    FENCE = b"the last of them all"

    def __init__(self, processes: Processes, *options: str) -> None:
        self.numbers: list[int] = []
        self.corrupted: list[bytes] = []
        self.cut: list[bytes] = []
        self._fence = False
        with udpSocket() as upstream, udpSocket() as client:
            proxy = Proxy(processes, upstream.getsockname(), "--direction", "down", "--seed", "7", *options)
            client.connect(proxy.address)
            for first in range(0, self.NUMBER, self.BUNDLE):
                for number in range(first, first + self.BUNDLE):
                    client.send(number.to_bytes(8, "big") * 2)
                for _ in range(self.BUNDLE):
                    datagram, address = upstream.recvfrom(100)
                    upstream.sendto(datagram, address)
                self._take(client)
            # These come behind all others, unless something happens to them, too.
            fences = 0
            while not self._fence:
                fences += 1
                client.send(self.FENCE)
                upstream.sendto(*upstream.recvfrom(100))
                self._take(client, 0.05)
            # What was held back longer.
            while select.select([client], [], [], 0.1)[0]:
                self._take(client)
            self.sums = proxy.stop()["down"]
        assert self.sums.pop("datagrams") == self.NUMBER + fences
        assert "own_loss" not in self.sums
        self.arrived = len(self.numbers) + len(self.corrupted) + len(self.cut)

    def _take(self, client: socket.socket, patience: float = 0) -> None:
        while select.select([client], [], [], patience)[0]:
            datagram = client.recv(100)
            if len(datagram) < 16:
                self.cut.append(datagram)
            elif len(datagram) > 16:
                self._fence |= datagram == self.FENCE
            elif datagram[:8] != datagram[8:]:
                self.corrupted.append(datagram)
            else:
                self.numbers.append(int.from_bytes(datagram[:8], "big"))


class MeasuredTests:
    """Each fault of C{udpecho proxy}, measured over 10000 datagrams at the other end, to within its 99.99 % interval."""

    NUMBER = Measurement.NUMBER

    def test_none(self, processes: Processes) -> None:
        """Without faults all arrive, once and in order."""
        assert Measurement(processes).numbers == list(range(self.NUMBER))

    def test_loss(self, processes: Processes) -> None:
        """Loss loses as many as it says, and the others keep their order."""
        measured = Measurement(processes, "--loss", "10%")
        assert self.NUMBER - measured.arrived in interval(self.NUMBER, 0.1)
        assert 0 <= measured.sums["lost"] - (self.NUMBER - measured.arrived) < 10
        assert measured.numbers == sorted(set(measured.numbers))

    def test_burst(self, processes: Processes) -> None:
        """Bursty loss begins, and ends, as often as its parameters say."""
        arrived = set(Measurement(processes, "--burst", "2%,25%").numbers)
        pairs = Counter((number in arrived, number + 1 in arrived) for number in range(self.NUMBER - 1))
        assert pairs[True, False] in interval(pairs[True, False] + pairs[True, True], 0.02)
        assert pairs[False, True] in interval(pairs[False, True] + pairs[False, False], 0.25)

    def test_duplicate(self, processes: Processes) -> None:
        """As many arrive twice, none three times, and none is lost."""
        times = Counter(Measurement(processes, "--duplicate", "5%").numbers)
        assert set(times) == set(range(self.NUMBER))
        assert set(times.values()) == {1, 2}
        assert list(times.values()).count(2) in interval(self.NUMBER, 0.05)

    def test_reorder(self, processes: Processes) -> None:
        """As many are overtaken by later ones, and none is lost."""
        numbers = Measurement(processes, "--reorder", "5%").numbers
        assert sorted(numbers) == list(range(self.NUMBER))
        latest, overtaken = -1, 0
        for number in numbers:
            overtaken += number < latest
            latest = max(latest, number)
        assert overtaken in interval(self.NUMBER, 0.05)

    def test_corrupt(self, processes: Processes) -> None:
        """In as many one bit is flipped, anywhere."""
        measured = Measurement(processes, "--corrupt", "10%")
        assert measured.arrived == self.NUMBER
        assert len(measured.corrupted) in interval(self.NUMBER, 0.1)
        differences = [
            int.from_bytes(datagram[:8], "big") ^ int.from_bytes(datagram[8:], "big") for datagram in measured.corrupted
        ]
        assert {difference.bit_count() for difference in differences} == {1}
        assert len(set(differences)) == 64

    def test_truncate(self, processes: Processes) -> None:
        """As many are cut, to any length."""
        measured = Measurement(processes, "--truncate", "10%")
        assert len(measured.cut) in interval(self.NUMBER, 0.1)
        assert {len(datagram) for datagram in measured.cut} == set(range(16))


def overflows() -> int:
    """How many datagrams this machine has dropped because a receive buffer was full."""
    try:
        names, values = re.findall(r"^Udp: (.*)$", Path("/proc/net/snmp").read_text(), re.MULTILINE)
    except OSError:
        pytest.skip("this system does not tell of full receive buffers")
    return int(dict(zip(names.split(), values.split()))["RcvbufErrors"])


class LoadTests:
    """C{udpecho proxy} at as many datagrams a second as this machine can, up to 20000."""

    def test_load(self, processes: Processes) -> None:
        """Nothing is reordered, and what is lost without the plan has been counted by the proxy or by the system."""
        before = overflows()
        came: list[int] = []
        with udpSocket() as upstream, udpSocket() as client:
            proxy = Proxy(processes, upstream.getsockname())
            client.connect(proxy.address)

            def take(patience: float = 0) -> None:
                while select.select([upstream], [], [], patience)[0]:
                    came.append(int.from_bytes(upstream.recv(100), "big"))

            begin = time.monotonic()
            sent = 0
            while sent < 20000:
                due = min(20000, int((time.monotonic() - begin) * 20000))
                # Who was kept waiting does not make up for it at once.
                for _ in range(min(due - sent, 200)):
                    client.send(sent.to_bytes(100, "big"))
                    sent += 1
                take(0.0005)
            # The queues keep the order: when the last is there, so are all others.
            while not came or came[-1] < 20000:
                client.send(sent.to_bytes(100, "big"))
                sent += 1
                take(0.01)
            take(0.1)
            up = proxy.stop()["up"]
        assert came == sorted(set(came))
        lost = sent - len(came)
        assert lost <= up.get("own_loss", 0) + overflows() - before, proxy.process
        assert sent - (overflows() - before) <= up["datagrams"] <= sent
