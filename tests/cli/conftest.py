"""Fixtures of the tests of the C{udpecho} command."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.processes import Processes, Server
from tests.support.running import udpSocket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, which logs no datagrams, on 127.0.0.1 and ::1."""
    with Processes(tmp_path_factory.mktemp("server")) as started:
        running = started.server("--log-datagrams", "0")
        yield running
        running.stop()


@pytest.fixture
def plain() -> Iterator[socket.socket]:
    """A plain socket, as a server that the test plays."""
    with udpSocket() as sock:
        yield sock
