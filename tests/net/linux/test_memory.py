"""Tests of what the kernel writes into the memory of batches: nothing but what it was offered."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.guards import needsBatches
from tests.support.passed_options import change
from udpecho.net.batch import SLOT_SIZE, BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.linux.mmsg import SystemCalls, systemCalls

_PATTERN = b"\xa5"
#: Options that change which control messages come while a batch is used.
_CHANGES: tuple[str, ...] = (
    "SO_TIMESTAMP",
    "SO_TIMESTAMPING",
    "SO_RXQ_OVFL",
    "IP_RECVOPTS",
    "IP_RETOPTS",
    "IP_RECVTOS",
    "IP_RECVORIGDSTADDR",
)
_CHANGES += ("IP_RECVFRAGSIZE", "UDP_GRO", "no IP_PKTINFO", "no IP_RECVTTL")


class Watched:
    """The memory of a batch, with a pattern where neither the kernel nor anybody else is to write."""

    def __init__(self, batch: MessageBatch) -> None:
        self.slots: Any = batch.slots
        self._payloads: Any = self.slots._payloads
        self.gaps = [range(slot * self.slots._stride + SLOT_SIZE, (slot + 1) * self.slots._stride) for slot in range(64)]
        for gap in self.gaps:
            self._payloads[gap.start : gap.stop] = _PATTERN * len(gap)
        batch.calls = SystemCalls(self._receive, self._send, systemCalls().lastError)

    def _receive(self, descriptor: int, address: int, count: int, *arguments: Any) -> int:
        slots = self.slots
        for slot in range(64):
            # What the kernel leaves of the controls and names keeps the pattern.
            at = slots._controlsAt + slot * cmsg.CONTROL_SIZE
            slots._memory[at : at + cmsg.CONTROL_SIZE] = _PATTERN * cmsg.CONTROL_SIZE
            at = slots._namesAt + slot * 32
            slots._memory[at : at + 32] = _PATTERN * 32
        spares = slots._memory[slots._sparesAt :]
        vectors = slots._memory[slots._iovsAt : slots._namesAt]
        received = systemCalls().recvmmsg(descriptor, address, count, *arguments)
        assert slots._memory[slots._sparesAt :] == spares
        assert slots._memory[slots._iovsAt : slots._namesAt] == vectors
        for slot in range(64):
            used = slots.controlLengths[slot] if slot < received else 0
            assert used <= cmsg.CONTROL_SIZE
            at = slots._controlsAt + slot * cmsg.CONTROL_SIZE
            left = slots._memory[at + used : at + cmsg.CONTROL_SIZE]
            # The last message may be padded.
            assert left.endswith(_PATTERN * max(0, len(left) - 7)), (slot, used, left)
            name = slots._memory[slots._namesAt + slot * 32 : slots._namesAt + slot * 32 + 32]
            assert name.endswith(_PATTERN * (16 if slot < received else 32))
        self.check()
        return received

    def _send(self, descriptor: int, address: int, count: int, flags: int) -> int:
        kept = [bytes(self.slots._memory[self.slots._iovsAt : self.slots._sparesAt]), bytes(self._payloads)]
        sent = systemCalls().sendmmsg(descriptor, address, count, flags)
        assert kept == [bytes(self.slots._memory[self.slots._iovsAt : self.slots._sparesAt]), bytes(self._payloads)]
        return sent

    def check(self) -> None:
        for gap in self.gaps:
            assert self._payloads[gap.start : gap.stop] == _PATTERN * len(gap)


@needsBatches
class MemoryTests:
    """L{udpecho.net.linux.mmsg.Slots}, written by the kernel."""

    @settings(max_examples=25, deadline=None)
    @given(
        st.sampled_from([80, 88, 104, 120, 256, 576]),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
        st.lists(st.tuples(st.sampled_from(_CHANGES) | st.none(), st.integers(0, 2**32)), min_size=1, max_size=6),
    )
    @example(80, (True, True, True), [("SO_TIMESTAMP", 1), ("SO_TIMESTAMPING", 2)])
    def test_anyTraffic(self, size: int, enabled: tuple[bool, bool, bool], rounds: list[tuple[str | None, int]]) -> None:
        """Whatever comes, with any options and control memory that is too short, each buffer stays within its bounds, and each
        datagram has one outcome.
        """
        before, cmsg.CONTROL_SIZE = cmsg.CONTROL_SIZE, size
        try:
            with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as client:
                sock.bind(("127.0.0.1", 0))
                client.connect(sock.getsockname())
                client.setblocking(False)
                destinations, hopLimits, segments = enabled
                assert sockopt.enablePktinfo(sock, destinations) is destinations
                assert sockopt.enableRecvHopLimit(sock, hopLimits) is hopLimits
                limits = SegmentLimits() if segments and sockopt.enableGRO(sock) else None
                options = BatchOptions(False, None, destinations, hopLimits, limits)
                batch = MessageBatch(options, BatchSender(options, _refuse, Counter()).send)
                watched = Watched(batch)
                for name, seed in rounds:
                    if name is not None:
                        change(sock, name)
                    received, outcomes = _turn(batch, sock, client, random.Random(seed))
                    assert received == outcomes
                batch.close()
                watched.check()
        finally:
            cmsg.CONTROL_SIZE = before


def _refuse(payload: bytes, address: object, callback: Callable[[str | None], None]) -> None:
    callback("send_failed")


def _turn(batch: MessageBatch, sock: socket.socket, client: socket.socket, choose: random.Random) -> tuple[int, int]:
    """Send a few datagrams and GSO batches, receive them, drop some, and send the others back.

    @return: how many datagrams were received, and how many have an outcome.
    """
    outcomes: Counter[str | None] = Counter()

    def count(reason: str | None, datagrams: int, size: int) -> None:
        outcomes[reason] += datagrams

    for _ in range(choose.randrange(1, 20)):
        with suppress(OSError):
            if choose.random() < 0.3:
                segment = choose.randrange(1, 1400)
                data = bytes(choose.randrange(1, min(65507, 60 * segment)))
                client.sendmsg([data], cmsg.replyControls(False, None, None, segment))
            else:
                client.send(bytes(choose.choice((0, 1, choose.randrange(3000), 65507))))
    received = 0
    with suppress(BlockingIOError):
        while True:
            batch.receive(sock.fileno())
            received += batch.datagrams
            for entry in batch.unanswerable():
                batch.drop(entry, "unanswerable")
            for entry in range(batch.entries):
                assert sum(map(len, batch.payloads(entry))) == batch.sizes()[entry]
                if choose.random() < 0.1:
                    batch.drop(entry, "too_large")
            batch.send(count)
    with suppress(OSError):
        while True:
            client.recv(65535)
    return received, outcomes.total()
