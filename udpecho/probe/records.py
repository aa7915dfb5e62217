"""Records of a run: JSON, NDJSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from udpecho.probe.outcomes import TIMESTAMP_SOURCES, Event, Outcome
from udpecho.probe.stats.distribution import seconds
from udpecho.probe.stats.summary import Statistics

#: The version of the JSON document; it changes when a field goes or changes its meaning, not when one comes.
SCHEMA_VERSION = 1

_clockNames = {
    "kernel": "the kernel's stamps",
    "monotonic": "the monotonic clock",
    "mixed": "the kernel's stamps, some by the monotonic clock",
}


# As ping prints it


def milliseconds(nanoseconds: float) -> str:
    """A time in milliseconds with three digits or three decimals, as C{ping} of iputils prints it."""
    value = nanoseconds / 1e6
    for limit, decimals in ((1, 3), (10, 2), (100, 1)):
        if round(value, decimals) < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


# For programs


def eventFields(event: Event) -> dict[str, Any]:
    """An event as C{report.schema.json} describes it (C{$defs/probe}), with times in seconds."""
    return {
        "target": event.target,
        "peer": event.peer,
        "seq": event.sequence,
        "outcome": event.outcome.value,
        "size": event.size,
        "rtt": seconds(event.roundTrip),
        "reordered": event.reordered,
        "send_error": seconds(event.sendError),
        "sent_at": event.sentAt,
        "detail": event.detail,
        "source": event.source,
    }


#: The columns of the CSV: the fields of L{eventFields}.
CSV_COLUMNS = tuple(eventFields(Event("", "", Outcome.ANSWERED, 0, 0)))


def csvHeader() -> str:
    """The first row (RFC 4180)."""
    return _csv(CSV_COLUMNS)


def csvRow(event: Event) -> str:
    """A row: nothing where there is nothing to tell, C{true} and C{false}, times in seconds with nine decimals."""
    return _csv([_cell(value) for value in eventFields(event).values()])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9f}"
    return "" if value is None else str(value)


def _csv(cells: Sequence[str]) -> str:
    text = io.StringIO()
    # With the end of a line that the RFC has, so that what looks like one within a cell is quoted.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def ndjsonLine(event: Event) -> str:
    """An event as one line of JSON."""
    return json.dumps(eventFields(event), allow_nan=False)


def targetReport(
    target: str,
    statistics: Statistics,
    timestampSource: str,
    *,
    peer: str | None = None,
    source: str | None = None,
    sizes: Sequence[int] = (),
    elapsed: float | None = None,
) -> dict[str, Any]:
    """
    The part of the JSON document for one target.

    @param target: as the user wrote it.
    @param timestampSource: one of L{TIMESTAMP_SOURCES}.
    @param peer: the address that was sent to.
    @param source: the local address that was sent from.
    @param sizes: which sizes in bytes the probes had.
    @param elapsed: the seconds since the first probe.

    @raise ValueError: if times do not come from there.
    """
    if timestampSource not in TIMESTAMP_SOURCES:
        raise ValueError(f"{timestampSource!r} is not where times come from: one of {', '.join(TIMESTAMP_SOURCES)} is")
    return {
        "target": target,
        "peer": peer,
        "source": source,
        "sizes": list(sizes),
        "elapsed": elapsed,
        "timestamp_source": timestampSource,
        **statistics.asDict(),
    }


def document(targets: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """
    The JSON document.

    @param targets: of each what L{targetReport} returns.
    """
    return {"schema": SCHEMA_VERSION, "targets": list(targets)}


def schema() -> dict[str, Any]:
    """The JSON Schema of the document, which says what each field means."""
    found: dict[str, Any] = json.loads((files("udpecho.probe") / "report.schema.json").read_text("utf-8"))
    return found
