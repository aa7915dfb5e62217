"""What a flood can hit besides one server with one port: servers that handle datagrams one by one, or slowly, or many of them.
Each is served on L{udpecho.net.open.listen}, for L{tests.benchmarks.ticker}.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import globalLogBeginner, textFileLogObserver

from udpecho.guard.guard import Guard
from udpecho.guard.policy import GuardPolicy
from udpecho.net.open import adopt, listen
from udpecho.net.port import DatagramPort
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.protocol import EchoServer

#: Seconds that the slow protocol takes for a datagram.
_slow = 0.001


class _AnyGuard:
    """A guard that knows no batches."""

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        return None


class _Slow(DatagramProtocol):
    """A protocol that takes its time."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        end = time.perf_counter() + _slow
        while time.perf_counter() < end:
            pass


@dataclass(frozen=True)
class Shape:
    """A server, and the flood for it.

    @ivar open: opens the ports on a reactor.
    @ivar segments: how many datagrams each send is (C{UDP_SEGMENT} in C{udp(7)}).
    @ivar size: their payload, in bytes.
    """

    open: Callable[[Any], list[DatagramPort]]
    segments: int = 1
    size: int = 1


def _logged(reactor: Any) -> list[DatagramPort]:
    output = open(os.devnull, "w")  # noqa: SIM115
    globalLogBeginner.beginLoggingTo([textFileLogObserver(output)], redirectStandardIO=False)
    return [listen(reactor, 0, EchoServer(log=DatagramLog(None)))]


def _interfaces(reactor: Any) -> list[DatagramPort]:
    server = [EchoServer() for _ in range(128)]
    return [listen(reactor, 0, each, f"127.0.0.{number}") for number, each in enumerate(server, 1)]


def _adopted(reactor: Any) -> list[DatagramPort]:
    ports = []
    for _ in range(16):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            ports.append(adopt(reactor, sock, EchoServer()))
    return ports


def _limited(reactor: Any) -> list[DatagramPort]:
    return [listen(reactor, 0, EchoServer(Guard(GuardPolicy(trust=(), rate=10))))]


SHAPES = {
    "lines": Shape(lambda reactor: [listen(reactor, 0, EchoServer())], 64),
    "all lines": Shape(_logged, 64),
    "one guard": Shape(lambda reactor: [listen(reactor, 0, EchoServer(_AnyGuard()))], 64),
    "mixed": Shape(lambda reactor: [listen(reactor, 0, EchoServer(maxPayload=1))], 64, 2),
    "limited": Shape(_limited),
    "plain": Shape(lambda reactor: [listen(reactor, 0, EchoServer(), batches=False)]),
    "slow": Shape(lambda reactor: [listen(reactor, 0, _Slow())]),
    "interfaces": Shape(_interfaces, 64),
    "adopted": Shape(_adopted, 64),
}
