"""Ports on real sockets, whose system calls can fail on purpose."""

from __future__ import annotations

import socket
from math import inf
from typing import Any, cast

import pytest
from twisted.internet.protocol import DatagramProtocol

from udpecho.net import batch_reader
from udpecho.net.batch_reader import BatchReader
from udpecho.net.linux import sockopt
from udpecho.net.linux.mmsg import SystemCalls
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.net.selftest import unsupportedReason
from udpecho.net.splitting_reader import SplittingReader


@pytest.fixture(autouse=True, params=["batch", "recvmsg"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How datagrams are received: in batches, where the machine can, or one by one."""
    if request.param == "recvmsg":
        monkeypatch.setattr(batch_reader, "unsupportedReason", lambda: "switched off by the test")
    elif unsupportedReason() is not None:
        pytest.skip(f"no batches: {unsupportedReason()}")
    return cast(str, request.param)


def inOneTurn(port: Any) -> None:
    """Have a test that calls C{doRead} by itself take as much time as it likes: for the port's reactor it is all one turn."""
    port._context.turn._left = inf


class FailingSocket:
    """A socket whose sends and receives fail as in a script.

    @ivar sends: for each call in turn the error number to fail with, 0 to let it through; then all go through.
    @ivar receives: the same.
    """

    def __init__(self, real: socket.socket, sends: list[int] | None = None, receives: list[int] | None = None) -> None:
        self._real = real
        self.sends = sends or []
        self.receives = receives or []

    def _fail(self, script: list[int]) -> None:
        number = script.pop(0) if script else 0
        if number:
            raise OSError(number, "as the test wants it")

    def send(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.send(*arguments)

    def sendto(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.sendto(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._fail(self.sends)
        return self._real.sendmsg(*arguments)

    def recvfrom(self, *arguments: Any) -> Any:
        self._fail(self.receives)
        return self._real.recvfrom(*arguments)

    def recvfrom_into(self, *arguments: Any) -> Any:
        self._fail(self.receives)
        return self._real.recvfrom_into(*arguments)

    def recvmsg_into(self, *arguments: Any) -> Any:
        self._fail(self.receives)
        return self._real.recvmsg_into(*arguments)

    def recvmsg(self, *arguments: Any) -> Any:
        if len(arguments) < 3 or not arguments[2] & sockopt.MSG_ERRQUEUE:
            self._fail(self.receives)
        return self._real.recvmsg(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class FailingCalls:
    """System calls on batches that fail as a L{FailingSocket}'s script."""

    def __init__(self, real: SystemCalls, failing: FailingSocket) -> None:
        self._real = real
        self._failing = failing
        self._number = 0

    def _fail(self, script: list[int]) -> bool:
        self._number = script.pop(0) if script else 0
        return self._number != 0

    def recvmmsg(self, *arguments: Any) -> int:
        return -1 if self._fail(self._failing.receives) else self._real.recvmmsg(*arguments)

    def sendmmsg(self, *arguments: Any) -> int:
        return -1 if self._fail(self._failing.sends) else self._real.sendmmsg(*arguments)

    def lastError(self) -> int:
        return self._number or self._real.lastError()

    failure = SystemCalls.failure


def script(port: DatagramPort, sends: list[int] | None = None, receives: list[int] | None = None) -> FailingSocket:
    """Have a port's socket fail, or the system calls on its batches."""
    failing = FailingSocket(port.socket, sends, receives)
    sock: Any = failing
    port.socket = port._context.socket = sock
    reader: Any = port._reader
    if isinstance(reader, BatchReader):
        reader.batch.calls = FailingCalls(reader.batch.calls, failing)  # type: ignore[assignment]
    elif isinstance(reader, SplittingReader):
        reader.calls = FailingCalls(reader.calls, failing)  # type: ignore[assignment]
    return failing


def open_(reactor: Any, protocol: DatagramProtocol, interface: str = "127.0.0.1", **options: Any) -> DatagramPort:
    port = listen(reactor, 0, protocol, interface, **options)
    assert isinstance(port, DatagramPort)
    return port


def address(port: DatagramPort) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port
