"""A live view of probing, on a terminal.

It needs C{rich}, the extra C{live}, which is imported when it is used. There is no thread and no timer: the caller calls
L{LiveView.update} some times a second. Each call blocks for some milliseconds; at thousands of probes a second, that is visible
in their schedule deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from udpecho.cli.console import silence
from udpecho.cli.ping.recent import Recent, bars, columns, lowest
from udpecho.cli.ping.text import anomalies, counted, milliseconds, percent
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.summary import Statistics

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_columns = ("sent/s", "recv/s", "sent", "received", "loss", "95 %", "p50", "p90", "p99", "max ms")
#: The columns that are left out on terminals with fewer characters to a line.
_optional = ((110, ("recv/s", "95 %", "p90")), (80, ("sent/s", "sent", "received")))
#: The share of the last minute's round trips that the histogram shows: the longest would squeeze the others.
_shown = 0.99
#: The height of the histogram of a single target, in lines.
_height = 8
_unknown = "-"
_remarkable = (Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.LOST_OWN, Outcome.NOT_SENT)


class LiveUnavailable(Exception):
    """A live view is not possible. The message is the reason, one line."""


class Watched(NamedTuple):
    """A target of the view, with its statistics, which grow."""

    name: str
    statistics: Statistics


class LiveView:
    """The view: for each target its rates, counts, loss and percentiles, and a histogram of the round trips of the last minute;
    and the progress, if the number or the duration of probes is limited.

    It is drawn in place on standard error, so that results may be redirected. If that is not a terminal it does nothing.

    @ivar active: whether it is visible.
    """

    def __init__(
        self,
        targets: Sequence[Watched],
        started: float,
        *,
        count: int | None = None,
        duration: float | None = None,
        console: Console | None = None,
    ) -> None:
        """@param started: when the first probe was sent, in seconds of the clock of L{update}.
        @param count: the number of probes of each target, if limited.
        @param duration: how long probes are sent, in seconds, if limited.
        @param console: where to draw instead of standard error, for tests.
        @raise LiveUnavailable: if C{rich} is missing.
        """
        self._console = _standardError() if console is None else console
        self.active = self._console.is_terminal and not self._console.is_dumb_terminal
        self._targets = [(each, Recent(each.statistics, started)) for each in targets]
        self._started = started
        self._count = count
        self._duration = duration
        self._live: Live | None = None

    def update(self, now: float) -> None:
        """Draw the state at a time, in seconds of a monotonic clock."""
        if not self.active:
            return
        for _, recent in self._targets:
            recent.update(now)
        if self._live is None:
            from rich.live import Live

            # Without its thread, and without redirecting others' output.
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._draw(self._live.start)
        self._draw(self._live.update, self.render(now), refresh=True)

    def stop(self) -> None:
        """Remove the view, so that lines can be printed. May be called twice; L{update} draws it again."""
        if self._live is not None:
            live, self._live = self._live, None
            self._draw(live.stop)

    def _draw(self, step: Callable[..., object], *arguments: object, **how: Any) -> None:
        try:
            step(*arguments, **how)
        except OSError:
            # The terminal is gone; the results go elsewhere.
            self.active = False
            if self._console.file is sys.stderr:
                silence(2)

    def render(self, now: float) -> RenderableType:
        """The content of the view at a time, in seconds."""
        from rich.console import Group

        parts = self._table(now)
        free = self._console.height - len(self._targets) - len(parts) - 3
        high = min(_height, free // len(self._targets) - 3) if self._targets else 0
        if high >= 2:
            for target, recent in self._targets:
                parts += self._histogram(target, recent, high)
        parts.append(self._progress(now))
        return Group(*parts)

    def _table(self, now: float) -> list[RenderableType]:
        """The figures of all targets, and their anomalies below."""
        from rich.table import Table
        from rich.text import Text

        remarks: list[RenderableType] = []
        width = self._console.width
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("target", no_wrap=True, overflow="ellipsis", style="bold", max_width=max(10, width // 5))
        hidden = [name for least, names in _optional if width < least for name in names]
        shown = [name for name in _columns if name not in hidden]
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for target, recent in self._targets:
            cells = dict(zip(_columns, self._cells(target, recent, now)))
            table.add_row(Text(target.name), *(cells[name] for name in shown))
            remark = _remark(target.statistics)
            if remark:
                remarks.append(Text(f"{target.name}: {remark}", "red"))
        return [table, *remarks]

    def _cells(self, target: Watched, recent: Recent, now: float) -> list[RenderableType]:
        from rich.text import Text

        statistics = target.statistics
        rates, loss, times = recent.rates(now), statistics.loss, statistics.roundTrips
        style = "" if loss is None or not loss.ratio else "yellow" if loss.ratio < 0.05 else "bold red"
        return [
            *(_unknown if rates is None else _rate(each) for each in rates or (0.0, 0.0)),
            str(statistics.sent),
            str(statistics.received),
            Text(_unknown if loss is None else percent(loss.ratio), style),
            _unknown if loss is None else f"{percent(loss.low)[:-1]}-{percent(loss.high)}",
            *(_time(each) for each in (times.median(), times.quantile(0.9), times.quantile(0.99), times.max)),
        ]

    def _histogram(self, target: Watched, recent: Recent, height: int) -> list[RenderableType]:
        from rich.text import Text

        bins = recent.bins()
        shown = lowest(bins, _shown)
        width = max(8, min(self._console.width - 16, 100))
        numbers, edges = columns(shown, width)
        if not numbers:
            return [Text(f"{target.name}: no reply in the last minute", "dim")]
        wide = max(1, min(6, width // len(numbers)))
        beyond = sum(bins.values()) - sum(numbers)
        name = f"{target.name}: " if len(self._targets) > 1 else ""
        above = f", {beyond} of them above {milliseconds(edges[-1] / 1e9)} ms" if beyond else ""
        head = f"\n{name}{sum(bins.values())} replies in the last minute{above}\n"
        picture = Text(head, "dim", no_wrap=True, overflow="ellipsis")
        labels = [f"{max(numbers):>8} ", *[" " * 9] * (height - 1)]
        for label, line in zip(labels, bars([number for number in numbers for _ in range(wide)], height)):
            picture.append(label, "dim")
            picture.append(f"{line}\n", "cyan")
        picture.append(" " * 9 + _axis(edges, wide), "dim")
        return [picture]

    def _progress(self, now: float) -> RenderableType:
        from rich.padding import Padding
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
        return Padding(table, (1, 0, 0, 0))

    def _done(self, elapsed: float) -> tuple[float | None, float | None]:
        """@return: the share that is done, C{None} if there is no end; and the seconds left, C{None} if not yet known."""
        ends: list[tuple[float, float | None]] = []
        if self._duration:
            ends.append((elapsed / self._duration, max(0.0, self._duration - elapsed)))
        if self._count and self._targets:
            scheduled = min(each.statistics.scheduled for each, _ in self._targets)
            each = elapsed / scheduled if scheduled > 1 else None
            ends.append((scheduled / self._count, None if each is None else each * max(0, self._count - scheduled)))
        if not ends:
            return None, None
        # The first limit that is reached ends it.
        share, left = max(ends, key=lambda end: end[0])
        return min(1.0, share), left


def _standardError() -> Console:
    try:
        from rich.console import Console
    except ImportError as e:
        raise LiveUnavailable(f"rich must be installed for --live, got {e}: pip install 'udpecho[live]'") from None
    # Regardless of FORCE_COLOR and the like in the environment.
    return Console(file=sys.stderr, force_terminal=sys.stderr.isatty())


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _time(seconds: float | None) -> str:
    return _unknown if seconds is None else milliseconds(seconds)


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _axis(edges: Sequence[int], wide: int) -> str:
    """The labels below a histogram, in ms, at the start of its columns. These have C{wide} characters; C{edges} are in ns."""
    line = ""
    for column, edge in enumerate(edges[:-1]):
        at = column * wide
        if at == 0 or at >= len(line) + 4:
            line = f"{line:<{at}}▏{milliseconds(edge / 1e9)}"
    return f"{line} ms"


def _remark(statistics: Statistics) -> str:
    return ", ".join([*counted(statistics, *_remarkable), *anomalies(statistics)])
