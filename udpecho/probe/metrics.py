"""
Flows as Prometheus sees them: histograms, and counters that only grow.

This module needs the package C{prometheus-client}, the extra C{metrics}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from twisted.web.resource import Resource

from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.stats.histogram import Histogram

#: The upper ends of the histograms' buckets, in ns: from 50 us on each is twice the one before, the last is 26 s.
BUCKETS = tuple(50_000 << number for number in range(20))

_second = 1_000_000_000
#: What is counted as it happens. Of a probe which is lost, and whose reply comes late, both are.
_counted = [each for each in Outcome if each not in (Outcome.OUTSTANDING, Outcome.LOST_OWN)]


def cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """
    A histogram in the buckets that are exported: how many values are not above each upper end. Each value is where its own
    bucket's middle is, to within 0.05 %.
    """
    counts = [0] * (len(BUCKETS) + 1)
    place = 0
    for low, high, number in histogram.buckets():
        middle = (low + high) // 2
        while place < len(BUCKETS) and middle > BUCKETS[place]:
            place += 1
        counts[place] += number
    names = [f"{end / _second:g}" for end in BUCKETS] + ["+Inf"]
    return [(name, float(count)) for name, count in zip(names, accumulate(counts))]


class ProbeMetrics:
    """
    A collector of C{prometheus_client}, and a listener of probers.

    Each flow has the labels C{target}, as the user wrote it, and C{source}: 0 for the first port that a target is probed from.
    Its counters go on where it is replaced by a new one with the same labels.
    """

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], Flow | None] = {}
        self._labels: dict[Flow, tuple[str, str]] = {}
        self._outcomes: dict[tuple[str, str], dict[Outcome, int]] = {}

    def expect(self, target: str, source: int) -> None:
        """Export a flow that there is yet to be."""
        labels = (target, str(source))
        self._flows.setdefault(labels, None)
        self._outcomes.setdefault(labels, dict.fromkeys(_counted, 0))

    def add(self, flow: Flow, source: int) -> None:
        """Export a flow from now on."""
        self.expect(flow.target.name, source)
        labels = (flow.target.name, str(source))
        self._flows[labels] = flow
        self._labels[flow] = labels

    def event(self, flow: Flow, event: Event) -> None:
        """Something happened."""
        labels = self._labels.get(flow)
        if labels is not None:
            self._outcomes[labels][event.outcome] += 1

    def collect(self) -> Iterator[Any]:
        """What C{prometheus_client} asks for."""
        names = ["target", "source"]
        up = GaugeMetricFamily("udpecho_probe_up", "Whether the target is being probed.", labels=names)
        outcomes = CounterMetricFamily(
            "udpecho_probe_outcomes",
            "What became of probes, and what datagrams were that came; a lost one whose reply came late is both.",
            labels=[*names, "outcome"],
        )
        for labels, flow in self._flows.items():
            up.add_metric(labels, int(flow is not None))
            for outcome, count in self._outcomes[labels].items():
                outcomes.add_metric([*labels, outcome.value], count)
        yield up
        yield outcomes
        yield from self._ofStatistics(names)

    def _ofStatistics(self, names: list[str]) -> Iterator[Any]:
        sent = CounterMetricFamily("udpecho_probe_sent", "Probes sent.", labels=names)
        reordered = CounterMetricFamily("udpecho_probe_reordered", "Replies that a later probe's has overtaken.", labels=names)
        drops = CounterMetricFamily(
            "udpecho_probe_own_queue_drops", "Datagrams that this machine's receive queue had no room for.", labels=names
        )
        times = HistogramMetricFamily("udpecho_probe_round_trip_seconds", "Round trips, late ones too.", labels=names)
        errors = HistogramMetricFamily(
            "udpecho_probe_send_error_seconds", "By how much probes left beside their schedule.", labels=names
        )
        for labels, flow in self._flows.items():
            if flow is None:
                continue
            statistics = flow.statistics
            sent.add_metric(labels, statistics.sent)
            reordered.add_metric(labels, statistics.reordering.reordered)
            drops.add_metric(labels, statistics.ownDropped)
            for family, histogram in ((times, statistics.roundTrips), (errors, statistics.sendErrors)):
                family.add_metric(labels, buckets=cumulated(histogram), sum_value=histogram.total / _second)
        yield from (sent, reordered, drops, times, errors)


class MetricsPage(Resource):
    """What Prometheus fetches. It is made in the reactor, between two turns of the probers, so that its sums add up."""

    isLeaf = True

    def __init__(self, collectors: Iterable[Any]) -> None:
        """@param collectors: those of C{prometheus_client}."""
        super().__init__()
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)

    def render_GET(self, request: Any) -> bytes:
        """Answer with the page."""
        accepted = request.getHeader("accept") or ""
        encode, kind = choose_encoder(accepted)
        request.setHeader(b"content-type", kind.encode("ascii"))
        page: bytes = encode(self._registry)
        return page
