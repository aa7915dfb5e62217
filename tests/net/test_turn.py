"""Tests of L{udpecho.net.turn}, and of the turns of real ports whose time is the test's."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet import reactor as installed
from twisted.internet.task import Clock

from tests.conftest import CaughtErrors
from tests.support.batches import sendSegments
from tests.support.guards import needsBatches
from tests.support.ports import inOneTurn
from tests.support.running import Run, sleep, udpSocket
from tests.support.server import check
from udpecho.interfaces import SendCallback
from udpecho.net import turn as module
from udpecho.net.open import listen
from udpecho.net.turn import TURN_TIME, TurnBudget, turnBudget
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.protocol import EchoServer


class Worker:
    """Work that takes time.

    @ivar done: how often each worker has worked, as its name each time.
    """

    def __init__(self, name: str, seconds: Callable[[float], object], done: list[str], takes: float = TURN_TIME) -> None:
        self.name, self.pass_, self.done, self.takes = name, seconds, done, takes

    def work(self) -> None:
        self.done.append(self.name)
        self.pass_(self.takes)


class TurnBudgetTests:
    """L{TurnBudget}, in virtual time."""

    def setup_method(self) -> None:
        self.clock = Clock()
        self.now = 0.0
        self.budget = TurnBudget(self.clock, lambda: self.now)
        self.budget.opened()
        self.done: list[str] = []

    def spend(self, seconds: float) -> None:
        self.now += seconds

    def turn(self) -> None:
        """Call what is due, and not what that has called later, as a reactor does."""
        calls, self.clock.calls = self.clock.calls, []
        for call in calls:
            call.called = 1
            call.func()

    def worker(self, name: str, takes: float = TURN_TIME) -> Worker:
        return Worker(name, self.spend, self.done, takes)

    def test_sharedByAll(self) -> None:
        """When one has used the time up, nobody works in this turn."""
        first, second = self.worker("a"), self.worker("b")
        self.budget.run(first.work)
        self.budget.run(second.work)
        assert self.done == ["a"]
        self.turn()
        assert self.done == ["a", "b"]

    def test_each(self) -> None:
        """Although the reactor has them in the same order in each turn, all get their turns."""
        workers = [self.worker(str(number), TURN_TIME / 2) for number in range(5)]
        for _ in range(10):
            for worker in workers:
                self.budget.run(worker.work)
            self.turn()
        counts = [self.done.count(worker.name) for worker in workers]
        assert max(counts) - min(counts) <= 1

    def test_shares(self) -> None:
        """Where several wait, each has its share of the time."""
        ends: list[float] = []

        def work() -> None:
            while not self.budget.isOver():
                self.spend(TURN_TIME / 1000)
            ends.append(self.now)

        self.budget.run(self.worker("all").work)
        for _ in range(4):
            self.budget.run(partial(work))
        start = self.now
        self.turn()
        assert [round((end - start) / TURN_TIME, 2) for end in ends] == [0.25, 0.5, 0.75, 1]

    def test_manyShortTurns(self) -> None:
        """Turns that take little are added up, and cost no delayed call each; a new turn begins with the whole time."""
        worker = self.worker("a", TURN_TIME / 100)
        self.budget.run(worker.work)
        assert self.clock.getDelayedCalls() == []
        for _ in range(500):
            self.budget.run(worker.work)
            self.turn()
        assert len(self.done) == 501

    def test_bound(self) -> None:
        """Between two turns the work takes the time of one, and of one worker beyond it."""
        workers = [self.worker(str(number), TURN_TIME / 3) for number in range(100)]
        for _ in range(50):
            start = self.now
            for worker in workers:
                self.budget.run(worker.work)
            self.turn()
            assert self.now - start <= 2 * (TURN_TIME + TURN_TIME / 3)

    @pytest.mark.parametrize("kind", [OSError, RuntimeError, SystemExit])
    def test_failure(self, kind: type[BaseException], caught: CaughtErrors) -> None:
        """One that fails does not keep the others from their work."""

        def fail() -> None:
            raise kind

        worker = self.worker("a", 0)
        self.budget.postpone(fail)
        self.budget.postpone(worker.work)
        self.turn()
        assert self.done == ["a"]
        caught.flush(kind)

    def test_insideAnother(self) -> None:
        """Work inside other work, which runs the reactor, does not give that one more time."""

        def work() -> None:
            self.budget.run(self.worker("a", TURN_TIME / 2).work)
            assert not self.budget.isOver()
            self.spend(TURN_TIME / 2)
            assert self.budget.isOver()
            self.done.append("b")

        self.budget.run(work)
        assert self.done == ["a", "b"]

    def test_forget(self) -> None:
        """What is forgotten is not done, also if that happens in the turn in which it would have been."""
        worker = self.worker("a", 0)
        self.budget.postpone(lambda: self.budget.forget(worker.work))
        self.budget.postpone(worker.work)
        self.turn()
        assert self.done == []

    def test_closed(self) -> None:
        """The last user leaves nothing in the reactor."""
        self.budget.run(self.worker("a").work)
        self.budget.postpone(self.worker("b").work)
        self.budget.closed()
        assert self.clock.getDelayedCalls() == []

    def test_notRunning(self) -> None:
        """Without a running reactor there is no timer to wait, and no turn that ends."""
        reactor: Any = Clock()
        reactor.running = False
        budget = TurnBudget(reactor, lambda: self.now)
        for _ in range(3):
            budget.run(self.worker("a").work)
        assert self.done == ["a"] * 3
        assert reactor.getDelayedCalls() == []

    def test_oneForEachReactor(self) -> None:
        """Users of one reactor share its budget; after the last one there is none."""
        other = Clock()
        first, second = turnBudget(other), turnBudget(other)
        assert first is second
        assert turnBudget(self.clock) is not first
        for budget in (first, second, turnBudget(self.clock)):
            budget.closed()
        turnBudget(self.clock).closed()
        assert id(other) not in module._budgets


class SlowServer(EchoServer):
    """A server that takes an exact time for each datagram, by a clock of its own.

    @ivar now: what the clock shows, in seconds.
    """

    takes = TURN_TIME / 4

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.now = [0.0]

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.now[0] += self.takes
        super().datagramReceived(datagram, addr)


def slow(reactor: Any, number: int, batches: bool = True) -> tuple[list[SlowServer], list[Any]]:
    """Servers that log each datagram, and their ports, whose time is the test's."""
    servers = [SlowServer(log=DatagramLog(None)) for _ in range(number)]
    ports: list[Any] = [listen(reactor, 0, server, receiveBuffer=2**22, batches=batches) for server in servers]
    now = servers[0].now
    for server in servers:
        server.now = now
    ports[0]._context.turn.seconds = lambda: now[0]
    return servers, ports


class PortTests:
    """Ports that share the time."""

    @pytest.mark.parametrize(("number", "batches"), [(1, True), (4, True), (4, False)])
    def test_noTimerWaits(self, run: Run, number: int, batches: bool) -> None:
        """However much there is for however many ports, between two calls of a timer they take what one turn may."""

        async def test(reactor: Any) -> None:
            servers, ports = slow(reactor, number, batches)
            ticks: list[float] = []

            def tick() -> None:
                ticks.append(servers[0].now[0])
                timer.append(reactor.callLater(0, tick))

            timer: list[Any] = []
            with udpSocket() as client:
                for port in ports:
                    for _ in range(100):
                        client.sendto(b"x", ("127.0.0.1", port.getHost().port))
                tick()
                while sum(server.counters.received for server in servers) < 100 * number:
                    await sleep(reactor)
                timer[-1].cancel()
            # A call of asyncio's comes after the reads of its turn: two of the budget's turns may follow each other.
            assert max(b - a for a, b in pairwise(ticks)) <= 2 * (TURN_TIME + SlowServer.takes)
            for server, port in zip(servers, ports):
                assert server.counters.received == 100
                check(server.counters)
                await port.stopListening()

        run(test)

    @needsBatches
    @pytest.mark.parametrize("what", ["nothing", "stopReading", "connect", "stopListening", "abort"])
    def test_restOfABatch(self, runOnce: Run, what: str) -> None:
        """What a turn leaves of a batch is handed over in the next ones, or is counted, whatever happens in between."""

        async def test(reactor: Any) -> None:
            (server,), (port,) = slow(reactor, 1)
            with udpSocket() as client:
                client.connect(("127.0.0.1", port.getHost().port))
                for _ in range(4):
                    sendSegments(client, bytes(64), 1)
                while not server.counters.received:
                    await sleep(reactor)
                assert server.counters.received < 64
                if what == "connect":
                    port.connect(*client.getsockname())
                elif what != "nothing":
                    await getattr(port, what)() if what == "stopListening" else getattr(port, what)()
                if what == "stopReading":
                    await sleep(reactor)
                    assert server.counters.received + len(port._delivery.backlog) == 256
                    port.startReading()
                while server.counters.received < 256 and port.connected:
                    await sleep(reactor)
                check(server.counters)
                assert server.counters.waiting == 0
                if port.connected:
                    assert server.counters.received == 256
                if what in ("stopListening", "abort"):
                    assert server.counters.dropped["send_failed"] == port.dropped["send_failed"] > 0
                port.abort()

        runOnce(test)

    def test_drain(self, runOnce: Run) -> None:
        """All ports are drained, although the first ones have more to do than a turn has time for."""

        async def test(reactor: Any) -> None:
            servers, ports = slow(reactor, 3)
            with udpSocket() as client:
                for port in ports:
                    for _ in range(50):
                        client.sendto(b"x", ("127.0.0.1", port.getHost().port))
            for drained in [port.drain(25) for port in ports]:
                assert await drained
            for server, port in zip(servers, ports):
                assert server.counters.received == 50
                await port.stopListening()

        runOnce(test)


@needsBatches
class LinesTests:
    """The log wants some lines."""

    def test_oneByOne(self) -> None:
        """Only as many datagrams as have lines, in whole entries, are sent one by one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
            client.bind(("127.0.0.1", 0))
            server = EchoServer(log=DatagramLog(10))
            port: Any = listen(installed, 0, server, receiveBuffer=2**22)
            inOneTurn(port)
            sent: list[bytes] = []
            send = server._send

            def count(datagram: bytes, address: tuple[str, int], callback: SendCallback) -> None:
                sent.append(datagram)
                send(datagram, address, callback)

            server._send = count
            client.connect(("127.0.0.1", port.getHost().port))
            for _ in range(8):
                sendSegments(client, bytes(64), 1)
            client.send(b"one")
            port.doRead()
            assert len(sent) == 64
            assert (server.counters.received, server.counters.echoed) == (8 * 64 + 1, 8 * 64 + 1)
            check(server.counters)
            port.abort()
