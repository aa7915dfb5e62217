"""What the tests of the server share: its log lines, a check of its counters, and plain clients."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.support.processes import Process, command
from tests.support.running import PATIENCE
from udpecho.interfaces import DROP_REASONS, IGuard
from udpecho.server.counters import CountersView

PEER = ("192.0.2.7", 4321)


@implementer(ILogObserver)
class Lines:
    """The log events of udpecho."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if str(event.get("log_namespace", "")).startswith("udpecho"):
            self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """The events as they read."""
        return [formatEvent(event) for event in self.events]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged in a test."""
    observer = Lines()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)


def check(counters: CountersView) -> None:
    """Every datagram is accounted for."""
    assert counters.received == counters.echoed + sum(counters.dropped.values()) + counters.waiting
    assert counters.receivedBytes >= counters.echoedBytes + counters.droppedBytes
    assert set(counters.dropped) <= set(DROP_REASONS)
    if counters.waiting == 0:
        assert counters.receivedBytes == counters.echoedBytes + counters.droppedBytes


@implementer(IGuard)
class EvenPortsOnly:
    """A guard that has its own view."""

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        return "not_allowed" if address[1] % 2 else None


def client(address: tuple[str, int]) -> socket.socket:
    """A plain socket that is connected to a server: it receives from that address only."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def written(sock: socket.socket) -> str:
    """A plain socket's own address, as people write it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def echoed(sock: socket.socket, payload: bytes) -> bytes:
    """Send a payload through a connected socket.

    @return: what comes back.
    """
    sock.send(payload)
    return sock.recv(65536)


def datagramLines(lines: list[str]) -> list[str]:
    """The lines of a log that are about datagrams."""
    return [line for line in lines if line.startswith(("packet-", "datagrams-"))]


def everything(process: Process) -> str:
    """The standard output and standard error of a process."""
    return process.stdout + process.stderr


@cache
def usageStatus() -> int:
    """The exit status of this release of C{twistd} when its own options are wrong; the older ones have 0."""
    return subprocess.run([*command("twistd"), "--nonsense"], capture_output=True, check=False, timeout=PATIENCE).returncode


def isRefused(process: Process, sentence: str) -> None:
    """Check that a process has ended because of a wrong option, with one sentence."""
    text = everything(process)
    assert process.status == usageStatus(), process
    assert len([line for line in text.splitlines() if sentence in line]) == 1, process
    assert "Traceback" not in text, process
