"""Tests of L{udpecho.faults.shortcut}: batches on real sockets go on as they came."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.guards import needsBatches, needsIPv6
from tests.support.proxy import until
from tests.support.running import Run, udpSocket
from udpecho.faults.models import GilbertElliott, Jitter
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.net.linux import sockopt
from udpecho.net.linux.onward import Onward

pytestmark = needsBatches


class Bench:
    """A proxy between plain sockets, in one process: what is sent in one go is a batch.

    @ivar decided: how many datagrams the plans have decided about.
    """

    def __init__(self, reactor: Any, monkeypatch: Any, host: str = "127.0.0.1", clients: int = 1, **options: Any) -> None:
        self.reactor = reactor
        self.decided = 0
        decide = FaultPlan.decide

        def counted(plan: FaultPlan, size: int, now: float) -> Any:
            self.decided += 1
            return decide(plan, size, now)

        monkeypatch.setattr(FaultPlan, "decide", counted)
        self._stack = ExitStack()
        self.upstream = self._stack.enter_context(udpSocket())
        self.clients = [self._stack.enter_context(udpSocket("::1" if ":" in host else "127.0.0.1")) for _ in range(clients)]
        for sock in (self.upstream, *self.clients):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        self.proxy = FaultProxy(reactor, self.upstream.getsockname()[:2], **options)
        self.proxy.start(0, host)

    async def up(self, *sent: tuple[int, bytes], to: str | None = None, arriving: int | None = None) -> list[tuple[bytes, Any]]:
        """Send datagrams at once.

        @param sent: the numbers of the clients, and the payloads.
        @return: what came to the upstream, with the sources.
        """
        host, port = self.proxy.address
        for client, payload in sent:
            self.clients[client].sendto(payload, (to or host, port))
        return await self._received(self.upstream, len(sent) if arriving is None else arriving)

    async def down(self, client: int, address: Any, *payloads: bytes) -> list[tuple[bytes, Any]]:
        """Send replies at once, and receive them."""
        for payload in payloads:
            self.upstream.sendto(payload, address)
        return await self._received(self.clients[client], len(payloads))

    async def _received(self, sock: socket.socket, count: int) -> list[tuple[bytes, Any]]:
        came: list[tuple[bytes, Any]] = []

        def look() -> bool:
            while True:
                try:
                    came.append(sock.recvfrom(100_000))
                except BlockingIOError:
                    return len(came) >= count

        await until(self.reactor, look, f"{count} datagrams must arrive")
        return came

    async def learnt(self) -> list[Any]:
        """Let each client send twice, and get a reply: from then on all is as usual.

        @return: the proxy's addresses, as the upstream sees them.
        """
        sources = []
        for number in range(len(self.clients)):
            for _ in range(2):
                (((_, source),)) = await self.up((number, b"hello"))
            sources.append(source)
            for _ in range(2):
                await self.down(number, source, b"welcome")
        self.decided = 0
        return sources

    def stop(self) -> None:
        self.proxy.stop()
        self._stack.close()


@contextmanager
def bench(*arguments: Any, **options: Any) -> Iterator[Bench]:
    made = Bench(*arguments, **options)
    try:
        yield made
    finally:
        made.stop()


def numbered(count: int) -> list[bytes]:
    return [b"%d " % number * (number % 50) for number in range(count)]


class ShortcutTests:
    """Batches through L{FaultProxy}."""

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", pytest.param("::1", marks=needsIPv6)])
    def test_batches(self, run: Run, monkeypatch: Any, host: str) -> None:
        """They arrive whole and in order, from their clients' sockets, are counted, and no plan decides about each."""

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch, host, clients=3) as made:
                sources = await made.learnt()
                assert len(set(sources)) == 3
                before = made.proxy.up.datagrams, made.proxy.down.datagrams
                sent = [(number % 7 % 3, payload) for number, payload in enumerate(numbered(150))]
                came = await made.up(*sent, to="127.0.0.1" if host == "0.0.0.0" else None)
                for number, source in enumerate(sources):
                    payloads = [payload for client, payload in sent if client == number]
                    assert [payload for payload, where in came if where == source] == payloads
                    assert [payload for payload, _ in await made.down(number, source, *payloads)] == payloads
                ((longest, _),) = await made.up((0, bytes(65507)), to="127.0.0.1" if host == "0.0.0.0" else None)
                assert longest == bytes(65507)
                assert made.decided == 0
                assert (made.proxy.up.datagrams - before[0], made.proxy.down.datagrams - before[1]) == (151, 150)
                assert made.proxy.up.outcomes == {"delivered": 151 + before[0]}
                assert made.proxy.down.outcomes == {"delivered": 150 + before[1]}

        run(test)

    def test_newClients(self, run: Run, monkeypatch: Any) -> None:
        """A client that is new in the middle of a batch, and all behind it, take the long way: nothing is lost or twice."""

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch, clients=2) as made:
                await made.up((0, b"first"))
                await made.up((0, b"again"))
                made.decided = 0
                sent = [(int(number == 20), payload) for number, payload in enumerate(numbered(40))]
                came = await made.up(*sent)
                assert sorted(payload for payload, _ in came) == sorted(payload for _, payload in sent)
                assert made.decided == 20
                assert made.proxy.clients == 2

        run(test)

    def test_change(self, run: Run, monkeypatch: Any) -> None:
        """A plan that gets faults has them from the next datagram on, and those decisions that it would have had anyway."""

        async def test(reactor: Any) -> None:
            beside = FaultPlan("7", loss=0.5)
            lost = [not beside.decide(1, 0.0).delays for _ in range(102)][62:]
            with bench(reactor, monkeypatch, up=FaultPlan("7")) as made:
                await made.learnt()
                await made.up(*[(0, b"x")] * 60)
                assert made.decided == 0
                made.proxy.up.plan.change(loss=0.5)  # type: ignore[attr-defined]
                payloads = numbered(40)
                kept = [payload for payload, isLost in zip(payloads, lost) if not isLost]
                came = await made.up(*[(0, payload) for payload in payloads], arriving=len(kept))
                assert [payload for payload, _ in came] == kept
                assert made.proxy.up.outcomes["lost"] == sum(lost) == 40 - len(kept)

        run(test)

    def test_faults(self, run: Run, monkeypatch: Any) -> None:
        """Of a batch with faults each datagram has its own, and all arrive in order."""
        faults: dict[str, Any] = {"loss": 0.2, "duplicate": 0.2, "truncate": 0.2, "mtu": 100}

        async def test(reactor: Any) -> None:
            beside, payloads = FaultPlan("7"), numbered(60)
            beside.skip(2)
            beside.change(**faults)
            decisions = [beside.decide(len(payload), 0.0) for payload in payloads]
            expected = [arrival.datagram for each, payload in zip(decisions, payloads) for arrival in each.apply(payload)]
            with bench(reactor, monkeypatch, up=FaultPlan("7")) as made:
                await made.learnt()
                made.proxy.up.plan.change(**faults)  # type: ignore[attr-defined]
                came = await made.up(*[(0, payload) for payload in payloads], arriving=len(expected))
                assert [payload for payload, _ in came] == expected
                assert made.proxy.up.datagrams == 62
                reasons = Counter(reason for decision in decisions for reason in decision.reasons)
                assert made.proxy.up.outcomes == reasons + Counter(delivered=2)

        run(test)

    def test_localAddress(self, run: Run, monkeypatch: Any) -> None:
        """On all addresses replies come from the one that the client sent to last."""

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch, "0.0.0.0") as made:
                for host in ("127.0.0.1", "127.0.0.2") * 2:
                    for _ in range(3):
                        ((_, source),) = await made.up((0, b"hello"), to=host)
                        ((_, where),) = await made.down(0, source, b"welcome")
                        assert where[0] == host

        run(test)

    def test_hopLimits(self, run: Run, monkeypatch: Any) -> None:
        """Each goes on with one hop less, a reply with no more than its client had; with none left it is dropped."""

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch) as made:
                (source,) = await made.learnt()
                for sock in (made.upstream, *made.clients):
                    sockopt.enableRecvHopLimit(sock, True)
                limits = [9, 9, 20, 1, 5, 5]
                for limit in limits:
                    made.clients[0].setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
                    made.clients[0].sendto(b"hello", made.proxy.address)
                assert await hops(made, made.upstream, 5) == [8, 8, 19, 4, 4]
                assert made.proxy.up.outcomes["loop_guard"] == 1
                for limit in (3, 64, 64):
                    made.upstream.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
                    made.upstream.sendto(b"welcome", source)
                assert await hops(made, made.clients[0], 3) == [2, 4, 4]

        run(test)

    def test_partlySent(self, run: Run, monkeypatch: Any) -> None:
        """What the system does not take at once goes one by one, in order, once."""
        send: Callable[..., int] = Onward.send

        def some(onward: Onward, descriptor: int, first: int, count: int, name: bytes, controls: bytes) -> int:
            return send(onward, descriptor, first, count // 2, name, controls) if count > 1 else 0

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch) as made:
                (source,) = await made.learnt()
                monkeypatch.setattr(Onward, "send", some)
                payloads = numbered(30)
                assert [payload for payload, _ in await made.up(*[(0, payload) for payload in payloads])] == payloads
                assert [payload for payload, _ in await made.down(0, source, *payloads)] == payloads
                assert made.proxy.up.outcomes == {"delivered": 32}

        run(test)

    def test_watched(self, run: Run, monkeypatch: Any) -> None:
        """A watcher sees each datagram, and nothing overtakes what is late."""
        seen: list[tuple[str, int]] = []

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch, watcher=lambda name, client, size, decision: seen.append((name, size))) as made:
                (source,) = await made.learnt()
                del seen[:]
                await made.up(*[(0, b"x" * size) for size in range(9)])
                await made.down(0, source, b"welcome")
                assert seen == [*[("up", size) for size in range(9)], ("down", 7)]
            with bench(reactor, monkeypatch) as made:
                await made.learnt()
                (client,) = made.proxy._clients.values()
                assert made.proxy._carrier.isFree(client)
                made.proxy._carrier.line.hold(0.0, lambda: None)
                assert not made.proxy._carrier.isFree(client)

        run(test)

    def test_bounds(self, run: Run, monkeypatch: Any) -> None:
        """Where nothing may wait, nothing passes; and a client that was forgotten is new again."""

        async def test(reactor: Any) -> None:
            with bench(reactor, monkeypatch, clients=2, maxClients=1) as made:
                for client in (0, 0, 0, 1, 1, 1, 0, 0, 0):
                    await made.up((client, b"hello"))
                    assert made.proxy.clients == 1
                    assert len(made.proxy._shortcut._byOrigin) <= 1
                made.proxy._carrier._held._left = 0
                made.clients[0].sendto(b"hello", made.proxy.address)
                await until(reactor, lambda: made.proxy.up.outcomes["held_full"] == 1, "held_full must be counted")

        run(test)


async def hops(made: Bench, sock: socket.socket, count: int) -> list[int]:
    """The hop limits that datagrams come with."""
    limits: list[int] = []

    def look() -> bool:
        try:
            while True:
                _, ancillary, _, _ = sock.recvmsg(100, 100, sockopt.MSG_DONTWAIT)
                limits.extend(data[0] for _, kind, data in ancillary if kind == socket.IP_TTL)
        except BlockingIOError:
            return len(limits) >= count

    await until(made.reactor, look, f"{count} datagrams must arrive")
    return limits


class FaultlessTests:
    """L{FaultPlan.faultless} and L{FaultPlan.skip}, with no network."""

    @pytest.mark.parametrize(
        "faults",
        [
            {"loss": 0.1},
            {"burst": GilbertElliott(0.0, 1.0)},
            {"duplicate": 0.1},
            {"reorder": 0.1},
            {"corrupt": 0.1},
            {"truncate": 0.1},
            {"delay": 0.1},
            {"jitter": Jitter(0.1, "normal")},
            {"rate": 1e9},
            {"mtu": 0},
        ],
        ids=lambda faults: next(iter(faults)),
    )
    def test_faultless(self, faults: dict[str, Any]) -> None:
        """Each fault counts, and none of them."""
        assert FaultPlan(reorderDelay=1.0, queue=0).faultless
        assert not FaultPlan(**faults).faultless

    @pytest.mark.parametrize("skipped", [1, 2, 1000])
    def test_skip(self, skipped: int) -> None:
        """It takes as many numbers of the generator as so many decisions."""
        one, other = FaultPlan("seed"), FaultPlan("seed")
        for _ in range(skipped):
            one.decide(1, 0.0)
        other.skip(skipped)
        for plan in (one, other):
            plan.change(loss=0.3, jitter=0.1, duplicate=0.3)
        assert [one.decide(9, 0.0) for _ in range(50)] == [other.decide(9, 0.0) for _ in range(50)]
