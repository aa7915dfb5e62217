"""Events and statistics to be shown."""

from __future__ import annotations

from typing import Any

from udpecho.probe.outcomes import EXTRA_DATAGRAMS, Event, Outcome
from udpecho.probe.stats.summary import Statistics

MS = 1_000_000
TARGET, PEER = "localhost:7", "127.0.0.1:7"


def event(outcome: Outcome, **more: Any) -> Event:
    """An event of probe 3."""
    values = {"target": TARGET, "peer": PEER, "outcome": outcome, "sequence": 3, "size": 64}
    return Event(**{**values, **more})


def everyOutcome() -> Statistics:
    """Statistics of 102 probes, with every outcome."""
    statistics = Statistics(1.0)
    for sequence in range(100):
        statistics.probeSent(sequence, 5000 + sequence)
        if sequence in (20, 21, 22):
            statistics.timedOut(sequence)
        elif sequence == 30:
            statistics.refused(sequence)
        elif sequence == 31:
            statistics.unreachable(sequence)
        elif sequence != 40:
            statistics.replyReceived(sequence, 2000 * MS if sequence == 50 else MS)
    statistics.replyReceived(40, MS)
    statistics.probeNotSent(100)
    statistics.probeSent(101, 0)
    statistics.replyReceived(7, MS)
    statistics.ownDropped += 1
    for outcome in EXTRA_DATAGRAMS[1:]:
        statistics.datagramReceived(outcome)
    return statistics
