"""Tests of L{udpecho.cli.ping.plot}: the content of plots."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.source import loadedBy
from udpecho.cli.ping import plot
from udpecho.cli.ping.plot import Plotted
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.stats.timeline import Timeline

MS = 1_000_000


def measured(name: str, count: int, seed: int = 1, least: int = 20 * MS) -> Plotted:
    """A probe each second, with one loss in ten, and a refusal."""
    draw, timeline, statistics = random.Random(seed), Timeline(), Statistics()
    for sequence in range(count):
        statistics.probeSent(sequence)
        if sequence == 1:
            statistics.refused(sequence)
            timeline.add(Outcome.REFUSED, sequence, float(sequence))
        elif sequence % 10 == 5:
            statistics.timedOut(sequence)
            timeline.add(Outcome.LOST, sequence, float(sequence))
        else:
            roundTrip = least + int(draw.expovariate(1 / MS))
            timeline.add(statistics.replyReceived(sequence, roundTrip), sequence, float(sequence), roundTrip / 1e9)
    return Plotted(name, timeline, statistics)


def texts(path: Path) -> list[str]:
    """The texts of a plot."""
    return [each.text or "" for each in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


class FileTests:
    """Files of plots."""

    @pytest.mark.parametrize("name", ["rtt.svg", "rtt.png", "a/b.c/RTT.SVG", "-.png"])
    def test_good(self, name: str) -> None:
        """The end of the name is the format."""
        assert plot.parsePlotFile(name) == name

    @pytest.mark.parametrize("name", ["", "rtt", "rtt.pdf", ".svg", "a/.png", "rtt.svg.gz", "svg", "rtt.svg/"])
    def test_bad(self, name: str) -> None:
        """Any other name is refused."""
        with pytest.raises(
            ValueError, match=r"file of a plot must have a name that ends in \.svg or \.png, as in rtt\.svg, got"
        ):
            plot.parsePlotFile(name)


class ImportTests:
    """Imports, and a missing matplotlib."""

    def test_lazy(self) -> None:
        """Importing the module does not load matplotlib, nor Twisted."""
        new = loadedBy("import udpecho.cli.ping.plot") - loadedBy("pass")
        assert not {name for name in new if name.split(".")[0] in ("matplotlib", "numpy", "twisted")}

    def test_missing(self) -> None:
        """Without matplotlib there is a message of one line, with the package to install."""
        code = (
            "import sys; sys.modules['matplotlib'] = None\n"
            "from udpecho.cli.ping.plot import PlotUnavailable, checkPlot\n"
            "try:\n    checkPlot()\nexcept PlotUnavailable as e:\n    print(e)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        (line,) = done.stdout.splitlines()
        assert line.startswith("matplotlib must be installed for --plot, got ")
        assert line.endswith(": pip install 'udpecho[plot]'")


class PictureTests:
    """The plot itself."""

    @pytest.fixture(autouse=True)
    def matplotlib(self) -> Any:
        """It takes matplotlib."""
        return pytest.importorskip("matplotlib", reason="matplotlib is not installed here")

    def figure(self, *targets: Plotted) -> Any:
        """A plot before it is written."""
        plot.checkPlot()
        return plot._figure(targets)

    def test_png(self, tmp_path: Path) -> None:
        """A PNG is one, of a size that fits a page."""
        path = tmp_path / "rtt.png"
        plot.plot(str(path), [measured("192.0.2.1:7", 100)])
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack("!II", head[16:])
        assert 1000 < width < 2000
        assert 400 < height < 1000

    @pytest.mark.parametrize("form", plot.FORMATS)
    def test_deterministic(self, form: str, tmp_path: Path) -> None:
        """The file is reproducible to the byte, and has no date."""
        contents = []
        for name in ("first", "second"):
            path = tmp_path / f"{name}.{form}"
            plot.plot(str(path), [measured("192.0.2.1:7", 50), measured("[::1]:7", 50, seed=2)])
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
        assert b"dc:date" not in contents[0]

    def test_words(self, tmp_path: Path) -> None:
        """It has the target, the counts, the missing replies and the percentiles as text."""
        path = tmp_path / "rtt.svg"
        target = measured("192.0.2.1:7", 1000)
        plot.plot(str(path), [target])
        written = texts(path)
        assert "192.0.2.1:7: 1000 sent, 899 received, loss 10%" in written
        assert "100 lost" in written
        assert "1 refused" in written
        for name, value in (
            ("p50", target.statistics.roundTrips.median()),
            ("p99", target.statistics.roundTrips.quantile(0.99)),
        ):
            assert value is not None
            assert f"{name} {value * 1e3:.1f} ms" in written
        assert any(re.fullmatch(r"p90 2\d\.\d ms", each) for each in written)

    def test_smallSample(self, tmp_path: Path) -> None:
        """Percentiles that the sample is too small for are not marked."""
        path = tmp_path / "rtt.svg"
        plot.plot(str(path), [measured("192.0.2.1:7", 20)])
        assert [each[:3] for each in texts(path) if re.match(r"p\d", each)] == ["p50"]

    def test_several(self, tmp_path: Path) -> None:
        """Several targets have a legend with the name and the figures of each, and a colour each."""
        path = tmp_path / "rtt.svg"
        targets = [measured("192.0.2.1:7", 400), measured("[2001:db8::1]:1234", 400, seed=2, least=30 * MS)]
        plot.plot(str(path), targets)
        written = texts(path)
        for target in targets:
            (label,) = [each for each in written if each.startswith(f"{target.name}: 400 sent, 359 received, loss 10%, p50 ")]
            assert "p99 " in label
        (over, marks, share) = self.figure(*targets).axes
        assert len({line.get_color() for line in over.lines}) == 2
        assert len({line.get_color() for line in share.lines}) == 2
        assert [each.get_text() for each in marks.get_yticklabels()] == ["40 lost", "1 refused"] * 2

    def test_points(self) -> None:
        """A small sample has each of its round trips as a dot, where and as high as it was, and each loss its stroke."""
        timeline, statistics = Timeline(), Statistics()
        for sequence, roundTrip in enumerate([5 * MS, 7 * MS, None, 6 * MS]):
            statistics.probeSent(sequence)
            if roundTrip is None:
                statistics.timedOut(sequence)
                timeline.add(Outcome.LOST, sequence, float(sequence))
            else:
                timeline.add(statistics.replyReceived(sequence, roundTrip), sequence, float(sequence), roundTrip / 1e9)
        over, marks, _ = self.figure(Plotted("a", timeline, statistics)).axes
        (dots,) = over.lines
        assert list(dots.get_xdata()) == pytest.approx([0, 1, 3])
        assert list(dots.get_ydata()) == pytest.approx([5, 7, 6])
        (strokes,) = marks.collections
        assert [path.vertices[0][0] for path in strokes.get_paths()] == pytest.approx([2])

    def test_extremes(self) -> None:
        """Of a sample that is too large for a dot each, the shortest and the longest are still there, and a lonely loss too;
        the plot has a limited number of dots.
        """
        timeline, statistics = Timeline(), Statistics()
        for sequence in range(50_000):
            statistics.probeSent(sequence)
            if sequence == 31_234:
                statistics.timedOut(sequence)
                timeline.add(Outcome.LOST, sequence, sequence / 1000)
                continue
            roundTrip = {12_345: MS // 2, 40_404: 77 * MS}.get(sequence, MS + sequence % 997)
            timeline.add(statistics.replyReceived(sequence, roundTrip), sequence, sequence / 1000, roundTrip / 1e9)
        over, marks, share = self.figure(Plotted("a", timeline, statistics)).axes
        dots = over.lines[0]
        points = list(zip(dots.get_xdata(), dots.get_ydata()))
        assert len(points) <= 4096
        assert min(points, key=lambda each: each[1]) == pytest.approx((12.345, 0.5))
        assert max(points, key=lambda each: each[1]) == pytest.approx((40.404, 77))
        assert [path.vertices[0][0] for path in marks.collections[0].get_paths()] == pytest.approx([31.234])
        # A range so wide has a logarithmic axis, in the distribution too, which goes from the shortest to the longest.
        assert over.get_yscale() == share.get_xscale() == "log"
        steps = share.lines[0]
        assert (steps.get_xdata()[0], steps.get_xdata()[-1]) == pytest.approx((0.5, 77))
        assert len(steps.get_xdata()) < 2000

    def test_distribution(self) -> None:
        """The distribution is cumulative, and its marks are on it."""
        target = measured("a", 400)
        _, _, share = self.figure(target).axes
        steps, marks = share.lines
        values, heights = list(steps.get_xdata()), list(steps.get_ydata())
        assert heights == sorted(heights)
        assert values == sorted(values)
        assert (heights[0], heights[-1]) == (0.0, 1.0)
        for name, x, y in zip((0.5, 0.9, 0.99), marks.get_xdata(), marks.get_ydata()):
            assert y == name
            reached = max(height for value, height in zip(values, heights) if value <= x * 1.0005)
            assert reached == pytest.approx(y, abs=0.006)

    def test_gap(self) -> None:
        """The line through the means does not go over a bucket in which nothing came."""
        timeline, statistics = Timeline(64), Statistics()
        for sequence in range(10_000):
            statistics.probeSent(sequence)
            if 4000 <= sequence < 6000:
                statistics.timedOut(sequence)
                timeline.add(Outcome.LOST, sequence, sequence / 1000)
            else:
                timeline.add(statistics.replyReceived(sequence, MS), sequence, sequence / 1000, 0.001)
        over, _, _ = self.figure(Plotted("a", timeline, statistics)).axes
        _, means = over.lines
        assert sum(value != value for value in means.get_ydata()) == 1

    def test_nothing(self, tmp_path: Path) -> None:
        """Without a reply, or without a probe, the plot has a text instead of dots."""
        path = tmp_path / "rtt.svg"
        plot.plot(str(path), [Plotted("192.0.2.1:7", Timeline(), Statistics())])
        assert "no reply came" in texts(path)
        assert "nothing is missing" not in texts(path)
        timeline, statistics = Timeline(), Statistics()
        statistics.probeSent(0)
        statistics.refused(0)
        timeline.add(Outcome.REFUSED, 0, 0)
        plot.plot(str(path), [Plotted("192.0.2.1:7", timeline, statistics)])
        assert {"no reply came", "1 refused"} <= set(texts(path))

    def test_zero(self) -> None:
        """A round trip of 0, which a coarse clock gives, is on the plot, and the axis is linear: a logarithmic one has no 0."""
        timeline, statistics = Timeline(), Statistics()
        for sequence, roundTrip in enumerate((0, 100 * MS)):
            statistics.probeSent(sequence)
            timeline.add(statistics.replyReceived(sequence, roundTrip), sequence, sequence / 1e9, roundTrip / 1e9)
        over, _, share = self.figure(Plotted("a", timeline, statistics)).axes
        assert list(over.lines[0].get_ydata()) == [0, 100]
        assert (over.get_yscale(), share.get_xscale()) == ("linear", "linear")
        assert over.get_ylim()[0] <= 0

    @pytest.mark.parametrize("name", ["$x$:7", "$\\bad{$:7", "_host:7", "a<b>&:7"])
    def test_names(self, name: str, tmp_path: Path) -> None:
        """A name is written as it is: markup of matplotlib in it has no effect."""
        path = tmp_path / "rtt.svg"
        plot.plot(str(path), [measured(name, 5)])
        assert any(each.startswith(f"{name}: 5 sent") for each in texts(path))
        plot.plot(str(path), [measured(name, 5), measured(name, 5)])
        assert sum(each.startswith(f"{name}: 5 sent") for each in texts(path)) == 2

    def test_settings(self, matplotlib: Any, tmp_path: Path) -> None:
        """The user's own settings of matplotlib neither change the picture nor are changed by it."""
        first, second = tmp_path / "first.svg", tmp_path / "second.svg"
        plot.plot(str(first), [measured("a", 5)])
        with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30, "svg.fonttype": "path"}):
            plot.plot(str(second), [measured("a", 5)])
            assert matplotlib.rcParams["font.size"] == 30
        assert first.read_bytes() == second.read_bytes()

    def test_unwritable(self, tmp_path: Path) -> None:
        """A file that cannot be written raises the system's error."""
        with pytest.raises(FileNotFoundError):
            plot.plot(str(tmp_path / "missing" / "rtt.svg"), [measured("a", 5)])
