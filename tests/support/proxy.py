"""Proxies, on real reactors, and C{udpecho proxy} as a process."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from tests.support.processes import Process, Processes
from tests.support.running import PATIENCE, sleep
from udpecho.addresses import formatAddress
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort


class ProxyProcess:
    """C{udpecho proxy} in a process of its own, which listens.

    @ivar process: the process.
    @ivar address: the address that the clients send to.
    """

    def __init__(self, processes: Processes, upstream: tuple[str, int], *options: str, listen: str = "127.0.0.1:0") -> None:
        self.process: Process = processes.start("udpecho", "proxy", listen, formatAddress(upstream), *options)
        line = self.process.until(r"^udpecho: passing datagrams from (\S+):(\d+) to (\S+)$", "stderr")
        assert line[3] == formatAddress(upstream)
        self.address = line[1].strip("[]"), int(line[2])

    @property
    def written(self) -> str:
        """Its address as text."""
        return formatAddress(self.address)

    def stop(self, number: int = signal.SIGINT) -> dict[str, dict[str, int]]:
        """Stop it by a signal, and check how it ends.

        @return: the sums that it prints, for C{up}, C{down} and the last line.
        """
        self.process.signal(number)
        self.process.finish()
        assert self.process.status == 128 + number, self.process
        assert len(self.process.stderr.splitlines()) == 1, self.process
        lines = self.process.stdout.splitlines()[-3:]
        found = {}
        for name, line in zip(("up", "down", ""), lines):
            assert line.startswith(f"{name}: " if name else "refusals="), self.process
            found[name] = {key: int(count) for key, count in re.findall(r"([a-z_-]+)=(\d+)", line)}
        return found


class Upstream(DatagramProtocol):
    """Echoes, and counts.

    @ivar requests: how many datagrams came from each address.
    """

    noisy = False

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.requests[addr] += 1
        assert self.transport is not None
        self.transport.write(datagram, addr)


def open_(reactor: Any, protocol: DatagramProtocol, host: str = "127.0.0.1", port: int = 0) -> DatagramPort:
    listening = listen(reactor, port, protocol, host)
    assert isinstance(listening, DatagramPort)
    return listening


def addressOf(port: DatagramPort) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port


async def until(reactor: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that nothing notifies of."""
    for _ in range(PATIENCE * 1000):
        if condition():
            return
        await sleep(reactor, 0.001)
    raise AssertionError(what)
