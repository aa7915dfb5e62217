"""What C{udpecho ping} draws: a view while it probes (C{--live}), and a picture at the end (C{--plot})."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from udpecho.cli.ping.live import LiveView, Watched
from udpecho.cli.ping.plot import Drawn, checkPlot, plot
from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event
from udpecho.probe.prober import Prober
from udpecho.probe.stats.timeline import Samples

#: Seconds from one drawing of the view to the next.
PAUSE = 1 / 3
#: How many flows a picture may have: beyond that nobody can read it.
MOST_DRAWN = 16

_second = 1_000_000_000


class Picture:
    """Keeps what a picture is of."""

    def __init__(self, path: str) -> None:
        """
        @param path: where to draw it.

        @raise PlotUnavailable: if it cannot be drawn here.
        @raise OSError: if there is no such directory.
        """
        checkPlot()
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise NotADirectoryError(f"there is no directory for {path}")
        self._path = path
        self._samples: dict[Flow, Samples] = {}

    def event(self, prober: Prober, flow: Flow, event: Event) -> None:
        """Note what became of a probe."""
        time = flow.timeOf(event)
        if time is None or event.sequence is None:
            return
        samples = self._samples.get(flow)
        if samples is None:
            samples = self._samples[flow] = Samples()
        samples.add(event.outcome, event.sequence, time - prober.startedAt, event.roundTrip)

    def draw(self, flows: Sequence[Flow], nameOf: Callable[[Flow], str]) -> None:
        """
        Draw it.

        @raise OSError: if it cannot be written.
        """
        plot(self._path, [Drawn(nameOf(flow), self._samples.get(flow, Samples()), flow.statistics) for flow in flows])


class View:
    """The view, drawn again and again while the reactor runs."""

    def __init__(self, reactor: Any, monotonic: Callable[[], int], view: LiveView) -> None:
        """
        @param reactor: what calls to draw again.
        @param monotonic: tells the time in ns.
        @param view: what is drawn.
        """
        self._reactor = reactor
        self._monotonic = monotonic
        self._view = view
        self._call: IDelayedCall | None = None

    @classmethod
    def of(cls, reactor: Any, prober: Prober, nameOf: Callable[[Flow], str], count: int | None, duration: float | None) -> View:
        """
        The view of a prober that has started.

        @param reactor: what calls to draw again.
        @param prober: what probes.
        @param nameOf: what a flow is called.
        @param count: how many probes each flow has, if that is limited.
        @param duration: for how many seconds they are sent, if that is limited.

        @raise LiveUnavailable: if C{rich} is missing.
        """
        watched = [Watched(nameOf(flow), flow.statistics) for flow in prober.flows]
        live = LiveView(watched, prober.startedAt / _second, count=count, duration=duration)
        return cls(reactor, prober.clocks.monotonic, live)

    def start(self) -> None:
        """Draw it, and go on."""
        self._view.update(self._monotonic() / _second)
        self._call = self._reactor.callLater(PAUSE, self.start)

    def hide(self) -> None:
        """Take it away until it is drawn again, so that there is room for lines."""
        self._view.stop()

    def stop(self) -> None:
        """Take it away for good."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self._view.stop()


def canBeLive() -> bool:
    """
    Whether there is a terminal for the view: standard error.

    @raise LiveUnavailable: if C{rich} is missing.
    """
    return sys.stderr is not None and LiveView((), 0.0).active
