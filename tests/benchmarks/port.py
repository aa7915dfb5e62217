"""What a datagram costs an ordinary protocol on our port, and on Twisted's: C{python -m tests.benchmarks.port}."""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from statistics import median
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from tests.support.running import REACTORS
from udpecho.net.open import listen

#: How many datagrams are queued at once in a flood: a receive buffer of the default size holds so many of 64 bytes.
FLOOD = 128
PAYLOAD = bytes(64)


class Counting(DatagramProtocol):
    """Counts what it receives."""

    noisy = False
    received = 0
    transport: Any

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received += 1


class Answering(Counting):
    """Sends each datagram back, too."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received += 1
        self.transport.write(datagram, addr)


_PROTOCOLS: dict[str, Callable[[], Counting]] = {"receive": Counting, "receive and write": Answering}
_INTERFACES = {"bound": "127.0.0.1", "wildcard": "0.0.0.0"}
_WAYS = {"batches": True, "plain": False}


class Case:
    """A protocol on a port in a reactor, and a socket that sends to it."""

    def __init__(self, reactor: Any, opener: Callable[..., Any], name: str, interface: str) -> None:
        self._reactor = reactor
        self._protocol = _PROTOCOLS[name]()
        self._port = opener(reactor, self._protocol, _INTERFACES[interface])
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.connect(("127.0.0.1", self._port.getHost().port))
        self._sock.setblocking(False)

    def cost(self, datagrams: int, queued: int) -> float:
        """Send datagrams, so many at once, and turn the reactor until the protocol has them.

        @return: the processor time of the turns, in µs a datagram.
        """
        spent, protocol = 0, self._protocol
        for _ in range(max(1, datagrams // queued)):
            expected = protocol.received + queued
            for _ in range(queued):
                self._sock.send(PAYLOAD)
            began = time.process_time_ns()
            while protocol.received < expected:
                self._reactor.iterate(0)
            spent += time.process_time_ns() - began
            with suppress(BlockingIOError):
                while True:
                    self._sock.recv(len(PAYLOAD))
        return spent / 1000 / max(1, datagrams // queued) / queued

    def close(self) -> None:
        self._sock.close()
        self._port.stopListening()
        self._reactor.iterate(0)


def compare(ours: Case, stock: Case, pairs: int, datagrams: int, queued: int) -> tuple[float, float, float]:
    """Measure both in turn.

    @return: the medians of our cost, of Twisted's, and of the ratio of each pair.
    """
    for case in (ours, stock):
        case.cost(datagrams // 10, queued)
    costs = [(ours.cost(datagrams, queued), stock.cost(datagrams, queued)) for _ in range(pairs)]
    return median(cost for cost, _ in costs), median(cost for _, cost in costs), median(mine / other for mine, other in costs)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a datagram costs an ordinary protocol, beside Twisted's own port.")
    parser.add_argument("--pairs", type=int, default=9, help="how often to measure each (default: %(default)s)")
    parser.add_argument("--datagrams", type=int, default=12800, help="how many for each measurement (default: %(default)s)")
    options = parser.parse_args()
    reactor: Any = REACTORS["epoll" if "epoll" in REACTORS else "select"]()
    reactor.startRunning(installSignalHandlers=False)
    print(f"Python {sys.version.split()[0]}, 64 bytes, processor time: medians of {options.pairs} pairs, in µs a datagram")
    print(f"{'protocol':<19}{'socket':<10}{'ours is':<9}{'come':<15}{'ours':>6}{'stock':>8}{'ratio':>8}")
    for queued, name, interface, way in product((FLOOD, 1), _PROTOCOLS, _INTERFACES, _WAYS):

        def openOurs(reactor: Any, protocol: DatagramProtocol, host: str, batches: bool = _WAYS[way]) -> Any:
            return listen(reactor, 0, protocol, host, batches=batches)

        def openStock(reactor: Any, protocol: DatagramProtocol, host: str) -> Any:
            return reactor.listenUDP(0, protocol, host)

        ours, stock = Case(reactor, openOurs, name, interface), Case(reactor, openStock, name, interface)
        mine, other, ratio = compare(ours, stock, options.pairs, options.datagrams, queued)
        ours.close()
        stock.close()
        come = f"{queued} at once" if queued > 1 else "one at a time"
        print(f"{name:<19}{interface:<10}{way:<9}{come:<15}{mine:6.2f}{other:8.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
