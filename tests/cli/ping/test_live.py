"""Tests of L{udpecho.cli.ping.live}: the live view on the terminal."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.source import loadedBy
from udpecho.cli.ping import recent
from udpecho.cli.ping.live import LiveUnavailable, LiveView, Watched
from udpecho.cli.ping.recent import Recent
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.summary import Statistics

console: Any = pytest.importorskip("rich.console", reason="rich is not installed here")

MS = 1_000_000
TARGET = "192.0.2.1:7"
times = st.integers(0, 2**62)


def terminal(width: int = 120, height: int = 40) -> Any:
    """A terminal that remembers what was written."""
    return console.Console(record=True, force_terminal=True, width=width, height=height, file=io.StringIO(), color_system=None)


def answer(statistics: Statistics, number: int, roundTrip: int) -> None:
    """Some more probes, all answered."""
    for sequence in range(statistics.highest + 1, statistics.highest + 1 + number):
        statistics.probeSent(sequence)
        statistics.replyReceived(sequence, roundTrip)


def lose(statistics: Statistics, number: int) -> None:
    """Some more probes, all lost."""
    for sequence in range(statistics.highest + 1, statistics.highest + 1 + number):
        statistics.probeSent(sequence)
        statistics.timedOut(sequence)


def seen(view: LiveView, now: float, width: int = 120, height: int = 40) -> list[str]:
    """The lines of a view."""
    shown = terminal(width, height)
    shown.print(view.render(now))
    return [line.rstrip() for line in shown.export_text().splitlines()]


def cells(lines: list[str], name: str = TARGET) -> dict[str, str]:
    """A target's row of the table."""
    row = next(line for line in lines if line.startswith(name))
    return dict(zip(lines[0].replace("95 %", "95%").replace("max ms", "max").split(), row.split()))


class BinTests:
    """The bins and columns of the histogram."""

    @given(times)
    def test_bins(self, time: int) -> None:
        """Each time is in its bin, and a bin is no wider than a 128th of what is in it."""
        index = recent.binOf(time)
        low, high = recent.lowOf(index), recent.lowOf(index + 1)
        assert low <= time < high
        assert high - low <= max(1, low // 128)

    @given(st.dictionaries(st.integers(0, 7000), st.integers(1, 1000), max_size=50), st.integers(1, 200))
    def test_columns(self, bins: dict[int, int], width: int) -> None:
        """There are no more columns than fit, all of one width, and nothing is lost in them."""
        numbers, edges = recent.columns(bins, width)
        assert sum(numbers) == sum(bins.values())
        assert len(numbers) <= width
        assert len({after - before for before, after in pairwise(edges)}) <= 1
        if bins:
            assert edges[0] <= recent.lowOf(min(bins)) < edges[1]
            assert edges[-2] <= recent.lowOf(max(bins)) < edges[-1]

    def test_even(self) -> None:
        """As many in each nanosecond give columns of one height, also where the bins get twice as wide."""
        bins: dict[int, int] = {}
        for time in range(15 * 1024, 18 * 1024):
            index = recent.binOf(time)
            bins[index] = bins.get(index, 0) + 1
        numbers, _ = recent.columns(bins, 30)
        assert len(set(numbers)) == 1

    def test_none(self) -> None:
        """Without times there are no columns."""
        assert recent.columns({}, 10) == ([], [])

    def test_lowest(self) -> None:
        """The longest beyond a gap are left out."""
        bins = {100: 500, 101: 480, 102: 15, 103: 2, 500: 3}
        assert recent.lowest(bins, 0.99) == {100: 500, 101: 480, 102: 15, 103: 2}
        assert recent.lowest(bins, 1.0) == bins
        assert recent.lowest({}, 0.99) == {}

    def test_bars(self) -> None:
        """The highest column fills the height, others are in eighths of it, every column that is not 0 is visible."""
        assert recent.bars([16, 8, 12, 0, 1], 2) == ["█ ▄  ", "███ ▁"]
        assert recent.bars([10_000, 1], 1) == ["█▁"]
        assert recent.bars([0, 0], 1) == ["  "]


class RecentTests:
    """The last minute."""

    def test_moves(self) -> None:
        """It has the round trips of the last minute, and no others."""
        statistics = Statistics()
        shown = Recent(statistics, 100.0)
        answer(statistics, 10, 5 * MS)
        shown.update(101.0)
        assert shown.bins() == {recent.binOf(5 * MS): 10}
        answer(statistics, 20, 7 * MS)
        shown.update(102.0)
        assert sum(shown.bins().values()) == 30
        shown.update(161.5)
        assert shown.bins() == {recent.binOf(7 * MS): 20}
        shown.update(162.5)
        assert shown.bins() == {}

    @pytest.mark.slow
    def test_memory(self) -> None:
        """About a minute is remembered."""
        statistics = Statistics()
        shown = Recent(statistics, 0.0)
        for now in range(1, 3 * recent.SPAN):
            answer(statistics, 1, now * MS)
            shown.update(float(now))
            shown.update(now + 0.3)
        assert len(shown._seconds) <= recent.SPAN + 2
        assert sum(shown.bins().values()) == recent.SPAN

    def test_rates(self) -> None:
        """The rates are those of the last five seconds, and unknown in the first moment."""
        statistics = Statistics()
        shown = Recent(statistics, 0.0)
        assert shown.rates(0.4) is None
        for now in range(1, 21):
            answer(statistics, 10 if now <= 10 else 100, MS)
            lose(statistics, 100 if now > 10 else 0)
            shown.update(float(now))
            if now == 10:
                assert shown.rates(10.0) == (10.0, 10.0)
        assert shown.rates(20.0) == (200.0, 100.0)

    def test_seldom(self) -> None:
        """A view that is drawn seldom, or after the process was stopped, has the rates since it was drawn last."""
        statistics = Statistics()
        shown = Recent(statistics, 0.0)
        answer(statistics, 100, MS)
        shown.update(20.0)
        assert shown.rates(20.0) == (5.0, 5.0)


class ViewTests:
    """The content of the view."""

    def test_figures(self) -> None:
        """The table has the figures of the statistics."""
        statistics = Statistics()
        view = LiveView([Watched(TARGET, statistics)], 0.0, console=terminal())
        answer(statistics, 299, 20 * MS)
        lose(statistics, 3)
        statistics.probeSent(302)
        statistics.refused(302)
        view.update(2.0)
        lines = seen(view, 2.0)
        row = cells(lines)
        assert row["sent"] == "303"
        assert row["received"] == "299"
        assert (row["sent/s"], row["recv/s"]) == ("152", "150")
        assert (row["loss"], row["95%"]) == ("0.993%", "0.338-2.88%")
        assert (row["p50"], row["p90"], row["p99"], row["max"]) == ("20.0", "20.0", "20.0", "20.0")
        assert f"{TARGET}: 1 refused" in lines

    def test_unknown(self) -> None:
        """Unknown figures are dashes, not 0."""
        view = LiveView([Watched(TARGET, Statistics())], 0.0, console=terminal())
        lines = seen(view, 0.0)
        row = cells(lines)
        assert {row[name] for name in ("sent/s", "recv/s", "loss", "95%", "p50", "p90", "p99", "max")} == {"-"}
        assert f"{TARGET}: no reply in the last minute" in lines

    def test_histogram(self) -> None:
        """Two groups of round trips are two hills, one twice as high as the other; those far above are counted."""
        statistics = Statistics()
        view = LiveView([Watched(TARGET, statistics)], 0.0, console=terminal())
        answer(statistics, 1000, 20 * MS)
        answer(statistics, 500, 21 * MS)
        answer(statistics, 2, 900 * MS)
        view.update(1.0)
        lines = seen(view, 1.0)
        head = next(index for index, line in enumerate(lines) if "replies in the last minute" in line)
        assert lines[head].startswith("1502 replies in the last minute, 2 of them above 21.1 ms")
        picture = [line[9:] for line in lines[head + 1 : head + 9]]
        assert lines[head + 1].split()[0] == "1000"
        heights = [sum(line[at : at + 1] == "█" for line in picture) for at in range(max(map(len, picture)))]
        assert {height for height in heights if height} == {8, 4}
        assert heights[0] == 8
        assert heights[-1] == 4
        assert lines[head + 9].strip().startswith("▏19.9  ")

    @pytest.mark.parametrize("name", ["[bold]x[/bold]:7", "[2001:db8::1]:7", "[red]"])
    def test_names(self, name: str) -> None:
        """A name is shown as it is: markup of rich in it has no effect."""
        view = LiveView([Watched(name, Statistics())], 0.0, console=terminal())
        lines = seen(view, 0.0)
        assert lines[1].startswith(name)
        assert f"{name}: no reply in the last minute" in lines

    @pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 24), (80, 24), (100, 30), (110, 30), (200, 60)])
    def test_sizes(self, width: int, height: int) -> None:
        """It fits a terminal of any usual size, in width and height, also with several targets."""
        names = [f"host-{index}.example.net:1234" for index in range(3)]
        shown = terminal(width, height)
        some = [Statistics() for _ in names]
        view = LiveView([Watched(*each) for each in zip(names, some)], 0.0, console=shown, count=10_000)
        for statistics in some:
            for roundTrip in range(20, 60):
                answer(statistics, 10, roundTrip * MS)
            lose(statistics, 10)
        view.update(1.0)
        lines = seen(view, 1.0, width, height)
        assert max(map(len, lines)) <= width
        assert len(lines) <= height
        assert "…" not in lines[0]
        assert ("  sent/s" in lines[0]) == (width >= 80)
        assert ("95 %" in lines[0]) == (width >= 110)
        assert "4% " in lines[-1]

    def test_manyTargets(self) -> None:
        """Without space for histograms there are only the figures."""
        names = [f"192.0.2.{index}:7" for index in range(12)]
        view = LiveView([Watched(name, Statistics()) for name in names], 0.0, console=terminal(100, 24))
        lines = seen(view, 1.0, 100, 24)
        assert [line.split()[0] for line in lines[1:13]] == names
        assert len(lines) < 24

    def test_everyOutcome(self) -> None:
        """Every outcome is on the screen."""
        statistics = Statistics(1.0)
        for sequence in range(6):
            statistics.probeSent(sequence)
        statistics.replyReceived(1, 2000 * MS)
        statistics.replyReceived(0, MS)
        statistics.replyReceived(0, MS)
        statistics.refused(2)
        statistics.unreachable(3)
        statistics.timedOut(4)
        statistics.probeNotSent(6)
        statistics.ownDropped += 1
        for outcome in (Outcome.CORRUPT, Outcome.TRUNCATED, Outcome.OVERSIZED, Outcome.UNRELATED, Outcome.UNMATCHED):
            statistics.datagramReceived(outcome)
        view = LiveView([Watched("t", statistics)], 0.0, console=terminal(200))
        line = next(line for line in seen(view, 1.0, 200) if line.startswith("t: 1"))
        assert line == (
            "t: 1 refused, 1 unreachable, 1 lost in our own receive queue, 1 not sent, 1 duplicates, 1 corrupt, 1 truncated,"
            " 1 oversized, 1 unrelated,"
            " 1 unmatched, 1 reordered, 1 late"
        )


class ProgressTests:
    """The progress."""

    def test_count(self) -> None:
        """With a count the time left is the intervals that are left, of the target that is behind."""
        fast, slow = Statistics(), Statistics()
        view = LiveView([Watched("a", fast), Watched("b", slow)], 100.0, console=terminal(), count=200)
        assert seen(view, 100.0)[-1].endswith("0%  0:00 so far")
        answer(fast, 100, MS)
        answer(slow, 50, MS)
        assert seen(view, 150.0)[-1].endswith("25%  0:50 so far  2:30 left")

    def test_duration(self) -> None:
        """With a duration it is what is left of that."""
        view = LiveView([Watched("a", Statistics())], 100.0, console=terminal(), duration=7200.0)
        assert seen(view, 1900.0)[-1].endswith("25%  30:00 so far  1:30:00 left")
        assert seen(view, 9999.0)[-1].endswith("100%  2:44:59 so far  0:00 left")

    def test_both(self) -> None:
        """With both it is that of the first limit."""
        statistics = Statistics()
        answer(statistics, 90, MS)
        view = LiveView([Watched("a", statistics)], 0.0, console=terminal(), duration=60.0, count=100)
        assert seen(view, 30.0)[-1].endswith("90%  0:30 so far  0:03 left")

    def test_endless(self) -> None:
        """With neither there is no bar."""
        view = LiveView([Watched("a", Statistics())], 0.0, console=terminal())
        assert seen(view, 65.0)[-1] == "1:05 so far, until interrupted"


class DrawingTests:
    """How it is drawn."""

    def test_inPlace(self) -> None:
        """Each update replaces the previous one, and at the end only the lines above are left."""
        shown = terminal()
        view = LiveView([Watched(TARGET, Statistics())], 0.0, console=shown)
        view.update(0.0)
        first = shown.file.getvalue()
        assert TARGET in first
        view.update(1.0)
        second = shown.file.getvalue()[len(first) :]
        # The cursor goes up, and each line is erased.
        assert second.count("\x1b[1A\x1b[2K") >= first.count("\n")
        view.stop()
        written = len(shown.file.getvalue())
        view.stop()
        assert len(shown.file.getvalue()) == written
        assert shown.file.getvalue().count("\x1b[?25l") == shown.file.getvalue().count("\x1b[?25h") == 1

    def test_noThread(self) -> None:
        """It has no thread, and leaves what others write to alone."""
        before, streams = threading.active_count(), (sys.stdout, sys.stderr)
        view = LiveView([Watched(TARGET, Statistics())], 0.0, console=terminal())
        view.update(0.0)
        assert threading.active_count() == before
        assert (sys.stdout, sys.stderr) == streams
        view.stop()

    def test_plain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no terminal nothing is drawn, even if the environment would have it coloured."""
        monkeypatch.setenv("FORCE_COLOR", "1")
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        view = LiveView([Watched(TARGET, Statistics())], 0.0)
        assert not view.active
        view.update(0.0)
        view.update(5.0)
        view.stop()
        assert stream.getvalue() == ""

    def test_terminalGone(self) -> None:
        """A terminal that is gone ends the view, not the prober."""

        class Gone(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(errno.EIO, "gone")

        shown = console.Console(force_terminal=True, file=Gone())
        view = LiveView([Watched(TARGET, Statistics())], 0.0, console=shown)
        view.update(1.0)
        assert not view.active
        view.update(2.0)
        view.stop()


class ImportTests:
    """Imports, and a missing rich."""

    def test_lazy(self) -> None:
        """Importing the module does not load rich, nor Twisted."""
        new = loadedBy("import udpecho.cli.ping.live") - loadedBy("pass")
        assert not {name for name in new if name.split(".")[0] in ("rich", "twisted")}

    def test_missing(self) -> None:
        """Without rich there is a message of one line, with the package to install."""
        code = (
            "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n"
            "from udpecho.cli.ping.live import LiveUnavailable, LiveView\n"
            "try:\n    LiveView([], 0.0)\nexcept LiveUnavailable as e:\n    print(e)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        (line,) = done.stdout.splitlines()
        assert line.startswith("rich must be installed for --live, got ")
        assert line.endswith(": pip install 'udpecho[live]'")
        assert issubclass(LiveUnavailable, Exception)
