"""A check that the sums of statistics add up."""

from __future__ import annotations

from udpecho.probe.outcomes import PROBE_OUTCOMES, Outcome
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.stats.window import LOST, OUTCOMES, OUTSTANDING


def checkSums(statistics: Statistics) -> None:
    """Check that all sums add up, counting anew where possible.

    @raise AssertionError: with the sum that does not.
    """
    window = statistics._window
    ring = window._ring[: window.highest + 1]
    inWindow = [ring.count(state) for state in range(len(OUTCOMES))]
    ofSent = [each for each in PROBE_OUTCOMES if each is not Outcome.NOT_SENT]
    sums = {
        "scheduled = sent + not sent": (statistics.scheduled, statistics.sent + statistics.count(Outcome.NOT_SENT)),
        "sent = the sum of its outcomes": (statistics.sent, sum(statistics.count(each) for each in ofSent)),
        "sent = schedule deviations": (statistics.sent, statistics.scheduleDeviations.count),
        "received = round trips": (statistics.received, statistics.roundTrips.count),
        "received = arrivals": (statistics.received, statistics.reordering.arrivals),
        "outstanding = those in the window": (window.counts[OUTSTANDING], inWindow[OUTSTANDING]),
        "lost and own": (window.counts[LOST], statistics.count(Outcome.LOST) + statistics.count(Outcome.LOST_OWN)),
    }
    for name, (left, right) in sums.items():
        assert left == right, f"{name} must hold, got {left} and {right}"
    for outcome, remembered, all in zip(OUTCOMES, inWindow, window.counts):
        assert remembered <= all, f"{outcome.value} probes in the window must be {all} or fewer, got {remembered}"
