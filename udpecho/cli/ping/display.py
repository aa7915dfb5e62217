"""What C{udpecho ping} draws: a live view (C{--live}), and a plot at the end (C{--plot})."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

from udpecho.cli.ping.live import LiveView, Watched
from udpecho.cli.ping.plot import Plotted, checkPlot, plot
from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.printing import printable
from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event
from udpecho.probe.prober import Prober
from udpecho.probe.stats.timeline import Timeline

#: Seconds between two updates of the view.
PAUSE = 1 / 3
#: How many flows a plot can show legibly.
MAX_PLOTTED = 16


class Picture:
    """Collects the data of a plot, and writes it to a file.

    @raise PlotUnavailable: if C{matplotlib} is missing.
    @raise OSError: if the directory does not exist, or the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        checkPlot()
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise NotADirectoryError(f"directory of --plot must exist, got {printable(path)}")
        self._path = path
        self._timelines: defaultdict[Flow, Timeline] = defaultdict(Timeline)

    def event(self, prober: Prober, flow: Flow, event: Event) -> None:
        """Add an event."""
        time = flow.timeOf(event)
        if time is None or event.sequence is None:
            return
        self._timelines[flow].add(event.outcome, event.sequence, time - prober.startedAt, event.roundTrip)

    def draw(self, flows: Sequence[Flow], nameOf: Callable[[Flow], str]) -> None:
        """Write the plot."""
        plot(self._path, [Plotted(nameOf(flow), self._timelines[flow], flow.statistics) for flow in flows])


class View:
    """The live view, updated while the reactor runs."""

    def __init__(
        self, reactor: Reactor, prober: Prober, nameOf: Callable[[Flow], str], count: int | None, duration: float | None
    ) -> None:
        """The prober must have started. The other parameters are those of L{LiveView}."""
        watched = [Watched(nameOf(flow), flow.statistics) for flow in prober.flows]
        self._prober = prober
        self._view = LiveView(watched, prober.startedAt, count=count, duration=duration)
        self._next = SingleCall(reactor, self.start)

    def start(self) -> None:
        """Draw the view, and update it from then on."""
        self._view.update(self._prober.seconds())
        self._next.schedule(PAUSE)

    def hide(self) -> None:
        """Remove the view until the next update, so that lines can be printed."""
        self._view.stop()

    def stop(self) -> None:
        """Remove the view."""
        self._next.cancel()
        self._view.stop()


def canBeLive() -> bool:
    """Whether standard error is a terminal for the view. Raise L{LiveUnavailable} if C{rich} is missing."""
    return sys.stderr is not None and LiveView((), 0.0).active
