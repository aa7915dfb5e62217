"""Tests of L{udpecho.net.pipe}."""

from __future__ import annotations

import os
import pty
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer

from tests.support.client import Outcome
from tests.support.running import Run, sleep
from udpecho.net.pipe import InputReader


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
        """A regular file, which epoll cannot wait for, is read in the pieces that are requested."""
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

    def test_nonBlocking(self, run: Run, pipe: tuple[int, int]) -> None:
        """A descriptor that does not block stays so."""
        os.set_blocking(pipe[0], False)

        async def test(reactor: Any) -> None:
            reading = InputReader(reactor, pipe[0]).read(5)
            os.write(pipe[1], b"hello")
            assert await reading == b"hello"
            assert not os.get_blocking(pipe[0])

        run(test)

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
