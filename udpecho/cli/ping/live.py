"""
A view of probing that is under way, on a terminal.

It takes C{rich}, the extra C{live}, which is loaded when there is something to show. Nothing here has a thread or a timer: who
probes calls L{LiveView.update} some times a second, and each call takes some milliseconds, in which nothing else happens. Where
probes leave thousands of times a second, what that does to them is in their send error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

from udpecho.cli.ping.recent import _HEIGHT, Recent, _columns, bars, columns, most
from udpecho.cli.ping.text import besides, percent
from udpecho.probe.outcomes import Outcome
from udpecho.probe.records import milliseconds
from udpecho.probe.stats.summary import Statistics

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
#: What is left out, with fewer characters to a line than that; the most important are never.
_spare = ((110, ("recv/s", "95 %", "p90")), (80, ("sent/s", "sent", "received")))
#: So much of the last minute's round trips is in the histogram at least; the longest ones above it would leave it no room.
_SHOWN = 0.99
_nothing = "-"


class LiveUnavailable(Exception):
    """There can be no live view here; the message says why in one line."""


class Watched(NamedTuple):
    """
    One target of the view.

    @ivar name: as the user wrote it.
    @ivar statistics: its sums, which grow.
    """

    name: str
    statistics: Statistics


class LiveView:
    """
    The view: for each target its rates, counts, loss and percentiles, and a histogram of the round trips of the last minute;
    and how far it is, where there is an end.

    It is drawn over and over in place, on standard error, so that results may go elsewhere. Where that is no terminal it does
    nothing at all.

    @ivar active: whether there is anything to see.
    """

    def __init__(
        self,
        targets: Sequence[Watched],
        started: float,
        *,
        count: int | None = None,
        duration: float | None = None,
        stream: TextIO | None = None,
        console: Console | None = None,
    ) -> None:
        """
        @param targets: what is probed.
        @param started: when the first probe left, in seconds by the clock that L{update} is told.
        @param count: how many probes each target has, if that is limited.
        @param duration: for how many seconds probes are sent, if that is limited.
        @param stream: where to draw; standard error by default.
        @param console: where to draw instead, for tests.

        @raise LiveUnavailable: if C{rich} is missing.
        """
        self._console = _consoleOn(sys.stderr if stream is None else stream) if console is None else console
        self.active = self._console.is_terminal and not self._console.is_dumb_terminal
        self._targets = [(each, Recent(each.statistics, started)) for each in targets]
        self._started = started
        self._count = count
        self._duration = duration
        self._live: Live | None = None

    def update(self, now: float) -> None:
        """
        Draw it as it is now.

        @param now: in seconds, by a clock that does not step.
        """
        if not self.active:
            return
        for _, recent in self._targets:
            recent.update(now)
        if self._live is None:
            from rich.live import Live

            # Without a thread of its own, and without taking over what others write.
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(self.render(now), refresh=True)

    def write(self, text: str) -> None:
        """Write lines that stay, above the view; as they are, where there is none."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def stop(self) -> None:
        """
        Take the view away, so that what is written next begins where it was. May be called twice; L{update} brings it back.
        """
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def render(self, now: float) -> RenderableType:
        """What L{update} draws."""
        from rich.console import Group

        parts = self._table(now)
        room = self._console.height - len(self._targets) - len(parts) - 3
        high = min(_HEIGHT, room // len(self._targets) - 3) if self._targets else 0
        if high >= 2:
            for target, recent in self._targets:
                parts += self._histogram(target, recent, high)
        parts.append(self._progress(now))
        return Group(*parts)

    def _table(self, now: float) -> list[RenderableType]:
        """The targets' figures, and below them what else there is of each, most of which should not be."""
        from rich.table import Table
        from rich.text import Text

        remarks: list[RenderableType] = []
        width = self._console.width
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("target", no_wrap=True, overflow="ellipsis", style="bold", max_width=max(10, width // 5))
        spare = [name for least, names in _spare if width < least for name in names]
        shown = [name for name in _columns if name not in spare]
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for target, recent in self._targets:
            cells = dict(zip(_columns, self._cells(target, recent, now)))
            table.add_row(Text(target.name), *(cells[name] for name in shown))
            also = _beside(target.statistics)
            if also:
                remarks.append(Text(f"{target.name}: {also}", "red"))
        return [table, *remarks]

    def _cells(self, target: Watched, recent: Recent, now: float) -> list[RenderableType]:
        from rich.text import Text

        told = target.statistics
        rates, loss, times = recent.rates(now), told.loss, told.roundTrips
        style = "" if loss is None or not loss.ratio else "yellow" if loss.ratio < 0.05 else "bold red"
        return [
            *(_nothing if rates is None else _rate(each) for each in rates or (0.0, 0.0)),
            str(told.sent),
            str(told.received),
            Text(_nothing if loss is None else percent(loss.ratio), style),
            _nothing if loss is None else f"{percent(loss.low)[:-1]}-{percent(loss.high)}",
            *(_time(each) for each in (times.median(), times.knownQuantile(0.9), times.knownQuantile(0.99), times.max)),
        ]

    def _histogram(self, target: Watched, recent: Recent, height: int) -> list[RenderableType]:
        from rich.text import Text

        bins = recent.bins()
        shown = most(bins, _SHOWN)
        width = max(8, min(self._console.width - 16, 100))
        numbers, edges = columns(shown, width)
        if not numbers:
            return [Text(f"{target.name}: no reply in the last minute", "dim")]
        wide = max(1, min(6, width // len(numbers)))
        beyond = sum(bins.values()) - sum(numbers)
        name = f"{target.name}: " if len(self._targets) > 1 else ""
        above = f", {beyond} of them above {milliseconds(edges[-1])} ms" if beyond else ""
        head = f"\n{name}{sum(bins.values())} replies in the last minute{above}\n"
        picture = Text(head, "dim", no_wrap=True, overflow="ellipsis")
        labels = [f"{max(numbers):>8} ", *[" " * 9] * (height - 1)]
        for label, line in zip(labels, bars([number for number in numbers for _ in range(wide)], height)):
            picture.append(label, "dim")
            picture.append(f"{line}\n", "cyan")
        picture.append(" " * 9 + _axis(edges, wide), "dim")
        return [picture]

    def _progress(self, now: float) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        elapsed = max(0.0, now - self._started)
        done, left = self._done(elapsed)
        if done is None:
            return f"\n{_clock(elapsed)} so far, until interrupted"
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_row(
            ProgressBar(total=1.0, completed=done, width=max(10, min(50, self._console.width - 40))),
            f"{int(100 * done)}%",
            f"{_clock(elapsed)} so far",
            "" if left is None else f"{_clock(left)} left",
        )
        return _below(table)

    def _done(self, elapsed: float) -> tuple[float | None, float | None]:
        """
        @return: what share is done, C{None} if there is no end; and how many seconds are left, C{None} if that is not known
            yet.
        """
        ends: list[tuple[float, float | None]] = []
        if self._duration:
            ends.append((elapsed / self._duration, max(0.0, self._duration - elapsed)))
        if self._count and self._targets:
            scheduled = min(each.statistics.scheduled for each, _ in self._targets)
            # The first is sent at once: so many intervals were, and so many are yet to be.
            each = elapsed / scheduled if scheduled > 1 else None
            ends.append((scheduled / self._count, None if each is None else each * max(0, self._count - scheduled)))
        if not ends:
            return None, None
        # What is done first ends it.
        share, left = max(ends, key=lambda end: end[0])
        return min(1.0, share), left


def _consoleOn(stream: TextIO) -> Console:
    try:
        from rich.console import Console
    except ImportError as e:
        raise LiveUnavailable(f"--live needs rich ({e}): pip install 'udpecho[live]' is right") from None
    # What is no terminal is none, whatever the environment has rich believe.
    return Console(file=stream, force_terminal=stream.isatty())


def _below(what: RenderableType) -> RenderableType:
    from rich.padding import Padding

    return Padding(what, (1, 0, 0, 0))


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _time(nanoseconds: float | None) -> str:
    return _nothing if nanoseconds is None else milliseconds(nanoseconds)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _axis(edges: Sequence[int], wide: int) -> str:
    """
    The times below a histogram, in ms, where each begins that has room.

    @param wide: how many characters a column has.
    """
    line = ""
    for column, edge in enumerate(edges[:-1]):
        at = column * wide
        if at == 0 or at >= len(line) + 4:
            line = f"{line:<{at}}▏{milliseconds(edge)}"
    return f"{line} ms"


def _beside(statistics: Statistics) -> str:
    """What else there is, most of which should not be."""
    counts = [
        (statistics.count(Outcome.REFUSED), "refused"),
        (statistics.count(Outcome.UNREACHABLE), "unreachable"),
        (statistics.count(Outcome.LOST_OWN), "lost by us"),
        (statistics.count(Outcome.NOT_SENT), "not sent"),
        *besides(statistics),
    ]
    return ", ".join(f"{count} {what}" for count, what in counts if count)
