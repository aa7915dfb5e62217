"""
Probes and statistics as people and programs read them: lines as ping has them, fping's line, CSV, and JSON.

Nothing here writes anywhere: each function returns text without the line's end, or what C{json} turns into text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.records import _clockNames, milliseconds
from udpecho.probe.stats.distribution import QUANTILES, Distribution
from udpecho.probe.stats.summary import Statistics


def headLine(target: str, peer: str, *sizes: int) -> str:
    """
    What stands above the lines.

    @param sizes: which sizes in bytes the probes have.
    """
    where = target if target == peer else f"{target} ({peer})"
    several = f"{min(sizes)} to " if min(sizes) != max(sizes) else ""
    return f"PING {where} {several}{_bytes(max(sizes))} of data"


def probeLine(event: Event) -> str:
    """One line for one event."""
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


def _silence(event: Event, what: str) -> str:
    detail = f": {event.detail}" if event.detail else ""
    return f"{event.peer}: seq={event.sequence} {what}{detail}"


_lines: dict[Outcome, Callable[[Event], str]] = {
    Outcome.ANSWERED: _reply,
    Outcome.LATE: lambda event: _reply(event, "(late)"),
    Outcome.DUPLICATE: lambda event: _reply(event, "(DUP!)"),
    Outcome.CORRUPT: lambda event: _reply(event, "corrupted"),
    Outcome.CUT: lambda event: _reply(event, "the beginning of a reply only"),
    Outcome.LONGER: lambda event: _reply(event, "a reply with something behind it"),
    Outcome.FOREIGN: lambda event: _reply(event, "not a reply to this session"),
    Outcome.UNMATCHED: lambda event: _reply(event, "a reply to a probe long past"),
    Outcome.OUTSTANDING: lambda event: _silence(event, "is under way"),
    Outcome.LOST: lambda event: _silence(event, "no reply"),
    Outcome.LOST_OWN: lambda event: _silence(event, "lost in our own receive queue"),
    Outcome.REFUSED: lambda event: _silence(event, "refused, nothing listens on that port"),
    Outcome.UNREACHABLE: lambda event: _silence(event, "cannot be reached"),
    Outcome.NOT_SENT: lambda event: _silence(event, "not sent"),
}


def summary(target: str, statistics: Statistics, elapsed: float, timestampSource: str | None = None) -> str:
    """
    What stands below the lines, in several lines.

    @param target: as the user wrote it.
    @param elapsed: the seconds since the first probe.
    @param timestampSource: one of L{TIMESTAMP_SOURCES}, to be told.
    """
    lines = [
        f"--- {target} ping statistics ---",
        f"{_counts(statistics)}, time {elapsed * 1000:.0f}ms",
        *_lossLines(statistics),
    ]
    if statistics.roundTrips.count:
        lines += _timeLines(statistics)
        if timestampSource is not None:
            lines.append(f"rtt by {_clockNames[timestampSource]}")
    if statistics.sendErrors.count:
        lines.append(f"send error {_quantiles(statistics.sendErrors)}")
    return "\n".join(lines)


def _counts(statistics: Statistics) -> str:
    """As ping's own line: counts that are 0 are left out, but for the first."""
    loss = statistics.loss
    share = "no loss known" if loss is None else f"{percent(loss.ratio)} loss"
    counts = [f"{statistics.sent} probes sent", f"{statistics.received} received"]
    return ", ".join([*counts, *(f"+{count} {what}" for count, what in besides(statistics)), share])


def besides(statistics: Statistics) -> list[tuple[int, str]]:
    """
    What there is that is neither a reply in time and in order nor the lack of one: how many, and what. What is 0 is left out.
    """
    counts = [
        (statistics.count(Outcome.DUPLICATE), "duplicates"),
        (statistics.count(Outcome.CORRUPT), "corrupt"),
        (statistics.count(Outcome.CUT), "cut"),
        (statistics.count(Outcome.LONGER), "longer"),
        (statistics.count(Outcome.FOREIGN), "foreign"),
        (statistics.count(Outcome.UNMATCHED), "unmatched"),
        (statistics.reordering.reordered, "reordered"),
        (statistics.count(Outcome.LATE), "late"),
    ]
    return [(count, what) for count, what in counts if count]


def _lossLines(statistics: Statistics) -> list[str]:
    lines = []
    where = [
        (statistics.count(Outcome.LOST), "lost on the way"),
        (statistics.count(Outcome.LOST_OWN), "lost in our own receive queue"),
        (statistics.count(Outcome.REFUSED), "refused"),
        (statistics.count(Outcome.UNREACHABLE), "unreachable"),
        (statistics.count(Outcome.NOT_SENT), "not sent"),
        (statistics.count(Outcome.OUTSTANDING), "under way"),
    ]
    missing = [f"{count} {what}" for count, what in where if count]
    if missing:
        lines.append(f"without a reply: {', '.join(missing)}")
    if statistics.loss is not None:
        _, low, high = statistics.loss
        run = f", longest run {statistics.longestLossRun}" if statistics.longestLossRun else ""
        lines.append(f"loss between {percent(low)} and {percent(high)} (95 %){run}")
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
    values = [times.median(), *(times.knownQuantile(q) for q in QUANTILES.values()), times.max]
    return f"{names} = {'/'.join(_orDash(value) for value in values)} ms"


def _orDash(nanoseconds: float | None) -> str:
    return "-" if nanoseconds is None else f"{nanoseconds / 1e6:.3f}"


def percent(share: float) -> str:
    """A share in percent with up to three digits; what is not quite none or all does not read so."""
    text = f"{100 * share:.3g}"
    if text == "100" and share < 1:
        return ">99.9%"
    return "<0.001%" if 0 < 100 * share < 0.001 else f"{text}%"


# As fping prints it


def fpingLine(target: str, roundTrips: Iterable[int | None]) -> str:
    """
    One line for a target as C{fping -C} prints it, in milliseconds with three digits.

    @param roundTrips: for each probe in turn its time in ns, or C{None} if it has no reply.
    """
    return f"{target} : {' '.join(_fpingTime(each) for each in roundTrips)}"


def _fpingTime(nanoseconds: int | None) -> str:
    """As C{sprint_tm} of fping 5.1 does it."""
    if nanoseconds is None:
        return "-"
    value = nanoseconds / 1e6
    for limit, decimals in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"
