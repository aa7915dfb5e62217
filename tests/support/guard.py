"""What the tests of the guard share: batches, sources, random bytes, and a model of the limiter."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from ipaddress import ip_address

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.guard.guard import Guard
from udpecho.guard.limiter import PrefixLimiter
from udpecho.interfaces import DROP_REASONS, BatchSendCallback, IDatagramBatch

#: A source that nothing is wrong with, and that is not trusted.
PUBLIC = "192.0.2.1"


def seeded(seed: int) -> Callable[[int], bytes]:
    """Random bytes that are the same every time."""
    return random.Random(seed).randbytes


def never(size: int) -> bytes:
    """Random bytes by which no lot is drawn."""
    return b"\xff" * size


def number(host: str) -> int:
    """An address as a number."""
    return int(ip_address(host))


def apart(limiter: PrefixLimiter, hosts: Iterable[int], isIPv6: bool) -> list[int]:
    """The sources, without those that share the place of a narrow prefix with one before."""
    places = dict[int, int]()
    for host in hosts:
        places.setdefault(limiter.places(host, isIPv6)[0], host)
    return list(places.values())


class LimiterModel:
    """What L{PrefixLimiter} is meant to do, one datagram after the other, with buckets in a mapping and exact numbers.

    It asks the limiter for nothing but which prefixes share a place.
    """

    def __init__(self, rate: int, burst: int, entropy: Callable[[int], bytes], limiter: PrefixLimiter) -> None:
        self.rate, self.burst, self.limiter = rate, burst, limiter
        self.buckets: dict[tuple[str, int], tuple[Fraction, Fraction]] = {}
        entropy(16)
        self.entropy, self.bytes = entropy, list[int]()

    def tokens(self, key: tuple[str, int], multiple: int, now: Fraction) -> Fraction:
        """How many tokens a bucket has."""
        tokens, since = self.buckets.get(key, (Fraction(self.burst * multiple), now))
        return min(Fraction(self.burst * multiple), tokens + (now - since) * self.rate * multiple)

    def draw(self) -> bool:
        """Whether a datagram over the limit is answered."""
        if not self.bytes:
            self.bytes = list(self.entropy(1024))
        return self.bytes.pop(0) < 64

    def refuse(self, hosts: list[int], counts: list[int], isIPv6: bool, now: Fraction) -> dict[int, int]:
        """@see: L{PrefixLimiter.refuse}"""
        multiple, lengths = (2, (64, 48)) if isIPv6 else (32, (32, 24))
        refused = {}
        for entry in sorted(range(len(hosts)), key=lambda entry: hosts.index(hosts[entry])):
            places = self.limiter.places(hosts[entry], isIPv6)
            narrow, wide = ("narrow", places[0]), ("wide", places[1])
            # A place that is shared by the families has tokens in the units of each.
            narrowTokens, wideTokens = self.tokens(narrow, 1, now), self.tokens(wide, 64, now)
            if narrowTokens >= 1 and wideTokens * multiple >= 64:
                self.buckets[narrow] = narrowTokens - counts[entry], now
                self.buckets[wide] = wideTokens - Fraction(counts[entry] * 64, multiple), now
            elif not self.draw():
                refused[entry] = lengths[0] if narrowTokens < 1 else lengths[1]
        return refused


@implementer(IDatagramBatch)
class GivenBatch:
    """A batch of given sources.

    @ivar dropped: the entries that were dropped, with their reasons.
    """

    def __init__(self, hosts: list[int], ports: list[int], counts: list[int] | None = None, isIPv6: bool = False) -> None:
        self._hosts, self._ports = hosts, ports
        self._counts = [1] * len(hosts) if counts is None else counts
        self.entries, self.datagrams, self.size = len(hosts), sum(self._counts), 5 * sum(self._counts)
        self.isIPv6 = isIPv6
        self.dropped: dict[int, str] = {}

    def sizes(self) -> list[int]:
        return [5 * count for count in self._counts]

    def counts(self) -> list[int]:
        return list(self._counts)

    def hosts(self) -> list[int]:
        return list(self._hosts)

    def ports(self) -> list[int]:
        return list(self._ports)

    def longest(self) -> list[int]:
        return self.sizes()

    def nonUnicast(self) -> Sequence[int]:
        return ()

    def scopes(self) -> list[int]:
        return [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        return DatagramAddress((str(ip_address(self._hosts[entry])), self._ports[entry]))

    def payloads(self, entry: int) -> list[bytes]:
        return [b"hello"] * self._counts[entry]

    def drop(self, entry: int, reason: str) -> None:
        assert reason in DROP_REASONS
        self.dropped.setdefault(entry, reason)

    def take(self, entry: int) -> list[bytes]:
        raise NotImplementedError

    def split(self) -> None:
        raise NotImplementedError

    def send(self, callback: BatchSendCallback) -> None:
        raise NotImplementedError


def batchOf(*sources: tuple[str, int]) -> GivenBatch:
    """A batch with one datagram from each source."""
    hosts = [ip_address(host) for host, _ in sources]
    return GivenBatch([int(host) for host in hosts], [port for _, port in sources], isIPv6=hosts[0].version == 6)


def verdict(guard: Guard, host: str, port: int = 40000) -> str | None:
    """The verdict of a guard without limits, which must be the same for one datagram and for a batch."""
    batch = batchOf((host, port))
    guard.refuseEntries(batch)
    assert batch.dropped.get(0) == guard.refuse(5, (host, port))
    return batch.dropped.get(0)
