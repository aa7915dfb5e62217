"""The output formats of C{udpecho ping}."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence

from udpecho.cli.console import Printer
from udpecho.cli.ping import text
from udpecho.probe import records
from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event, Outcome


def nameOf(flow: Flow, flows: Sequence[Flow]) -> str:
    """The name of a flow: its target, and its source if the target has several."""
    alone = sum(other.target.name == flow.target.name for other in flows) == 1
    return flow.target.name if alone else f"{flow.target.name} from {flow.source}"


def summaries(flows: Sequence[Flow]) -> str:
    """The summaries of all flows."""
    return "\n\n".join(text.summary(nameOf(flow, flows), flow.statistics, flow.elapsed, flow.timestampSource) for flow in flows)


class Output:
    """Prints nothing; subclasses print a format.

    @cvar wantsEvents: whether L{event} prints anything.
    """

    wantsEvents = True

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        """Probing begins."""

    def event(self, flow: Flow, event: Event) -> None:
        """A flow has an event."""

    def end(self, flows: Sequence[Flow]) -> None:
        """Probing has ended."""


class Lines(Output):
    """As ping prints them."""

    def begin(self, flows: Sequence[Flow]) -> None:
        """Print the header."""
        for flow in {flow.target: flow for flow in flows}.values():
            self._line(text.headLine(flow.target.name, str(flow.target.address), *flow.sizes))

    def event(self, flow: Flow, event: Event) -> None:
        """Print the event."""
        self._line(text.probeLine(event))

    def end(self, flows: Sequence[Flow]) -> None:
        """Print the results."""
        self._line(f"\n{summaries(flows)}")


class Quiet(Lines):
    """Without lines of events."""

    wantsEvents = False


class Document(Output):
    """One JSON document."""

    wantsEvents = False

    def end(self, flows: Sequence[Flow]) -> None:
        """Print the results."""
        self._line(json.dumps(records.document(flows), indent=2, allow_nan=False))


class JSONLines(Output):
    """A line of JSON for each event."""

    def event(self, flow: Flow, event: Event) -> None:
        """Print the event."""
        self._line(records.ndjsonLine(event))


class Rows(Output):
    """A row of CSV for each event."""

    def begin(self, flows: Sequence[Flow]) -> None:
        """Print the header."""
        self._line(records.csvHeader())

    def event(self, flow: Flow, event: Event) -> None:
        """Print the event."""
        self._line(records.csvRow(event))


class FpingLines(Output):
    """As C{fping -C}. All round trips are kept, at 8 bytes each."""

    def __init__(self, printer: Printer) -> None:
        super().__init__(printer)
        self._times: dict[Flow, array[float]] = {}

    def begin(self, flows: Sequence[Flow]) -> None:
        """Print the header."""
        self._times = {flow: array("d") for flow in flows}

    def event(self, flow: Flow, event: Event) -> None:
        """Keep the round trip."""
        times = self._times[flow]
        if event.sequence is not None and event.roundTrip is not None and event.outcome is not Outcome.DUPLICATE:
            self._extend(times, event.sequence + 1)
            times[event.sequence] = event.roundTrip

    def end(self, flows: Sequence[Flow]) -> None:
        """Print the results."""
        for flow, times in self._times.items():
            self._extend(times, flow.statistics.scheduled)
            self._line(text.fpingLine(nameOf(flow, flows), (None if time < 0 else time for time in times)))

    def _extend(self, times: array[float], count: int) -> None:
        times.extend([-1.0] * (count - len(times)))
