"""Tests of L{udpecho.client.transfer}."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from tests.support.client import serve
from tests.support.running import Run, udpSocket, unusedPort
from udpecho.client.transfer import Transfer
from udpecho.errors import MessageTooLong, PortUnreachable, ResponseTimeout


class Log:
    """Records the notifications."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def written(self, size: int) -> None:
        self.lines.append(("written", size))

    def received(self, size: int, peer: tuple[str, int]) -> None:
        self.lines.append(("received", size))

    def unanswered(self, reason: ResponseTimeout) -> None:
        self.lines.append(("unanswered", type(reason)))


def reading(data: bytes) -> Any:
    """A source in memory."""
    left = bytearray(data)

    async def read(size: int) -> bytes:
        piece = bytes(left[:size])
        del left[:size]
        return piece

    return read


class TransferTests:
    """L{Transfer}."""

    @pytest.mark.parametrize(
        ("size", "chunk", "pieces"),
        [
            (5, None, [5]),
            (0, None, [0]),
            (65507, None, [65507]),
            (10, 4, [4, 4, 2]),
            (8, 4, [4, 4]),
            (3, 4, [3]),
            (0, 4, [0]),
        ],
    )
    def test_pieces(self, runOnce: Run, size: int, chunk: int | None, pieces: list[int]) -> None:
        """An input goes out whole, or in pieces, each answered before the next one."""
        received: list[bytes] = []
        payload = random.Random(size).randbytes(size)

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [received.append(datagram) or datagram])  # type: ignore[func-returns-value]
            log = Log()
            transfer = Transfer("127.0.0.1", server.getHost().port, chunk=chunk)
            sums = await transfer.run(reactor, reading(payload), log)
            assert log.lines == [(what, piece) for piece in pieces for what in ("written", "received")]
            assert (sums.sent, sums.answered) == (len(pieces), len(pieces))
            assert (sums.sentBytes, sums.answeredBytes) == (size, size)
            await server.stopListening()

        runOnce(test)
        assert b"".join(received) == payload

    def test_tooLong(self, runOnce: Run) -> None:
        """An input that is too long for one datagram is not sent at all, and the message names the option to use."""

        async def test(reactor: Any) -> None:
            with pytest.raises(MessageTooLong, match="--chunk N"):
                await Transfer("127.0.0.1", unusedPort()).run(reactor, reading(bytes(65528)), Log())

        runOnce(test)

    def test_onePieceLost(self, runOnce: Run) -> None:
        """A piece that is not answered is reported, and the next ones are sent."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [] if datagram == b"22" else [datagram])
            log = Log()
            transfer = Transfer("127.0.0.1", server.getHost().port, timeout=0.5, chunk=2)
            sums = await transfer.run(reactor, reading(b"112233"), log)
            assert log.lines[2:4] == [("written", 2), ("unanswered", ResponseTimeout)]
            assert str(sums) == "sent=3 answered=2 unanswered=1 sent-bytes=6 answered-bytes=4"
            await server.stopListening()

        runOnce(test)

    def test_refused(self, run: Run) -> None:
        """A refusal ends it, with nothing left."""

        async def test(reactor: Any) -> None:
            transfer = Transfer("127.0.0.1", unusedPort(), chunk=1, timeout=25)
            with pytest.raises(PortUnreachable):
                await transfer.run(reactor, reading(b"hello"), Log())
            assert transfer.sums.sent == 1

        run(test)

    def test_otherReply(self, runOnce: Run) -> None:
        """By default a datagram that is not what was sent is no reply."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [b"other!", datagram])
            log = Log()
            await Transfer("127.0.0.1", server.getHost().port).run(reactor, reading(b"hello"), log)
            assert log.lines == [("written", 5), ("received", 5)]
            await server.stopListening()

        runOnce(test)

    def test_reportRaises(self, runOnce: Run) -> None:
        """What the report raises ends it, and nothing else is logged."""

        class Failing(Log):
            def written(self, size: int) -> None:
                raise ZeroDivisionError

        async def test(reactor: Any) -> None:
            with udpSocket() as silent:
                with pytest.raises(ZeroDivisionError):
                    await Transfer(*silent.getsockname()).run(reactor, reading(b"hello"), Failing())
                gc.collect()

        runOnce(test)

    def test_cancel(self, run: Run) -> None:
        """Cancelling ends it, with nothing left."""

        async def test(reactor: Any) -> None:
            with udpSocket() as silent:
                host, port = silent.getsockname()
                work = Deferred.fromCoroutine(Transfer(host, port).run(reactor, reading(b"hello"), Log()))
                reactor.callLater(0.01, work.cancel)
                with pytest.raises(defer.CancelledError):
                    await work

        run(test)
