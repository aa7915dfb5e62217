"""What is decided about one datagram, and replay of decisions."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

#: Why something happened to a datagram, in the order in which it happens.
BURST_LOST = "burst_lost"
LOST = "lost"
TOO_LONG = "too_long"
QUEUE_FULL = "queue_full"
CORRUPTED = "corrupted"
TRUNCATED = "truncated"
DUPLICATED = "duplicated"
REORDERED = "reordered"
DELAYED = "delayed"
DELIVERED = "delivered"

#: The reasons for which a datagram is never delivered.
LOSSES = frozenset({LOST, BURST_LOST, TOO_LONG, QUEUE_FULL})

_reasons = LOSSES | {CORRUPTED, TRUNCATED, DUPLICATED, REORDERED, DELAYED, DELIVERED}

#: Delays are rounded to so many digits, which hides that the logarithms of two machines differ in their last bit.
_DIGITS = 9
_BYTE_DIGITS = 6


class Delivery(NamedTuple):
    """
    One arrival of a datagram.

    @ivar delay: seconds after it was sent.
    @ivar datagram: its bytes, as they arrive.
    """

    delay: float
    datagram: bytes


class Decision(NamedTuple):
    """
    What becomes of one datagram.

    @ivar reasons: what happened to it, as the constants of this module name it; at least one.
    @ivar delays: seconds after which it arrives, once for each arrival; empty if it never does.
    @ivar flipped: the number of the bit that is flipped, counted from the first byte's lowest, or C{None}.
    @ivar cut: how many bytes are left of it, or C{None} for all.
    """

    reasons: tuple[str, ...]
    delays: tuple[float, ...]
    flipped: int | None = None
    cut: int | None = None

    def apply(self, datagram: bytes) -> list[Delivery]:
        """
        Do it to a datagram.

        @return: its arrivals, in the order of their delays.
        """
        if self.flipped is not None and datagram:
            changed = bytearray(datagram)
            position = self.flipped % (8 * len(changed))
            changed[position // 8] ^= 1 << (position % 8)
            datagram = bytes(changed)
        if self.cut is not None:
            datagram = datagram[: self.cut]
        return [Delivery(delay, datagram) for delay in sorted(self.delays)]

    def __str__(self) -> str:
        parts = [",".join(self.reasons)]
        if self.flipped is not None:
            parts.append(f"flip={self.flipped}")
        if self.cut is not None:
            parts.append(f"cut={self.cut}")
        parts += [f"+{delay:.9f}" for delay in self.delays]
        return " ".join(parts)

    @classmethod
    def fromString(cls, text: str) -> Decision:
        """
        Read a decision as it was printed.

        @raise ValueError: if it was not printed by this class.
        """
        match = re.fullmatch(r"([a-z_,]+)(?: flip=(\d+))?(?: cut=(\d+))?((?: \+\d+\.\d{9})*)", text.strip(), re.ASCII)
        if match is None or not _reasons.issuperset(match[1].split(",")):
            raise ValueError(f"{text!r} is not a decision: one reads as in 'delivered +0.050000000'")
        return cls(
            tuple(match[1].split(",")),
            tuple(float(delay) for delay in match[4].split()),
            None if match[2] is None else int(match[2]),
            None if match[3] is None else int(match[3]),
        )


class Replay:
    """
    Makes decisions again that were printed, one a line; a number and a colon before one are passed over.

    After the last of them every datagram is delivered at once.
    """

    def __init__(self, text: str) -> None:
        """
        @param text: the printed decisions, in their order.

        @raise ValueError: if a line is not a decision.
        """
        lines = (line.strip() for line in text.splitlines())
        self._decisions = iter([Decision.fromString(re.sub(r"^\d+: *", "", line)) for line in lines if line])

    def decide(self, size: int, now: float) -> Decision:
        """@see: L{FaultPlan.decide}"""
        return next(self._decisions, Decision((DELIVERED,), (0.0,)))


class Recording:
    """Remembers the decisions of a plan, so that a failing test can print them: C{str()} of it is what L{Replay} reads."""

    def __init__(self, plan: Plan) -> None:
        """@param plan: what decides."""
        self._plan = plan
        self.decisions: list[Decision] = []

    def decide(self, size: int, now: float) -> Decision:
        """@see: L{FaultPlan.decide}"""
        decision = self._plan.decide(size, now)
        self.decisions.append(decision)
        return decision

    def __str__(self) -> str:
        return "\n".join(f"{number}: {decision}" for number, decision in enumerate(self.decisions))


class Plan(Protocol):
    """Whatever decides."""

    def decide(self, size: int, now: float) -> Decision:
        """Decide what becomes of the next datagram of C{size} bytes, sent at C{now}."""
