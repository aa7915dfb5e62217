"""Tests of C{udpecho proxy} by measuring what arrives at the other end."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import Counter
from math import exp, lgamma, log
from pathlib import Path

import pytest

from tests.support.processes import Processes
from tests.support.proxy import ProxyProcess
from tests.support.running import udpSocket


def interval(number: int, probability: float) -> range:
    """The numbers of successes among which a binomial variable is with a probability of at least 99.99 %.

    @param number: how many trials.
    """
    tail = 0.00005
    weights = _binomial(number, probability)
    below = above = 0.0
    low, high = 0, number
    while below + weights[low] < tail:
        below += weights[low]
        low += 1
    while above + weights[high] < tail:
        above += weights[high]
        high -= 1
    return range(low, high + 1)


def _binomial(number: int, probability: float) -> list[float]:
    full = lgamma(number + 1)
    return [
        exp(
            full
            - lgamma(count + 1)
            - lgamma(number - count + 1)
            + count * log(probability)
            + (number - count) * log(1 - probability)
        )
        for count in range(number + 1)
    ]


class Measurement:
    """Numbered datagrams through C{udpecho proxy}, with faults in the direction to the client.

    @ivar sums: the proxy's sums of that direction.
    @ivar numbers: the datagrams that arrived whole, in their order.
    @ivar corrupted: those that arrived with flipped bits.
    @ivar truncated: those that arrived shorter.
    """

    NUMBER = 10000
    BUNDLE = 100
    #: How many may be on their way to the client: so few that its receive buffer, of 212992 bytes, is not filled by them.
    WINDOW = 150
    #: The last ones.
    FENCE = b"the last of them all"

    def __init__(self, processes: Processes, *options: str, arrivals: float = 1) -> None:
        """@param arrivals: how many of one datagram are expected."""
        self.numbers: list[int] = []
        self.corrupted: list[bytes] = []
        self.truncated: list[bytes] = []
        self._fence = False
        with udpSocket() as upstream, udpSocket() as client:
            proxy = ProxyProcess(processes, upstream.getsockname(), "--direction", "down", "--seed", "7", *options)
            client.connect(proxy.address)
            for first in range(0, self.NUMBER, self.BUNDLE):
                for number in range(first, first + self.BUNDLE):
                    client.send(number.to_bytes(8, "big") * 2)
                for _ in range(self.BUNDLE):
                    datagram, address = upstream.recvfrom(100)
                    upstream.sendto(datagram, address)
                self._take(client)
                # On a busy machine the proxy is late. If nothing comes for a second, more were lost than expected.
                while self.arrived < arrivals * (first + self.BUNDLE) - self.WINDOW and self._take(client, 1):
                    pass
            # These arrive after all others, unless the faults concern them, too.
            fences = 0
            while not self._fence:
                fences += 1
                client.send(self.FENCE)
                upstream.sendto(*upstream.recvfrom(100))
                self._take(client, 0.05)
            # Reordered ones may arrive even later.
            while "--reorder" in options and select.select([client], [], [], 1)[0]:
                self._take(client)
            self.sums = proxy.stop()["down"]
        # On a busy machine the last fences are still on their way.
        assert self.NUMBER < self.sums.pop("datagrams") <= self.NUMBER + fences
        assert "own_loss" not in self.sums

    @property
    def arrived(self) -> int:
        """How many arrived, with any faults."""
        return len(self.numbers) + len(self.corrupted) + len(self.truncated)

    def _take(self, client: socket.socket, patience: float = 0) -> bool:
        """@return: whether anything came."""
        came = False
        while select.select([client], [], [], patience)[0]:
            came, patience = True, 0
            datagram = client.recv(100)
            if len(datagram) < 16:
                self.truncated.append(datagram)
            elif len(datagram) > 16:
                self._fence |= datagram == self.FENCE
            elif datagram[:8] != datagram[8:]:
                self.corrupted.append(datagram)
            else:
                self.numbers.append(int.from_bytes(datagram[:8], "big"))
        return came


class MeasuredTests:
    """Each fault of C{udpecho proxy}, measured over 10000 datagrams at the other end, to within its 99.99 % interval."""

    NUMBER = Measurement.NUMBER

    def test_none(self, processes: Processes) -> None:
        """Without faults all arrive, once and in order."""
        assert Measurement(processes).numbers == list(range(self.NUMBER))

    def test_loss(self, processes: Processes) -> None:
        """The given share is lost, and the others keep their order."""
        measured = Measurement(processes, "--loss", "10%", arrivals=0.9)
        assert self.NUMBER - measured.arrived in interval(self.NUMBER, 0.1)
        assert 0 <= measured.sums["lost"] - (self.NUMBER - measured.arrived) < 10
        assert measured.numbers == sorted(set(measured.numbers))

    def test_burst(self, processes: Processes) -> None:
        """Bursty loss begins and ends with the given probabilities."""
        arrived = set(Measurement(processes, "--burst", "2%,25%", arrivals=25 / 27).numbers)
        pairs = Counter((number in arrived, number + 1 in arrived) for number in range(self.NUMBER - 1))
        assert pairs[True, False] in interval(pairs[True, False] + pairs[True, True], 0.02)
        assert pairs[False, True] in interval(pairs[False, True] + pairs[False, False], 0.25)

    def test_duplicate(self, processes: Processes) -> None:
        """The given share arrives twice, none three times, and none is lost."""
        times = Counter(Measurement(processes, "--duplicate", "5%", arrivals=1.05).numbers)
        assert set(times) == set(range(self.NUMBER))
        assert set(times.values()) == {1, 2}
        assert list(times.values()).count(2) in interval(self.NUMBER, 0.05)

    def test_reorder(self, processes: Processes) -> None:
        """The given share is overtaken by later ones, and none is lost."""
        numbers = Measurement(processes, "--reorder", "5%").numbers
        assert sorted(numbers) == list(range(self.NUMBER))
        latest, overtaken = -1, 0
        for number in numbers:
            overtaken += number < latest
            latest = max(latest, number)
        assert overtaken in interval(self.NUMBER, 0.05)

    def test_corrupt(self, processes: Processes) -> None:
        """In the given share one bit is flipped, anywhere."""
        measured = Measurement(processes, "--corrupt", "10%")
        assert measured.arrived == self.NUMBER
        assert len(measured.corrupted) in interval(self.NUMBER, 0.1)
        differences = [
            int.from_bytes(datagram[:8], "big") ^ int.from_bytes(datagram[8:], "big") for datagram in measured.corrupted
        ]
        assert {difference.bit_count() for difference in differences} == {1}
        assert len(set(differences)) == 64

    def test_truncate(self, processes: Processes) -> None:
        """The given share is truncated, to any length."""
        measured = Measurement(processes, "--truncate", "10%")
        assert len(measured.truncated) in interval(self.NUMBER, 0.1)
        assert {len(datagram) for datagram in measured.truncated} == set(range(16))


def overflows() -> int:
    """How many datagrams this machine has dropped because a receive buffer was full."""
    try:
        names, values = re.findall(r"^Udp: (.*)$", Path("/proc/net/snmp").read_text(), re.MULTILINE)
    except OSError:
        pytest.skip("this system does not count full receive buffers")
    return int(dict(zip(names.split(), values.split()))["RcvbufErrors"])


class LoadTests:
    """C{udpecho proxy} at up to 20000 datagrams a second."""

    def test_load(self, processes: Processes) -> None:
        """Nothing is reordered, and the proxy or the system has counted each datagram that is lost without the plan."""
        before = overflows()
        came: list[int] = []
        with udpSocket() as upstream, udpSocket() as client:
            proxy = ProxyProcess(processes, upstream.getsockname())
            client.connect(proxy.address)

            def take(patience: float = 0) -> None:
                while select.select([upstream], [], [], patience)[0]:
                    came.append(int.from_bytes(upstream.recv(100), "big"))

            begin = time.monotonic()
            sent = 0
            while sent < 20000:
                due = min(20000, int((time.monotonic() - begin) * 20000))
                # After a pause, not all that is due at once.
                for _ in range(min(due - sent, 200)):
                    client.send(sent.to_bytes(100, "big"))
                    sent += 1
                take(0.0005)
            # The queues keep the order: when the last is there, so are all others.
            while not came or came[-1] < 20000:
                client.send(sent.to_bytes(100, "big"))
                sent += 1
                take(0.01)
            take(0.1)
            up = proxy.stop()["up"]
        assert came == sorted(set(came))
        lost = sent - len(came)
        assert lost <= up.get("own_loss", 0) + overflows() - before, proxy.process
        assert sent - (overflows() - before) <= up["datagrams"] <= sent
