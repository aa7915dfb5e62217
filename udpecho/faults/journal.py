"""What was decided on all links of a network, to find out which of it makes a test fail, and to repeat it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping
from typing import NamedTuple

from udpecho.addresses import formatAddress
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import AT_ONCE, Decider, Decision, decideOn, readLines

#: How many decisions a journal keeps. Those after them are not recorded.
MAX_DECISIONS = 100_000
#: How many bytes of a payload are kept, and printed.
_SHOWN = 16

_line = re.compile(r"(.+ > .+) (\d+):(.*)", re.ASCII)


class Place(NamedTuple):
    """Which datagram a decision is about.

    @ivar link: the link, C{"client > server"} by the names of the hosts; refusals by ICMP have a link of their own, C{"client >
        server refusal"}.
    @ivar number: its number on the link, the first being 0.
    """

    link: str
    number: int


class Entry(NamedTuple):
    """One decision, and the datagram that it was about.

    @ivar datagram: with the start of its payload only: a network is recorded for long.
    @ivar size: its payload in bytes.
    """

    place: Place
    decision: Decision
    datagram: Datagram
    size: int

    def __str__(self) -> str:
        source, destination = formatAddress(self.datagram.source), formatAddress(self.datagram.destination)
        payload = self.datagram.payload
        start = payload.hex(" ") + (" ..." if self.size > _SHOWN else "")
        sent = f"{self.datagram.time:.6f} s, {source} > {destination}, {self.size} B" + (f": {start}" if payload else "")
        return f"{self.place.link} {self.place.number}: {self.decision}  # {sent}"


class Journal:
    """The decisions about the datagrams of a network, each with its link and its number on that link.

    It records those of the plans, or repeats others instead: a decision is about the same datagram of a link, whatever happens
    on other links.

    @ivar entries: what was decided, in the order of sending. C{str()} prints it, and L{fromString} reads that.
    @ivar forgotten: how many decisions are not among them, because there were more than L{MAX_DECISIONS}.
    """

    def __init__(self, replay: Mapping[Place, Decision] | None = None) -> None:
        """@param replay: the decisions to repeat instead of asking the plans. All other datagrams are delivered at once."""
        self._replay = replay
        self._numbers: Counter[str] = Counter()
        self.entries: list[Entry] = []
        self.forgotten = 0

    @classmethod
    def fromString(cls, text: str) -> Journal:
        """A journal that repeats printed decisions, with or without their comments.

        @raise ValueError: if a line is not one.
        """
        return cls(dict(map(_read, readLines(text))))

    def decide(self, plan: Decider | None, datagram: Datagram, refusal: bool = False) -> Decision:
        """Decide about a datagram.

        @param plan: the plan of its link, C{None} for one that delivers all at once.
        @param refusal: whether it is a refusal by ICMP instead.
        """
        link = f"{datagram.link} refusal" if refusal else datagram.link
        place = Place(link, self._numbers[link])
        self._numbers[link] += 1
        if self._replay is not None:
            decision = self._replay.get(place, AT_ONCE)
        elif plan is None:
            decision = AT_ONCE
        elif refusal:
            decision = plan.decide(0, datagram.time)
        else:
            decision = decideOn(plan, datagram)
        if len(self.entries) < MAX_DECISIONS:
            size = len(datagram.payload)
            kept = datagram if size <= _SHOWN else datagram._replace(payload=datagram.payload[:_SHOWN])
            self.entries.append(Entry(place, decision, kept, size))
        else:
            self.forgotten += 1
        return decision

    @property
    def replays(self) -> bool:
        """Whether it repeats decisions."""
        return self._replay is not None

    def report(self, places: Container[Place]) -> str:
        """The lines of some of the decisions, of those that were made."""
        return "\n".join(str(entry) for entry in self.entries if entry.place in places)

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries))


def _read(line: str) -> tuple[Place, Decision]:
    match = _line.fullmatch(line)
    if match is None:
        raise ValueError(f"line must be as in 'client > server 2: lost', got {line!r}")
    return Place(match[1], int(match[2])), Decision.fromString(match[3])
