"""Tests of the units in C{docs/deployment/systemd}: their exact commands, with the shipped configuration, under a stand-in for
systemd.
"""

from __future__ import annotations

import re
import shlex
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deployment import DEPLOYMENT, SERVICES, settings
from tests.support.guards import needsIPv6
from tests.support.manager import Manager
from tests.support.processes import Process, Processes, command
from tests.support.running import PATIENCE, udpSocket


def commands(service: str, key: str) -> Iterator[list[str]]:
    """The commands of a unit, with the programs and the files where they are here."""
    for line in settings(service, "Service", key):
        program, *arguments = shlex.split(line)
        found = [program]
        if program.startswith("/opt/udpecho/bin/"):
            found = command(program.rpartition("/")[2])
        yield [*found, *(argument.replace("/etc/udpecho", str(DEPLOYMENT)) for argument in arguments)]


def bound(address: str) -> socket.socket:
    """The socket of a line C{ListenDatagram=}."""
    host, _, port = address.rpartition(":")
    sock = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET, socket.SOCK_DGRAM)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host.strip("[]"), int(port)))
    return sock


def passedSockets(service: str) -> list[tuple[str, socket.socket]]:
    """The sockets of the C{.socket} unit that a service requires, with their names."""
    found = []
    for unit in settings(service, "Unit", "Requires"):
        (name,) = settings(unit, "Socket", "FileDescriptorName")
        found += [(name, bound(address)) for address in settings(unit, "Socket", "ListenDatagram")]
    return found


def isServer(service: str) -> bool:
    """Whether a service is the echo server."""
    (line,) = settings(service, "Service", "ExecStart")
    return "udpecho" in shlex.split(line)


@pytest.mark.isolated
class CommandTests:
    """The commands of each service."""

    @contextmanager
    def started(self, service: str, processes: Processes) -> Iterator[tuple[Manager, Process]]:
        """Start a service as systemd does, wait until it is ready, and stop it."""
        pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        (watchdog,) = settings(service, "Service", "WatchdogSec")
        (main,) = commands(service, "ExecStart")
        with Manager(passedSockets(service), watchdog=float(watchdog)) as manager:
            for check in commands(service, "ExecStartPre"):
                checked = processes.run(*check)
                assert checked.status == 0, checked
            process = manager.start(processes, *main)
            assert manager.until("READY=1")["MAINPID"] == str(process.pid)
            yield manager, process
            process.signal(signal.SIGTERM)
            manager.until("STOPPING=1")
            assert "Traceback" not in process.finish().stdout + process.stderr

    @pytest.mark.parametrize("service", SERVICES)
    def test_life(self, service: str, processes: Processes) -> None:
        """It starts with the configuration that is shipped with it, metrics and all, feeds the watchdog, and reloads."""
        (main,) = commands(service, "ExecStart")
        configuration = Path(main[main.index("--config") + 1]).read_text()
        metrics = re.search(r'^metrics = "tcp6?:([0-9]+)', configuration, re.MULTILINE)
        assert metrics is not None
        with self.started(service, processes) as (manager, process):
            manager.until("WATCHDOG=1")
            for path in ("/metrics", "/-/healthy", "/-/ready"):
                with urllib.request.urlopen(f"http://127.0.0.1:{metrics[1]}{path}", timeout=PATIENCE) as response:
                    assert response.status == 200
            check, hangUp = commands(service, "ExecReload")
            assert processes.run(*check).status == 0
            assert hangUp == ["kill", "-HUP", "$MAINPID"]
            process.signal(signal.SIGHUP)
            manager.until("RELOADING=1")
            manager.until("READY=1")

    @needsIPv6
    @pytest.mark.parametrize("service", [name for name in SERVICES if isServer(name)])
    def test_echoes(self, service: str, processes: Processes) -> None:
        """The server answers on port 7, over IPv4 and over IPv6."""
        with self.started(service, processes):
            for host in ("127.0.0.1", "::1"):
                with udpSocket(host) as sock:
                    sock.sendto(b"hello", (host, 7))
                    assert sock.recv(100) == b"hello"
