"""Tests of what C{twistd udpecho} and C{twistd udpecho-probe} have in common: pages, configuration, signals, systemd, and the
reason why one of them cannot start.
"""

from __future__ import annotations

import errno
import gzip
import http.client
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.guards import needsRoot
from tests.support.manager import Manager
from tests.support.processes import Process, Processes, eventually
from tests.support.running import PATIENCE, udpSocket, unusedPort
from tests.support.server import everything, usageStatus
from udpecho.daemon.http_pages import CONNECTIONS, REQUESTS

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing reads TOML here")


class Kind(NamedTuple):
    """One of the daemons.

    @ivar command: its name for C{twistd}.
    @ivar text: the least that its configuration file must have.
    @ivar applied: a line for the file, and the option that a reload applies then.
    @ivar restart: the same of an option that needs a restart.
    @ivar started: what it logs when it works.
    @ivar metric: a metric that it has.
    """

    command: str
    text: str
    applied: tuple[str, str]
    restart: tuple[str, str]
    started: str
    metric: str


SERVER = Kind(
    "udpecho",
    'port = 0\ninterface = "127.0.0.1"\n',
    ('allow = "private"', "allow"),
    ("write-timeout = 1", "write-timeout"),
    "answering on ",
    "udpecho_received_datagrams_total",
)
PROBER = Kind(
    "udpecho-probe",
    'target = "127.0.0.1:7"\n',
    ('target = ["127.0.0.1:7", "127.0.0.1:9"]', "target"),
    ("timeout = 2", "timeout"),
    "probing 127.0.0.1:7 ",
    "udpecho_probe_sent_total",
)


@pytest.fixture(params=[SERVER, PROBER], ids=["server", "prober"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each daemon in turn."""
    found: Kind = request.param
    return found


@pytest.fixture
def path(kind: Kind, processes: Processes) -> Path:
    """The daemon's configuration file, with the least that it must have."""
    path = processes.directory / "daemon.toml"
    path.write_text(kind.text)
    return path


def start(processes: Processes, kind: Kind, *options: str, twistd: tuple[str, ...] = ()) -> Process:
    """Start a daemon with the file that is in its directory."""
    return processes.start("twistd", "-n", "--pidfile=", *twistd, kind.command, "--config", "daemon.toml", *options)


class PageTests:
    """The HTTP pages."""

    @pytest.fixture
    def port(self, processes: Processes, kind: Kind, path: Path) -> Iterator[int]:
        """The port of the pages of a daemon that runs."""
        process = start(processes, kind, "--metrics", "tcp:0:interface=127.0.0.1")
        found = int(process.until(r"metrics on 127\.0\.0\.1:(\d+)$")[1])
        process.until(kind.started)
        yield found
        process.stop()
        assert "Traceback" not in everything(process)

    def request(self, port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """@return: the status and the body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def test_pages(self, kind: Kind, port: int) -> None:
        """Both have the same pages, and the metrics of the process; compressed, if the client can read that."""
        status, body = self.request(port, "/metrics")
        assert status == 200
        assert f"\n{kind.metric}" in body.decode()
        assert b"\nprocess_resident_memory_bytes " in body
        status, body = self.request(port, f"/metrics?name[]={kind.metric}", Accept_Encoding="gzip")
        assert {line.partition("{")[0].partition(" ")[0] for line in gzip.decompress(body).decode().splitlines()} <= {
            kind.metric,
            "#",
        }
        for page in ("/-/healthy", "/-/ready"):
            status, body = self.request(port, page)
            assert (status, body.splitlines()[0][-4:]) == (200, b": ok")
            assert self.request(port, page, "HEAD") == (200, b"")
        assert self.request(port, "/")[0] == 404
        assert self.request(port, "/metrics", "DELETE")[0] == 405
        assert self.request(port, "/metrics", "POST", Content_Length="5")[0] == 413

    def test_limits(self, kind: Kind, port: int) -> None:
        """Both limit the requests in a second, and the connections."""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            sock.sendall(b"HEAD /nowhere HTTP/1.1\r\n\r\n" * (2 * REQUESTS))
            response = b"".join(iter(lambda: sock.recv(65536), b""))
        assert response.count(b"HTTP/1.1 404 ") >= REQUESTS
        assert response.count(b"HTTP/1.1 429 ") == 1
        with ExitStack() as stack:
            first, *_ = (
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                for _ in range(CONNECTIONS + 1)
            )
            # The oldest one is reset.
            with suppress(ConnectionResetError):
                assert first.recv(1) == b""


class StartTests:
    """Why a daemon cannot start."""

    @pytest.mark.parametrize("runner", ["twistd", "twist"])
    @pytest.mark.parametrize(
        ("where", "reason"),
        [
            ("tcp:{taken}:interface=127.0.0.1", errno.EADDRINUSE),
            ("tcp:{free}:interface=192.0.2.77", errno.EADDRNOTAVAIL),
            ("unix:/nosuch/directory", errno.ENOENT),
        ],
        ids=["taken", "elsewhere", "directory"],
    )
    def test_metrics(self, processes: Processes, kind: Kind, path: Path, runner: str, where: str, reason: int) -> None:
        """If the endpoint of the pages cannot be bound there is one line, exit status 1, and nothing that runs."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = where.format(taken=taken.getsockname()[1], free=unusedPort())
            options = ["-n", "--pidfile="] if runner == "twistd" else []
            process = processes.run(runner, *options, kind.command, "--config", "daemon.toml", "--metrics", endpoint)
        assert process.status == 1, process
        output = everything(process)
        line = f"udpecho: cannot serve metrics on {endpoint}: {os.strerror(reason)}; choose another --metrics\n"
        assert output.count(line) == 1, process
        assert not re.search(f"{kind.started}|Traceback", output), process

    def test_background(self, processes: Processes, kind: Kind, path: Path) -> None:
        """In the background the terminal gets the line, and no process is left."""
        pidFile = processes.daemon("daemon.pid")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            process = processes.run(
                *("twistd", f"--pidfile={pidFile}", "--logfile=log"),
                *(kind.command, "--config", str(path), "--metrics", endpoint),
            )
        assert process.status == 1, process
        assert f"cannot serve metrics on {endpoint}: {os.strerror(errno.EADDRINUSE)}" in everything(process), process
        # The process in the background removes its file after it has reported the reason.
        eventually(lambda: not pidFile.exists(), "the end of the daemon")

    @pytest.mark.parametrize("line", ["nonsense = 1", "metrics = 5", "metrics = 'tcp:99999'", "x ="])
    def test_file(self, processes: Processes, kind: Kind, path: Path, line: str) -> None:
        """A wrong file is one line with its line, at the start and by C{--check-config}."""
        path.write_text(f"# one\n# two\n{line}\n{kind.text}")
        process = start(processes, kind).finish()
        assert process.status == usageStatus(), process
        (problem,) = re.findall(r"(?:^|: )(daemon\.toml:3: .*)$", everything(process), re.MULTILINE)
        assert "Traceback" not in everything(process), process
        checked = processes.run("twistd", "-n", kind.command, "--check-config", "daemon.toml")
        assert (checked.status, checked.stdout) == (1, f"{problem}\n")

    def test_checked(self, processes: Processes, kind: Kind, path: Path) -> None:
        """C{--check-config} reports that a file is right, and starts nothing."""
        checked = processes.run("twistd", "-n", kind.command, "--check-config", "daemon.toml")
        assert (checked.status, checked.stdout, checked.stderr) == (0, "daemon.toml: ok\n", "")


class ReloadTests:
    """C{SIGHUP}."""

    def test_reload(self, processes: Processes, kind: Kind, path: Path) -> None:
        """A reload applies what it can and names the rest each time; a wrong file changes nothing and says why."""
        process = start(processes, kind)
        process.until(kind.started)
        key = kind.applied[1]
        rest = "".join(line for line in kind.text.splitlines(True) if not line.startswith(key))
        path.write_text(f"{rest}{kind.applied[0]}\n{kind.restart[0]}\n")
        for applied in (key, "no changes"):
            process.signal(signal.SIGHUP)
            process.until(f"configuration reloaded: {applied}(.|\n)*a restart is needed for {kind.restart[1]}$")
        path.write_text(f"\n{kind.text}nonsense = 1\n")
        process.signal(signal.SIGHUP)
        line = kind.text.count("\n") + 2
        process.until(f"cannot reload, the configuration is unchanged: .*daemon.toml:{line}: nonsense: unknown option")
        path.unlink()
        process.signal(signal.SIGHUP)
        process.until("cannot reload, the configuration is unchanged: .*daemon.toml: No such file or directory$")
        process.stop()
        assert "Traceback" not in everything(process)

    def test_relative(self, processes: Processes, kind: Kind, path: Path) -> None:
        """A relative path is found again after C{twistd --rundir} has changed the directory."""
        (processes.directory / "elsewhere").mkdir()
        process = start(processes, kind, twistd=("--rundir", "elsewhere"))
        process.until(kind.started)
        process.signal(signal.SIGHUP)
        process.until("configuration reloaded: no changes$")
        process.stop()

    @pytest.mark.parametrize(("kind", "options"), [(SERVER, ["--port", "0"]), (PROBER, ["--target", "127.0.0.1:7"])])
    def test_withoutFile(self, processes: Processes, kind: Kind, options: list[str]) -> None:
        """Without a file C{SIGHUP} changes nothing, and that is logged; so are the results, at C{SIGUSR1}."""
        process = processes.start("twistd", "-n", "--pidfile=", kind.command, *options)
        process.until(kind.started)
        process.signal(signal.SIGHUP)
        name = "server" if kind is SERVER else "prober"
        process.until(f"cannot reload: the {name} was started without --config FILE$")
        process.signal(signal.SIGUSR1)
        process.until("counters: received=0 " if kind is SERVER else r"still probing 127\.0\.0\.1:7 from .*: sent=[1-9]")
        process.stop()
        assert process.status == -signal.SIGTERM


class SystemdTests:
    """A daemon as a service of systemd."""

    def test_life(self, processes: Processes, kind: Kind, path: Path) -> None:
        """It notifies when it is ready, of a reload and its end even if that fails, and of the stop; and feeds the watchdog."""
        with Manager(watchdog=0.4) as manager:
            process = manager.start(processes, "twistd", "-n", "--pidfile=", kind.command, "--config", str(path))
            ready = manager.until("READY=1")
            assert ready["MAINPID"] == str(process.pid)
            assert ready["STATUS"].startswith(kind.started.split()[0])
            for _ in range(2):
                manager.until("WATCHDOG=1")
            for text in (kind.text, "nonsense = 1"):
                path.write_text(text)
                process.signal(signal.SIGHUP)
                assert int(manager.until("RELOADING=1")["MONOTONIC_USEC"]) > 0
                manager.until("READY=1")
            process.signal(signal.SIGTERM)
            manager.until("STOPPING=1")
            process.finish()
        assert not process.stderr

    def test_refused(self, processes: Processes, kind: Kind, path: Path) -> None:
        """A daemon that cannot start never notifies that it is ready."""
        with Manager() as manager:
            process = manager.start(
                *(processes, "twistd", "-n", "--pidfile=", kind.command, "--config", str(path)),
                *("--metrics", "unix:/nosuch/directory"),
            )
            assert process.finish().status == 1
            assert not manager.pending()


class BindTests:
    """C{twistd udpecho-probe --bind}."""

    def refused(self, processes: Processes, *options: str, twistd: tuple[str, ...] = ()) -> str:
        """Start a prober that cannot start.

        @return: why.
        """
        process = processes.run(
            *("twistd", "-n", "--pidfile=", *twistd, "udpecho-probe", "--target", "127.0.0.1:7"),
            *("--metrics", "tcp:0:interface=127.0.0.1", *options),
        )
        assert process.status == 1, process
        assert not re.search("Traceback|probing", everything(process)), process
        (line,) = re.findall(r"udpecho: (cannot .*)$", everything(process), re.MULTILINE)
        return str(line)

    def test_elsewhere(self, processes: Processes) -> None:
        """An address that this machine does not have is one line and exit status 1."""
        reason = os.strerror(errno.EADDRNOTAVAIL)
        wanted = f"cannot send from 192.0.2.77:0: {reason}; --bind is an address of this machine"
        assert self.refused(processes, "--bind", "192.0.2.77") == wanted

    @pytest.mark.parametrize("sources", [1, 2])
    def test_taken(self, processes: Processes, sources: int) -> None:
        """So is a port that another program has, be it that of the first source or of the last."""
        with udpSocket() as sock:
            port = sock.getsockname()[1]
            found = self.refused(processes, "--bind", f"127.0.0.1:{port - sources + 1}", "--sources", str(sources))
        assert found == f"cannot send from 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}; leave the port of --bind out"

    @needsRoot
    def test_privilege(self, processes: Processes) -> None:
        """So is a port that only root may have, for a prober that is not root any more when it opens its sockets."""
        found = self.refused(processes, "--bind", "127.0.0.1:9", twistd=("--uid", "nobody", "--gid", "nogroup"))
        assert found == f"cannot send from 127.0.0.1:9: {os.strerror(errno.EACCES)}; ports below 1024 are for root"
