"""Tests of what a network in memory is given: a plan and a latency at any time, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.memory import open_, pair
from udpecho import FaultPlan, FaultProxy, MemoryNetwork, useDatagramPorts


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class DefaultsTests:
    """C{network.plan} and C{network.latency}."""

    @pytest.mark.parametrize("linked", [False, True])
    def test_set_later(self, linked: bool) -> None:
        """What is set concerns what is sent from then on, and leaves links alone that have their own."""
        network = MemoryNetwork()
        one, two = pair(network)
        if linked:
            network.link(one, two)
        port, _ = open_(one, "0.0.0.0")
        other, _ = open_(two, "0.0.0.0", 7)
        network.setPlan(two, one, FaultPlan(delay=0.25))
        network.plan, network.latency = FaultPlan(delay=0.5), 2.0
        port.write(b"there", ("10.0.0.2", 7))
        other.write(b"back", ("10.0.0.1", port.getHost().port))
        network.runUntilIdle()
        assert [entry.copies[0].time for entry in network.trace] == [2.5, 2.25]

    def test_own(self) -> None:
        """A link with a plan and a latency of its own keeps them, also if they are those that the network had."""
        network = MemoryNetwork(latency=1.0)
        one, two = pair(network)
        link = network.link(one, two)
        link.set(plan=None, latency=1.0)
        network.plan, network.latency = FaultPlan(loss=1), 2.0
        port, _ = open_(one, "0.0.0.0")
        open_(two, "0.0.0.0", 7)
        port.write(b"there", ("10.0.0.2", 7))
        network.runUntilIdle()
        assert [copy.time for copy in network.trace[0].copies] == [1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda network, one, two: MemoryNetwork(0.1), "plan must be a FaultPlan"),  # type: ignore[arg-type]
        (lambda network, one, two: MemoryNetwork(FaultPlan), "plan must be a FaultPlan"),  # type: ignore[arg-type]
        (lambda network, one, two: MemoryNetwork(latency=-1), "latency must be a number of seconds"),
        (lambda network, one, two: MemoryNetwork(latency="1"), "latency must be a number"),  # type: ignore[arg-type]
        (lambda network, one, two: setattr(network, "plan", 0.1), "plan must be a FaultPlan"),
        (lambda network, one, two: setattr(network, "latency", -1), "latency must be a number"),
        (lambda network, one, two: network.setPlan("one", two, FaultPlan()), "of this network, got 'one'"),
        (lambda network, one, two: network.setPlan(one, MemoryNetwork().host("x"), None), "got <MemoryHost x>"),
        (lambda network, one, two: network.setPlan(one, two, 0.1), "plan must be a FaultPlan"),
        (lambda network, one, two: network.link("one", two), "of this network, got 'one'"),
        (lambda network, one, two: network.link(one, two).set(plan=0.1), "plan must be a FaultPlan"),
        (lambda network, one, two: network.partition(["one"], [two]), "of this network, got 'one'"),
        (lambda network, one, two: network.partition(one, two), "group must be a list"),
        (lambda network, one, two: network.at(1, 3), "action must be callable, got 3"),
        (lambda network, one, two: network.advance("1"), "seconds must be a number, got '1'"),
        (lambda network, one, two: network.host(7, "192.0.2.7"), "name of a host must be a string"),
        (lambda network, one, two: network.host("x", ["192.0.2.7"]), "must be a string, got \\['192.0.2.7'\\]"),
        (lambda network, one, two: network.nat("x", "192.0.2.7", "symmetric"), "behavior must be a NATBehavior"),
        (lambda network, one, two: network.nat("x", "192.0.2.7").setAddress("2001:db8::1"), "must be of IPv4"),
        (lambda network, one, two: network.setPlan(one, two, FaultPlan(mark=9)), "mark must be with a rate"),
        (lambda network, one, two: FaultPlan(rate=9, mark=9).change(rate=None), "mark must be with a rate"),
        (lambda network, one, two: one.setAddresses(["192.0.2.7"]), "must be a string"),
        (lambda network, one, two: one.removeAddress("192.0.2.7"), "address must be one of .*10.0.0.1.*, got '192.0.2.7'"),
        (lambda network, one, two: FaultProxy(one, ("127.0.0.1", 7), up=0.1), "up must be a FaultPlan"),  # type: ignore[arg-type]
        (lambda network, one, two: useDatagramPorts(_reactor(), {"batches": False}), "options must be PortOptions"),  # type: ignore[arg-type]
    ],
)
def test_refused(call: Any, message: str) -> None:
    """What makes no sense is refused where it is given, and nothing changes."""
    network = MemoryNetwork()
    one, two = pair(network)
    with pytest.raises((TypeError, ValueError), match=message):
        call(network, one, two)
    assert list(network.hosts.values()) == [one, two]
    assert one.addresses == ["10.0.0.1", "fd00::1"]
    port, _ = open_(one, "0.0.0.0")
    _, receiver = open_(two, "0.0.0.0", 7)
    port.write(b"x", ("10.0.0.2", 7))
    network.advance(0)
    assert len(receiver.datagrams) == 1
