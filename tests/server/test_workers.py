"""Tests of the workers, with real processes."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import udpecho
from tests.support.guards import needsRoot, needsSharing
from tests.support.processes import Process, Processes, Server, catches, children, eventually, isRunning, sums
from tests.support.running import REACTORS, hasIPv6, udpSocket
from udpecho.processors import availableProcessors

pytestmark = needsSharing


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    return sorted(re.sub(r"\d+", "", os.readlink(entry)) for entry in Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def flows() -> Iterator[list[socket.socket]]:
    """Sixteen plain sockets: with two workers it is as good as certain that each has some of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(udpSocket()) for _ in range(16)]


def connect(server: Server, flows: list[socket.socket]) -> None:
    """Connect sockets to the server's first address."""
    for flow in flows:
        flow.connect(server.addresses[0])


def echo(flows: list[socket.socket], payload: bytes = b"hello") -> None:
    """Send on all sockets, and wait for all replies."""
    for flow in flows:
        flow.send(payload)
    for flow in flows:
        assert flow.recv(65536) == payload


def answered(flows: list[socket.socket]) -> list[socket.socket]:
    """Those that have a reply to read."""
    return select.select(flows, [], [], 0)[0]


def signalAll(pids: list[int], number: int) -> None:
    """Send a signal to several processes."""
    for pid in pids:
        os.kill(pid, number)


def isStopped(pid: int) -> bool:
    """Whether a process has been stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def halt(pids: list[int]) -> None:
    """Stop processes, and wait until they are."""
    signalAll(pids, signal.SIGSTOP)
    for pid in pids:
        eventually(lambda pid=pid: isStopped(pid), "it goes on")  # type: ignore[misc]


class WorkersTests:
    """C{twistd -n udpecho --workers}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_answers(self, processes: Processes, flows: list[socket.socket], reactor: str) -> None:
        """On each reactor all workers have some of the flows; the stop is that of one server, and leaves no process."""
        server = processes.server("--workers", "2", twistd=["twistd", "-n", "--reactor", reactor])
        port = server.addresses[0][1]
        assert server.addresses == [("127.0.0.1", port), *([("::1", port)] if hasIPv6() else [])]
        pids = children(server.process.pid)
        assert len(pids) == 2
        connect(server, flows)
        halt(pids[:1])
        for flow in flows:
            flow.send(b"hello")
        eventually(lambda: answered(flows), "nobody answers")
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        for host, _ in server.addresses[1:]:
            with udpSocket(host) as sock:
                sock.sendto(b"again", (host, port))
                assert sock.recv(100) == b"again"
        found = server.stop()
        assert found["received"] == found["echoed"] == 15 + len(server.addresses)
        assert not [pid for pid in pids if isRunning(pid)]
        assert os.listdir(processes.directory) == []
        assert [line for line in server.log() if "worker" in line] == []

    def test_shared(self, processes: Processes, flows: list[socket.socket]) -> None:
        """While one worker hangs, some flows are answered, and some are not."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        for pid in children(server.process.pid):
            halt([pid])
            for flow in flows:
                flow.send(b"hello")
            some = eventually(lambda: answered(flows), "nobody answers")
            for flow in some:
                flow.recv(100)
            os.kill(pid, signal.SIGCONT)
            waiting = [flow for flow in flows if flow not in some]
            for flow in waiting:
                assert flow.recv(100) == b"hello"
            assert waiting
        assert server.stop()["echoed"] == 2 * len(flows)

    def test_oneLog(self, processes: Processes, flows: list[socket.socket]) -> None:
        """The log of two reads as that of one: as many lines in all as the option allows, and one sum."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "3")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for flow in flows:
            flow.send(b"hello")
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        server.stop()
        written = [line for line in server.log() if line.startswith(("packet-", "datagrams-"))]
        peers = {f"{host}:{port}" for host, port in (flow.getsockname() for flow in flows)}
        assert written[-1] == "datagrams-not-logged: received=13 bytes=65 written=13 bytes=65"
        received = [line.partition("from=")[2] for line in written if line.startswith("packet-received: bytes=5 ")]
        sent = [line.partition("to=")[2] for line in written if line.startswith("packet-written: bytes=5 ")]
        assert len(written) == 7
        assert len(received) == 3
        assert set(received) <= peers
        assert sorted(sent) == sorted(received)

    def test_queueOutlivesWorker(self, processes: Processes, flows: list[socket.socket]) -> None:
        """What is queued for a worker that is killed is answered by the next one, all of it, and no descriptor is left over."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pids = children(server.process.pid)
        before = descriptors(server.process.pid)
        halt(pids)
        for number in range(10):
            for flow in flows:
                flow.send(struct.pack("!I", number))
        signalAll(pids, signal.SIGKILL)
        for flow in flows:
            assert [struct.unpack("!I", flow.recv(100))[0] for _ in range(10)] == list(range(10))
        for name in ("1", "2"):
            server.process.until(f"worker {name} was killed by SIGKILL; another takes its place at once$")
        assert descriptors(server.process.pid) == before
        found = server.stop()
        assert (found["received"], found["echoed"], found["dropped"]) == (160, 160, 0)

    def test_killedUnderLoad(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A worker that is killed at work leaves counters that add up: what was sent is what was received, what the kernel
        reports it dropped, and no more than the batch that the worker had taken and not yet counted.
        """
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "0")
        connect(server, flows)
        for flow in flows:
            flow.setblocking(False)
        sent = echoed = 0
        for turn in range(400):
            if turn == 200:
                os.kill(children(server.process.pid)[0], signal.SIGKILL)
            for flow in flows:
                flow.send(b"hello")
                sent += 1
            for flow in answered(flows):
                flow.recv(100)
                echoed += 1
        server.process.until("worker [12] was killed by SIGKILL")
        # What is queued is answered when the last are.
        for flow in flows:
            flow.settimeout(0.2)
            last = b""
            while last != b"last":
                sent += flow.send(b"last") // 4
                with suppress(TimeoutError):
                    while last != b"last":
                        last = flow.recv(100)
        found = server.stop()
        # A slow machine drops some early and some late: these are two lines.
        dropped = sum(map(int, re.findall("the kernel dropped ([0-9]+) datagrams", server.process.stdout)))
        inHand = sent - found["received"] - dropped
        assert 0 <= inHand <= 64
        assert found.get("send_failed", 0) <= 64
        assert echoed <= found["received"]

    def test_parentKilled(self, processes: Processes, flows: list[socket.socket]) -> None:
        """If the parent is killed the workers answer what is queued and end, and the port is free."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for flow in flows:
            flow.send(b"hello")
        server.process.signal(signal.SIGKILL)
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert flow.recv(100) == b"hello"
        for pid in pids:
            eventually(lambda pid=pid: not isRunning(pid), "it goes on")  # type: ignore[misc]
        with udpSocket(*server.addresses[0]):
            pass

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stop(self, processes: Processes, flows: list[socket.socket], number: int) -> None:
        """A stop answers what is queued, also when the signal is for the whole group of processes, as an interrupt at the
        terminal is.
        """
        server = processes.server("--workers", "2", "--interface", "127.0.0.1", "--log-datagrams", "0")
        connect(server, flows)
        pids = children(server.process.pid)
        halt(pids)
        for _ in range(10):
            for flow in flows:
                flow.send(b"hello")
        os.killpg(server.process.pid, number)
        signalAll(pids, signal.SIGCONT)
        for flow in flows:
            assert [flow.recv(100) for _ in range(10)] == [b"hello"] * 10
        server.process.finish()
        found = sums(server.process.stdout)
        assert (found["received"], found["echoed"]) == (160, 160)
        assert "Traceback" not in server.process.stdout

    def test_oneWorkerStopped(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A worker that gets SIGTERM ends, and is replaced."""
        server = processes.server("--workers", "2", "--interface", "127.0.0.1")
        connect(server, flows)
        pid = children(server.process.pid)[0]
        assert catches(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        server.process.until("worker [12] ended with exit status 0; another takes its place at once$")
        echo(flows)
        assert server.stop()["echoed"] == len(flows)

    @pytest.mark.parametrize(("first", "second"), [("2", "2"), ("2", "1"), ("1", "2")])
    def test_inUse(self, processes: Processes, first: str, second: str) -> None:
        """A port that another server has is refused, also between two that would share it."""
        server = processes.server("--workers", first, "--interface", "127.0.0.1")
        port = server.addresses[0][1]
        refused = processes.run("twistd", "-n", "--pidfile=", "udpecho", "--port", str(port), "--workers", second)
        assert refused.status == 1
        output = refused.stdout + refused.stderr
        assert output.count(f"cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}") == 1
        assert "Traceback" not in output
        server.stop()

    def test_limits(self, processes: Processes) -> None:
        """The workers have the server's limits, and warnings are about each address once."""
        server = processes.server(
            *["--workers", "2", "--interface", "127.0.0.1", "--max-payload", "4"],
            *["--receive-buffer", "4k", "--log-datagrams", "0"],
        )
        pids = children(server.process.pid)
        halt(pids)
        with udpSocket() as sock:
            for _ in range(100):
                sock.sendto(b"12345" * 100, server.addresses[0])
        signalAll(pids, signal.SIGCONT)
        found = server.stop()
        (warning,) = [line for line in server.log() if line.startswith("the kernel dropped ")]
        assert found["too_large"] == found["received"] == 100 - int(re.findall("[0-9]+", warning)[0])

    def test_cannotStart(self, processes: Processes) -> None:
        """Workers that cannot start are tried again, with their traceback and one clear line in the log, and the stop stops."""
        (processes.directory / "broken.tac").write_text(
            textwrap.dedent(
                """
                import sys
                from twisted.application.service import Application
                from twisted.internet import reactor
                from udpecho import EchoService

                application = Application("broken")
                EchoService(reactor, 0, ["127.0.0.1"], workers=2).setServiceParent(application)
                sys.path[:] = [path for path in sys.path if "site-packages" not in path]
                """
            )
        )
        process = processes.start("twistd", "-n", "--pidfile=", "-oy", "broken.tac")
        process.until("no worker can start: nothing is answered until one does")
        process.until("worker 2 ended with exit status 1 before it was ready; another takes its place in 0.1 s$")
        process.stop()
        assert "answering on" not in process.stdout
        assert "Traceback" not in process.stderr
        assert re.search("worker 1 wrote to its standard error: Traceback", process.stdout)
        assert "ModuleNotFoundError" in process.stdout
        assert sums(process.stdout)["received"] == 0

    @needsRoot
    @pytest.mark.isolated
    def test_privileged(self, processes: Processes, flows: list[socket.socket]) -> None:
        """Root binds port 7 and then becomes nobody, and so do the workers, and those that replace them."""
        nobody = 65534
        roots = str(Path(udpecho.__file__).parents[1])
        how: dict[str, Any] = {"user": nobody, "group": nobody, "cwd": "/", "env": {"PYTHONPATH": roots}}
        try:
            subprocess.run([sys.executable, "-c", "import udpecho.server.worker_main"], check=True, capture_output=True, **how)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("nobody may read this Python")
        try:
            with udpSocket(port=7):
                pass
        except OSError:
            pytest.skip("port 7 is taken")
        server = processes.server(
            *["--interface", "127.0.0.1", "--workers", "2"],
            twistd=["twistd", "-n", "--pidfile=", "--uid", str(nobody), "--gid", str(nobody)],
            port=7,
        )
        connect(server, flows)
        echo(flows)
        pids = children(server.process.pid)
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text()
            ids = dict(re.findall(r"^([UG]id):\s+(.*)$", status, re.MULTILINE))
            assert {*ids["Uid"].split(), *ids["Gid"].split()} == {str(nobody)}
        signalAll(pids, signal.SIGKILL)
        echo(flows)
        assert server.stop()["echoed"] == 2 * len(flows)

    def test_workingDirectory(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A worker imports nothing from the working directory that the parent would not."""
        for name in ("signal", "json", "mmap"):
            (processes.directory / f"{name}.py").write_text("raise SystemExit('from the working directory')")
        server = processes.server("--workers", "2", environment={"PYTHONSAFEPATH": "1"})
        connect(server, flows)
        echo(flows)
        server.stop()
        assert "from the working directory" not in server.process.stdout

    def test_daemon(self, processes: Processes, flows: list[socket.socket]) -> None:
        """In the background it does the same."""
        pidFile, log = processes.daemon("echo.pid"), processes.directory / "echo.log"
        arguments = ["--pidfile", "echo.pid", "--logfile", "echo.log", "udpecho", "--port", "0", "--workers", "auto"]
        started = processes.run("twistd", *arguments)
        assert (started.status, started.stdout, started.stderr) == (0, "", "")
        pid = int(pidFile.read_text())
        found = eventually(lambda: re.search("answering on 127.0.0.1:([0-9]+)", log.read_text()), "it does not answer")
        expected = availableProcessors()
        pids = children(pid)
        assert len(pids) == (expected if expected > 1 else 0)
        for flow in flows:
            flow.connect(("127.0.0.1", int(found[1])))
        echo(flows)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not isRunning(pid), "it goes on")
        assert not [pid for pid in pids if isRunning(pid)]
        assert sums(log.read_text())["echoed"] == len(flows)

    def test_json(self, processes: Processes, flows: list[socket.socket]) -> None:
        """A log in JSON has the values of the workers' lines as fields."""
        server = processes.server("--workers", "2", twistd=["twist", "--log-format=json"])
        connect(server, flows)
        echo(flows[:1])
        process: Process = server.process.stop()
        events: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.replace("\x1e", "").splitlines()]
        own = "{}:{}".format(*flows[0].getsockname())
        assert [(event["bytes"], event["from"]) for event in events if "from" in event] == [(5, own)]
        assert [(event["bytes"], event["to"]) for event in events if "to" in event] == [(5, own)]
        assert [event["echoed"] for event in events if "echoed" in event] == [1]
