"""Tests of L{udpecho.testing.strategies}: Hypothesis finds the few decisions that matter."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, find, given, settings

from tests.support.transfer import transfer
from udpecho.faults.decision import Decision, Replay
from udpecho.faults.plan import FaultPlan
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.strategies import decisions, faultPlans, faults, makeNetwork, networks

#: Without a database, so that a run knows nothing of those before it.
ALONE = settings(max_examples=2000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def fails(network: MemoryNetwork) -> bool:
    """Whether the transfer stops at its third block."""
    try:
        transfer(network, 5)
    except AssertionError as e:
        return "block 3" in str(e)
    return False


class StrategyTests:
    """What Hypothesis makes of the strategies."""

    def test_networks(self) -> None:
        """It finds the third acknowledgement, and prints code that makes the network in which it is lost."""

        @ALONE
        @given(networks(datagrams=6, kinds=["lost", "delayed"]))
        def test(network: MemoryNetwork) -> None:
            assert not fails(network)

        with pytest.raises(AssertionError) as caught:
            test()
        printed = "\n".join(getattr(caught.value, "__notes__", ()))
        if sys.version_info >= (3, 11):
            assert "makeNetwork(" in printed
            assert "replay='server > client 2: lost'" in printed
        assert fails(makeNetwork({"client": "192.0.2.1", "server": ["192.0.2.2"]}, replay="server > client 2: lost"))

    def test_decisions(self) -> None:
        """A plan of one link shrinks to one line."""

        def failsWith(replay: Replay) -> bool:
            network = MemoryNetwork()
            client, server = network.host("client", "192.0.2.1"), network.host("server", "192.0.2.2")
            network.setPlan(server, client, Replay("\n".join(f"{n}: {d}" for n, d in replay.decisions.items())))
            return fails(network)

        found = find(decisions(datagrams=6), failsWith, settings=ALONE)
        assert repr(found) == "Replay('2: lost')"

    @settings(deadline=None, max_examples=30)
    @given(faultPlans())
    def test_faultPlans(self, plan: FaultPlan) -> None:
        """Plans have any faults, within their limits."""
        assert 0 <= plan.loss <= 0.3
        assert 0 <= plan.delay <= 0.1
        assert plan.decide(100, 0.0).reasons

    @settings(deadline=None, max_examples=100)
    @given(faults())
    def test_printed(self, decision: Decision) -> None:
        """Each decision is one that can be printed and read."""
        assert Decision.fromString(str(decision)) == decision

    @pytest.mark.parametrize("kinds", [[], ["lost", "stolen"]])
    def test_refused(self, kinds: list[str]) -> None:
        """Faults that are none of these are refused."""
        with pytest.raises(ValueError, match=r"^kinds must be some of lost, .*, got (none|stolen)$"):
            faults(kinds)

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without Hypothesis one sentence names it."""
        monkeypatch.delitem(sys.modules, "udpecho.testing.strategies")
        monkeypatch.setitem(sys.modules, "hypothesis", None)
        with pytest.raises(
            ImportError, match=r"^udpecho\.testing\.strategies must have Hypothesis, .*: pip install hypothesis$"
        ):
            __import__("udpecho.testing.strategies")
