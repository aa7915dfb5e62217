"""Tests of L{udpecho.client.transfer} and L{udpecho.net.pipe}."""

from __future__ import annotations

import os
import pty
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.client.test_protocol import Outcome, serve
from tests.support.running import Run, sleep, udpSocket, unusedPort
from tests.support.server import Lines, lines
from udpecho.client.transfer import Transfer
from udpecho.daemon.client_tap import ClientService
from udpecho.errors import MessageTooLong, PortUnreachable, ResponseTimeout
from udpecho.net.pipe import InputReader

__all__ = ["lines"]


class Log:
    """A report that remembers."""

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
        heard: list[bytes] = []
        payload = random.Random(size).randbytes(size)

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [heard.append(datagram) or datagram])  # type: ignore[func-returns-value]
            log = Log()
            transfer = Transfer("127.0.0.1", server.getHost().port, chunk=chunk)
            sums = await transfer.run(reactor, reading(payload), log)
            assert log.lines == [(what, piece) for piece in pieces for what in ("written", "received")]
            assert (sums.sent, sums.answered) == (len(pieces), len(pieces))
            assert (sums.sentBytes, sums.answeredBytes) == (size, size)
            await server.stopListening()

        runOnce(test)
        assert b"".join(heard) == payload

    def test_tooLong(self, runOnce: Run) -> None:
        """An input that is too long for one datagram is not sent at all, and the message says what would be right."""

        async def test(reactor: Any) -> None:
            with pytest.raises(MessageTooLong, match="--chunk N"):
                await Transfer("127.0.0.1", unusedPort()).run(reactor, reading(bytes(65528)), Log())

        runOnce(test)

    def test_onePieceLost(self, runOnce: Run) -> None:
        """A piece that is not answered is told of, and the next ones are sent."""

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [] if datagram == b"22" else [datagram])
            log = Log()
            transfer = Transfer("127.0.0.1", server.getHost().port, timeout=0.05, chunk=2)
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


class InputReaderTests:
    """L{InputReader} on each kind of descriptor and reactor."""

    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        """The two ends of a pipe."""
        ends = os.pipe()
        yield ends
        for end in ends:
            try:
                os.close(end)
            except OSError:
                continue

    @pytest.mark.parametrize("size", [0, 1, 70000])
    def test_file(self, run: Run, tmp_path: Path, size: int) -> None:
        """A regular file, which epoll cannot wait for, is read in the pieces that are asked for."""
        path = tmp_path / "input"
        data = random.Random(size).randbytes(size)
        path.write_bytes(data)

        async def test(reactor: Any) -> None:
            with path.open("rb") as file:
                reader = InputReader(reactor, file.fileno())
                pieces = [await reader.read(30000) for _ in range(4)]
            assert [len(piece) for piece in pieces] == [min(30000, max(0, size - start)) for start in range(0, 120000, 30000)]
            assert b"".join(pieces) == data

        run(test)

    def test_nothing(self, run: Run) -> None:
        """The null device ends at once."""

        async def test(reactor: Any) -> None:
            with open(os.devnull, "rb") as file:
                assert await InputReader(reactor, file.fileno()).read(100) == b""

        run(test)

    def test_pipe(self, run: Run, pipe: tuple[int, int]) -> None:
        """A pipe is waited for until there is enough, or it is closed."""

        async def test(reactor: Any) -> None:
            reader = InputReader(reactor, pipe[0])
            outcome = Outcome(reader.read(6))
            for part in (b"he", b"ll", b"o"):
                os.write(pipe[1], part)
                await sleep(reactor, 0.005)
                assert outcome.results == []
            os.write(pipe[1], b", world")
            await sleep(reactor, 0.005)
            assert outcome.result == b"hello,"
            os.close(pipe[1])
            assert await reader.read(100) == b" world"
            assert await reader.read(100) == b""

        run(test)

    def test_terminal(self, run: Run) -> None:
        """A terminal stays as it is: in blocking mode, with its settings."""
        controller, terminal = pty.openpty()

        async def test(reactor: Any) -> None:
            reading = InputReader(reactor, terminal).read(100)
            # libuv has it otherwise while it watches.
            assert os.get_blocking(terminal) or "uvloop" in repr(getattr(reactor, "_asyncioEventloop", None))
            os.write(controller, b"hello\n\x04")
            assert await reading == b"hello\n"
            assert os.get_blocking(terminal)

        try:
            run(test)
        finally:
            os.close(controller)
            os.close(terminal)

    def test_cancel(self, run: Run, pipe: tuple[int, int]) -> None:
        """Cancelling leaves nothing in the reactor, and the input can be read again."""

        async def test(reactor: Any) -> None:
            reader = InputReader(reactor, pipe[0])
            reading = reader.read(100)
            outcome = Outcome(reading)
            reading.cancel()
            assert isinstance(outcome.failure, defer.CancelledError)
            assert reader not in reactor.getReaders()
            os.write(pipe[1], b"hello")
            assert await reader.read(5) == b"hello"

        run(test)

    def test_fails(self, run: Run, tmp_path: Path) -> None:
        """What cannot be read fails."""

        async def test(reactor: Any) -> None:
            descriptor = os.open(tmp_path, os.O_RDONLY)
            with pytest.raises(IsADirectoryError):
                await InputReader(reactor, descriptor).read(100)
            os.close(descriptor)

        run(test)

    def test_notPosix(self, runOnce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system cannot wait for files, they are read all the same."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")

        async def test(reactor: Any) -> None:
            with path.open("rb") as file:
                monkeypatch.setattr("udpecho.net.pipe.os.name", "nt")
                assert await InputReader(reactor, file.fileno()).read(100) == b"hello"
                monkeypatch.undo()

        runOnce(test)


class StoppableReactor:
    """Lets a test see that a reactor is told to stop, without stopping it."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.stopped: Deferred[None] = Deferred()

    def stop(self) -> None:
        self.stopped.callback(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class ClientServiceTests:
    """L{ClientService}."""

    def test_interface(self) -> None:
        """It provides C{IService}."""
        assert verifyObject(IService, ClientService(None, Transfer("127.0.0.1", 7)))

    def serve(self, reactor: Any, transfer: Transfer, descriptor: int) -> tuple[ClientService, Deferred[None]]:
        from twisted.internet.interfaces import IReactorFDSet
        from zope.interface import directlyProvides

        stoppable = StoppableReactor(reactor)
        directlyProvides(stoppable, IReactorFDSet)
        service = ClientService(stoppable, transfer, descriptor)
        service.startService()
        return service, stoppable.stopped

    def test_answered(self, run: Run, lines: Lines, tmp_path: Path) -> None:
        """It sends the input, logs both lines with their values, and stops the reactor."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [datagram])
            number = server.getHost().port
            with path.open("rb") as file:
                service, stopped = self.serve(reactor, Transfer("127.0.0.1", number), file.fileno())
                await stopped
                await defer.maybeDeferred(service.stopService)
            assert lines.texts == [
                "packet-written: bytes=5",
                f"packet-received: bytes=5 from=127.0.0.1:{number}",
                "sent=1 answered=1 unanswered=0 sent-bytes=5 answered-bytes=5",
            ]
            assert lines.events[1]["from"] == f"127.0.0.1:{number}"
            await server.stopListening()

        run(test)

    @pytest.mark.parametrize(
        ("peer", "timeout", "sentence"),
        [
            ("refused", 25, "refused the datagram"),
            ("silent", 0.02, "no reply from"),
            ("nosuch..name", 5, "cannot be the name of a host"),
        ],
    )
    def test_fails(self, runOnce: Run, lines: Lines, tmp_path: Path, peer: str, timeout: float, sentence: str) -> None:
        """What goes wrong is a line in the log, and no traceback."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")

        async def test(reactor: Any) -> None:
            with udpSocket() as silent, path.open("rb") as file:
                number = silent.getsockname()[1] if peer == "silent" else unusedPort()
                host = peer if "." in peer else "127.0.0.1"
                _, stopped = self.serve(reactor, Transfer(host, number, timeout), file.fileno())
                await stopped
            assert any(sentence in text for text in lines.texts)

        runOnce(test)

    def test_stopped(self, run: Run, lines: Lines) -> None:
        """Stopping it while it waits, for its input or for a reply, ends it with nothing left."""

        async def test(reactor: Any) -> None:
            reading, writing = os.pipe()
            with udpSocket() as silent:
                host, port = silent.getsockname()
                for waitsForReply in (False, True):
                    service, stopped = self.serve(reactor, Transfer(host, port, chunk=5), reading)
                    await sleep(reactor)
                    if waitsForReply:
                        os.write(writing, b"hello")
                        await sleep(reactor, 0.01)
                    await defer.maybeDeferred(service.stopService)
                    await stopped
            os.close(reading)
            os.close(writing)
            assert [text for text in lines.texts if text.startswith("interrupted: ")] == [
                "interrupted: sent=0 answered=0 unanswered=0 sent-bytes=0 answered-bytes=0",
                "interrupted: sent=1 answered=0 unanswered=1 sent-bytes=5 answered-bytes=0",
            ]

        run(test)

    def test_stoppedBeforeItBegins(self, runOnce: Run, lines: Lines) -> None:
        """Stopped before the reactor runs, it does nothing."""
        calls: list[Any] = []

        class Reactor:
            def callWhenRunning(self, call: Any) -> None:
                calls.append(call)

            def stop(self) -> None:
                raise error.ReactorNotRunning

        service = ClientService(Reactor(), Transfer("127.0.0.1", 7))
        service.startService()
        assert service.stopService() is None
        calls[0]()
        assert lines.texts == []
