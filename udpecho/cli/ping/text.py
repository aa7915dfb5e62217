"""Events and statistics as lines of text, as ping and fping print them. Each function returns text without the line's end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from udpecho.probe.outcomes import EXTRA_DATAGRAMS, Event, Outcome
from udpecho.probe.stats.distribution import QUANTILES, Distribution
from udpecho.probe.stats.summary import Statistics

_timestampSources = {
    "kernel": "kernel timestamps",
    "monotonic": "the monotonic clock",
    "mixed": "kernel timestamps, some from the monotonic clock",
}
#: The names of counts, where they are not those of records.
_names = {
    Outcome.LOST: "lost by the network",
    Outcome.LOST_OWN: "lost in our own receive queue",
    Outcome.DUPLICATE: "duplicates",
}
#: The outcomes without a reply, in the order of the summary.
_missing = (
    Outcome.LOST,
    Outcome.LOST_OWN,
    Outcome.REFUSED,
    Outcome.UNREACHABLE,
    Outcome.NOT_SENT,
    Outcome.OUTSTANDING,
)


def milliseconds(seconds: float, rounded: bool = True) -> str:
    """A time in milliseconds with three digits or three decimals, as C{ping} of iputils prints it, which decides by the rounded
    time; fping 5.1 (C{sprint_tm}) does not.
    """
    value = seconds * 1e3
    for limit, decimals in ((1, 3), (10, 2), (100, 1)):
        if (round(value, decimals) if rounded else value) < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def headLine(target: str, peer: str, *sizes: int) -> str:
    """The line above the events; C{sizes} are those of the probes, in bytes."""
    where = target if target == peer else f"{target} ({peer})"
    several = f"{min(sizes)} to " if min(sizes) != max(sizes) else ""
    return f"PING {where} {several}{_bytes(max(sizes))} of data"


def probeLine(event: Event) -> str:
    """The line for an event."""
    return _lines[event.outcome](event)


def _bytes(size: int) -> str:
    return "1 byte" if size == 1 else f"{size} bytes"


def _reply(event: Event, remark: str = "") -> str:
    parts = [f"{_bytes(event.size)} from {event.peer}:"]
    if event.sequence is not None:
        parts.append(f"seq={event.sequence}")
    if event.roundTrip is not None:
        parts.append(f"time={milliseconds(event.roundTrip)} ms")
    parts += [remark] * bool(remark) + ["(reordered)"] * event.reordered
    return " ".join(parts)


def _noReply(event: Event, what: str) -> str:
    detail = f": {event.detail}" if event.detail else ""
    return f"{event.peer}: seq={event.sequence} {what}{detail}"


_lines: dict[Outcome, Callable[[Event], str]] = {
    Outcome.ANSWERED: _reply,
    Outcome.LATE: lambda event: _reply(event, "(late)"),
    Outcome.DUPLICATE: lambda event: _reply(event, "(DUP!)"),
    Outcome.CORRUPT: lambda event: _reply(event, "corrupted"),
    Outcome.TRUNCATED: lambda event: _reply(event, "truncated"),
    Outcome.OVERSIZED: lambda event: _reply(event, "oversized"),
    Outcome.UNRELATED: lambda event: _reply(event, "unrelated to this session"),
    Outcome.UNMATCHED: lambda event: _reply(event, "unmatched: its probe is forgotten"),
    Outcome.OUTSTANDING: lambda event: _noReply(event, "outstanding"),
    Outcome.LOST: lambda event: _noReply(event, "no reply"),
    Outcome.LOST_OWN: lambda event: _noReply(event, "lost in our own receive queue"),
    Outcome.REFUSED: lambda event: _noReply(event, "refused, nothing listens on that port"),
    Outcome.UNREACHABLE: lambda event: _noReply(event, "unreachable"),
    Outcome.NOT_SENT: lambda event: _noReply(event, "not sent"),
}


def summary(target: str, statistics: Statistics, elapsed: float, timestampSource: str | None = None) -> str:
    """The lines below the events.

    @param elapsed: the seconds since the first probe.
    @param timestampSource: one of L{TIMESTAMP_SOURCES <udpecho.probe.outcomes.TIMESTAMP_SOURCES>}, to be printed.
    """
    lines = [
        f"--- {target} ping statistics ---",
        f"{_counts(statistics)}, time {elapsed * 1000:.0f}ms",
        *_lossLines(statistics),
    ]
    if statistics.roundTrips.count:
        lines += _timeLines(statistics)
        if timestampSource is not None:
            lines.append(f"rtt from {_timestampSources[timestampSource]}")
    if statistics.scheduleDeviations.count:
        lines.append(f"schedule deviation {_quantiles(statistics.scheduleDeviations)}")
    return "\n".join(lines)


def _counts(statistics: Statistics) -> str:
    """As in ping's own line: counts of 0 are left out, except the first two."""
    loss = statistics.loss
    share = "loss unknown" if loss is None else f"{percent(loss.ratio)} loss"
    counts = [f"{statistics.sent} probes sent", f"{statistics.received} received"]
    return ", ".join([*counts, *(f"+{each}" for each in anomalies(statistics)), share])


def counted(statistics: Statistics, *outcomes: Outcome) -> list[str]:
    """The counts of outcomes, with their names; those of 0 are left out."""
    names = _names if statistics.dropsKnown else {**_names, Outcome.LOST: "lost by the network or in our own receive queue"}
    counts = [(statistics.count(each), names.get(each, each.value.replace("_", " "))) for each in outcomes]
    return [f"{count} {name}" for count, name in counts if count]


def anomalies(statistics: Statistics) -> list[str]:
    """The counts, with their names, of replies that are not in time and in order; those of 0 are left out."""
    reordered = statistics.reordering.reordered
    late = counted(statistics, Outcome.LATE)
    return counted(statistics, *EXTRA_DATAGRAMS) + [f"{reordered} reordered"] * bool(reordered) + late


def _lossLines(statistics: Statistics) -> list[str]:
    lines = []
    missing = counted(statistics, *_missing)
    if missing:
        lines.append(f"no reply: {', '.join(missing)}")
    if statistics.loss is not None:
        _, low, high = statistics.loss
        run = f", longest run {statistics.longestLossRun}" if statistics.longestLossRun else ""
        lines.append(f"loss {percent(low)} to {percent(high)} (95 % confidence interval){run}")
    return lines


def _timeLines(statistics: Statistics) -> list[str]:
    times = statistics.roundTrips
    least, mean, most, deviation = (_orDash(each) for each in (times.min, times.mean, times.max, times.deviation))
    variation, jitter = statistics.variation, _orDash(statistics.jitter.value)
    spread = _orDash(statistics.p95MinusMedian)
    return [
        f"rtt min/avg/max/stddev = {least}/{mean}/{most}/{deviation} ms",
        f"rtt {_quantiles(times)}",
        f"jitter {jitter} ms, ipdv mean/max = {_orDash(variation.mean)}/{_orDash(variation.max)} ms, p95-p50 {spread} ms",
    ]


def _quantiles(times: Distribution) -> str:
    names = "/".join(["p50", *(name.replace("_", ".") for name in QUANTILES), "max"])
    values = [times.median(), *(times.quantile(q) for q in QUANTILES.values()), times.max]
    return f"{names} = {'/'.join(_orDash(value) for value in values)} ms"


def _orDash(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def percent(share: float) -> str:
    """A share in percent with up to three digits. Shares next to 0 and 1 are not rounded to these."""
    text = f"{100 * share:.3g}"
    if text == "100" and share < 1:
        return ">99.9%"
    return "<0.001%" if 0 < 100 * share < 0.001 else f"{text}%"


def fpingLine(target: str, roundTrips: Iterable[float | None]) -> str:
    """The line for a target as C{fping -C} prints it: for each probe its round trip, given in seconds, or C{None}."""
    return f"{target} : {' '.join('-' if each is None else milliseconds(each, rounded=False) for each in roundTrips)}"
