"""Records of flows and events: JSON, NDJSON and CSV, with all times in seconds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from udpecho.probe.flow import Flow
from udpecho.probe.outcomes import Event, Outcome

#: The version of the JSON document. It changes when a field is removed or changes its meaning, not when one is added.
SCHEMA_VERSION = 1


def eventFields(event: Event) -> dict[str, Any]:
    """An event as C{report.schema.json} describes it (C{$defs/probe})."""
    return {
        "target": event.target,
        "peer": event.peer,
        "seq": event.sequence,
        "outcome": event.outcome.value,
        "size": event.size,
        "rtt": event.roundTrip,
        "reordered": event.reordered,
        "schedule_deviation": event.scheduleDeviation,
        "sent_at": event.sentAt,
        "detail": event.detail,
        "source": event.source,
    }


#: The columns of the CSV: the fields of L{eventFields}.
CSV_COLUMNS = tuple(eventFields(Event("", "", Outcome.ANSWERED, 0, 0)))


def csvHeader() -> str:
    """The header of the CSV (RFC 4180), without the end of the line."""
    return _csv(CSV_COLUMNS)


def csvRow(event: Event) -> str:
    """An event as a row of CSV, without the end of the line: empty cells for what is not known, C{true} and C{false}, times
    with nine decimals.
    """
    return _csv([_cell(value) for value in eventFields(event).values()])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9f}"
    return "" if value is None else str(value)


def _csv(cells: Sequence[str]) -> str:
    text = io.StringIO()
    # With the RFC's line terminator the writer quotes cells that contain one.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def ndjsonLine(event: Event) -> str:
    """An event as one line of JSON, without the end of the line."""
    return json.dumps(eventFields(event), allow_nan=False)


def flowReport(flow: Flow) -> dict[str, Any]:
    """A flow as C{report.schema.json} describes it (C{$defs/target})."""
    return {
        "target": flow.target.name,
        "peer": str(flow.target.address),
        "source": str(flow.source),
        "sizes": flow.sizes,
        "elapsed": flow.elapsed,
        "timestamp_source": flow.timestampSource,
        **flow.statistics.asDict(),
    }


def document(flows: Iterable[Flow]) -> dict[str, Any]:
    """Flows as one JSON document, as C{report.schema.json} describes it."""
    return {"schema": SCHEMA_VERSION, "targets": [flowReport(flow) for flow in flows]}


def schema() -> dict[str, Any]:
    """The JSON Schema of the document, with the meaning of each field."""
    found: dict[str, Any] = json.loads((files("udpecho.probe") / "report.schema.json").read_text("utf-8"))
    return found
