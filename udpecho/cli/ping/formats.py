"""The formats that C{udpecho ping} writes."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Protocol

from udpecho.cli.console import Printer
from udpecho.cli.ping import text
from udpecho.probe import outcomes, records
from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Outcome


class Output(Protocol):
    """Shows what happens."""

    def begin(self, flows: Sequence[Flow]) -> object:
        """It begins."""

    def event(self, flow: Flow, event: outcomes.Event) -> object:
        """Something happened."""

    def end(self, flows: Sequence[Flow]) -> object:
        """It is over."""


def _nameOf(flow: Flow, flows: Sequence[Flow]) -> str:
    """What a flow is called: its target, and its source if the target has several."""
    alone = sum(other.target is flow.target for other in flows) == 1
    return flow.target.name if alone else f"{flow.target.name} from {flow.source}"


def summaries(flows: Sequence[Flow]) -> str:
    """The summary of each flow."""
    return "\n\n".join(
        text.summary(_nameOf(flow, flows), flow.statistics, flow.elapsed, flow.timestampSource) for flow in flows
    )


class _Lines:
    """As ping prints them."""

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        for flow in {flow.target: flow for flow in flows}.values():
            self._line(text.headLine(flow.target.name, str(flow.target.address), *flow.sizes))

    def event(self, flow: Flow, event: outcomes.Event) -> None:
        self._line(text.probeLine(event))

    def end(self, flows: Sequence[Flow]) -> None:
        self._line(f"\n{summaries(flows)}")


class _Quiet(_Lines):
    """Without the lines."""

    event = None  # type: ignore[assignment]


class _Document:
    """One JSON document."""

    event = None

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        pass

    def end(self, flows: Sequence[Flow]) -> None:
        document = records.document(flow.report() for flow in flows)
        self._line(json.dumps(document, indent=2, allow_nan=False))


class _JSONLines:
    """An object for each event."""

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line

    def begin(self, flows: Sequence[Flow]) -> None:
        pass

    def event(self, flow: Flow, event: outcomes.Event) -> None:
        self._line(records.ndjsonLine(event))

    def end(self, flows: Sequence[Flow]) -> None:
        pass


class _Rows(_JSONLines):
    """A row for each event."""

    def begin(self, flows: Sequence[Flow]) -> None:
        self._line(records.csvHeader())

    def event(self, flow: Flow, event: outcomes.Event) -> None:
        self._line(records.csvRow(event))


class _FpingLines:
    """As C{fping -C}. All round trips are kept, at 8 bytes each."""

    def __init__(self, printer: Printer) -> None:
        self._line = printer.line
        self._times: dict[Flow, array[int]] = {}

    def begin(self, flows: Sequence[Flow]) -> None:
        self._times = {flow: array("q") for flow in flows}

    def event(self, flow: Flow, event: outcomes.Event) -> None:
        times = self._times[flow]
        if event.sequence is not None and event.roundTrip is not None and event.outcome is not Outcome.DUPLICATE:
            self._reach(times, event.sequence + 1)
            times[event.sequence] = event.roundTrip

    def end(self, flows: Sequence[Flow]) -> None:
        for flow, times in self._times.items():
            self._reach(times, flow.statistics.scheduled)
            self._line(text.fpingLine(_nameOf(flow, flows), (None if time < 0 else time for time in times)))

    def _reach(self, times: array[int], count: int) -> None:
        times.extend([-1] * (count - len(times)))
