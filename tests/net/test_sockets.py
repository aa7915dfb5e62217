"""Tests of L{udpecho.net.sockets}."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.running import udpSocket
from udpecho.net.sockets import growReceiveBuffer

#: The number in Linux's headers, for which Python has no name.
SO_RCVBUFFORCE = 33


def test_growBeyondTheLimit() -> None:
    """Who may is given a receive buffer beyond the system's limit. The kernel doubles what it is asked for, socket(7)."""
    limit = Path("/proc/sys/net/core/rmem_max")
    if not limit.exists():
        pytest.skip("this system has no such limit")
    size = 2 * int(limit.read_text())
    with udpSocket() as allowed, udpSocket() as sock:
        try:
            allowed.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
        except PermissionError:
            pytest.skip("only an administrator of the network may do this")
        growReceiveBuffer(sock, size)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * size
