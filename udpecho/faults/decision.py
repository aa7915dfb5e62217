"""The decision about one datagram, and recorded decisions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Protocol

from udpecho.faults.datagram import Datagram
from udpecho.faults.models import checkSeconds

# What happens to a datagram, in the order in which it happens.
BURST_LOST = "burst_lost"
LOST = "lost"
TOO_LONG = "too_long"
QUEUE_FULL = "queue_full"
REPLACED = "replaced"
CORRUPTED = "corrupted"
TRUNCATED = "truncated"
DUPLICATED = "duplicated"
REORDERED = "reordered"
DELAYED = "delayed"
CONGESTED = "congested"
DELIVERED = "delivered"

_reasons = {
    BURST_LOST,
    LOST,
    TOO_LONG,
    QUEUE_FULL,
    REPLACED,
    CORRUPTED,
    TRUNCATED,
    DUPLICATED,
    REORDERED,
    DELAYED,
    CONGESTED,
    DELIVERED,
}


#: Delays are rounded to this many digits, since the logarithms of two machines may differ in their last bit.
DELAY_DIGITS = 9

#: What a proxy counts each for itself, of what its plan does not see.
_dropReasons = {"loop_guard", "not_allowed", "no_socket", "other_port"}


def shareHops(hopLimit: int, copies: int) -> int:
    """What each copy of a datagram has of its hop limit. They share it: else there were more and more copies of what goes round
    in a circle and is duplicated on each turn.
    """
    return max(1, hopLimit // max(1, copies))


class Arrival(NamedTuple):
    """One arrival of a datagram.

    @ivar delay: seconds after it was sent.
    @ivar datagram: its payload, as it arrives.
    """

    delay: float
    datagram: bytes


class Decision(NamedTuple):
    """What becomes of one datagram.

    @ivar reasons: one or more of this module's constants.
    @ivar delays: the delay of each arrival, in seconds; empty if the datagram is lost.
    @ivar flipped: the number of the flipped bit, counted from the first byte's lowest, or C{None}.
    @ivar truncatedTo: how many bytes of the payload arrive, or C{None} for all.
    @ivar payload: what arrives instead of the payload, before a bit is flipped or the end is missing, or C{None}.
    """

    reasons: tuple[str, ...]
    delays: tuple[float, ...]
    flipped: int | None = None
    truncatedTo: int | None = None
    payload: bytes | None = None

    def hopsOf(self, hopLimit: int) -> int:
        """What each copy of a datagram has of its IPv4 time to live or IPv6 hop limit."""
        return shareHops(hopLimit, len(self.delays))

    def apply(self, datagram: bytes) -> list[Arrival]:
        """The arrivals of a datagram, in the order of their delays.

        @raise ValueError: if a delay is no finite number of seconds, 0 or more.
        """
        for delay in self.delays:
            checkSeconds("delay", delay)
        if self.payload is not None:
            datagram = self.payload
        if self.flipped is not None and datagram:
            changed = bytearray(datagram)
            position = self.flipped % (8 * len(changed))
            changed[position // 8] ^= 1 << (position % 8)
            datagram = bytes(changed)
        if self.truncatedTo is not None:
            datagram = datagram[: self.truncatedTo]
        return [Arrival(delay, datagram) for delay in sorted(self.delays)]

    def __str__(self) -> str:
        parts = [",".join(self.reasons)]
        if self.payload is not None:
            parts.append(f"payload={self.payload.hex()}")
        if self.flipped is not None:
            parts.append(f"flip={self.flipped}")
        if self.truncatedTo is not None:
            parts.append(f"truncated={self.truncatedTo}")
        parts += [f"+{delay:.9f}" for delay in self.delays]
        return " ".join(parts)

    @classmethod
    def fromString(cls, text: str) -> Decision:
        """Read a printed decision.

        @raise ValueError: if the text is not one.
        """
        # Older recordings have "cut".
        pattern = (
            r"([a-z_,]+)(?: payload=((?:[0-9a-f]{2})*))?(?: flip=(\d+))?(?: (?:truncated|cut)=(\d+))?((?: \+\d{1,15}\.\d{9})*)"
        )
        match = re.fullmatch(pattern, text.strip(), re.ASCII)
        if match is None or not _reasons.issuperset(match[1].split(",")):
            raise ValueError(f"decision must be as in 'delivered +0.050000000', got {text!r}")
        return cls(
            tuple(match[1].split(",")),
            tuple(float(delay) for delay in match[5].split()),
            None if match[3] is None else int(match[3]),
            None if match[4] is None else int(match[4]),
            None if match[2] is None else bytes.fromhex(match[2]),
        )


#: No fault at all.
AT_ONCE = Decision((DELIVERED,), (0.0,))


class Decider(Protocol):
    """Decides what becomes of datagrams: a L{FaultPlan <udpecho.faults.plan.FaultPlan>}, a L{Recording}, a L{Replay}. One that
    has to see the datagrams is a L{DatagramDecider}.
    """

    def decide(self, size: int, now: float) -> Decision:
        """Decide about the next datagram, of C{size} bytes, sent at C{now} in seconds."""


class DatagramDecider(Decider, Protocol):
    """Decides what becomes of datagrams by what is in them and where they go: L{Rules <udpecho.faults.rules.Rules>}.

    C{decide} is called only for what is no datagram, such as a refusal by ICMP.
    """

    def decideDatagram(self, datagram: Datagram) -> Decision:
        """Decide about the next datagram. It is called instead of C{decide}."""


def checkDecider(name: str, plan: Any) -> None:
    """@raise TypeError: if a plan is neither a decider nor C{None}."""
    if plan is not None and (isinstance(plan, type) or not callable(getattr(plan, "decide", None))):
        raise TypeError(f"{name} must be a FaultPlan, another object with its method decide, or None, got {plan!r}")


def decideOn(decider: Decider, datagram: Datagram) -> Decision:
    """Let a decider of either kind decide about a datagram."""
    look = getattr(decider, "decideDatagram", None)
    decision: Decision = decider.decide(len(datagram.payload), datagram.time) if look is None else look(datagram)
    return decision


class Replay:
    """Repeats printed decisions, one a line. A line as C{7: lost} is about the datagram with this number, the first being 0; a
    line without one is about the next. What follows a C{#} is a comment. Datagrams without a line are delivered at once.

    @ivar decisions: the decisions by their numbers.
    """

    def __init__(self, text: str) -> None:
        """@param text: the printed decisions.
        @raise ValueError: if a line is not a decision.
        """
        self._text = text
        self.decisions: dict[int, Decision] = {}
        self._next = count()
        following = 0
        for line in readLines(text):
            number, rest = re.fullmatch(r"(?:(\d+):)?(.*)", line).groups()  # type: ignore[union-attr]
            following = int(number or following)
            self.decisions[following] = Decision.fromString(rest)
            following += 1

    def decide(self, size: int, now: float) -> Decision:
        """@see: L{Decider.decide}"""
        return self.decisions.get(next(self._next), AT_ONCE)

    def __repr__(self) -> str:
        return f"Replay({self._text!r})"


def readLines(text: str) -> Iterator[str]:
    """The lines of printed decisions, without comments and empty lines."""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line:
            yield line


class Recording:
    """Records decisions, so that a failing test can print them: L{Replay} reads C{str()} of a recording."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self.decisions: list[Decision] = []

    @property
    def mtu(self) -> int | None:
        """The longest payload that gets through, in bytes, if the decider that is recorded knows it."""
        return getattr(self._decider, "mtu", None)

    def decide(self, size: int, now: float) -> Decision:
        """@see: L{Decider.decide}"""
        decision = self._decider.decide(size, now)
        self.decisions.append(decision)
        return decision

    def decideDatagram(self, datagram: Datagram) -> Decision:
        """@see: L{DatagramDecider.decideDatagram}"""
        decision = decideOn(self._decider, datagram)
        self.decisions.append(decision)
        return decision

    def __str__(self) -> str:
        return "\n".join(f"{number}: {decision}" for number, decision in enumerate(self.decisions))


@dataclass(eq=False)
class Direction:
    """One direction through a proxy. C{outcomes} counts datagrams; rules see times in seconds after C{began}."""

    name: str
    plan: Decider
    began: float = 0.0
    datagrams: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def decide(
        self, datagram: bytes, now: float, source: tuple[str, int], destination: tuple[str, int]
    ) -> tuple[Decision, list[Arrival]]:
        """Let the plan decide about a datagram, at C{now} in seconds, and count it. If the plan raises, it is lost."""
        try:
            decision = decideOn(self.plan, Datagram(datagram, source, destination, now - self.began, self.name))
            return decision, self.follow(decision, datagram)
        except Exception:
            self.drop("own_loss")
            raise

    def follow(self, decision: Decision, datagram: bytes) -> list[Arrival]:
        """What arrives of a datagram that was decided about. It is counted."""
        arrivals = decision.apply(datagram)
        self.datagrams += 1
        self.outcomes.update(decision.reasons)
        return arrivals

    def drop(self, reason: str) -> None:
        """Count a datagram that the plan does not see.

        @param reason: why; what has no count of its own is the proxy's own loss.
        """
        self.datagrams += 1
        self.outcomes[reason if reason in _dropReasons else "own_loss"] += 1

    def __str__(self) -> str:
        outcomes = [f"{outcome}={count}" for outcome, count in sorted(self.outcomes.items()) if count]
        return " ".join([f"{self.name}: datagrams={self.datagrams}", *outcomes])
