"""
Whether what was measured is good enough: the limits of C{--fail-if-loss} and C{--fail-if-rtt}, and which of them are broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import NamedTuple

from udpecho.cli.ping.text import percent
from udpecho.parsing import formatDuration, parseDuration
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.distribution import QUANTILES, leastCount
from udpecho.probe.stats.summary import Statistics


class LossLimit(NamedTuple):
    """
    How much may be lost.

    @ivar share: from 0 to 1. So much may be lost, and no more.
    """

    share: float


class RttLimit(NamedTuple):
    """
    How large a figure of the round trips may be.

    @ivar name: which figure, one of L{RTT_FIGURES}.
    @ivar most: ns. So large it may be, and no larger.
    """

    name: str
    most: int


Limit = LossLimit | RttLimit


def _quantile(q: float) -> Callable[[Statistics], float | None]:
    return lambda statistics: statistics.roundTrips.knownQuantile(q)


_figures: dict[str, Callable[[Statistics], float | None]] = {
    "min": lambda statistics: statistics.roundTrips.min,
    "mean": lambda statistics: statistics.roundTrips.mean,
    "median": lambda statistics: statistics.roundTrips.median(),
    **{name.replace("_", "."): _quantile(q) for name, q in QUANTILES.items()},
    "max": lambda statistics: statistics.roundTrips.max,
    "stddev": lambda statistics: statistics.roundTrips.deviation,
    "jitter": lambda statistics: statistics.jitter.value,
}
#: How many replies a figure takes, where it is not one.
_least = {"stddev": 2, "jitter": 2, **{name.replace("_", "."): leastCount(q) for name, q in QUANTILES.items()}}
#: As the summary and the JSON document call the same figures.
_aliases = {"avg": "mean", "p50": "median", "p99_9": "p99.9"}

#: What of the round trips can have a limit.
RTT_FIGURES = tuple(_figures)


def parseLossLimit(text: str) -> LossLimit:
    """
    Read how much may be lost, in percent: C{1%}, or C{1} for the same.

    @raise ValueError: with a sentence that says what would be right.
    """
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]*)?|\.[0-9]+)%?", text, re.ASCII)
    # As a decimal, so that 0.7% is 7 in 1000 to the last bit.
    share = -1.0 if match is None else float(Decimal(match[1]) / 100)
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a limit of loss: a percentage from 0 to 100 is, as in 1% or 0.5")
    return LossLimit(share)


def parseRttLimit(text: str) -> RttLimit:
    """
    Read how large a figure of the round trips may be: C{p99=20ms}, C{median=0.5ms}.

    @raise ValueError: with a sentence that says what would be right.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not a limit of round trips: a figure and a duration are, as in p99=20ms")
    name = _aliases.get(name, name)
    if name not in _figures:
        raise ValueError(f"{name!r} is not a figure of round trips: one of {', '.join(RTT_FIGURES)} is")
    return RttLimit(name, parseDuration(value, least=0))


def failures(statistics: Statistics, limits: Iterable[Limit]) -> list[str]:
    """
    Compare what was measured with its limits.

    What cannot be told does not pass for good: a percentile of too small a sample breaks its limit, with a sentence of its own,
    and so does loss of which nothing is known.

    The loss is the network's, as in reports (L{Statistics.loss}). Probes that were refused, unreachable, not sent or lost by
    our own receive queue are not in it.

    @return: a sentence for each limit that is broken, in their order.
    """
    found = (
        _lossFailure(statistics, each) if isinstance(each, LossLimit) else _rttFailure(statistics, each) for each in limits
    )
    return [sentence for sentence in found if sentence is not None]


def _lossFailure(statistics: Statistics, limit: LossLimit) -> str | None:
    loss = statistics.loss
    if loss is None:
        return f"loss is not known, with a limit of {_percentage(limit)}: no probe was lost or came back"
    if loss.ratio <= limit.share:
        return None
    lost = statistics.count(Outcome.LOST)
    counts = f"{lost} of {lost + statistics.received + statistics.count(Outcome.LOST_OWN)}"
    interval = f"between {percent(loss.low)} and {percent(loss.high)} (95 %)"
    return f"loss is {percent(loss.ratio)}, more than {_percentage(limit)}: {counts}, {interval}"


def _percentage(limit: LossLimit) -> str:
    return f"{100 * limit.share:.10g}%"


def _rttFailure(statistics: Statistics, limit: RttLimit) -> str | None:
    value = _figures[limit.name](statistics)
    most = formatDuration(limit.most)
    if value is None:
        count, least = statistics.roundTrips.count, _least.get(limit.name, 1)
        needed = "1 reply" if least == 1 else f"{least} replies"
        return f"rtt {limit.name} is not known, with a limit of {most}: it takes {needed} or more, of which there are {count}"
    if value <= limit.most:
        return None
    return f"rtt {limit.name} is {formatDuration(round(value))}, more than {most}"
