"""The plot of C{--plot}: round trips and losses over time, and their distribution.

It needs C{matplotlib}, the extra C{plot}, which is imported when it is used. It needs no display, and does not change
C{matplotlib}'s settings.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from udpecho.cli.ping.text import milliseconds, percent
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.distribution import Distribution
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.stats.timeline import TimeBucket, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

#: Milliseconds in a second.
_ms = 1e3
#: The axis is logarithmic if the longest round trip is this many times the shortest.
_logarithmicFrom = 8
#: The smallest step of the share that is drawn: a third of a pixel.
_step = 0.001
#: The label and the colour of each outcome without a reply.
_marks = {
    Outcome.LOST: ("lost", "#d62728"),
    Outcome.LOST_OWN: ("lost in our queue", "#9467bd"),
    Outcome.REFUSED: ("refused", "#e08214"),
    Outcome.UNREACHABLE: ("unreachable", "#8c564b"),
    Outcome.NOT_SENT: ("not sent", "#7f7f7f"),
}
#: Colours for the colour-blind (Okabe and Ito, 2008), without those too close to the marks'.
_colours = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#000000", "#b8a900")
_style = {
    "axes.edgecolor": "#888888",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    # Text stays text. The salt makes ids, and so the file, reproducible.
    "svg.fonttype": "none",
    "svg.hashsalt": "udpecho",
    # A dollar sign in a name is not the start of a formula.
    "text.parse_math": False,
}


class Plotted(NamedTuple):
    """A target of a plot; its timeline and its statistics are of the same probes."""

    name: str
    timeline: Timeline
    statistics: Statistics


class PlotUnavailable(Exception):
    """A plot is not possible. The message is the reason, one line."""


def parsePlotFile(text: str) -> str:
    """Check the name of a plot's file, and return it. C{ValueError} has the form that is expected."""
    if not text.lower().endswith(tuple(f".{each}" for each in FORMATS)) or text.rpartition("/")[2].startswith("."):
        raise ValueError(f"file of a plot must have a name that ends in .svg or .png, as in rtt.svg, got {text!r}")
    return text


def checkPlot() -> None:
    """Check, before the first probe, that a plot is possible; else raise L{PlotUnavailable}."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as e:
        raise PlotUnavailable(f"matplotlib must be installed for --plot, got {e}: pip install 'udpecho[plot]'") from None


def plot(path: str, targets: Sequence[Plotted]) -> None:
    """Write a plot of one target or more. The file is reproducible, without a date or random ids. It blocks for some tenths of
    a second.

    @param path: the file, as L{parsePlotFile} accepts it.
    @raise OSError: if it cannot be written.
    """
    from matplotlib import style

    form = path.rpartition(".")[2].lower()
    with style.context(["default", _style]):
        picture = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        _figure(targets).savefig(picture, format=form, dpi=110, metadata=metadata)
    _replace(path, picture.getvalue())


def _replace(path: str, data: bytes) -> None:
    """Write a file whole, or leave what is there."""
    part = f"{path}.{os.getpid()}"
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            os.unlink(part)
        raise


def _figure(targets: Sequence[Plotted]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    rows = _rows(targets)
    several = len(targets) > 1
    rug = 0.24 * max(len(rows), 1)
    names = 0.22 * len(targets) if several else 0.0
    figure = Figure(figsize=(12, 4.8 + rug + names), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    grid = figure.add_gridspec(2, 2, width_ratios=(2.1, 1), height_ratios=(4.2, rug), hspace=0.02)
    over: Axes = figure.add_subplot(grid[0, 0])
    marks: Axes = figure.add_subplot(grid[1, 0], sharex=over)
    share: Axes = figure.add_subplot(grid[:, 1])
    buckets = [each.timeline.buckets() for each in targets]
    for index, (target, some) in enumerate(zip(targets, buckets)):
        _drawTimes(over, some, target.timeline.bucketLength, _colour(index))
        _drawShare(share, target, _colour(index))
    _drawMarks(marks, rows, buckets)
    _finishTimes(over, targets)
    _finishShare(share, targets)
    if several:
        handles = [Line2D([], [], color=_colour(index), marker="o", markersize=5) for index in range(len(targets))]
        labels = [f"{each.name}: {_counts(each)}{_percentiles(each)}" for each in targets]
        legend = figure.legend(handles, [""] * len(labels), loc="outside upper left")
        # matplotlib before 3.10 leaves out labels that begin with an underscore.
        for text, label in zip(legend.get_texts(), labels):
            text.set_text(label)
    return figure


def _colour(index: int) -> str:
    return _colours[index % len(_colours)]


def _counts(target: Plotted) -> str:
    statistics = target.statistics
    loss = statistics.loss
    share = "" if loss is None else f", loss {percent(loss.ratio)}"
    return f"{statistics.sent} sent, {statistics.received} received{share}"


def _percentiles(target: Plotted) -> str:
    known = [f"{name} {milliseconds(value)}" for name, _, value in _marked(target.statistics.roundTrips)]
    return f", {', '.join(known)} ms" if known else ""


def _marked(times: Distribution) -> list[tuple[str, float, float]]:
    """The known percentiles among those that are marked: name, share, seconds."""
    found = [("p50", 0.5, times.median()), *((name, q, times.quantile(q)) for name, q in (("p90", 0.9), ("p99", 0.99)))]
    return [(name, q, value) for name, q, value in found if value is not None]


# Over time


def _drawTimes(axes: Axes, buckets: Iterable[TimeBucket], length: float, colour: str) -> None:
    """Draw a dot for each round trip. If several share a bucket, C{length} seconds long, draw a bar from the shortest to the
    longest, and a line through the means, which is interrupted by gaps.
    """
    dots: list[tuple[float, float]] = []
    bars: list[tuple[float, float, float]] = []
    means: list[tuple[float, float]] = []
    for each in buckets:
        if each.low is None or each.high is None:
            continue
        dots += [_point(each.low)] if each.count == 1 else [_point(each.low), _point(each.high)]
        if each.count > 2:
            middle = (each.low[0] + each.high[0]) / 2
            if means and middle - means[-1][0] > 3 * length:
                means.append((middle, nan))
            bars.append((middle, each.low[1] * _ms, each.high[1] * _ms))
            means.append((middle, each.total / each.count * _ms))
    size = 4.5 if len(dots) < 300 else 3 if len(dots) < 1500 else 1.6
    axes.plot(*_columns(dots), "o", color=colour, markersize=size, alpha=0.7, markeredgewidth=0)
    if bars:
        middles, lows, highs = zip(*bars)
        axes.vlines(middles, lows, highs, colors=colour, linewidth=0.7, alpha=0.25)
        axes.plot(*_columns(means), color=colour, linewidth=1.0)


def _point(sample: tuple[float, float]) -> tuple[float, float]:
    return sample[0], sample[1] * _ms


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _finishTimes(axes: Axes, targets: Sequence[Plotted]) -> None:
    axes.set_title("Round trips" if len(targets) > 1 else f"{targets[0].name}: {_counts(targets[0])}")
    axes.set_ylabel("round trip (ms)")
    axes.grid(True)
    axes.tick_params(labelbottom=False)
    known = [each.statistics.roundTrips for each in targets if each.statistics.roundTrips.count]
    if not known:
        axes.set_yticks([])
        if not any(each.timeline.buckets() for each in targets):
            axes.set_xlim(0, 1)
        _remark(axes, "no reply came")
    elif _isWide(known):
        axes.set_yscale("log")
        _plainTicks(axes.yaxis)


def _isWide(some: Iterable[Distribution]) -> bool:
    """Whether round trips differ too much for a linear axis."""
    lows = [each.min for each in some if each.min is not None]
    highs = [each.max for each in some if each.max is not None]
    return min(lows) > 0 and max(highs) > _logarithmicFrom * min(lows)


def _plainTicks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, and enough of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=16))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


# Probes without a reply


def _rows(targets: Sequence[Plotted]) -> list[tuple[int, Outcome]]:
    """The rows of marks: each outcome of each target that occurs."""
    found = []
    for index, target in enumerate(targets):
        there = {outcome for each in target.timeline.buckets() for outcome in each.missing}
        found += [(index, outcome) for outcome in _marks if outcome in there]
    return found


def _drawMarks(axes: Axes, rows: Sequence[tuple[int, Outcome]], buckets: Sequence[Sequence[TimeBucket]]) -> None:
    """Draw a mark for each bucket with a missing reply, and label each row with their number."""
    labels = []
    for row, (index, outcome) in enumerate(rows):
        name, colour = _marks[outcome]
        missing = [each.missing[outcome] for each in buckets[index] if outcome in each.missing]
        times = [time for time, _ in missing]
        axes.vlines(times, row - 0.36, row + 0.36, colors=colour, linewidth=1.1)
        labels.append(f"{sum(number for _, number in missing)} {name}")
    axes.set_yticks(range(len(rows)), labels)
    for (index, outcome), label in zip(rows, axes.get_yticklabels()):
        label.set_color(_colour(index) if len(buckets) > 1 else _marks[outcome][1])
        label.set_fontsize(9)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds since the first probe")
    if not rows and any(buckets):
        _remark(axes, "nothing is missing", fontsize=9)


def _remark(axes: Axes, text: str, **how: Any) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#888888", **how)


# The distribution


def _drawShare(axes: Axes, target: Plotted, colour: str) -> None:
    """Draw the cumulative distribution, with the known percentiles."""
    times = target.statistics.roundTrips
    if times.min is None or times.max is None:
        return
    values, shares = _steps(times)
    axes.plot(values, shares, color=colour, linewidth=1.4, drawstyle="steps-post")
    marked = _marked(times)
    axes.plot([value * _ms for _, _, value in marked], [q for _, q, _ in marked], "o", color=colour, markersize=5)


def _steps(times: Distribution) -> tuple[list[float], list[float]]:
    """The steps of a distribution, in ms, without those that are too small to be visible."""
    assert times.min is not None
    assert times.max is not None
    found = list(times.nanoseconds.buckets())
    shares = accumulate(each.number / times.count for each in found)
    values, heights = [times.min * _ms], [0.0]
    for bucket, share in zip(found, shares):
        if share - heights[-1] >= _step:
            middle = min(max((bucket.low + bucket.high) / 2 / 1e9, times.min), times.max)
            values.append(middle * _ms)
            heights.append(share)
    return [*values, times.max * _ms], [*heights, 1.0]


def _finishShare(axes: Axes, targets: Sequence[Plotted]) -> None:
    known = [each.statistics.roundTrips for each in targets if each.statistics.roundTrips.count]
    axes.set_title("Share of replies within")
    axes.set_xlabel("round trip (ms)")
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 0.99], ["0", "25%", "50%", "75%", "90%", "99%"])
    axes.grid(True)
    if known and _isWide(known):
        axes.set_xscale("log")
        _plainTicks(axes.xaxis)
    if not known:
        axes.set_xticks([])
    elif len(targets) == 1:
        _labelShare(axes, known[0])


def _labelShare(axes: Axes, times: Distribution) -> None:
    """Label the percentiles: below to the right, or above to the left near the right edge. The line, which only rises, is at
    neither place.
    """
    place = axes.transScale + axes.transLimits
    for name, q, value in _marked(times):
        across, _ = place.transform((value * _ms, q))
        left = across > 0.6
        axes.annotate(
            f"{name} {milliseconds(value)} ms",
            (value * _ms, q),
            xytext=(-7, 2) if left else (8, -3),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom" if left else "top",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
