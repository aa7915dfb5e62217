"""The benchmarks: C{python -m tests.benchmarks}, from the repository."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.benchmarks import report
from tests.benchmarks.loads import LOADS
from tests.benchmarks.measuring import Bench
from tests.benchmarks.servers import SERVERS
from tests.benchmarks.workshop import Missing, Processors, Workshop

_T = TypeVar("_T")

_rounds, _seconds, _starts = 5, 2.0, 7
_quickRounds, _quickSeconds, _quickStarts = 1, 0.2, 1
_floods = (0, 1, 64, 65507)


class Wrong(Exception):
    """What was asked for cannot be; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Measure, and print what was found.

    @return: the exit status: 0, 1 if a server failed or a datagram was wrong, 2 if what was asked for cannot be.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (Wrong, Missing) as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    servers = _choose(SERVERS, options.servers, "server")
    loads = _choose(LOADS, options.loads, "load")
    rounds = _or(options.rounds, _quickRounds if options.quick else _rounds)
    seconds = _or(options.seconds, _quickSeconds if options.quick else _seconds)
    starts = _or(options.starts, _quickStarts if options.quick else _starts)
    if rounds < 1 or starts < 0 or not 0 < seconds <= 3600:
        raise Wrong("--rounds is 1 or more, --starts 0 or more, --seconds from above 0 to 3600")
    processors = Processors()
    _checkFiles(options)
    if processors.shared:
        print("There is one processor for server and load: only the processor time says something.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="udpecho-benchmarks-") as directory:
        workshop = Workshop(Path(directory))
        workshop.compile("load.c")
        bench = Bench(workshop, processors, seconds, _say)
        bench.echoes(servers, loads, rounds)
        bench.starts(starts)
        if options.ticker:
            bench.gaps(rounds, _floods)
        _say("")
    figures = bench.figures
    for line in report.table(figures):
        print(line)
    if options.json is not None:
        options.json.write_text(report.asJSON(figures))
    if options.chart is not None:
        report.chart(figures, options.chart)
    return 1 if figures.broken or figures.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Echo servers, each on one processor, the load on another: echoes a second, and processor time for each.",
    )
    parser.add_argument("--servers", metavar="A,B", help=f"which ones [all]: {', '.join(SERVERS)}")
    parser.add_argument("--loads", metavar="A,B", help=f"which ones [all]: {', '.join(LOADS)}")
    parser.add_argument("--rounds", type=int, help=f"how often to measure each [{_rounds}]")
    parser.add_argument("--seconds", type=float, help=f"how long each load lasts [{_seconds:g}]")
    parser.add_argument(
        "--starts", type=int, help=f"how often to start for the first echo and memory; 0: not at all [{_starts}]"
    )
    parser.add_argument("--ticker", action="store_true", help="also measure the longest gap of a ticker under floods")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_quickRounds} round, {_quickSeconds:g} s, {_quickStarts} start: to see that it works",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything to a file")
    parser.add_argument(
        "--chart", metavar="FILE", type=Path, help="draw the processor times, as .svg or .png; needs matplotlib"
    )
    return parser


def _choose(known: Mapping[str, _T], names: str | None, what: str) -> list[_T]:
    if names is None:
        return list(known.values())
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise Wrong(f"no {what} is called {name!r}: there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(wanted)]


def _or(given: _T | None, otherwise: _T) -> _T:
    return otherwise if given is None else given


def _checkFiles(options: argparse.Namespace) -> None:
    """Ten minutes of measuring are too long to learn that the result cannot be written."""
    for path in (options.json, options.chart):
        if path is not None and not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise Wrong(f"{path} cannot be written")
    if options.chart is not None:
        if options.chart.suffix not in (".svg", ".png"):
            raise Wrong(f"a chart is a .svg or a .png file, not {options.chart}")
        report.drawing()


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
