"""Tests of L{udpecho.faults.toxics}: decisions, with no network."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import Replay, decideOn
from udpecho.faults.matching import matching
from udpecho.faults.plan import FaultPlan
from udpecho.faults.rules import Rules, lose, replace
from udpecho.faults.toxics import KINDS, Chain, Toxic


def toxic(kind: str, toxicity: Any = 1.0, name: str = "it", **attributes: Any) -> Toxic:
    """A toxic of the downstream."""
    return Toxic(name, kind, "downstream", toxicity, attributes, "7")


def decide(toxics: list[Toxic], plan: Any = None, number: int = 1000, size: int = 100) -> list[Any]:
    """What becomes of datagrams."""
    chain = Chain(FaultPlan() if plan is None else plan, toxics)
    return [chain.decide(size, 0.0) for _ in range(number)]


class ToxicTests:
    """Each type, and several together."""

    def test_latency(self) -> None:
        """It is from the difference to the sum, in ms, and never negative."""
        delays = [decision.delays[0] for decision in decide([toxic("latency", latency=100, jitter=20)])]
        assert 0.08 <= min(delays) < 0.082
        assert 0.118 < max(delays) <= 0.12
        assert all(decision.delays[0] <= 0.03 for decision in decide([toxic("latency", latency=10, jitter=20)]))

    def test_bandwidth(self) -> None:
        """A KB is 1000 bytes; 0 is no limit."""
        assert [decision.delays for decision in decide([toxic("bandwidth", rate=1, queue=300)], number=4)] == [
            (0.1,),
            (0.2,),
            (0.3,),
            (),
        ]
        assert decide([toxic("bandwidth", rate=0)])[-1].delays == (0.0,)

    @pytest.mark.parametrize(
        ("kind", "attributes", "reason"),
        [
            ("timeout", {"timeout": 0}, "lost"),
            ("loss", {}, "lost"),
            ("duplicate", {}, "duplicated"),
            ("corrupt", {}, "corrupted"),
            ("truncate", {}, "truncated"),
            ("reorder", {"delay": 5}, "reordered,delayed"),
            ("burst", {"p": 1}, "burst_lost"),
            ("mtu", {"mtu": 99}, "too_long"),
        ],
    )
    def test_toxicity(self, kind: str, attributes: dict[str, Any], reason: str) -> None:
        """It concerns that share of the datagrams, the same ones with the same seed."""
        found = decide([toxic(kind, 0.25, **attributes)])
        reasons = Counter(",".join(decision.reasons) for decision in found)
        assert set(reasons) == {reason, "delivered"}
        assert 200 < reasons[reason] < 300
        assert found == decide([toxic(kind, 0.25, **attributes)])
        assert found != decide([toxic(kind, 0.25, "other", **attributes)])

    def test_together(self) -> None:
        """Delays add up, each copy goes through the rest, the shortest length counts, and what is lost stays so."""
        plan = Replay("duplicated,truncated truncated=9 +0.1 +0.2".replace("0.1", "0.100000000").replace("0.2", "0.200000000"))
        first, second = decide([toxic("latency", latency=1000), toxic("duplicate", name="2")], plan, 2)
        assert first.reasons == ("duplicated", "truncated", "delayed")
        assert first.delays == (1.1, 1.1, 1.2, 1.2)
        assert first.truncatedTo == 9
        assert second.delays == (1.0, 1.0)
        assert decide([toxic("loss"), toxic("duplicate", name="2")])[0].delays == ()

    def test_change(self) -> None:
        """A change is of all that is given, or of nothing."""
        changed = toxic("latency", latency=100)
        changed.change(0.5, {"jitter": 5})
        assert changed.asDictionary() == {
            "name": "it",
            "type": "latency",
            "stream": "downstream",
            "toxicity": 0.5,
            "attributes": {"latency": 100, "jitter": 5},
        }
        for toxicity, attributes in ((2, {}), (1, {"jitter": -1}), (1, {"lag": 1}), ("1", {}), (1, [])):
            with pytest.raises((ValueError, TypeError)):
                changed.change(toxicity, {"latency": 1, **attributes} if isinstance(attributes, dict) else attributes)
        assert (changed.toxicity, changed.attributes["latency"]) == (0.5, 100)

    def test_unknown(self) -> None:
        """A type or a stream that is none is refused."""
        with pytest.raises(ValueError, match=r"^type must be one of latency, .*, got 'slicer'$"):
            toxic("slicer")
        with pytest.raises(ValueError, match=r"^stream must be upstream or downstream, got 'up'$"):
            Toxic("it", "loss", "up", 1, {}, "")

    @pytest.mark.parametrize("kind", KINDS)
    def test_defaults(self, kind: str) -> None:
        """Each type has defaults for its attributes."""
        assert toxic(kind).attributes == dict(KINDS[kind].attributes)

    def test_rules(self) -> None:
        """Rules below them see the datagrams, and toxics the size of what comes instead."""
        rules = Rules(lose(matching().startingWith(b"\0")), replace(b"123456789", matching().size(100)))
        chain = Chain(rules, [toxic("mtu", mtu=5), toxic("latency", latency=10)])
        datagrams = [Datagram(payload, ("::1", 1), ("::1", 2), 0.0) for payload in (b"\0", b"1", b"x" * 100)]
        assert [str(decideOn(chain, datagram)) for datagram in datagrams] == ["lost", "delayed +0.010000000", "too_long"]
        chain = Chain(rules, [toxic("latency", latency=10)])
        assert decideOn(chain, datagrams[2]).apply(b"") == [(0.01, b"123456789")]
