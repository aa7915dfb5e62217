"""Tests of what C{SIGHUP} does, and of signals during the stop."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.task import Clock

from tests.conftest import CaughtErrors
from tests.support.guards import needsSharing
from tests.support.manager import Manager
from tests.support.processes import Process, Processes, children, eventually, isRunning
from tests.support.running import udpSocket
from tests.support.server import Lines, everything
from udpecho.daemon.base import BaseDaemon
from udpecho.daemon.command_line import Changes
from udpecho.pieces import Work

pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing reads TOML here")


class ReactorClock(Clock):
    """A clock that is as much of a reactor as a daemon needs."""

    def callWhenRunning(self, callback: Callable[..., object], *arguments: object) -> None:
        """It runs always."""
        callback(*arguments)

    callFromThread = callWhenRunning


class Notifications(list[str]):
    """Takes the place of what notifies systemd."""

    def ready(self, status: str) -> None:
        self.append("READY")

    def reloading(self) -> None:
        self.append("RELOADING")

    def stopping(self) -> None:
        self.append("STOPPING")


class FakeDaemon(BaseDaemon):
    """A daemon that reads and applies when the test has it do so.

    @ivar reads: fire with the options; an exception is one of the reader.
    @ivar changes: fire when the options are in force.
    """

    name = "fake"

    def __init__(self) -> None:
        self.clock = ReactorClock()
        self.reads: list[defer.Deferred[Any]] = []
        self.changes: list[defer.Deferred[None]] = []
        self.works: defer.Deferred[None] = defer.Deferred()
        super().__init__(self.clock, Service(), {}, reload=self._read)
        self.notifications = Notifications()
        self._notifier = self.notifications  # type: ignore[assignment]

    async def _read(self) -> tuple[Mapping[str, Any], Changes]:
        self.reads.append(defer.Deferred())
        return await self.reads[-1], Changes(("allow",), ())

    def _makeRegistry(self) -> Any: ...

    def _bindSockets(self) -> None: ...

    def _logResults(self) -> None: ...

    def _status(self) -> str:
        return "working"

    def _whenWorking(self) -> defer.Deferred[None]:
        return self.works

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        raise NotImplementedError

    def _prepare(self, options: Mapping[str, Any]) -> Work[Callable[[], object]]:
        yield

        def apply() -> defer.Deferred[None]:
            self.changes.append(defer.Deferred())
            return self.changes[-1]

        return apply

    def prepare(self) -> None:
        """Read the options, and prepare them."""
        self.reads[-1].callback({})
        self.clock.pump([0, 0.01])


@pytest.fixture
def daemon() -> FakeDaemon:
    """A daemon that works."""
    daemon = FakeDaemon()
    daemon.startService()
    daemon.works.callback(None)
    assert daemon.notifications == ["READY"]
    daemon.notifications.clear()
    return daemon


class OrderTests:
    """The order of reloads and of systemd's protocol (C{sd_notify(3)})."""

    def test_everywhere(self, daemon: FakeDaemon, lines: Lines) -> None:
        """It is ready again when the options are in force everywhere, and not before."""
        daemon.reload()
        daemon.prepare()
        assert daemon.notifications == ["RELOADING"]
        assert not lines.texts
        daemon.changes[0].callback(None)
        assert daemon.notifications == ["RELOADING", "READY"]
        assert lines.texts == ["configuration reloaded: allow"]

    def test_many(self, daemon: FakeDaemon, lines: Lines) -> None:
        """Any number of signals during a reload are one more, which begins after all of them: then it is ready."""
        for _ in range(100):
            daemon.reload()
        assert len(daemon.reads) == 1
        for number in range(2):
            daemon.prepare()
            assert "READY" not in daemon.notifications
            daemon.changes[number].callback(None)
        assert len(daemon.reads) == 2
        assert daemon.notifications == ["RELOADING", "RELOADING", "READY"]
        assert len(lines.texts) == 2

    def test_whileOneWaits(self, daemon: FakeDaemon) -> None:
        """While options are not in force everywhere yet, the next ones are read: these are waited for."""
        daemon.reload()
        daemon.prepare()
        daemon.reload()
        daemon.prepare()
        daemon.changes[0].callback(None)
        assert daemon.notifications == ["RELOADING", "RELOADING"]
        daemon.changes[1].callback(None)
        assert daemon.notifications == ["RELOADING", "RELOADING", "READY"]

    def test_wrong(self, daemon: FakeDaemon, lines: Lines) -> None:
        """Wrong options change nothing: it is ready again, and goes on to the next ones."""
        daemon.reload()
        daemon.reload()
        daemon.reads[0].errback(ValueError("rate must be a number"))
        assert lines.texts == ["cannot reload, the configuration is unchanged: rate must be a number"]
        assert daemon.notifications == ["RELOADING", "RELOADING"]
        daemon.prepare()
        daemon.changes[0].callback(None)
        assert daemon.notifications == ["RELOADING", "RELOADING", "READY"]

    def test_unexpected(self, daemon: FakeDaemon, caught: CaughtErrors) -> None:
        """So does an exception that nobody thought of."""
        daemon.reload()
        daemon.reads[0].errback(ZeroDivisionError())
        assert len(caught.flush(ZeroDivisionError)) == 1
        assert daemon.notifications == ["RELOADING", "READY"]

    def test_beforeItWorks(self) -> None:
        """A reload during the start does not make it ready."""
        daemon = FakeDaemon()
        daemon.startService()
        daemon.reload()
        daemon.prepare()
        daemon.changes[0].callback(None)
        assert daemon.notifications == ["RELOADING"]
        daemon.reload()
        daemon.works.callback(None)
        assert daemon.notifications == ["RELOADING"] * 2
        daemon.prepare()
        daemon.changes[1].callback(None)
        assert daemon.notifications == [*["RELOADING"] * 2, "READY"]

    @pytest.mark.parametrize("steps", [0, 1, 2])
    def test_stop(self, daemon: FakeDaemon, steps: int) -> None:
        """The stop does not wait for a reload, whatever that is at, and nothing follows it."""
        daemon.reload()
        if steps:
            daemon.reads[0].callback({})
        if steps == 2:
            daemon.clock.pump([0, 0.01])
        daemon.reload()
        stopped = daemon.stopService()
        assert stopped.called
        daemon.reload()
        assert daemon.notifications[-1] == "STOPPING"
        assert daemon.clock.getDelayedCalls() == []


def networks(number: int) -> str:
    """A configuration with many networks."""
    names = ",\n".join(f'"10.{part >> 8}.{part & 255}.0/24"' for part in range(number))
    return f'port = 0\ninterface = "127.0.0.1"\nallow = ["loopback",\n{names}]\n'


class StormTests:
    """Many signals, for a server with many networks."""

    def start(self, processes: Processes, *options: str, number: int = 10000) -> tuple[Process, Path]:
        """Start a server.

        @return: the process and its file.
        """
        path = processes.directory / "udpecho.toml"
        path.write_text(networks(number))
        process = processes.start("twistd", "-n", "--pidfile=", "udpecho", "--config", str(path), *options)
        process.until("answering on ")
        return process, path

    def test_stop(self, processes: Processes) -> None:
        """The stop comes before all reloads that wait."""
        process, _ = self.start(processes)
        for _ in range(400):
            process.signal(signal.SIGHUP)
        process.signal(signal.SIGTERM)
        process.finish()
        assert process.status == -signal.SIGTERM
        # Each of them takes longer than a second signal does to come.
        assert everything(process).count("configuration reloaded") < 100
        assert "Traceback" not in everything(process)

    def test_mistake(self, processes: Processes) -> None:
        """A large file with a mistake changes nothing, and has its line."""
        process, path = self.start(processes)
        path.write_text(networks(10000) + "rate = -1\n")
        process.signal(signal.SIGHUP)
        process.until(
            r"cannot reload, the configuration is unchanged: .*udpecho\.toml:10004: rate: limit must be 1 to .*, got '-1'$"
        )
        path.write_text(networks(1_000_000 // 10))
        process.signal(signal.SIGHUP)
        process.until(r"unchanged: .*udpecho\.toml: must have at most 1048576 bytes, got more$")
        process.stop()

    @needsSharing
    def test_workersDie(self, processes: Processes) -> None:
        """Workers that die during reloads, and ones that are stopped, keep nothing from being ready, and nobody from the newest
        policy.
        """
        path = processes.directory / "udpecho.toml"
        path.write_text(networks(500))
        with Manager() as manager:
            process = manager.start(processes, "twistd", "-n", "--pidfile=", "udpecho", "--config", str(path), "--workers", "2")
            manager.until("READY=1")
            for numbers in ((signal.SIGKILL, signal.SIGSTOP), *[(signal.SIGKILL, signal.SIGKILL)] * 3):
                for pid, number in zip(children(process.pid), numbers):
                    os.kill(pid, number)
                process.signal(signal.SIGHUP)
                manager.until("RELOADING=1")
                manager.until("READY=1")
                eventually(lambda: len(children(process.pid)) == 2, "a worker is missing")
            process.signal(signal.SIGTERM)
            process.finish()
        assert process.status == -signal.SIGTERM
        assert not re.search("Traceback|KeyError", everything(process))


def kernelDrops(port: int) -> int:
    """What the kernel has dropped on the way to a port of 127.0.0.1 (C{proc_net_udp(5)})."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[-1]) for row in rows if row[1] == f"0100007F:{port:04X}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/udp").exists(), reason="this system does not tell what it drops")
class LoadTests:
    """Reloads under load."""

    def test_nothingLost(self, processes: Processes) -> None:
        """With 2000 networks and the default receive buffer, a reload loses nothing at 20000 datagrams a second."""
        text = networks(2000)
        path = processes.directory / "udpecho.toml"
        path.write_text(text + "log-datagrams = 0\n")
        process = processes.start("twistd", "-n", "--pidfile=", "udpecho", "--config", str(path))
        port = int(process.until(r"answering on 127\.0\.0\.1:(\d+)")[1])
        lost = []
        with udpSocket() as sock:
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            for reload in range(1, 8):
                path.write_text(f"{text}log-datagrams = 0\nmax-rate = {10**9 - reload}\n")
                before = kernelDrops(port)
                process.signal(signal.SIGHUP)
                self.send(sock, 1.0)
                lost.append(kernelDrops(port) - before)
                process.until(f"(configuration reloaded: max-rate(.|\n)*){{{reload}}}")
        process.stop()
        # A busy machine may lose some now and then; a reload that stops the server loses some each time.
        assert sorted(lost)[3] == 0, lost

    @staticmethod
    def send(sock: socket.socket, seconds: float) -> None:
        """Send datagrams, a few at a time, and read what comes."""
        begin = time.perf_counter()
        sent = 0
        while (now := time.perf_counter()) < begin + seconds:
            # What this process was too late for is left out.
            due = int((now - begin) * 20000)
            for _ in range(min(due - sent, 40)):
                with suppress(OSError):
                    sock.send(b"x" * 64)
            sent = due
            with suppress(BlockingIOError):
                while True:
                    sock.recv(100)
            select.select([], [], [], 0.001)


def catchesTerm(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, as a reactor has as soon as it runs (C{proc_pid_status(5)})."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("no /proc here shows which signals a process catches")
    caught = re.search(r"^SigCgt:\s+(\w+)$", status.read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> signal.SIGTERM - 1 & 1)


class SecondSignalTests:
    """Further signals that ask for the stop, during the stop."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("reactor", ["default", "asyncio"])
    @pytest.mark.parametrize(
        ("options", "started"),
        [
            (["udpecho", "--port", "0", "--workers", "2"], "answering on "),
            (["udpecho-probe", "--target", "127.0.0.1:7", "--metrics", "tcp:0:interface=127.0.0.1"], "probing 127.0.0.1:7 "),
            (["udpecho-client", "--host", "127.0.0.1", "--port", "9"], "reactor class: "),
        ],
        ids=["server", "prober", "client"],
    )
    def test_many(self, processes: Processes, options: list[str], started: str, reactor: str, number: int) -> None:
        """They change nothing: no traceback, and the status is that of the signal."""
        if options[0] == "udpecho-probe":
            pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        read, write = os.pipe()
        try:
            process = processes.start("twistd", "-n", "--pidfile=", "--reactor", reactor, *options, stdin=read)
            process.until(started)
            eventually(lambda: catchesTerm(process.pid), "the reactor has its handlers of signals")
            for _ in range(30):
                if isRunning(process.pid):
                    process.signal(number)
            process.finish()
        finally:
            os.close(read)
            os.close(write)
        assert process.status == -number
        assert "Traceback" not in everything(process)
