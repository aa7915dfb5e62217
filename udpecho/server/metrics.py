"""The metrics of a server, for C{prometheus_client}.

No sender can choose the value of a label: however many sources there are, and whatever they send, the page has the same lines.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from twisted import __version__ as twistedVersion
from udpecho._version import __version__
from udpecho.interfaces import DROP_REASONS
from udpecho.server.counters import BATCH_SIZES, Counters, CountersView

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


#: The reasons of a guard.
GUARD_REASONS = ("loop_guard", "not_allowed", "rate_limited")


class EchoCollector:
    """A collector: it reads the counters, and more of the state of a server, each time Prometheus fetches the metrics."""

    def __init__(
        self,
        account: CountersView,
        kernelDrops: Callable[[], int | None] | None = None,
        fill: Callable[[], float] | None = None,
        workers: Callable[[], int] | None = None,
        wouldDrop: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """@param account: the server's counters.
        @param kernelDrops: returns the number of datagrams that the kernel dropped, C{None} where that is unknown.
        @param fill: returns the used part of the limiter's table, from 0 to 1.
        @param workers: returns the number of worker processes that are alive.
        @param wouldDrop: returns the drops of a dry run, by reason.
        """
        self._account = account
        self._kernelDrops = kernelDrops
        self._fill = fill
        self._workers = workers
        self._wouldDrop = wouldDrop

    def collect(self) -> Iterator[Metric]:
        """@return: the families of metrics, without those whose values are unknown."""
        yield from self._datagrams()
        yield self._batches()
        yield from self._state()
        yield self._build()

    def describe(self) -> Iterator[Metric]:
        """@return: all families of metrics, with the values of a new server."""
        return EchoCollector(Counters(), lambda: 0, lambda: 0.0, lambda: 0, dict).collect()

    def _datagrams(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        account = self._account
        for name, documentation, value in (
            ("received_datagrams", "Datagrams received.", account.received),
            ("received_bytes", "Payload of the datagrams received, in bytes.", account.receivedBytes),
            ("echoed_datagrams", "Datagrams sent back.", account.echoed),
            ("echoed_bytes", "Payload of the datagrams sent back, in bytes.", account.echoedBytes),
        ):
            yield CounterMetricFamily(f"udpecho_{name}", documentation, value)
        dropped = CounterMetricFamily(
            "udpecho_dropped_datagrams", "Datagrams received and not answered, by reason.", labels=["reason"]
        )
        counts = account.dropped
        for reason in DROP_REASONS:
            dropped.add_metric([reason], counts[reason])
        yield dropped
        if self._wouldDrop is not None:
            documentation = "Datagrams that the guard would have dropped but for a dry run, by reason."
            wouldDrop = CounterMetricFamily("udpecho_would_drop_datagrams", documentation, labels=["reason"])
            wouldDropCounts = self._wouldDrop()
            for reason in GUARD_REASONS:
                wouldDrop.add_metric([reason], wouldDropCounts.get(reason, 0))
            yield wouldDrop

    def _batches(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        entries, counts = self._account.batchedEntries, list(accumulate(self._account.batches))
        buckets = [(f"{size}.0", count) for size, count in zip(BATCH_SIZES, counts)]
        return HistogramMetricFamily(
            "udpecho_batch_entries",
            "Datagrams, or GRO batches of them, in a received batch.",
            [*buckets, ("+Inf", counts[-1])],
            entries,
        )

    def _state(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kernelDrops = None if self._kernelDrops is None else self._kernelDrops()
        if kernelDrops is not None:
            documentation = "Datagrams that the kernel dropped because the receive buffer was full."
            yield CounterMetricFamily("udpecho_kernel_dropped_datagrams", documentation, kernelDrops)
        if self._fill is not None:
            documentation = "Used part of the limiter's table of sources, from 0 to 1."
            yield GaugeMetricFamily("udpecho_limiter_fill_ratio", documentation, self._fill())
        if self._workers is not None:
            yield GaugeMetricFamily("udpecho_workers", "Processes that answer.", self._workers())

    def _build(self) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        build = GaugeMetricFamily(
            "udpecho_build_info", "Always 1; the labels are the versions in use.", labels=["version", "python", "twisted"]
        )
        build.add_metric([__version__, platform.python_version(), twistedVersion], 1)
        return build


def requireLibrary() -> None:
    """@raise ImportError: if C{prometheus_client} is missing; the message says what to install."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise ImportError("metrics need prometheus-client: install udpecho[metrics]") from None


def makeRegistry(
    account: CountersView,
    kernelDrops: Callable[[], int | None] | None = None,
    fill: Callable[[], float] | None = None,
    workers: Callable[[], int] | None = None,
    wouldDrop: Callable[[], Mapping[str, int]] | None = None,
) -> CollectorRegistry:
    """Make a registry for a server, with the metrics of this process too: processor time, memory and file descriptors.

    For the parameters see L{EchoCollector}.

    @raise ImportError: if C{prometheus_client} is missing; the message says what to install.
    """
    requireLibrary()
    from prometheus_client import CollectorRegistry, ProcessCollector

    # Described metrics can be selected by name.
    registry = CollectorRegistry(auto_describe=True)
    registry.register(EchoCollector(account, kernelDrops, fill, workers, wouldDrop))
    ProcessCollector(registry=registry)
    return registry
