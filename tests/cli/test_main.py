"""Tests of L{udpecho.cli.main}, C{run} and C{console}: usage, signals, output that cannot be written."""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import answer, at, complaint, isQuiet, oneLine, twoLines, usageError
from tests.support.processes import Processes, Server, command
from tests.support.running import PATIENCE, udpSocket
from udpecho._version import __version__


class InterruptTests:
    """Signals."""

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_whileWaitingForTheReply(self, processes: Processes, plain: socket.socket, number: int, status: int) -> None:
        """The command prints nothing more, and has the status that shells expect."""
        sending = processes.start("udpecho", "send", "--timeout", "60", at(plain), feed=b"hello")
        plain.recv(100)
        sending.until("^packet-written")
        sending.signal(number)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (status, "packet-written: bytes=5\n", "")

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_whileWaitingForInput(self, processes: Processes, plain: socket.socket, number: int, status: int) -> None:
        """With C{--chunk} it prints the sums of what was sent."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), stdin=subprocess.PIPE)
        sending.write(b"abcdef")
        answer(plain)
        sending.until("^packet-received")
        sending.signal(number)
        sending.finish()
        assert (sending.status, sending.stdout) == (status, twoLines(4, at(plain)))
        assert sending.stderr == "udpecho: sent=1 answered=1 unanswered=0 sent-bytes=4 answered-bytes=4\n"

    @pytest.mark.parametrize("module", ["twisted.internet.defer", "udpecho.cli.ping.command", "twisted.internet.reactor"])
    @pytest.mark.parametrize("interrupt", ["signal.raise_signal(signal.SIGINT)", "Late()"])
    def test_whileStarting(self, processes: Processes, module: str, interrupt: str) -> None:
        """An interrupt while it still imports has the same status, and no traceback, also where Python swallows exceptions."""
        code = f"""
import signal, sys

class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            {interrupt}

from udpecho.cli.main import main
sys.meta_path.insert(0, Finder())
sys.exit(main(["send", "--timeout", "0", "127.0.0.1:9"]))
"""
        sent = processes.run(sys.executable, "-c", code, feed=b"hello")
        assert (sent.status, sent.stdout, sent.stderr) == (130, "", "")

    def test_broken(self, processes: Processes) -> None:
        """A command that raises before it waits for anything ends, and what it raised is printed."""
        code = "import sys; from udpecho.cli import run; sys.exit(run._runReactor(lambda reactor: 1 / 0))"
        broken = processes.run(sys.executable, "-c", code)
        assert (broken.status, broken.stdout) == (1, "")
        assert "ZeroDivisionError: division by zero" in broken.stderr


class OutputTests:
    """Results that cannot be written."""

    def test_nobodyReads(self, processes: Processes, plain: socket.socket) -> None:
        """When the reader of the results has gone, the command prints nothing, and its status is that of C{SIGPIPE}."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            sent = processes.run("udpecho", "send", at(plain), feed=b"hello", stdout=writing)
        finally:
            os.close(writing)
        assert (sent.status, sent.stderr) == (141, "")

    def test_readerLeaves(self, processes: Processes, plain: socket.socket) -> None:
        """The same holds when the reader leaves after the first line."""
        reading, writing = os.pipe()
        try:
            sending = processes.start("udpecho", "send", "--chunk", "1", at(plain), feed=b"abc", stdout=writing)
        finally:
            os.close(writing)
        try:
            assert select.select([reading], [], [], PATIENCE)[0]
            assert os.read(reading, 100) == b"packet-written: bytes=1\n"
        finally:
            os.close(reading)
        answer(plain)
        sending.finish()
        assert re.fullmatch("(udpecho: sent=1 .*\n)?", sending.stderr), sending
        assert sending.status == 141

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_full(self, processes: Processes, plain: socket.socket) -> None:
        """A full disk is reported in one line, which names the output."""
        with open("/dev/full", "wb") as full:
            sent = processes.run("udpecho", "send", at(plain), feed=b"hello", stdout=full)
        message = oneLine(sent)
        assert "standard output" in message
        assert os.strerror(errno.ENOSPC) in message
        assert sent.status == 1

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard output")
    def test_closed(self, processes: Processes, server: Server) -> None:
        """With no standard output at all the datagram is sent and answered nevertheless, and nothing is written to another
        descriptor that has its number.
        """
        host, port = server.addresses[0]
        line = shlex.join([*command("udpecho"), "send", f"{host}:{port}"])
        sent = processes.run("sh", "-c", f"exec {line} >&-", feed=b"hello")
        assert (sent.status, sent.stdout, sent.stderr) == (0, "", "")

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard error")
    def test_closedErrors(self, processes: Processes, plain: socket.socket) -> None:
        """With no standard error the messages are not among the results."""
        line = shlex.join([*command("udpecho"), "send", "--timeout", "0", at(plain)])
        sent = processes.run("sh", "-c", f"exec {line} 2>&-", feed=b"hello")
        assert (sent.status, sent.stdout) == (1, "packet-written: bytes=5\n")


class UsageTests:
    """Wrong usage gives one line on standard error, status 2, and nothing on standard output."""

    @pytest.mark.parametrize(
        ("peer", "sentence"),
        [
            ("host", "address must be HOST:PORT, as in localhost:1234, got 'host'"),
            ("127.0.0.1", "address must be HOST:PORT, as in localhost:1234, got '127.0.0.1'"),
            (":1", "address must be HOST:PORT, as in localhost:1234, got ':1'"),
            ("", "address must be HOST:PORT, as in localhost:1234, got ''"),
            ("h:", "port must be 1 to 65535, got ''"),
            ("h:0", "port must be 1 to 65535, got '0'"),
            ("h:99999", "port must be 1 to 65535, got '99999'"),
            ("h:-1", "port must be 1 to 65535, got '-1'"),
            ("h:x", "port must be 1 to 65535, got 'x'"),
            ("::1:1234", r"IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '::1:1234'"),
            ("[::1]", r"IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]'"),
            ("[::1]x", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]x'"),
            ("[::1]:", "port must be 1 to 65535, got ''"),
            ("[::1:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1:1'"),
            ("[nope]:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[nope]:1'"),
            ("[127.0.0.1]:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[127.0.0.1]:1'"),
        ],
    )
    def test_address(self, capsys: pytest.CaptureFixture[str], peer: str, sentence: str) -> None:
        """Each wrong HOST:PORT has its message."""
        assert sentence in usageError(capsys, "send", peer)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            *[
                (["--timeout", text], f"duration must be 0s to 366 days, as in 0.5s or 500ms, got {text!r}")
                for text in ("-1", "nan", "inf", "x", "5y", "")
            ],
            (
                ["--timeout", "99999999999999999999"],
                "duration must be 0s to 366 days, as in 0.5s or 500ms, got '99999999999999999999'",
            ),
            *[(["--chunk", text], f"payload size must be 1 to 65527 bytes, got {text!r}") for text in ("0", "-1", "x")],
            (["--chunk", "65528"], "payload size must be 1 to 65527 bytes, got '65528'"),
            (["--chunk", "1.5"], "payload size must be 1 to 65527 bytes, got '1.5'"),
            *[
                (["--bind", text], f"local address must be an IP address, as in 127.0.0.1, got {text!r}")
                for text in ("localhost", "x:1", "127.0.0.1.1")
            ],
            (["--bind", "127.0.0.1:99999"], "port must be 0 to 65535, got '99999'"),
            (["--bind", "[::1"], "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1'"),
            (["--nonsense"], "--nonsense"),
            (["--timeout"], "--timeout"),
            (["one", "two"], "two"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_option(self, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str) -> None:
        """Each wrong option has its message."""
        assert sentence in usageError(capsys, "send", "127.0.0.1:1", *options)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "udpecho: the following arguments are required: COMMAND (see udpecho --help)"),
            (["send"], "udpecho send: the following arguments are required: HOST:PORT (see udpecho send --help)"),
            (["--nonsense"], "udpecho: the following arguments are required: COMMAND (see udpecho --help)"),
            (["send", "h:1", "--nonsense"], "udpecho: unrecognized arguments: --nonsense (see udpecho --help)"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_arguments(self, processes: Processes, arguments: list[str], message: str) -> None:
        """A missing or unknown argument is named."""
        assert complaint(processes.run("udpecho", *arguments)) == f"{message}\n"

    def test_unknownCommand(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An unknown command is named, with those that there are."""
        message = usageError(capsys, "nonsense")
        assert all(word in message for word in ("'nonsense'", "send", "ping", "proxy"))

    def test_bindTaken(self, processes: Processes, plain: socket.socket) -> None:
        """A local address that is taken is named; nothing is sent or reported as sent."""
        with udpSocket() as taken:
            sent = processes.run("udpecho", "send", "--bind", at(taken), at(plain), feed=b"hello")
            assert complaint(sent) == f"udpecho: cannot send from {at(taken)}: {os.strerror(errno.EADDRINUSE)}\n"
        assert isQuiet(plain)

    def test_bindElsewhere(self, processes: Processes, plain: socket.socket) -> None:
        """So is one that is not this machine's."""
        sent = processes.run("udpecho", "send", "--bind", "192.0.2.1", at(plain), feed=b"hello")
        message = complaint(sent)
        assert "192.0.2.1" in message
        assert os.strerror(errno.EADDRNOTAVAIL) in message

    def test_bindOtherFamily(self, processes: Processes, plain: socket.socket) -> None:
        """A local address of the other family cannot reach the peer."""
        message = complaint(processes.run("udpecho", "send", "--bind", "::1", at(plain), feed=b"hello"))
        assert "127.0.0.1 cannot be reached from the local address: it is not of the same family" in message

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
    def test_anyOrder(self, processes: Processes, plain: socket.socket, tmp_path: Path, place: int) -> None:
        """FILE may stand before and after options."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")
        words = ["-t", "0", "--no-verify"]
        if place == 0:
            words = [at(plain), str(path), *words]
        elif place == 1:
            words = [at(plain), *words, str(path)]
        elif place == 2:
            words = ["-t", "0", at(plain), "--no-verify", str(path)]
        elif place == 3:
            words = [*words, at(plain), str(path)]
        else:
            words = [at(plain), "-t", "0", str(path), "--no-verify"]
        sent = processes.run("udpecho", "send", *words)
        assert (sent.status, sent.stdout) == (1, "packet-written: bytes=5\n")

    @pytest.mark.parametrize("host", ["nosuch.invalid", "a..b", "x" * 64 + ".invalid", "no such", "n\xf6.invalid"])
    def test_unresolvable(self, processes: Processes, host: str) -> None:
        """A name without an address is in the message."""
        message = complaint(processes.run("udpecho", "send", f"{host}:1234", feed=b"hello", environment={"PYTHONUTF8": "1"}))
        assert host in message
        assert "read" not in message

    def test_unknownScope(self, processes: Processes) -> None:
        """The message for a link-local address with an unknown interface has the interface's name."""
        message = complaint(processes.run("udpecho", "send", "[fe80::1%nosuch0]:1234", feed=b"hello"))
        assert "nosuch0" in message
        assert "standard input" not in message

    def test_version(self, processes: Processes) -> None:
        """C{--version} gives the name and the version."""
        process = processes.run("udpecho", "--version")
        assert (process.status, process.stdout, process.stderr) == (0, f"udpecho {__version__}\n", "")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["--help"], ["send"]), (["send", "--help"], ["HOST:PORT", "FILE", "--timeout", "--chunk", "--bind", "--no-verify"])],
    )
    def test_help(self, processes: Processes, arguments: list[str], words: list[str]) -> None:
        """C{--help} prints commands and options to standard output."""
        process = processes.run("udpecho", *arguments)
        assert (process.status, process.stderr) == (0, ""), process
        for word in words:
            assert word in process.stdout
