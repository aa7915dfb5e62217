"""Faults in the words of Toxiproxy (U{https://github.com/Shopify/toxiproxy}), whose users know them: each I{toxic} has a type,
attributes, a stream, which is a direction, and a toxicity: the share of the datagrams that it concerns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import DELIVERED, Decider, Decision, decideOn
from udpecho.faults.models import GilbertElliott, Jitter, checkLeast, checkProbability
from udpecho.faults.plan import FaultPlan

#: The streams, each with the name of its direction in a L{FaultProxy <udpecho.faults.proxy.FaultProxy>}.
STREAMS = {"upstream": "up", "downstream": "down"}

_Faults = dict[str, Any]


class Kind(NamedTuple):
    """A type of toxics.

    @ivar attributes: their names and defaults.
    @ivar faults: turns their values into arguments of a L{FaultPlan}.
    """

    attributes: Mapping[str, Any]
    faults: Callable[[Mapping[str, Any]], _Faults]


def _latency(values: Mapping[str, Any]) -> _Faults:
    # From latency - jitter to latency + jitter, in ms, and never below 0.
    for name in ("latency", "jitter"):
        checkLeast(name, values[name], 0)
    latency, jitter = values["latency"] / 1e3, values["jitter"] / 1e3
    lowest = max(0.0, latency - jitter)
    return {"delay": lowest, "jitter": Jitter(latency + jitter - lowest)}


def _bandwidth(values: Mapping[str, Any]) -> _Faults:
    # In KB of 1000 bytes a second; 0 is no limit.
    checkLeast("rate", values["rate"], 0)
    return {"rate": values["rate"] * 1000 or None, "queue": values["queue"]}


def _timeout(values: Mapping[str, Any]) -> _Faults:
    # UDP has no connection that could be closed after that time.
    checkLeast("timeout", values["timeout"], 0)
    return {"loss": 1.0}


def _reorder(values: Mapping[str, Any]) -> _Faults:
    checkLeast("delay", values["delay"], 0)
    return {"reorder": values["reorder"], "reorderDelay": values["delay"] / 1e3}


def _share(name: str) -> Kind:
    return Kind({name: 1.0}, dict)


#: Those of Toxiproxy first, then our own.
KINDS: Mapping[str, Kind] = {
    "latency": Kind({"latency": 0, "jitter": 0}, _latency),
    "bandwidth": Kind({"rate": 0, "queue": 65536}, _bandwidth),
    "timeout": Kind({"timeout": 0}, _timeout),
    "loss": _share("loss"),
    "duplicate": _share("duplicate"),
    "corrupt": _share("corrupt"),
    "truncate": _share("truncate"),
    "reorder": Kind({"reorder": 1.0, "delay": 10}, _reorder),
    "burst": Kind({"p": 0.0, "r": 0.0, "k": 1.0, "h": 0.0}, lambda values: {"burst": GilbertElliott(**values)}),
    "mtu": Kind({"mtu": 65527}, dict),
}


class Toxic:
    """One fault of one direction.

    @ivar name: its name, unique in its proxy.
    @ivar kind: its type, one of L{KINDS}.
    @ivar stream: one of L{STREAMS}.
    @ivar toxicity: the share of the datagrams that it concerns, from 0 to 1.
    @ivar attributes: all of its type.
    """

    def __init__(self, name: str, kind: str, stream: str, toxicity: Any, attributes: Any, seed: str) -> None:
        """@param attributes: a mapping; those that are missing have their defaults.
        @param seed: determines the decisions, together with the name.
        @raise ValueError: if something is not what it must be.
        @raise TypeError: if it is of the wrong type.
        """
        if kind not in KINDS:
            raise ValueError(f"type must be one of {', '.join(KINDS)}, got {kind!r}")
        if stream not in STREAMS:
            raise ValueError(f"stream must be upstream or downstream, got {stream!r}")
        self.name = name
        self.kind = kind
        self.stream = stream
        self.attributes: dict[str, Any] = dict(KINDS[kind].attributes)
        self.toxicity = 1.0
        seed = f"{seed} {stream} {name}"
        self._draw = random.Random(f"{seed} toxicity").random
        self._plan = FaultPlan(seed)
        self.change(toxicity, attributes)

    def change(self, toxicity: Any, attributes: Any) -> None:
        """Change the toxicity and some of the attributes, all that are given or none.

        @raise ValueError: if something is not what it must be.
        @raise TypeError: if it is of the wrong type.
        """
        checkProbability("toxicity", toxicity)
        if not isinstance(attributes, dict):
            raise TypeError(f"attributes must be an object, got {attributes!r}")
        values = {**self.attributes, **attributes}
        for name in attributes:
            if name not in self.attributes:
                raise ValueError(f"attribute of {self.kind} must be {' or '.join(self.attributes)}, got {name!r}")
        self._plan.change(**KINDS[self.kind].faults(values))
        self.attributes = values
        self.toxicity = float(toxicity)

    def decide(self, size: int, now: float) -> Decision | None:
        """Decide about a datagram; C{None} if it is not concerned."""
        return self._plan.decide(size, now) if self._draw() < self.toxicity else None

    def asDictionary(self) -> dict[str, Any]:
        """As Toxiproxy writes it."""
        return {
            "name": self.name,
            "type": self.kind,
            "stream": self.stream,
            "toxicity": self.toxicity,
            "attributes": self.attributes,
        }


class Chain:
    """Decides as a plan, and then toxics, one after the other: their delays add up, and each copy goes through the rest."""

    def __init__(self, plan: Decider, toxics: list[Toxic]) -> None:
        self._plan = plan
        self._toxics = toxics

    def decide(self, size: int, now: float) -> Decision:
        """@see: L{Decider.decide <udpecho.faults.decision.Decider.decide>}"""
        return self._goOn(self._plan.decide(size, now), size, now)

    def decideDatagram(self, datagram: Datagram) -> Decision:
        """@see: L{DatagramDecider.decideDatagram <udpecho.faults.decision.DatagramDecider.decideDatagram>}"""
        decision = decideOn(self._plan, datagram)
        payload = datagram.payload if decision.payload is None else decision.payload
        return self._goOn(decision, len(payload), datagram.time)

    def _goOn(self, decision: Decision, size: int, now: float) -> Decision:
        for toxic in self._toxics:
            following = toxic.decide(size, now) if decision.delays else None
            if following is not None:
                decision = _join(decision, following)
        return decision


def _join(first: Decision, second: Decision) -> Decision:
    """What becomes of a datagram that has two decisions. One bit is flipped at the most, the first one's."""
    if not second.delays:
        return second
    reasons = tuple(dict.fromkeys(reason for reason in first.reasons + second.reasons if reason != DELIVERED))
    delays = tuple(one + other for one in first.delays for other in second.delays)
    lengths = [length for length in (first.truncatedTo, second.truncatedTo) if length is not None]
    flipped = second.flipped if first.flipped is None else first.flipped
    return Decision(reasons or (DELIVERED,), delays, flipped, min(lengths, default=None), first.payload)
