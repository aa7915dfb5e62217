"""Which datagrams a rule is about."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from itertools import count
from typing import Protocol, TypeAlias

from udpecho.faults.datagram import Datagram
from udpecho.faults.models import checkCount, checkProbability, checkSeconds

#: Whether a datagram is meant.
Predicate: TypeAlias = Callable[[Datagram], object]


class HasAddresses(Protocol):
    """A host with its addresses, such as a L{MemoryHost <udpecho.testing.memory_host.MemoryHost>}."""

    @property
    def addresses(self) -> Collection[str]:
        """Its IP addresses."""


#: What an address is compared with: an IP address, a port number, a C{(host, port)} pair, or a host with all its addresses.
Place: TypeAlias = str | int | tuple[str, int] | HasAddresses


def isAt(address: tuple[str, int], place: Place) -> bool:
    """Whether an address is at a place."""
    if isinstance(place, str):
        return address[0] == place
    if isinstance(place, int):
        return address[1] == place
    if isinstance(place, tuple):
        return address[:2] == place[:2]
    return address[0] in place.addresses


class Match:
    """Which datagrams a rule is about. Each method returns a new match, which has one more condition; it is asked only about
    datagrams that fulfil those before it: C{matching(isAck).nth(3)} is the third acknowledgement. L{matching} makes the first.

    A match itself counts nothing. Each rule begins to count anew, so that several may have the same match.
    """

    def __init__(self, makers: tuple[Callable[[], Predicate], ...] = ()) -> None:
        """@param makers: each makes a condition, with a state of its own. Use L{matching}."""
        self._makers = makers

    def _and(self, make: Callable[[], Predicate]) -> Match:
        return Match((*self._makers, make))

    def begin(self) -> Callable[[Datagram], bool]:
        """A function that decides whether each datagram is meant, and counts from now on."""
        conditions = [make() for make in self._makers]
        return lambda datagram: all(condition(datagram) for condition in conditions)

    def matching(self, predicate: Predicate) -> Match:
        """Those for which a function of the L{Datagram} returns something true. Where it raises, the plan has failed: the
        datagram is lost, and the error is logged.
        """
        if not callable(predicate):
            raise TypeError(f"predicate must be a function of a datagram, got {predicate!r}")
        return self._and(lambda: predicate)

    def startingWith(self, prefix: bytes) -> Match:
        """Those whose payload starts with these bytes."""
        return self._and(lambda: lambda datagram: datagram.payload.startswith(prefix))

    def containing(self, part: bytes) -> Match:
        """Those whose payload has these bytes in it."""
        return self._and(lambda: lambda datagram: part in datagram.payload)

    def source(self, place: Place) -> Match:
        """Those that come from there.

        @param place: an IP address, a port number, a C{(host, port)} pair, or a host in memory.
        """
        return self._and(lambda: lambda datagram: isAt(datagram.source, place))

    def destination(self, place: Place) -> Match:
        """Those that go there: as L{source}."""
        return self._and(lambda: lambda datagram: isAt(datagram.destination, place))

    def link(self, name: str) -> Match:
        """Those on a link: C{"client > server"} by the names of hosts in memory, C{"up"} or C{"down"} in a proxy."""
        return self._and(lambda: lambda datagram: datagram.link == name)

    def size(self, least: int = 0, most: float = math.inf) -> Match:
        """Those with so many bytes of payload, both limits included."""
        checkCount("least", least, 0)
        if not most >= least:
            raise ValueError(f"most must be a number of bytes, {least} or more, got {most!r}")
        return self._and(lambda: lambda datagram: least <= len(datagram.payload) <= most)

    def during(self, start: float, end: float = math.inf) -> Match:
        """Those that are sent from C{start} on and before C{end}, in seconds on the clock of a network in memory, or since a
        proxy was made.
        """
        checkSeconds("start", start)
        if not end > start:
            raise ValueError(f"end must be a number of seconds, more than {start:g}, got {end!r}")
        return self._and(lambda: lambda datagram: start <= datagram.time < end)

    def probability(self, share: float, seed: int | str = 0) -> Match:
        """A random share of them, from 0 to 1, the same for the same seed."""
        checkProbability("share", share)

        def begin() -> Predicate:
            draw = random.Random(seed).random
            return lambda datagram: draw() < share

        return self._and(begin)

    def nth(self, *numbers: int) -> Match:
        """Those with these numbers among them; the first is 1."""
        if not numbers:
            raise ValueError("nth must have one number or more, got none")
        for number in numbers:
            checkCount("nth", number, 1)
        return self._numbered(numbers.__contains__)

    def first(self, most: int = 1) -> Match:
        """The first of them, or as many."""
        checkCount("first", most, 0)
        return self._numbered(lambda number: number <= most)

    def after(self, skipped: int) -> Match:
        """All but the first C{skipped} of them."""
        checkCount("after", skipped, 0)
        return self._numbered(lambda number: number > skipped)

    def every(self, step: int) -> Match:
        """Each C{step}th of them: with 3 the third, the sixth, and so on."""
        checkCount("every", step, 1)
        return self._numbered(lambda number: number % step == 0)

    def _numbered(self, meant: Callable[[int], bool]) -> Match:
        def begin() -> Predicate:
            numbers = count(1)
            return lambda datagram: meant(next(numbers))

        return self._and(begin)


def matching(predicate: Predicate | None = None) -> Match:
    """The datagrams for which a function of the L{Datagram} returns something true, or all of them. The methods of the result
    add conditions.

    @raise TypeError: if C{predicate} is not a function.
    """
    return Match() if predicate is None else Match().matching(predicate)
