"""
One picture of what was measured: round trips over time with the losses marked, and their distribution.

It takes C{matplotlib}, the extra C{plot}, which is loaded when there is something to draw. Nothing of it needs a screen, nor
changes what the process does with C{matplotlib} otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

from udpecho.cli.ping.text import percent
from udpecho.probe.outcomes import Outcome
from udpecho.probe.records import milliseconds
from udpecho.probe.stats.distribution import Distribution
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.stats.timeline import Samples, TimeBucket

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What pictures there are.
FORMATS = ("png", "svg")

_ms = 1e-6
_second = 1e-9
#: From this ratio of the longest to the shortest round trip on, the axis is logarithmic.
_manifold = 8
#: The steps of the distribution are drawn if the share grows by more than this, which is a third of a pixel.
_step = 0.001
#: In which row below the time axis each outcome is told, with its name there; the last row is of all that is no loss.
_marks = {
    Outcome.LOST: ("lost", "#d62728"),
    Outcome.LOST_OWN: ("lost by us", "#9467bd"),
    Outcome.REFUSED: ("refused", "#e08214"),
    Outcome.UNREACHABLE: ("unreachable", "#8c564b"),
    Outcome.NOT_SENT: ("not sent", "#7f7f7f"),
}
#: Colours that people tell apart who do not see all (Okabe and Ito, 2008), without those too close to the marks'.
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
    # Letters remain letters; and the names of its parts are drawn from this instead of at random, so that one measurement has
    # one file.
    "svg.fonttype": "none",
    "svg.hashsalt": "udpecho",
    # A dollar sign in a name is one.
    "text.parse_math": False,
}


class Drawn(NamedTuple):
    """
    One target of a picture.

    @ivar name: as the user wrote it.
    @ivar samples: its probes over time.
    @ivar statistics: the sums of the same probes.
    """

    name: str
    samples: Samples
    statistics: Statistics


class PlotUnavailable(Exception):
    """Pictures cannot be drawn here; the message says why in one line."""


def parsePlotFile(text: str) -> str:
    """
    Read where a picture goes to.

    @raise ValueError: if it is no file with one of the names that pictures have.
    """
    if not text.lower().endswith(tuple(f".{each}" for each in FORMATS)) or text.rpartition("/")[2].startswith("."):
        raise ValueError(f"{text!r} is not a picture's file: a name that ends in .svg or .png is, as in rtt.svg")
    return text


def checkPlot() -> None:
    """
    Find out before the first probe whether there will be a picture.

    @raise PlotUnavailable: if there will be none.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as e:
        raise PlotUnavailable(f"--plot needs matplotlib ({e}): pip install 'udpecho[plot]' is right") from None


def plot(path: str, targets: Sequence[Drawn]) -> None:
    """
    Draw a picture.

    One measurement gives one file: there is no date in it, and nothing is drawn at random. It takes some tenths of a second,
    with the reactor waiting.

    @param path: where to; what its name ends in is the format.
    @param targets: what to draw; one or more.

    @raise PlotUnavailable: if C{matplotlib} is missing.
    @raise ValueError: if the name of the file tells no format, or there is no target.
    @raise OSError: if it cannot be written.
    """
    parsePlotFile(path)
    if not targets:
        raise ValueError("0 is not a number of targets to draw: 1 or more is")
    checkPlot()
    from matplotlib import style

    form = path.rpartition(".")[2].lower()
    with style.context(["default", _style]):
        figure = _figure(targets)
        figure.savefig(path, format=form, dpi=110, metadata={"Date": None} if form == "svg" else {"Software": None})


def _figure(targets: Sequence[Drawn]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    rows = _rows(targets)
    many = len(targets) > 1
    rug = 0.24 * max(len(rows), 1)
    names = 0.22 * len(targets) if many else 0.0
    figure = Figure(figsize=(12, 4.8 + rug + names), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    grid = figure.add_gridspec(2, 2, width_ratios=(2.1, 1), height_ratios=(4.2, rug), hspace=0.02)
    over: Axes = figure.add_subplot(grid[0, 0])
    marks: Axes = figure.add_subplot(grid[1, 0], sharex=over)
    share: Axes = figure.add_subplot(grid[:, 1])
    stretches = [each.samples.stretches() for each in targets]
    for index, (target, some) in enumerate(zip(targets, stretches)):
        _drawTimes(over, some, 2**target.samples.shift, _colour(index))
        _drawShare(share, target, _colour(index))
    _drawMarks(marks, rows, stretches)
    _finishTimes(over, targets)
    _finishShare(share, targets)
    if many:
        handles = [Line2D([], [], color=_colour(index), marker="o", markersize=5) for index in range(len(targets))]
        labels = [f"{each.name}: {_told(each)}{_percentiles(each)}" for each in targets]
        legend = figure.legend(handles, [""] * len(labels), loc="outside upper left")
        # One that begins with an underscore would be left out, before matplotlib 3.10.
        for text, label in zip(legend.get_texts(), labels):
            text.set_text(label)
    return figure


def _colour(index: int) -> str:
    return _colours[index % len(_colours)]


def _told(target: Drawn) -> str:
    statistics = target.statistics
    loss = statistics.loss
    share = "" if loss is None else f", loss {percent(loss.ratio)}"
    return f"{statistics.sent} sent, {statistics.received} received{share}"


def _percentiles(target: Drawn) -> str:
    known = [f"{name} {milliseconds(value)}" for name, _, value in _marked(target.statistics.roundTrips)]
    return f", {', '.join(known)} ms" if known else ""


def _marked(times: Distribution) -> list[tuple[str, float, float]]:
    """The percentiles that are marked, of those that are known: name, share, ns."""
    found = [("p50", 0.5, times.median()), *((name, q, times.knownQuantile(q)) for name, q in (("p90", 0.9), ("p99", 0.99)))]
    return [(name, q, value) for name, q, value in found if value is not None]


# Over time


def _drawTimes(axes: Axes, stretches: Iterable[TimeBucket], length: int, colour: str) -> None:
    """
    A dot for each round trip; where several share a stretch of time, a bar from the shortest to the longest, and a line through
    the means, which does not go over gaps.

    @param length: how long each stretch is, in ns.
    """
    dots: list[tuple[float, float]] = []
    bars: list[list[tuple[float, float]]] = []
    means: list[tuple[float, float]] = []
    for each in stretches:
        if each.low is None or each.high is None:
            continue
        dots += [_point(each.low)] if each.count == 1 else [_point(each.low), _point(each.high)]
        if each.count > 2:
            middle = (each.low[0] + each.high[0]) / 2 * _second
            if means and middle - means[-1][0] > 3 * length * _second:
                means.append((middle, nan))
            bars.append([(middle, each.low[1] * _ms), (middle, each.high[1] * _ms)])
            means.append((middle, each.total / each.count * _ms))
    size = 4.5 if len(dots) < 300 else 3 if len(dots) < 1500 else 1.6
    axes.plot(*_columns(dots), "o", color=colour, markersize=size, alpha=0.7, markeredgewidth=0)
    if bars:
        axes.vlines(
            [bar[0][0] for bar in bars],
            [bar[0][1] for bar in bars],
            [bar[1][1] for bar in bars],
            colors=colour,
            linewidth=0.7,
            alpha=0.25,
        )
        axes.plot(*_columns(means), color=colour, linewidth=1.0)


def _point(sample: tuple[int, int]) -> tuple[float, float]:
    return sample[0] * _second, sample[1] * _ms


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _finishTimes(axes: Axes, targets: Sequence[Drawn]) -> None:
    if len(targets) > 1:
        axes.set_title("Round trips")
    else:
        axes.set_title(f"{targets[0].name}: {_told(targets[0])}")
    axes.set_ylabel("round trip (ms)")
    axes.grid(True)
    axes.tick_params(labelbottom=False)
    known = [each.statistics.roundTrips for each in targets if each.statistics.roundTrips.count]
    if not known:
        axes.set_yticks([])
        if not any(each.samples.stretches() for each in targets):
            axes.set_xlim(0, 1)
        axes.text(0.5, 0.5, "no reply came", transform=axes.transAxes, ha="center", va="center", color="#888888")
    elif _isManifold(known):
        axes.set_yscale("log")
        _plainTicks(axes.yaxis)


def _isManifold(some: Iterable[Distribution]) -> bool:
    """Whether round trips are too different for an axis with equal steps."""
    lows = [each.min for each in some if each.min is not None]
    highs = [each.max for each in some if each.max is not None]
    return min(lows) > 0 and max(highs) > _manifold * min(lows)


def _plainTicks(axis: Any) -> None:
    """Numbers as people write them on a logarithmic axis, and enough of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=16))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


# What is missing


def _rows(targets: Sequence[Drawn]) -> list[tuple[int, Outcome]]:
    """The rows of marks: of each target, each outcome that there is."""
    found = []
    for index, target in enumerate(targets):
        there = {outcome for each in target.samples.stretches() for outcome in each.missing}
        found += [(index, outcome) for outcome in _marks if outcome in there]
    return found


def _drawMarks(axes: Axes, rows: Sequence[tuple[int, Outcome]], stretches: Sequence[Sequence[TimeBucket]]) -> None:
    """A stroke for each stretch of time in which something was lost, and the number of all."""
    labels = []
    for row, (index, outcome) in enumerate(rows):
        name, colour = _marks[outcome]
        missing = [each.missing[outcome] for each in stretches[index] if outcome in each.missing]
        times = [time * _second for time, _ in missing]
        axes.vlines(times, row - 0.36, row + 0.36, colors=colour, linewidth=1.1)
        labels.append(f"{sum(number for _, number in missing)} {name}")
    axes.set_yticks(range(len(rows)), labels)
    for (index, outcome), label in zip(rows, axes.get_yticklabels()):
        label.set_color(_colour(index) if len(stretches) > 1 else _marks[outcome][1])
        label.set_fontsize(9)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds since the first probe")
    if not rows and any(stretches):
        axes.text(
            0.5, 0.5, "nothing is missing", transform=axes.transAxes, ha="center", va="center", color="#888888", fontsize=9
        )


# The distribution


def _drawShare(axes: Axes, target: Drawn, colour: str) -> None:
    """What share of the round trips took no longer, and the percentiles that are known on it."""
    times = target.statistics.roundTrips
    if times.min is None or times.max is None:
        return
    values, shares = _steps(times)
    axes.plot(values, shares, color=colour, linewidth=1.4, drawstyle="steps-post")
    marked = _marked(times)
    axes.plot([value * _ms for _, _, value in marked], [q for _, q, _ in marked], "o", color=colour, markersize=5)


def _steps(times: Distribution) -> tuple[list[float], list[float]]:
    """The steps of a distribution, without those that are too small to be seen."""
    assert times.min is not None
    assert times.max is not None
    found = list(times.buckets())
    shares = accumulate(each.number / times.count for each in found)
    values, heights = [times.min * _ms], [0.0]
    for bucket, share in zip(found, shares):
        if share - heights[-1] >= _step:
            middle = min(max((bucket.low + bucket.high) / 2, times.min), times.max)
            values.append(middle * _ms)
            heights.append(share)
    return [*values, times.max * _ms], [*heights, 1.0]


def _finishShare(axes: Axes, targets: Sequence[Drawn]) -> None:
    known = [each.statistics.roundTrips for each in targets if each.statistics.roundTrips.count]
    axes.set_title("Share of replies within")
    axes.set_xlabel("round trip (ms)")
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 0.99], ["0", "25%", "50%", "75%", "90%", "99%"])
    axes.grid(True)
    if known and _isManifold(known):
        axes.set_xscale("log")
        _plainTicks(axes.xaxis)
    if not known:
        axes.set_xticks([])
    elif len(targets) == 1:
        _labelShare(axes, known[0])


def _labelShare(axes: Axes, times: Distribution) -> None:
    """
    Write beside the marks what they stand for: to the right, or, where there is no room, to the left and above. The line, which
    only rises, is at neither place.
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
