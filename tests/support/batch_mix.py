"""Random mixes of datagrams, segments, control messages and truncation, through the memory of a batch. As a program it goes
through many of them, for a memory checker.
"""

from __future__ import annotations

import random
import socket
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.support.passed_options import change
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import SegmentLimits

#: Options that change which control messages come while a batch is used.
CHANGES: tuple[str, ...] = (
    "SO_TIMESTAMP",
    "SO_TIMESTAMPING",
    "SO_RXQ_OVFL",
    "IP_RECVOPTS",
    "IP_RETOPTS",
    "IP_RECVTOS",
    "IP_RECVORIGDSTADDR",
    "IP_RECVFRAGSIZE",
    "IPV6_RECVTCLASS",
    "IPV6_RECVFRAGSIZE",
    "UDP_GRO",
    "no IP_PKTINFO",
    "no IP_RECVTTL",
    "no IPV6_RECVPKTINFO",
)


class Mix:
    """A socket with a batch, and a client of it.

    @ivar batch: the batch.
    """

    def __init__(self, isIPv6: bool, enabled: tuple[bool, bool, bool]) -> None:
        """@param enabled: whether destinations, hop limits and GRO are enabled."""
        family, host = (socket.AF_INET6, "::1") if isIPv6 else (socket.AF_INET, "127.0.0.1")
        self._sock, self._client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        self._sock.bind((host, 0))
        self._client.connect(self._sock.getsockname())
        self._client.setblocking(False)
        destinations, hopLimits, segments = enabled
        assert sockopt.enablePktinfo(self._sock, destinations) is destinations
        assert sockopt.enableRecvHopLimit(self._sock, hopLimits) is hopLimits
        limits = SegmentLimits() if segments and sockopt.enableGRO(self._sock) else None
        options = BatchOptions(isIPv6, None, destinations, hopLimits, limits)
        self.batch = MessageBatch(options, BatchSender(options, _refuse, Counter()).send)

    def __enter__(self) -> Mix:
        return self

    def __exit__(self, *exception: object) -> None:
        self.batch.close()
        self._sock.close()
        self._client.close()

    def turn(self, choose: random.Random, option: str | None = None) -> None:
        """Send a few datagrams and GSO batches, receive them, drop some, and send the others back: each has one outcome.

        @param option: an option to set first, see L{CHANGES}.
        """
        if option is not None:
            change(self._sock, option)
        outcomes: Counter[str | None] = Counter()

        def count(reason: str | None, datagrams: int, size: int) -> None:
            outcomes[reason] += datagrams

        for _ in range(choose.randrange(1, 20)):
            with suppress(OSError):
                if choose.random() < 0.3:
                    segment = choose.randrange(1, 1400)
                    data = bytes(choose.randrange(1, min(65507, 60 * segment)))
                    self._client.sendmsg([data], cmsg.replyControls(self.batch.isIPv6, None, None, segment))
                else:
                    self._client.send(bytes(choose.choice((0, 1, choose.randrange(3000), 65507))))
        received = 0
        batch = self.batch
        with suppress(BlockingIOError):
            while True:
                batch.receive(self._sock.fileno())
                received += batch.datagrams
                for entry in batch.unanswerable():
                    batch.drop(entry, "unanswerable")
                for entry in range(batch.entries):
                    assert sum(map(len, batch.payloads(entry))) == batch.sizes()[entry]
                    if choose.random() < 0.1:
                        batch.drop(entry, "too_large")
                batch.send(count)
                batch.finish()
        with suppress(OSError):
            while True:
                self._client.recv(65535)
        assert received == outcomes.total()


def _refuse(payload: bytes, address: object, callback: Callable[[str | None], None]) -> None:
    callback("send_failed")


def main(seed: int, mixes: int) -> None:
    """Go through some mixes."""
    choose = random.Random(seed)
    for number in range(mixes):
        cmsg.CONTROL_SIZE = choose.choice((80, 88, 104, 120, 256, 576))
        destinations, hopLimits, segments = (choose.random() < 0.7 for _ in range(3))
        with Mix(socket.has_ipv6 and number % 2 == 1, (destinations, hopLimits, segments)) as mix:
            for _ in range(4):
                mix.turn(choose, choose.choice((None, *CHANGES)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
