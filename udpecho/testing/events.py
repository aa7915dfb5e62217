"""What happens in a network in memory, in words, and runs of it that cannot go on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from twisted.python.reflect import safe_str

from udpecho.addresses import formatAddress
from udpecho.testing.memory_segments import Segment
from udpecho.testing.trace import TraceEntry

#: How many kinds of events, and hosts of each, a message names.
_NAMED = 3


class EventLimit(RuntimeError):
    """There were more events than there may be: two protocols answer each other, or a timer starts itself again and again."""


class NotFired(AssertionError):
    """A Deferred did not fire. It is no C{TimeoutError}: a test that expects one of its own code is not to pass by this."""


class Event(NamedTuple):
    """Something that happened.

    @ivar time: when, in seconds on the network's clock.
    @ivar host: the name of the host that it happened to, empty if it was none.
    @ivar what: the function that was called, or the datagram or the segment that arrived.
    """

    time: float
    host: str
    what: str

    def __str__(self) -> str:
        return f"{self.time:.6f} s: {self.what}{self.host and f' at {self.host}'}"


def describe(time: float, owner: object, function: Callable[..., object], arguments: Iterable[Any]) -> Event:
    """Put an event into words.

    @param owner: its host, or C{None}.
    """
    host = "" if owner is None else str(getattr(owner, "name", owner))
    for argument in arguments:
        # What crosses a link has an entry, and a segment that does so has that, too.
        entry = getattr(argument, "entry", argument)
        if isinstance(entry, (TraceEntry, Segment)):
            isSegment = entry is not argument and hasattr(argument, "segment")
            kind = "TCP segment" if isSegment or isinstance(entry, Segment) else "datagram"
            return Event(time, host, f"{kind} {formatAddress(entry.source)} > {formatAddress(entry.destination)}")
    while isinstance(function, partial):
        function = function.func
    return Event(time, host, getattr(function, "__qualname__", None) or safe_str(function))


def mostFrequent(events: Iterable[Event]) -> str:
    """Name the most frequent of events, how often there were, and where."""
    hosts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        hosts[event.what][event.host] += 1
    kinds = sorted(hosts, key=lambda what: -hosts[what].total())
    named = [f"{hosts[what].total()} times {what}{_places(hosts[what])}" for what in kinds[:_NAMED]]
    return ", ".join(named) + _others(len(kinds))


def _places(hosts: Counter[str]) -> str:
    names = [name for name, _ in hosts.most_common(_NAMED) if name]
    return f" (at {', '.join(names)}{_others(len(hosts))})" if names else ""


def _others(number: int) -> str:
    return f" and {number - _NAMED} more" if number > _NAMED else ""
