"""Tests of L{udpecho.daemon.environment}, and of servers whose sockets others could have taken."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guards import onlyLinux
from tests.support.manager import Manager
from tests.support.processes import Processes
from tests.support.running import PATIENCE, udpSocket
from udpecho.daemon.environment import readPassed, removePassed

SOCKETS = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:a"}
OTHERS = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}


@pytest.fixture
def initial(tmp_path: Path) -> Path:
    """The environment that the process was started with: with sockets, and all else."""
    path = tmp_path / "environ"
    variables = {"HOME": "/", **SOCKETS, **OTHERS, "bytes": "\udcff="}
    path.write_bytes(b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items()))
    return path


class PassedTests:
    """L{readPassed} and L{removePassed}."""

    def test_read(self) -> None:
        """The variables are read, and stay for others until they are removed; no other variable is touched."""
        environment = {"HOME": "/", **SOCKETS, **OTHERS}
        assert readPassed(environment) == {**SOCKETS, **OTHERS}
        assert environment == {"HOME": "/", **SOCKETS, **OTHERS}
        removePassed(environment)
        assert environment == {"HOME": "/"}
        removePassed(environment)

    @pytest.mark.parametrize("left", [{}, {"LISTEN_FDNAMES": "a:a"}, {"NOTIFY_SOCKET": "@y"}], ids=str)
    def test_taken(self, left: dict[str, str], initial: Path) -> None:
        """Sockets that somebody else has taken out of the environment are found in the one of the start; nothing else is."""
        assert readPassed(left, str(initial)) == {**left, **SOCKETS}

    def test_present(self, initial: Path) -> None:
        """What is in the environment counts, whatever was there at the start."""
        environment = {"LISTEN_PID": "12", "LISTEN_FDS": "1"}
        assert readPassed(environment, str(initial)) == environment

    def test_forked(self, initial: Path) -> None:
        """Sockets that were passed to another process are not ours."""
        text = initial.read_bytes().replace(SOCKETS["LISTEN_PID"].encode(), str(os.getppid()).encode())
        initial.write_bytes(text)
        assert readPassed({}, str(initial)) == {}

    def test_noFile(self, tmp_path: Path) -> None:
        """Where the system does not show the environment of the start, only the present one counts."""
        assert readPassed({}, str(tmp_path / "nosuch")) == {}
        assert readPassed(dict(SOCKETS), str(tmp_path / "nosuch")) == SOCKETS


#: C{twistd} in a process where Twisted has taken the sockets before.
_late = "import sys, twisted.internet.endpoints; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A stand-in for systemd that passes a socket for pages and two of one name for datagrams."""
    pages = socket.create_server(("127.0.0.1", 0))
    with udpSocket() as first, udpSocket() as second, Manager([("pages", pages), ("echo", first), ("echo", second)]) as found:
        yield found


@onlyLinux
class ServerTests:
    """C{twistd udpecho --socket-activation}."""

    def serves(self, manager: Manager) -> None:
        """Wait for the server, and have it echo on each socket for datagrams."""
        manager.until("READY=1")
        for name, sock in manager.sockets:
            if name == "echo":
                with udpSocket() as client:
                    client.sendto(b"hello", sock.getsockname())
                    assert client.recv(100) == b"hello"

    @pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
    def test_late(self, names: bool, manager: Manager, processes: Processes) -> None:
        """It serves on sockets that Twisted has taken out of the environment, with names and without."""
        environment = dict(manager.environment)
        selection = ["echo"] if names else ["1", "2"]
        if not names:
            del environment["LISTEN_FDNAMES"]
        options = [option for name in selection for option in ("--socket-activation", name)]
        process = manager.start(
            processes, sys.executable, "-c", _late, "-n", "--pidfile=", "udpecho", *options, environment=environment
        )
        self.serves(manager)
        process.stop()

    def test_pages(self, manager: Manager, processes: Processes) -> None:
        """The pages may be on a passed socket too, by an endpoint of Twisted's."""
        pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        options = ["--socket-activation", "echo", "--metrics", "systemd:domain=INET:name=pages"]
        process = manager.start(processes, "twistd", "-n", "--pidfile=", "udpecho", *options)
        self.serves(manager)
        port = manager.sockets[0][1].getsockname()[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthy", timeout=PATIENCE) as response:
            assert response.status == 200
        process.stop()

    def test_noPages(self, manager: Manager, processes: Processes) -> None:
        """A socket for the pages that was not passed is named in one line."""
        pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        options = ["--socket-activation", "echo", "--metrics", "systemd:domain=INET:name=others"]
        process = manager.start(processes, "twistd", "-n", "--pidfile=", "udpecho", *options).finish()
        wanted = "udpecho: cannot serve metrics on systemd:domain=INET:name=others: systemd has passed no such socket"
        assert process.status == 1
        assert f"{wanted}; choose another --metrics\n" in process.stdout
        assert "Traceback" not in process.stdout + process.stderr
