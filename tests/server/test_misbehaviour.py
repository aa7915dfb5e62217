"""Tests of L{udpecho.server.protocol} with guards, logs and transports that do what they must not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as installed
from zope.interface import implementer

from tests.support.guards import needsBatches
from tests.support.ports import inOneTurn
from tests.support.running import udpSocket
from tests.support.server import PEER, Lines, check
from tests.support.transports import StockTransport
from udpecho.interfaces import DROP_REASONS, IBatchGuard, IDatagramBatch, IDatagramLog, IDatagramTransport
from udpecho.net.failure_log import MOST
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer


class Reason(str):
    """A reason that is a text, and more."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Silent:
    """An object that cannot even be written down."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


#: What a guard may return, or what is raised in place of it.
ANSWERS: list[Any] = [
    None,
    *DROP_REASONS[:3],
    "",
    "nope",
    0,
    1,
    True,
    False,
    [],
    Silent(),
    Reason("nope"),
    Reason("not_allowed"),
    ZeroDivisionError(),
    SystemExit(),
]

_answers = st.lists(st.sampled_from([*ANSWERS, *[None] * len(ANSWERS)]), min_size=1, max_size=100)


def answer(value: Any) -> Any:
    """Return a value, or raise it."""
    if isinstance(value, BaseException):
        raise value
    return value


class OddGuard:
    """A guard that does what the test draws."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def refuse(self, size: int, address: tuple[str, int]) -> Any:
        return answer(self.draw())


@implementer(IBatchGuard)
class OddBatchGuard(OddGuard):
    """The same for batches: it may drop entries that are not there, or twice, or send the batch itself."""

    def refuseEntries(self, batch: IDatagramBatch) -> None:
        for entry in (0, 0, True, 1.0, batch.entries - 1, -1, batch.entries, "x"):
            reason = answer(self.draw())
            if reason is not None:
                batch.drop(entry, reason)  # type: ignore[arg-type]


@implementer(IDatagramLog)
class OddLog:
    """A log that does what the test draws."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def wantsLines(self) -> Any:
        return answer(self.draw())

    def received(self, size: int, address: tuple[str, int]) -> Any:
        return answer(self.draw())

    def written(self, size: int, address: tuple[str, int], logged: bool) -> None:
        answer(self.draw())

    def addUnlogged(self, *numbers: int) -> None:
        answer(self.draw())

    def close(self) -> None:
        answer(self.draw())


@implementer(IDatagramTransport)
class OddTransport(StockTransport):
    """A transport that reports any outcome, never, once or twice, or raises."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        super().__init__()
        self.draw = draw

    def send(self, datagram: bytes, address: Any, callback: Callable[[Any], None]) -> int:
        answer(self.draw())
        callback(answer(self.draw()))
        callback(None)
        return 0

    def abort(self) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def caught() -> None:
    """What is logged is expected."""


class MisbehaviourTests:
    """Any misbehaviour."""

    @settings(max_examples=30)
    @given(_answers)
    def test_oneByOne(self, answers: list[Any]) -> None:
        """One by one, on a transport that misbehaves too."""
        draw = cycle(answers).__next__
        server = EchoServer(OddGuard(draw), log=OddLog(draw))
        server.makeConnection(OddTransport(draw))
        for size in range(10):
            # The guard's failure goes to the transport.
            with suppress(ZeroDivisionError, SystemExit):
                server.datagramReceived(bytes(size), PEER)
            server.datagramDropped(draw(), size, PEER)
        server.doStop()
        assert server.counters.received == 20
        assert server.counters.waiting == 0
        check(server.counters)

    @needsBatches
    @settings(max_examples=30)
    @given(_answers)
    def test_split(self, answers: list[Any]) -> None:
        """On a real port that splits its batches."""
        self.checkPort(OddGuard, answers)

    @needsBatches
    @settings(max_examples=30)
    @given(_answers)
    def test_batches(self, answers: list[Any]) -> None:
        """In batches."""
        self.checkPort(OddBatchGuard, answers)

    def checkPort(self, kind: type[OddGuard], answers: list[Any]) -> None:
        """Serve on a real port, which is closed at the end; no datagram has two replies."""
        draw = cycle(answers).__next__
        server = EchoServer(kind(draw), log=OddLog(draw))
        port = DatagramPort(0, server, "127.0.0.1", reactor=installed)
        port.startListening()
        inOneTurn(port)
        with udpSocket() as client:
            client.connect(("127.0.0.1", port.getHost().port))
            for _ in range(2):
                for size in range(5):
                    client.send(bytes(size))
                port.doRead()
            port.abort()
            client.setblocking(False)
            came = 0
            while True:
                try:
                    client.recv(100)
                except BlockingIOError:
                    break
                came += 1
        assert server.counters.received == 10
        assert server.counters.waiting == 0
        assert came == server.counters.echoed
        check(server.counters)

    @pytest.mark.parametrize("reason", [each for each in ANSWERS if each is not None and each not in (*DROP_REASONS,)])
    def test_unknownReason(self, reason: Any) -> None:
        """Fails closed."""
        server = EchoServer(OddGuard(lambda: reason))
        transport = StockTransport()
        server.makeConnection(transport)
        try:
            server.datagramReceived(b"hello", PEER)
        except (ZeroDivisionError, SystemExit):
            assert isinstance(reason, BaseException)
        assert transport.written == []
        assert server.counters.dropped == {"not_allowed": 1}

    @needsBatches
    def test_sentTwice(self) -> None:
        """A guard that sends the batch itself does not have it sent twice; one that keeps it cannot send the next one."""
        kept: list[IDatagramBatch] = []

        @implementer(IBatchGuard)
        class Sender(OddGuard):
            def refuseEntries(self, batch: IDatagramBatch) -> None:
                kept.append(batch)
                batch.send(lambda *outcome: None)

        server = EchoServer(Sender(lambda: None))
        port: Any = listen(installed, 0, server)
        inOneTurn(port)
        with udpSocket() as client:
            client.connect(("127.0.0.1", port.getHost().port))
            client.send(b"once")
            port.doRead()
            assert client.recv(100) == b"once"
            with pytest.raises(RuntimeError, match="must be sent or split once"):
                kept[0].send(lambda *outcome: None)
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(100)
        port.abort()

    @needsBatches
    @pytest.mark.parametrize("closes", [False, True])
    def test_runsTheReactor(self, closes: bool) -> None:
        """A guard that runs the reactor, where the next batch comes, keeps its own; none gets the reply of another."""

        @implementer(IBatchGuard)
        class Nested(OddGuard):
            def refuseEntries(self, batch: IDatagramBatch) -> None:
                if batch.payloads(0) == [b"first"]:
                    for _ in range(3):
                        others.send(b"other")
                    port.doRead()
                    if closes:
                        port.abort()

        server = EchoServer(Nested(lambda: None))
        port: Any = listen(installed, 0, server)
        inOneTurn(port)
        with udpSocket() as client, udpSocket() as others:
            for sock in (client, others):
                sock.connect(("127.0.0.1", port.getHost().port))
            client.send(b"first")
            port.doRead()
            assert [others.recv(100) for _ in range(3)] == [b"other"] * 3
            if closes:
                assert server.counters.dropped == {"send_failed": 1}
            else:
                assert client.recv(100) == b"first"
            check(server.counters)
        port.abort()

    def test_logIsNotFlooded(self, lines: Lines) -> None:
        """A log that fails for each of many datagrams is a limited number of lines, and each datagram is answered."""
        server, transport = EchoServer(log=OddLog(lambda: ZeroDivisionError())), StockTransport()
        server.makeConnection(transport)
        for _ in range(1000):
            server.datagramReceived(b"hello", PEER)
        assert len(transport.written) == server.counters.echoed == 1000
        assert 0 < len([event for event in lines.events if "log_failure" in event]) < 20 * MOST
