"""Tests of probers whose peers send more than can be read."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from twisted.internet import task

from tests.support.guards import needsBatches
from tests.support.probes import World
from tests.support.running import PATIENCE, Run, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.net.linux.mmsg import SLOTS
from udpecho.net.turn import TURN_TIME
from udpecho.probe.flow import Flow
from udpecho.probe.io.stamp_slots import StampSlots
from udpecho.probe.outcomes import Outcome
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.target import Target

#: How many sockets a prober has, and how long it takes to read from one, in seconds.
SOCKETS, READ_TIME = 12, 0.001


@needsBatches
def test_flood(runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sockets share the time of a turn, and each has its part; probes are lost although no queue is ever found empty."""
    reads: Counter[Flow] = Counter()
    inTurn, most = 0, 0

    def read(flow: Flow, socket: Any) -> bool:
        nonlocal inTurn
        inTurn += 1
        reads[flow] += 1
        end = time.perf_counter() + READ_TIME
        while time.perf_counter() < end:
            pass
        return True

    async def test(reactor: Any) -> None:
        nonlocal most

        def tick() -> None:
            nonlocal inTurn, most
            most, inTurn = max(most, inTurn), 0

        with udpSocket() as peer:
            target = Target("peer", DatagramAddress(peer.getsockname()))
            prober = Prober(reactor, [target], Plan(count=2, interval=0.01, timeout=0.02), sources=SOCKETS)
            ticks = task.LoopingCall(tick)
            ticks.clock = reactor
            ticks.start(0)
            done = prober.start()
            for flow in prober.flows:
                # What is there stays there.
                peer.sendto(b"", flow.source)
            await done.addTimeout(PATIENCE, reactor)
            ticks.stop()
        assert [flow.statistics.count(Outcome.LOST) for flow in prober.flows] == [2] * SOCKETS

    monkeypatch.setattr(Flow, "read", read)
    runOnce(test)
    assert 0 < most <= TURN_TIME / READ_TIME + 1
    assert len(reads) == SOCKETS
    assert max(reads.values()) <= 2 * min(reads.values())


class Endless:
    """Calls that find as much as is asked for, each time."""

    def __init__(self) -> None:
        self.calls = 0

    def recvmmsg(self, *_: object) -> int:
        self.calls += 1
        assert self.calls < 10_000
        return SLOTS


@needsBatches
def test_errorQueue() -> None:
    """An error queue that is filled as fast as it is read is left in time."""
    calls: Any = Endless()
    StampSlots(1, calls).readErrorQueue(-1)
    assert calls.calls > 1


def test_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is the receive queue of a socket that is to be closed."""
    prober = World().prober(Plan(count=5))
    prober.start()
    (flow,) = prober.flows
    endless = Endless()
    monkeypatch.setattr(Flow, "read", lambda *_: bool(endless.recvmmsg()))
    flow.release()
    assert not flow.sockets.isOpen
    prober.stop()
