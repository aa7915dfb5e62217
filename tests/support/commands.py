"""What tests of the C{udpecho} command share: a plain peer, and what a process has printed."""

from __future__ import annotations

import re
import select
import socket

import pytest

from tests.support.processes import Process
from udpecho.cli.main import main

#: Seconds in which nothing should happen.
QUIET = 0.05


def at(sock: socket.socket) -> str:
    """The address of a plain socket as text."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def answer(sock: socket.socket, *replies: bytes) -> bytes:
    """Receive one datagram and answer it.

    @param replies: the datagrams to send back; by default the same one.
    @return: the datagram.
    """
    datagram, client = sock.recvfrom(65536)
    for reply in replies or (datagram,):
        sock.sendto(reply, client)
    return bytes(datagram)


def isQuiet(sock: socket.socket) -> bool:
    """Whether no datagram comes for a moment."""
    return not select.select([sock], [], [], QUIET)[0]


def twoLines(size: int, peer: str) -> str:
    """The output for a datagram of that size that was sent and answered."""
    return f"packet-written: bytes={size}\npacket-received: bytes={size} from={peer}\n"


def complaint(process: Process, status: int = 2) -> str:
    """Check that a finished process has printed one line to standard error, and nothing else, and return the line."""
    assert process.status == status, process
    assert process.stdout == "", process
    return oneLine(process)


def oneLine(process: Process) -> str:
    """Check that a process has printed one line to standard error, and return it."""
    assert re.fullmatch(r"udpecho[^\n]*: [^\n]+\n", process.stderr), process
    return process.stderr


def usageError(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in this process, which it must end with status 2 and one line on standard error, and return the line."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line
