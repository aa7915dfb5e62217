"""Tests of what C{udpecho send} reads, each on a real process."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import answer, at, complaint, isQuiet, twoLines
from tests.support.guards import needsFIFOs, without
from tests.support.processes import Processes, Server, catches, command, eventually


class InputTests:
    """What C{udpecho send} may be given to send."""

    def test_file(self, processes: Processes, plain: socket.socket) -> None:
        """FILE is sent instead of standard input."""
        (processes.directory / "greeting").write_bytes(b"from a file")
        sending = processes.start("udpecho", "send", at(plain), "greeting", feed=b"from a pipe")
        assert answer(plain) == b"from a file"
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(11, at(plain)), "")

    def test_dash(self, processes: Processes, plain: socket.socket) -> None:
        """C{-} is standard input."""
        sending = processes.start("udpecho", "send", at(plain), "-", feed=b"from a pipe")
        assert answer(plain) == b"from a pipe"
        assert sending.finish().status == 0

    def test_emptyPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An empty input is one empty datagram, answered like any other."""
        sending = processes.start("udpecho", "send", at(plain), feed=b"")
        assert answer(plain) == b""
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(0, at(plain)), "")
        assert isQuiet(plain)

    def test_null(self, processes: Processes, plain: socket.socket) -> None:
        """C{/dev/null} is an empty input, though no reactor can wait for it."""
        sending = processes.start("udpecho", "send", at(plain))
        assert answer(plain) == b""
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(0, at(plain)), "")

    @pytest.mark.parametrize("size", [0, 1, 40_000, 65_507])
    def test_redirectedFile(self, processes: Processes, plain: socket.socket, size: int) -> None:
        """A regular file may be standard input."""
        payload = os.urandom(size)
        (processes.directory / "input").write_bytes(payload)
        with (processes.directory / "input").open("rb") as file:
            sending = processes.start("udpecho", "send", at(plain), stdin=file)
        assert answer(plain) == payload
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(size, at(plain)))

    def test_restOfFile(self, processes: Processes, plain: socket.socket) -> None:
        """Of a file that was read in part before, the rest is sent."""
        (processes.directory / "input").write_bytes(b"header body")
        with (processes.directory / "input").open("rb", buffering=0) as file:
            file.read(7)
            sending = processes.start("udpecho", "send", at(plain), stdin=file)
            assert answer(plain) == b"body"
            assert sending.finish().status == 0

    def test_slowPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An input that comes in parts is one datagram: nothing is sent before its end."""
        sending = processes.start("udpecho", "send", at(plain), stdin=subprocess.PIPE)
        sending.write(b"one ")
        assert isQuiet(plain)
        sending.write(b"two")
        sending.closeInput()
        assert answer(plain) == b"one two"
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(7, at(plain)))

    def test_openPipe(self, processes: Processes, plain: socket.socket) -> None:
        """With C{--chunk} a piece is sent as soon as it is complete, while the pipe stays open."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), stdin=subprocess.PIPE)
        sending.write(b"abcdef")
        assert answer(plain) == b"abcd"
        sending.until("^packet-received: bytes=4")
        assert isQuiet(plain)
        sending.write(b"gh")
        assert answer(plain) == b"efgh"
        sending.until("^packet-received: bytes=4[^$]*^packet-received: bytes=4")
        sending.closeInput()
        assert sending.finish().status == 0
        assert isQuiet(plain)

    def test_endlessPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An input that does not fit into a datagram is refused before its end."""
        sending = processes.start("udpecho", "send", at(plain), stdin=subprocess.PIPE)
        sending.write(bytes(65_528))
        assert "65507" in complaint(sending.finish())
        assert isQuiet(plain)

    @needsFIFOs
    def test_fifo(self, processes: Processes, plain: socket.socket) -> None:
        """FILE may be a named pipe: all that is written to it until it is closed is the datagram."""
        fifo = processes.directory / "fifo"
        os.mkfifo(fifo)
        sending = processes.start("udpecho", "send", at(plain), "fifo")
        writer = eventually(lambda: _writerOf(fifo), "nobody reads the named pipe")
        os.write(writer, b"from ")
        assert isQuiet(plain)
        os.write(writer, b"a fifo")
        os.close(writer)
        assert answer(plain) == b"from a fifo"
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(11, at(plain)), "")

    @needsFIFOs
    @pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="/proc does not show here whether it waits")
    def test_fifoWithoutWriter(self, processes: Processes, plain: socket.socket) -> None:
        """While the named pipe has no writer, an interrupt ends the wait for it."""
        os.mkfifo(processes.directory / "fifo")
        sending = processes.start("udpecho", "send", at(plain), "fifo")
        eventually(lambda: catches(sending.pid, signal.SIGINT, signal.SIGTERM), "handlers for signals")
        sending.signal(signal.SIGINT)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (130, "", "")

    def test_fileOfPieces(self, processes: Processes, server: Server) -> None:
        """A file goes in pieces too."""
        host, port = server.addresses[0]
        (processes.directory / "input").write_bytes(os.urandom(100_000))
        sent = processes.run("udpecho", "send", "--chunk", "40000", f"{host}:{port}", "input")
        assert sent.status == 0, sent
        assert sent.stdout == "".join(twoLines(size, f"{host}:{port}") for size in (40_000, 40_000, 20_000))
        assert sent.stderr == "udpecho: sent=3 answered=3 unanswered=0 sent-bytes=100000 answered-bytes=100000\n"

    def test_missing(self, processes: Processes, plain: socket.socket) -> None:
        """A file that is not there gets a sentence with its name."""
        sent = processes.run("udpecho", "send", at(plain), "nowhere")
        assert complaint(sent) == f"udpecho: cannot read nowhere: {os.strerror(errno.ENOENT)}\n"

    def test_directory(self, processes: Processes, plain: socket.socket) -> None:
        """So does a directory, and nothing is sent."""
        sent = processes.run("udpecho", "send", at(plain), ".")
        assert complaint(sent) == f"udpecho: cannot read .: {os.strerror(errno.EISDIR)}\n"
        assert isQuiet(plain)

    def test_unreadable(self, processes: Processes, plain: socket.socket) -> None:
        """So does a file that one may not read."""
        path = processes.directory / "secret"
        path.write_bytes(b"secret")
        path.chmod(0)
        unprivileged = without("dac_override", "dac_read_search")
        sent = processes.run(*unprivileged, *command("udpecho"), "send", at(plain), "secret")
        assert complaint(sent) == f"udpecho: cannot read secret: {os.strerror(errno.EACCES)}\n"

    @pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that can be opened but not read")
    def test_failingRead(self, processes: Processes, plain: socket.socket) -> None:
        """So does a file that opens and then cannot be read; nothing is sent."""
        sent = processes.run("udpecho", "send", at(plain), "/proc/self/mem")
        assert complaint(sent) == f"udpecho: cannot read /proc/self/mem: {os.strerror(errno.EIO)}\n"
        assert isQuiet(plain)

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard input")
    def test_closed(self, processes: Processes, plain: socket.socket) -> None:
        """Without any standard input nothing is sent, not even what another descriptor that has its number can read."""
        line = shlex.join([*command("udpecho"), "send", at(plain)])
        message = complaint(processes.run("sh", "-c", f"exec {line} <&-"))
        assert message.startswith("udpecho: standard input must be open: name a FILE")
        assert isQuiet(plain)

    def test_terminal(self, processes: Processes, plain: socket.socket) -> None:
        """At a terminal the input ends with Control-D."""
        pty = pytest.importorskip("pty")
        person, terminal = pty.openpty()
        try:
            sending = processes.start("udpecho", "send", at(plain), stdin=terminal)
            os.write(person, b"typed\n\x04")
            assert answer(plain) == b"typed\n"
            assert sending.finish().status == 0
        finally:
            os.close(person)
            os.close(terminal)


def _writerOf(fifo: Path) -> int | None:
    """Open a named pipe for writing, if it has a reader."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as e:
        if e.errno == errno.ENXIO:
            return None
        raise
