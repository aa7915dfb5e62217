"""
What a server exports to Prometheus: the numbers of its account, in the field's own library.

No label has a value that a sender could choose: however many sources there are, and whatever they send, the page has the same
lines.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from twisted import __version__ as twistedVersion
from udpecho._version import __version__
from udpecho.interfaces import DROP_REASONS
from udpecho.server.counters import BATCH_SIZES, Counters

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


#: The reasons that are a guard's.
GUARD_REASONS = ("loop_guard", "not_allowed", "rate_limited")


class Account(Protocol):
    """What is read of an account: L{Counters <udpecho.server.counters.Counters>} has it, and so may have a sum of several."""

    @property
    def received(self) -> int:
        """Datagrams that came in."""

    @property
    def receivedBytes(self) -> int:
        """Their payload, in bytes."""

    @property
    def echoed(self) -> int:
        """Datagrams that went back."""

    @property
    def echoedBytes(self) -> int:
        """Their payload, in bytes."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams that did not, by reason."""

    @property
    def batches(self) -> Sequence[int]:
        """How many batches there were of each size in L{BATCH_SIZES}."""

    @property
    def batchedEntries(self) -> int:
        """What all batches held."""


class EchoCollector:
    """Reads an account, and what else there is to know of a server, each time it is asked: nothing is counted twice."""

    def __init__(
        self,
        account: Account,
        kernelDrops: Callable[[], int | None] | None = None,
        fill: Callable[[], float] | None = None,
        workers: Callable[[], int] | None = None,
        wouldDrop: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """
        @param account: the account.
        @param kernelDrops: says how many datagrams the system has dropped before they were received, C{None} where it does not
            tell.
        @param fill: says how much of the limiter's table is in use, from 0 to 1.
        @param workers: says how many worker processes are alive.
        @param wouldDrop: says how many datagrams would have been dropped but for a dry run, by reason.
        """
        self._account = account
        self._kernelDrops = kernelDrops
        self._fill = fill
        self._workers = workers
        self._wouldDrop = wouldDrop

    def collect(self) -> Iterator[Metric]:
        """
        Read all numbers.

        @return: the families of metrics; what is not known has none.
        """
        yield from self._datagrams()
        yield self._batches()
        yield from self._surroundings()
        yield self._build()

    def describe(self) -> Iterator[Metric]:
        """
        Name all there may be, without reading anything.

        @return: the families of metrics.
        """
        return EchoCollector(Counters(), lambda: 0, lambda: 0.0, lambda: 0, dict).collect()

    def _datagrams(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        account = self._account
        for name, about, value in (
            ("received_datagrams", "Datagrams that came in.", account.received),
            ("received_bytes", "Payload of the datagrams that came in, in bytes.", account.receivedBytes),
            ("echoed_datagrams", "Datagrams that went back to where they came from.", account.echoed),
            ("echoed_bytes", "Payload of the datagrams that went back, in bytes.", account.echoedBytes),
        ):
            yield CounterMetricFamily(f"udpecho_{name}", about, value)
        dropped = CounterMetricFamily(
            "udpecho_dropped_datagrams", "Datagrams that came in and were not answered, by reason.", labels=["reason"]
        )
        counts = account.dropped
        for reason in DROP_REASONS:
            dropped.add_metric([reason], counts.get(reason, 0))
        yield dropped
        if self._wouldDrop is not None:
            about = "Datagrams that were answered in a dry run, and else would not have been, by reason."
            would = CounterMetricFamily("udpecho_would_drop_datagrams", about, labels=["reason"])
            counts = self._wouldDrop()
            for reason in GUARD_REASONS:
                would.add_metric([reason], counts.get(reason, 0))
            yield would

    def _batches(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        entries, counts = self._account.batchedEntries, list(accumulate(self._account.batches))
        buckets = [(f"{size}.0", count) for size, count in zip(BATCH_SIZES, counts)]
        return HistogramMetricFamily(
            "udpecho_batch_entries",
            "Datagrams, and bursts of datagrams of one flow that came as one, in a batch.",
            [*buckets, ("+Inf", counts[-1])],
            entries,
        )

    def _surroundings(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        lost = None if self._kernelDrops is None else self._kernelDrops()
        if lost is not None:
            about = "Datagrams that the system dropped for want of room in the receive buffer, before they came in."
            yield CounterMetricFamily("udpecho_kernel_dropped_datagrams", about, lost)
        if self._fill is not None:
            about = "How much of the table of the limiter of sources is in use, from 0 to 1."
            yield GaugeMetricFamily("udpecho_limiter_fill_ratio", about, self._fill())
        if self._workers is not None:
            yield GaugeMetricFamily("udpecho_workers", "Worker processes that are alive.", self._workers())

    def _build(self) -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        build = GaugeMetricFamily(
            "udpecho_build_info", "Always 1; the labels say what is running.", labels=["version", "python", "twisted"]
        )
        build.add_metric([__version__, platform.python_version(), twistedVersion], 1)
        return build


def requireLibrary() -> None:
    """
    Look whether metrics can be had.

    @raise ImportError: if not, with one sentence that says what to install.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise ImportError("metrics need prometheus-client: install udpecho[metrics], or prometheus-client itself") from None


def makeRegistry(
    account: Account,
    kernelDrops: Callable[[], int | None] | None = None,
    fill: Callable[[], float] | None = None,
    workers: Callable[[], int] | None = None,
    wouldDrop: Callable[[], Mapping[str, int]] | None = None,
) -> CollectorRegistry:
    """
    Make a registry of a server's own, with the metrics of this process as well: its processor time, memory and descriptors.

    For the parameters see L{EchoCollector}.

    @raise ImportError: if prometheus-client is missing, with one sentence that says what to install.
    """
    requireLibrary()
    from prometheus_client import CollectorRegistry, ProcessCollector

    # So that all can be asked for by their names.
    registry = CollectorRegistry(auto_describe=True)
    registry.register(EchoCollector(account, kernelDrops, fill, workers, wouldDrop))
    ProcessCollector(registry=registry)
    return registry
