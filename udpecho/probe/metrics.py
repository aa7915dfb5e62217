"""The metrics of probes, for C{prometheus_client}: histograms, and counters that never decrease.

This module needs C{prometheus_client}, the extra C{metrics}.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.stats.distribution import Distribution

#: The upper bounds of the histograms' buckets, in nanoseconds: they double from 50 us to 26 s.
BUCKETS = tuple(50_000 << number for number in range(20))

_second = 1_000_000_000
#: The outcomes with a counter. A lost probe whose reply arrives late counts as both.
_counted = [each for each in Outcome if each not in (Outcome.OUTSTANDING, Outcome.LOST_OWN)]


def cumulated(distribution: Distribution) -> list[tuple[str, float]]:
    """Count the values of a histogram up to each upper bound of L{BUCKETS}. A value counts as the middle of its own bucket,
    which is within 0.05 %.
    """
    counts = [0] * (len(BUCKETS) + 1)
    place = 0
    for low, high, number in distribution.nanoseconds.buckets():
        middle = (low + high) // 2
        while place < len(BUCKETS) and middle > BUCKETS[place]:
            place += 1
        counts[place] += number
    names = [f"{end / _second:g}" for end in BUCKETS] + ["+Inf"]
    return [(name, float(count)) for name, count in zip(names, accumulate(counts))]


class ProbeMetrics:
    """A collector, and a listener of probers.

    A flow has the labels C{target}, as the user wrote it, and C{source}, 0 for the first local port. The counters of outcomes
    continue when a new flow with the same labels replaces it.
    """

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], Flow | None] = {}
        self._labels: dict[Flow, tuple[str, str]] = {}
        self._outcomes: dict[tuple[str, str], dict[Outcome, int]] = {}

    def expect(self, target: str, source: int) -> None:
        """Export a flow that has not started yet."""
        labels = (target, str(source))
        self._flows.setdefault(labels, None)
        self._outcomes.setdefault(labels, dict.fromkeys(_counted, 0))

    def add(self, flow: Flow, source: int) -> None:
        """Export a flow that has started."""
        self.expect(flow.target.name, source)
        labels = (flow.target.name, str(source))
        former, self._flows[labels] = self._flows[labels], flow
        if former is not None:
            del self._labels[former]
        self._labels[flow] = labels

    def remove(self, target: str) -> None:
        """Do not export a target any more."""
        for labels in [labels for labels in self._flows if labels[0] == target]:
            flow = self._flows.pop(labels)
            del self._outcomes[labels]
            if flow is not None:
                del self._labels[flow]

    def event(self, flow: Flow, event: Event) -> None:
        """Count an event of a flow."""
        labels = self._labels.get(flow)
        if labels is not None:
            self._outcomes[labels][event.outcome] += 1

    def collect(self) -> Iterator[Any]:
        """@return: the families of metrics."""
        names = ["target", "source"]
        up = GaugeMetricFamily("udpecho_probe_up", "Whether the target has answered lately.", labels=names)
        outcomes = CounterMetricFamily(
            "udpecho_probe_outcomes",
            "Outcomes of probes and of received datagrams; a lost probe with a late reply counts as both.",
            labels=[*names, "outcome"],
        )
        for labels, flow in self._flows.items():
            up.add_metric(labels, int(flow is not None and flow.isUp()))
            for outcome, count in self._outcomes[labels].items():
                outcomes.add_metric([*labels, outcome.value], count)
        yield up
        yield outcomes
        yield from self._ofStatistics(names)

    def _ofStatistics(self, names: list[str]) -> Iterator[Any]:
        sent = CounterMetricFamily("udpecho_probe_sent", "Probes sent.", labels=names)
        reordered = CounterMetricFamily("udpecho_probe_reordered", "Replies after the reply of a later probe.", labels=names)
        drops = CounterMetricFamily(
            "udpecho_probe_own_queue_drops", "Datagrams that this machine's full receive queue dropped.", labels=names
        )
        times = HistogramMetricFamily("udpecho_probe_round_trip_seconds", "Round trips, also of late replies.", labels=names)
        deviations = HistogramMetricFamily(
            "udpecho_probe_schedule_deviation_seconds", "Difference of send and scheduled time, absolute.", labels=names
        )
        for labels, flow in self._flows.items():
            if flow is None:
                continue
            statistics = flow.statistics
            sent.add_metric(labels, statistics.sent)
            reordered.add_metric(labels, statistics.reordering.reordered)
            if statistics.dropsKnown:
                drops.add_metric(labels, statistics.ownDropped)
            for family, distribution in ((times, statistics.roundTrips), (deviations, statistics.scheduleDeviations)):
                family.add_metric(labels, buckets=cumulated(distribution), sum_value=distribution.total)
        yield from (sent, reordered, drops, times, deviations)


def makeRegistry(metrics: ProbeMetrics) -> CollectorRegistry:
    """Make a registry for a prober, with the metrics of this process too: processor time, memory and file descriptors."""
    # Described metrics can be selected by name.
    registry = CollectorRegistry(auto_describe=True)
    registry.register(metrics)
    ProcessCollector(registry=registry)
    return registry
