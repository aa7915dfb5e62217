"""The limits of C{--fail-if-loss} and C{--fail-if-rtt}, and which of them are exceeded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from udpecho.cli.ping.text import percent
from udpecho.parsing import formatDuration, parsePercent, parseSeconds
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.distribution import QUANTILES, leastCount
from udpecho.probe.stats.summary import Statistics


class LossLimit(NamedTuple):
    """The largest accepted loss, a share from 0 to 1."""

    share: float


class RttLimit(NamedTuple):
    """The largest accepted value, in seconds, of a figure of the round trips, one of L{RTT_FIGURES}."""

    name: str
    most: float


Limit = LossLimit | RttLimit


#: The figures that can have a limit.
RTT_FIGURES = ("min", "mean", "median", *(name.replace("_", ".") for name in QUANTILES), "max", "stddev", "jitter")
#: How many replies a figure needs, if more than one.
_least = {"stddev": 2, "jitter": 2, **{name.replace("_", "."): leastCount(q) for name, q in QUANTILES.items()}}
#: The names in the summary and in the JSON document.
_aliases = {"avg": "mean", "p50": "median", "p99_9": "p99.9"}


def parseLossLimit(text: str) -> LossLimit:
    """Read a limit of loss in percent: C{1%}, or C{1} for the same. C{ValueError} has the form that is expected."""
    return LossLimit(parsePercent(text, "loss"))


def parseRttLimit(text: str) -> RttLimit:
    """Read a limit of round trips: C{p99=20ms}, C{median=0.5ms}. C{ValueError} has the form that is expected."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"limit of round trips must be a figure and a duration, as in p99=20ms, got {text!r}")
    name = _aliases.get(name, name)
    if name not in RTT_FIGURES:
        raise ValueError(f"figure of round trips must be one of {', '.join(RTT_FIGURES)}, got {name!r}")
    return RttLimit(name, parseSeconds(value))


def exceeded(statistics: Statistics, limits: Iterable[Limit]) -> list[str]:
    """A sentence for each limit that is exceeded, in their order.

    An unknown value exceeds its limit: a percentile of too small a sample, or loss without a probe that was lost or answered.
    Loss is by the network, as in reports (L{Statistics.loss}).
    """
    found = (
        _lossFailure(statistics, each) if isinstance(each, LossLimit) else _rttFailure(statistics, each) for each in limits
    )
    return [sentence for sentence in found if sentence is not None]


def _lossFailure(statistics: Statistics, limit: LossLimit) -> str | None:
    loss, needed = statistics.loss, f"loss must be {100 * limit.share:.10g}% or less"
    if loss is None:
        return f"{needed}, got no probe that was lost or answered"
    if loss.ratio <= limit.share:
        return None
    lost = statistics.count(Outcome.LOST)
    counts = f"{lost} of {lost + statistics.received + statistics.count(Outcome.LOST_OWN)}"
    interval = f"{percent(loss.low)} to {percent(loss.high)} (95 % confidence interval)"
    return f"{needed}, got {percent(loss.ratio)}: {counts}, {interval}"


def _rttFailure(statistics: Statistics, limit: RttLimit) -> str | None:
    figures = {**statistics.roundTrips.asDict(), "jitter": statistics.jitter.value}
    value, needed = figures[limit.name.replace(".", "_")], f"rtt {limit.name} must be {_duration(limit.most)} or less"
    if value is None:
        count, least = statistics.roundTrips.count, _least.get(limit.name, 1)
        return f"{needed}, got {count} replies, which are too few: it needs {least} or more"
    if value <= limit.most:
        return None
    return f"{needed}, got {_duration(value)}"


def _duration(seconds: float) -> str:
    return formatDuration(round(seconds * 1e9))
