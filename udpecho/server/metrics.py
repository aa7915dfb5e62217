"""The metrics of a server, for C{prometheus_client}.

No sender can choose the value of a label: the page has the same lines for any number of sources, and for all that they send.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(eq=False)
class EchoCollector:
    """A collector: it reads the counters, and more of the state of a server, each time Prometheus fetches the metrics.

    @ivar account: the server's counters.
    @ivar kernelDrops: returns the number of datagrams that the kernel dropped, C{None} where that is unknown.
    @ivar fill: returns the used part of the limiter's table, from 0 to 1.
    @ivar workers: returns the number of worker processes that are alive.
    @ivar wouldDrop: returns the drops of a dry run, by reason.
    """

    account: CountersView
    kernelDrops: Callable[[], int | None] | None = None
    fill: Callable[[], float] | None = None
    workers: Callable[[], int] | None = None
    wouldDrop: Callable[[], Mapping[str, int]] | None = None

    def collect(self) -> Iterator[Metric]:
        """@return: the families of metrics, without those whose values are unknown."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def byReason(name: str, documentation: str, reasons: Iterable[str], counts: Mapping[str, int]) -> Metric:
            family = CounterMetricFamily(f"udpecho_{name}_datagrams", documentation, labels=["reason"])
            for reason in reasons:
                family.add_metric([reason], counts.get(reason, 0))
            return family

        account = self.account
        for name, documentation, number in (
            ("received_datagrams", "Datagrams received.", account.received),
            ("received_bytes", "Payload of the datagrams received, in bytes.", account.receivedBytes),
            ("echoed_datagrams", "Datagrams sent back.", account.echoed),
            ("echoed_bytes", "Payload of the datagrams sent back, in bytes.", account.echoedBytes),
        ):
            yield CounterMetricFamily(f"udpecho_{name}", documentation, number)
        yield byReason("dropped", "Datagrams received and not answered, by reason.", DROP_REASONS, account.dropped)
        if self.wouldDrop is not None:
            documentation = "Datagrams that the guard would have dropped but for a dry run, by reason."
            yield byReason("would_drop", documentation, GUARD_REASONS, self.wouldDrop())
        counts = list(accumulate(account.batches))
        buckets = [*((f"{size}.0", count) for size, count in zip(BATCH_SIZES, counts)), ("+Inf", counts[-1])]
        documentation = "Datagrams, or GRO batches of them, in a received batch."
        yield HistogramMetricFamily("udpecho_batch_entries", documentation, buckets, account.batchedEntries)
        kernelDrops = None if self.kernelDrops is None else self.kernelDrops()
        if kernelDrops is not None:
            documentation = "Datagrams that the kernel dropped because the receive buffer was full."
            yield CounterMetricFamily("udpecho_kernel_dropped_datagrams", documentation, kernelDrops)
        if self.fill is not None:
            documentation = "Used part of the limiter's table of sources, from 0 to 1."
            yield GaugeMetricFamily("udpecho_limiter_fill_ratio", documentation, self.fill())
        if self.workers is not None:
            yield GaugeMetricFamily("udpecho_workers", "Processes that answer.", self.workers())
        documentation = "Always 1; the labels are the versions in use."
        build = GaugeMetricFamily("udpecho_build_info", documentation, labels=["version", "python", "twisted"])
        build.add_metric([__version__, platform.python_version(), twistedVersion], 1)
        yield build

    def describe(self) -> Iterator[Metric]:
        """@return: all families of metrics, with the values of a new server."""
        return EchoCollector(Counters(), lambda: 0, lambda: 0.0, lambda: 0, dict).collect()


def requireLibrary() -> None:
    """@raise ImportError: if C{prometheus_client} is missing; the message names what to install."""
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

    @raise ImportError: if C{prometheus_client} is missing.
    """
    requireLibrary()
    from prometheus_client import CollectorRegistry, ProcessCollector

    # Described metrics can be selected by name.
    registry = CollectorRegistry(auto_describe=True)
    registry.register(EchoCollector(account, kernelDrops, fill, workers, wouldDrop))
    ProcessCollector(registry=registry)
    return registry
