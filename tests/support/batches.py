"""A batch on a real socket, whose system calls can fail on purpose, and a plain socket that talks to it."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.running import PATIENCE, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import SendCallback
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.linux.mmsg import SystemCalls, systemCalls

#: What sendmmsg(2), send(2) and udp(7) name, and what firewalls and policies add.
SEND_ERRORS = [
    errno.EACCES,
    errno.EBADF,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EDESTADDRREQ,
    errno.EFAULT,
    errno.EHOSTUNREACH,
    errno.EINVAL,
    errno.EIO,
    errno.EISCONN,
    errno.EMSGSIZE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ENOTSOCK,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EPIPE,
]


class Bench:
    """A batch on a real socket, and a plain socket that talks to it.

    @ivar outcomes: what became of the datagrams: C{reason: [datagrams, bytes]}.
    @ivar separate: payloads that were sent one by one.
    @ivar keeps: have single sends wait instead of going out.
    """

    def __init__(self, sock: socket.socket, options: BatchOptions) -> None:
        self.sock = sock
        self.outcomes: dict[str | None, list[int]] = {}
        self.separate: list[bytes] = []
        self.waiting: list[SendCallback] = []
        self.keeps = False
        self.failures: Counter[str] = Counter()
        self.options = options
        self.batch = MessageBatch(options, BatchSender(options, self.sendOne, self.failures).send)

    def sendOne(self, payload: bytes, address: DatagramAddress, callback: SendCallback) -> None:
        self.separate.append(payload)
        if self.keeps:
            self.waiting.append(callback)
            return
        ancillary = cmsg.replyControls(self.batch.isIPv6, address.localHost, None)
        destination = (*address, 0, address.scopeID) if self.batch.isIPv6 else tuple(address)
        self.sock.sendmsg([payload], ancillary if self.options.destinations else [], 0, destination)
        callback(None)

    def receive(self) -> int:
        return self.batch.receive(self.sock.fileno())

    def send(self) -> None:
        def callback(reason: str | None, datagrams: int, size: int) -> None:
            outcome = self.outcomes.setdefault(reason, [0, 0])
            outcome[0] += datagrams
            outcome[1] += size

        self.batch.send(callback)

    def limitCalls(self, results: list[int]) -> list[int]:
        """Have C{sendmmsg} follow a script.

        @param results: for each call in turn how many entries to send at the most, or, below zero, the error number to fail
            with; then all goes through.
        @return: how many entries each call was asked to send, as they come.
        """
        real = systemCalls()
        asked: list[int] = []
        number = 0

        def sendmmsg(descriptor: int, address: int, count: int, flags: int) -> int:
            nonlocal number
            asked.append(count)
            number = 0
            result = results.pop(0) if results else count
            if result < 0:
                number = -result
                return -1
            return real.sendmmsg(descriptor, address, min(count, result), flags) if result else 0

        def recvmmsg(*arguments: Any) -> int:
            nonlocal number
            number = 0
            return real.recvmmsg(*arguments)

        self.batch.calls = SystemCalls(recvmmsg, sendmmsg, lambda: number or real.lastError())
        return asked


@contextmanager
def bench(host: str = "127.0.0.1", segmentation: bool = False, hopLimits: bool = False) -> Iterator[Bench]:
    """A batch on a socket bound to C{host}."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, 0))
        sock.setblocking(False)
        wildcard = host in ("0.0.0.0", "::")
        if wildcard:
            assert sockopt.enablePktinfo(sock)
        if hopLimits:
            assert sockopt.enableRecvHopLimit(sock)
        if segmentation and not sockopt.enableGRO(sock):
            pytest.skip("this kernel has no UDP_GRO")
        segments = SegmentLimits() if segmentation else None
        yield Bench(sock, BatchOptions(family == socket.AF_INET6, None if wildcard else host, wildcard, hopLimits, segments))


@contextmanager
def talker(bench: Bench, host: str) -> Iterator[socket.socket]:
    """A plain socket that is connected to a batch's."""
    with udpSocket(host) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        sock.connect((host, bench.sock.getsockname()[1]))
        yield sock


def sendSegments(sock: socket.socket, payload: bytes, segment: int) -> None:
    """Send datagrams of one flow as one (C{UDP_SEGMENT})."""
    sock.sendmsg([payload], cmsg.replyControls(False, None, None, segment))


def take(sock: socket.socket, count: int) -> list[bytes]:
    """Receive so many datagrams, and see that no more are there."""
    taken = [sock.recv(65535) for _ in range(count)]
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        taken.append(sock.recv(65535))
    sock.settimeout(PATIENCE)
    return taken


def segmentsOf(payload: bytes, segment: int) -> list[bytes]:
    return [payload[at : at + segment] for at in range(0, len(payload), segment)]
