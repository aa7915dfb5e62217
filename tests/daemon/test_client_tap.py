"""Tests of C{twistd udpecho-client}, each on a real process."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.python import usage

from tests.support.guards import needsIPv6
from tests.support.processes import Process, Processes, command
from tests.support.running import REACTORS, udpSocket, unusedPort
from tests.support.server import everything, isRefused, written
from udpecho.daemon.client_tap import Options


class ClientTests:
    """C{twistd -n udpecho-client}."""

    @pytest.fixture
    def plain(self) -> Iterator[socket.socket]:
        """A plain socket as server."""
        with udpSocket() as sock:
            yield sock

    def start(self, processes: Processes, plain: socket.socket, *options: str, reactor: str = "select", **how: Any) -> Process:
        """Start the client of a plain socket."""
        host, port = plain.getsockname()[:2]
        return processes.start(
            *["twistd", "-n", "--reactor", reactor, "udpecho-client", "--host", host, "--port", str(port), *options], **how
        )

    def finished(self, process: Process) -> list[str]:
        """Wait until a client has stopped, and look that it did so quietly.

        @return: the lines of its log that are its own.
        """
        process.finish()
        assert "Traceback" not in everything(process), process
        assert not process.stderr, process
        return re.findall(r"\[udpecho\.[^\]]*\] (.*)$", process.stdout, re.MULTILINE)

    @pytest.mark.parametrize("input", ["file", "pipe", "null"])
    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_reactors(self, processes: Processes, plain: socket.socket, reactor: str, input: str) -> None:
        """On each reactor standard input, be it a file, a pipe or C{/dev/null}, goes out as one datagram; it and its reply are
        logged, then the process is over, with status 0.
        """
        payload = b"" if input == "null" else b"hello"
        (processes.directory / "input").write_bytes(payload)
        with (processes.directory / "input").open("rb") as file:
            how: dict[str, dict[str, Any]] = {"file": {"stdin": file}, "pipe": {"feed": payload}, "null": {}}
            process = self.start(processes, plain, reactor=reactor, **how[input])
        datagram, peer = plain.recvfrom(100)
        plain.sendto(datagram, peer)
        lines = self.finished(process)
        assert datagram == payload
        assert lines[:2] == [
            f"packet-written: bytes={len(payload)}",
            f"packet-received: bytes={len(payload)} from={written(plain)}",
        ]
        assert process.status == 0
        assert sorted(os.listdir(processes.directory)) == ["input"]

    @needsIPv6
    def test_ipv6(self, processes: Processes) -> None:
        """The peer's IPv6 address is in brackets in the log."""
        server = processes.server()
        process = processes.start(
            *["twistd", "-n", "--pidfile=", "udpecho-client", "--host", "::1", "--port", str(server.addresses[1][1])],
            feed=b"hello",
        )
        assert self.finished(process)[:2] == [
            "packet-written: bytes=5",
            f"packet-received: bytes=5 from=[::1]:{server.addresses[1][1]}",
        ]
        server.stop()

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_refused(self, processes: Processes, plain: socket.socket, reactor: str) -> None:
        """Where nothing listens, the sentence is logged, and the process is over."""
        peer = written(plain)
        process = self.start(processes, plain, "--timeout", "60", reactor=reactor, stdin=subprocess.PIPE)
        plain.close()
        process.write(b"hello")
        process.closeInput()
        assert self.finished(process) == [
            "packet-written: bytes=5",
            f"{peer} refused the datagram: nothing listens on that port",
        ]

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_timeout(self, processes: Processes, plain: socket.socket, reactor: str) -> None:
        """Without a reply, so it is."""
        process = self.start(processes, plain, "--timeout", "50ms", reactor=reactor, feed=b"hello")
        assert self.finished(process)[:2] == ["packet-written: bytes=5", f"no reply from {written(plain)} within 0.05 s"]

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_unresolvable(self, processes: Processes, reactor: str) -> None:
        """Without an address for the name, so it is."""
        process = processes.start(
            *["twistd", "-n", "--reactor", reactor, "udpecho-client", "--host", "nosuch.invalid", "--port", "9"], feed=b"hello"
        )
        (line,) = self.finished(process)
        assert "no address for 'nosuch.invalid'" in line

    def test_bindTaken(self, processes: Processes, plain: socket.socket) -> None:
        """Without its local address it does not start; the sentence names that address, and the exit status is 1."""
        with udpSocket() as taken:
            address = written(taken)
            process = self.start(processes, plain, "--bind", address, feed=b"hello").finish()
        assert process.status == 1
        line = f"udpecho: cannot send from {address}: {os.strerror(errno.EADDRINUSE)}; leave the port of --bind out\n"
        assert everything(process).count(line) == 1
        assert "Traceback" not in everything(process)

    def test_tooLong(self, processes: Processes, plain: socket.socket) -> None:
        """So it is with an input that no datagram can carry."""
        (line,) = self.finished(self.start(processes, plain, feed=bytes(65508)))
        assert "65507" in line

    @pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that can be opened but not read")
    def test_unreadable(self, processes: Processes, plain: socket.socket) -> None:
        """So it is with an input that cannot be read, and the sentence names the input."""
        with open("/proc/self/mem", "rb", buffering=0) as file:
            process = self.start(processes, plain, stdin=file)
        (line,) = self.finished(process)
        assert line == f"cannot read standard input: {os.strerror(errno.EIO)}"

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_closedInput(self, processes: Processes, reactor: str) -> None:
        """So it is without any standard input, whichever of the reactor's descriptors took its number."""
        arguments = ["-n", "--reactor", reactor, "udpecho-client", "--host", "127.0.0.1", "--port", str(unusedPort())]
        process = processes.run("sh", "-c", f"exec {shlex.join([*command('twistd'), *arguments])} <&-")
        assert "Traceback" not in everything(process)
        assert everything(process).count("standard input must be open") == 1
        assert "packet-written" not in process.stdout

    def test_chunks(self, processes: Processes, plain: socket.socket) -> None:
        """With C{--chunk} it goes in pieces, one after the other; the sums are logged at the end."""
        process = self.start(processes, plain, "--chunk", "4", feed=b"abcdefghij")
        pieces = []
        for _ in range(3):
            datagram, peer = plain.recvfrom(100)
            assert not select.select([plain], [], [], 0.02)[0]
            plain.sendto(datagram, peer)
            pieces.append(datagram)
        lines = self.finished(process)
        assert pieces == [b"abcd", b"efgh", b"ij"]
        expected = []
        for size in (4, 4, 2):
            expected += [f"packet-written: bytes={size}", f"packet-received: bytes={size} from={written(plain)}"]
        assert lines == [*expected, "sent=3 answered=3 unanswered=0 sent-bytes=10 answered-bytes=10"]

    @pytest.mark.parametrize(("options", "answered"), [(["--no-verify"], True), ([], False)])
    def test_verify(self, processes: Processes, plain: socket.socket, options: list[str], answered: bool) -> None:
        """A datagram that is not what was sent is the reply only with C{--no-verify}."""
        process = self.start(processes, plain, "--timeout", "0.5", *options, feed=b"hello")
        _, peer = plain.recvfrom(100)
        plain.sendto(b"other!", peer)
        lines = self.finished(process)
        if answered:
            assert lines[1] == f"packet-received: bytes=6 from={written(plain)}"
        else:
            assert lines[1] == f"no reply from {written(plain)} within 0.5 s; 1 other datagram from it ignored"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_stoppedWhileItWaits(self, processes: Processes, plain: socket.socket, reactor: str, number: int) -> None:
        """A signal ends the wait for the reply; that is logged, with the sums."""
        process = self.start(processes, plain, "--timeout", "60", reactor=reactor, feed=b"hello")
        plain.recv(100)
        process.until(r"packet-written: bytes=5$")
        process.signal(number)
        assert self.finished(process) == [
            "packet-written: bytes=5",
            "interrupted: sent=1 answered=0 unanswered=1 sent-bytes=5 answered-bytes=0",
        ]

    def test_stoppedWhileItReads(self, processes: Processes, plain: socket.socket) -> None:
        """So it ends the wait for input."""
        process = self.start(processes, plain, "--chunk", "4", stdin=subprocess.PIPE)
        process.write(b"abcdef")
        plain.sendto(*plain.recvfrom(100))
        process.until("packet-received: bytes=4")
        process.signal(signal.SIGTERM)
        assert self.finished(process)[-1] == "interrupted: sent=1 answered=1 unanswered=0 sent-bytes=4 answered-bytes=4"

    def test_help(self, processes: Processes) -> None:
        """C{twistd} shows its options."""
        shown = processes.run("twistd", "udpecho-client", "--help").stdout
        for option in ("host=", "port=", "timeout=", "bind=", "chunk=", "no-verify"):
            assert f"--{option}" in shown

    def test_twist(self, processes: Processes) -> None:
        """It works under C{twist} too, and a log in JSON has the values as fields."""
        with udpSocket() as plain:
            process = processes.start(
                *["twist", "--log-format=json", "udpecho-client", "--host", "127.0.0.1"],
                *["--port", str(plain.getsockname()[1])],
                feed=b"hello",
            )
            plain.sendto(*plain.recvfrom(100))
            process.finish()
            peer = written(plain)
        assert (process.status, process.stderr) == (0, "")
        events: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.replace("\x1e", "").splitlines()]
        (sent,) = [event for event in events if event["log_format"].startswith("packet-written")]
        (received,) = [event for event in events if event["log_format"].startswith("packet-received")]
        assert (sent["bytes"], received["bytes"], received["from"]) == (5, 5, peer)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ([], "--host: the server's name or IP address must be given"),
            (["--host", ""], "--host: the server's name or IP address must be given"),
            (["--host", "h", "--port", "0"], "--port: "),
            (["--host", "h", "--timeout", "nan"], "--timeout: "),
            (["--host", "h", "--bind", "nowhere"], "--bind: "),
            (["--host", "::1", "--bind", "127.0.0.1"], "--bind: local address must be an IPv6 address to reach ::1, got "),
            (["--host", "h", "--chunk", "0"], "--chunk: "),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_usage(self, options: list[str], sentence: str) -> None:
        """A wrong option gets one sentence."""
        with pytest.raises(usage.UsageError) as caught:
            Options().parseOptions(options)
        assert str(caught.value).startswith(sentence)

    def test_background(self, processes: Processes) -> None:
        """The client has no standard input in the background, and prints what to do instead of starting."""
        refused = processes.run("twistd", "udpecho-client", "--host", "127.0.0.1", "--port", "9")
        isRefused(refused, "a daemon has no standard input to send: run twistd -n udpecho-client")
        assert os.listdir(processes.directory) == []
