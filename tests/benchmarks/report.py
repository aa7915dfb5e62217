"""The figures as a table, as JSON and as a chart."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import BUSY, Figures, Spread, ratios, targets
from tests.benchmarks.loads import LOADS
from tests.benchmarks.running import Memory
from tests.benchmarks.workshop import Missing


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import twisted
    import udpecho

    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "udpecho": udpecho.__version__,
    }


def table(figures: Figures) -> Iterator[str]:
    """The lines to print."""
    about = machine()
    yield (
        f"{about['processor']}, {about['processors']} processors, Linux {about['kernel']}, "
        f"Python {about['python']}, Twisted {about['twisted']}, udpecho {about['udpecho']}"
    )
    yield from _echoes(figures)
    yield from _ratios(figures)
    yield from _starts(figures)
    yield from _gaps(figures)
    yield from _targets(figures)
    if figures.skipped:
        yield ""
        yield "Skipped"
        yield from (f"  {name}: {reason}" for name, reason in figures.skipped.items())
    if figures.broken or figures.wrong:
        yield ""
        yield "Failed"
        yield from (f"  {what}" for what in figures.broken)
        if figures.wrong:
            yield f"  {figures.wrong} datagrams came back that were not what went out"


def asJSON(figures: Figures) -> str:
    """All of it, each measurement too."""
    everything: dict[str, Any] = {
        "machine": machine(),
        "loads": [dataclasses.asdict(load) for load in LOADS.values()],
        **dataclasses.asdict(figures),
        "summaries": [dataclasses.asdict(summary) for summary in figures.summaries()],
        "targets": [{**dataclasses.asdict(target), "reached": target.reached} for target in targets(figures)],
    }
    return json.dumps(everything, indent=1) + "\n"


def drawing() -> Any:
    """What draws charts.

    @raise Missing: if it is not installed.
    """
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise Missing("matplotlib is not installed, and --chart needs it: pip install matplotlib") from None


def chart(figures: Figures, path: Path) -> None:
    """Draw the processor time of each server, a panel for each load; the bars end at the medians, the lines go from the lowest
    to the highest.

    @raise Missing: if there is nothing to draw with.
    """
    pyplot = drawing()
    summaries = figures.summaries()
    names = list(dict.fromkeys(summary.load for summary in summaries))
    rows = max((sum(summary.load == name for summary in summaries) for name in names), default=1)
    figure, axes = pyplot.subplots(len(names), 1, figsize=(8, len(names) * (0.9 + 0.28 * rows)), squeeze=False)
    for (axis,), name in zip(axes, names):
        shown = sorted((one for one in summaries if one.load == name), key=lambda one: -one.cpu.median)
        medians = [one.cpu.median * 1e6 for one in shown]
        errors = [
            [(one.cpu.median - one.cpu.lowest) * 1e6 for one in shown],
            [(one.cpu.highest - one.cpu.median) * 1e6 for one in shown],
        ]
        colours = ["tab:orange" if one.server.startswith("ours") else "tab:gray" for one in shown]
        axis.barh([one.server for one in shown], medians, xerr=errors, color=colours, capsize=2, height=0.7)
        axis.set_title(LOADS[name].what, fontsize=10, loc="left")
        axis.set_xlabel("µs of processor time for each datagram", fontsize=8)
        axis.tick_params(labelsize=8)
        for position, median in enumerate(medians):
            axis.annotate(f" {median:.2f}", (errors[1][position] + median, position), va="center", fontsize=8)
        axis.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _echoes(figures: Figures) -> Iterator[str]:
    shown = None
    marked = False
    for one in figures.summaries():
        if one.load != shown:
            shown = one.load
            yield ""
            yield f"{one.load}: {LOADS[one.load].what}"
            yield (
                f"  {'server':<16}{'echoes/s':>10}{'lowest..highest':>24}{'µs CPU each':>13}{'lowest..highest':>18}"
                f"{'server busy':>13}{'others':>9}{'load idle':>11}{'lost':>8}"
            )
        mark = "*" if one.busy < BUSY else " "
        marked = marked or mark == "*"
        cpu = Spread(*(value * 1e6 for value in dataclasses.astuple(one.cpu)))
        yield (
            f"  {one.server:<16}{one.rate.median:>10,.0f}{f'{one.rate.lowest:,.0f}..{one.rate.highest:,.0f}':>24}"
            f"{cpu.median:>13.2f}{f'{cpu.lowest:.2f}..{cpu.highest:.2f}':>18}"
            f"{one.busy:>12.0%}{mark}{one.others:>9.0%}{one.idle:>11.0%}{one.lost:>8}"
        )
    if marked:
        yield f"  * The server had nothing to do for more than {1 - BUSY:.0%} of its time: its echoes/s are the load's, not its"
        yield "    best; its processor time for each datagram holds, but has the cost of waking up in it."
    if any(one.others > 1 - BUSY for one in figures.summaries()):
        yield "  others: the share of the time that other processes took from the server. Its echoes/s are lower by as much."


def _ratios(figures: Figures) -> Iterator[str]:
    summaries = figures.summaries()
    loads = list(dict.fromkeys(summary.load for summary in summaries))
    peers = list(dict.fromkeys(summary.server for summary in summaries))
    if "ours" not in peers or len(peers) < 2:
        return
    yield ""
    yield "Ratios: processor time for each datagram, the median of ours over the median of each"
    yield f"  {'to':<16}" + "".join(f"{load:>11}" for load in loads)
    for peer, found in ratios(figures, peers, loads).items():
        yield f"  {peer:<16}" + "".join(f"{'-' if (value := found[load]) is None else f'{value:.3f}':>11}" for load in loads)


def _starts(figures: Figures) -> Iterator[str]:
    if not figures.starts:
        return
    yield ""
    yield "Start and memory, beside a twistd with a plugin that does nothing (medians)"
    yield f"  {'':<24}{'ms to first echo':>17}{'lowest..highest':>18}{'resident MB':>13}{'Pss MB':>9}{'unique MB':>11}"
    for kind, starts in figures.starts.items():
        spread = Spread.of(start.seconds * 1e3 for start in starts)
        yield (
            f"  {kind:<24}{spread.median:>17.1f}{f'{spread.lowest:.1f}..{spread.highest:.1f}':>18}"
            f"{_memories([start.memory for start in starts])}"
        )
        loaded = [start.loaded for start in starts if start.loaded is not None]
        if loaded:
            yield f"  {f'{kind}, after a load':<24}{'':>35}{_memories(loaded)}"


def _gaps(figures: Figures) -> Iterator[str]:
    if not figures.gaps:
        return
    yield ""
    yield "The longest gap of a 10 ms ticker under a flood; own: less the time in which the system ran others"
    yield f"  {'port':<8}{'bytes':>7}{'ms':>10}{'own ms':>10}"
    for gap in figures.gaps:
        yield f"  {gap.port:<8}{gap.size:>7}{gap.longest * 1e3:>10.1f}{gap.longestOwn * 1e3:>10.1f}"


def _targets(figures: Figures) -> Iterator[str]:
    yield ""
    yield f"{'To reach':<54}{'at most':>9}{'is':>10}"
    words = {True: "reached", False: "not reached", None: "not measured"}
    for target in targets(figures):
        value = "-" if target.value is None else f"{target.value:.3f}"
        yield f"  {target.name:<52}{target.limit:>9g}{value:>10}  {words[target.reached]}"


def _memories(memories: Sequence[Memory]) -> str:
    def median(values: list[int | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{statistics.median(known) / 1e6:.1f}" if known else "-"

    resident = median([memory.resident for memory in memories])
    proportional = median([memory.proportional for memory in memories])
    unique = median([memory.unique for memory in memories])
    return f"{resident:>13}{proportional:>9}{unique:>11}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
