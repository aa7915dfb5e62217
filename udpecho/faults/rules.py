"""Rules that see the datagrams: lose the third acknowledgement, delay what goes to one host.

A rule is a decider as L{FaultPlan <udpecho.faults.plan.FaultPlan>} is one, for a network in memory and for a proxy. What it is
not about arrives at once. L{Rules} has several, on top of a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import (
    AT_ONCE,
    CORRUPTED,
    DELAY_DIGITS,
    DELAYED,
    DELIVERED,
    DUPLICATED,
    LOST,
    REPLACED,
    TRUNCATED,
    Decider,
    Decision,
    decideOn,
)
from udpecho.faults.matching import Match, Predicate, matching
from udpecho.faults.models import checkCount, checkSeconds

#: What becomes of a datagram that a rule is about, after what was decided before.
Change: TypeAlias = Callable[[Datagram, Decision], Decision]


class Rules:
    """Several rules, on top of a plan.

    The plan decides first, about every datagram, so that it decides the same with and without rules. Then each rule that is
    about the datagram changes the decision, in their order. What is lost already is only brought back by L{deliver}.

    @ivar plan: the plan below, which may be replaced.
    """

    def __init__(self, *rules: Rules, plan: Decider | None = None) -> None:
        """@param rules: the rules; those of another C{Rules} go on to count where they are.
        @param plan: decides first. By default all is delivered at once.
        """
        self.plan = plan
        self._steps: list[tuple[Callable[[Datagram], bool], Change]] = [step for rule in rules for step in rule._steps]

    @property
    def mtu(self) -> int | None:
        """The longest payload that gets through, in bytes, if the plan knows it."""
        return getattr(self.plan, "mtu", None)

    def decide(self, size: int, now: float) -> Decision:
        """What the plan decides: there is no datagram that rules could see.

        @see: L{Decider.decide}
        """
        return AT_ONCE if self.plan is None else self.plan.decide(size, now)

    def decideDatagram(self, datagram: Datagram) -> Decision:
        """@see: L{DatagramDecider.decideDatagram <udpecho.faults.decision.DatagramDecider.decideDatagram>}"""
        decision = AT_ONCE if self.plan is None else decideOn(self.plan, datagram)
        for isMeant, change in self._steps:
            if isMeant(datagram):
                decision = change(datagram, decision)
        return decision


def rule(match: Match | Predicate | None, change: Change) -> Rules:
    """A rule of your own.

    @param match: which datagrams it is about: a L{Match}, a function of the L{Datagram}, or C{None} for all.
    @param change: called with such a datagram and what was decided about it; returns the decision that takes its place.
    """
    made = Rules()
    made._steps = [((match if isinstance(match, Match) else matching(match)).begin(), change)]
    return made


def lose(match: Match | Predicate | None = None) -> Rules:
    """These datagrams are lost."""
    return rule(match, lambda datagram, decision: Decision((LOST,), ()))


def deliver(match: Match | Predicate | None = None) -> Rules:
    """These datagrams arrive at once, once and as they are, whatever was decided about them."""
    return rule(match, lambda datagram, decision: AT_ONCE)


def delay(seconds: float, match: Match | Predicate | None = None) -> Rules:
    """These datagrams arrive later, by so many seconds: others overtake them."""
    checkSeconds("delay", seconds)

    def change(datagram: Datagram, decision: Decision) -> Decision:
        return _with(decision, DELAYED, delays=tuple(round(before + seconds, DELAY_DIGITS) for before in decision.delays))

    return rule(match, change)


def duplicate(match: Match | Predicate | None = None, copies: int = 1, after: float = 0.0) -> Rules:
    """These datagrams arrive several times.

    @param copies: how many more arrive.
    @param after: seconds between a copy and the next.
    """
    checkCount("copies", copies, 1)
    checkSeconds("after", after)

    def change(datagram: Datagram, decision: Decision) -> Decision:
        turns = [turn * after for turn in range(copies + 1)]
        delays = tuple(round(before + later, DELAY_DIGITS) for before in decision.delays for later in turns)
        return _with(decision, DUPLICATED, delays=delays)

    return rule(match, change)


def corrupt(match: Match | Predicate | None = None, bit: int = 0) -> Rules:
    """One bit of these datagrams is flipped.

    @param bit: its number, counted from the first byte's lowest, and again from there after the last one.
    """
    checkCount("bit", bit, 0)

    def change(datagram: Datagram, decision: Decision) -> Decision:
        return _with(decision, CORRUPTED, flipped=bit) if datagram.payload else decision

    return rule(match, change)


def truncate(size: int, match: Match | Predicate | None = None) -> Rules:
    """Of these datagrams so many bytes arrive at most."""
    checkCount("size", size, 0)

    def change(datagram: Datagram, decision: Decision) -> Decision:
        return _with(decision, TRUNCATED, truncatedTo=size) if size < len(datagram.payload) else decision

    return rule(match, change)


def replace(payload: bytes | Callable[[Datagram], bytes], match: Match | Predicate | None = None) -> Rules:
    """Of these datagrams another payload arrives.

    @param payload: the payload, or a function of the L{Datagram} that returns it.
    """
    if not callable(payload) and not isinstance(payload, bytes):
        raise TypeError(f"payload must be bytes, or a function of a datagram, got {payload!r}")

    def change(datagram: Datagram, decision: Decision) -> Decision:
        other = payload(datagram) if callable(payload) else payload
        return _with(decision, REPLACED, payload=other)

    return rule(match, change)


def _with(decision: Decision, reason: str, **fields: Any) -> Decision:
    """A decision with one more fault; what is lost stays as it is."""
    if not decision.delays:
        return decision
    reasons = tuple(r for r in decision.reasons if r not in (DELIVERED, reason))
    return decision._replace(reasons=(*reasons, reason), **fields)
