"""Tests of L{udpecho.probe.records}: JSON, NDJSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.probes import LATENCY, World
from tests.support.records import PEER, TARGET, event, everyOutcome
from tests.support.source import loadedBy
from udpecho.addresses import DatagramAddress
from udpecho.probe import outcomes, records
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.schedule import Plan
from udpecho.probe.stats.summary import Statistics
from udpecho.probe.target import Target

jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")


def check(value: Any, name: str | None = None) -> None:
    """Check a value against the schema, or against one of its definitions."""
    schema = records.schema()
    if name is not None:
        schema = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def flow(statistics: Statistics, source: str = "kernel") -> Any:
    """A flow as far as a report reads it."""
    target = Target("localhost:7", DatagramAddress(("127.0.0.1", 7)))
    local = DatagramAddress(("127.0.0.1", 40000))
    return SimpleNamespace(
        target=target, statistics=statistics, timestampSource=source, source=local, sizes=[64, 128], elapsed=1.5
    )


def described(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All fields of a schema, with their paths."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}/{name}", field
        yield from described(field, f"{path}/{name}")
    for name, definition in schema.get("$defs", {}).items():
        yield from described(definition, f"{path}/{name}")


events = st.builds(
    Event,
    target=st.text(),
    peer=st.text(),
    outcome=st.sampled_from(Outcome),
    sequence=st.none() | st.integers(0, 1 << 64),
    size=st.integers(0, 65527),
    roundTrip=st.none() | st.floats(0, 1e9),
    reordered=st.booleans(),
    scheduleDeviation=st.none() | st.floats(-1000, 1000),
    sentAt=st.none() | st.floats(0, 1e11),
    detail=st.none() | st.text(),
)


class DocumentTests:
    """The JSON document and its schema."""

    def test_schema(self) -> None:
        """The schema is valid, and describes every field."""
        schema = records.schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        fields = dict(described(schema))
        assert len(fields) > 70
        assert [path for path, field in fields.items() if len(field.get("description", "")) < 5] == []

    def test_strict(self) -> None:
        """Each field of an object is required, and no other is allowed."""
        schema = records.schema()
        objects = [schema, *schema["$defs"].values()]
        objects += [field for _, field in described(schema) if field.get("type") == "object"]
        for each in objects:
            assert each["additionalProperties"] is False
            assert each["required"] == list(each["properties"])

    @pytest.mark.parametrize("statistics", [everyOutcome(), Statistics()], ids=["much", "none"])
    @pytest.mark.parametrize("source", outcomes.TIMESTAMP_SOURCES)
    def test_valid(self, statistics: Statistics, source: str) -> None:
        """The document is valid with much data and with none, and strict JSON."""
        document = records.document([flow(statistics, source)])
        check(document)
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        (target,) = document.pop("targets")
        assert document == {"schema": 1}
        assert {name: target[name] for name in ("target", "peer", "source", "sizes", "elapsed", "timestamp_source")} == {
            "target": "localhost:7",
            "peer": "127.0.0.1:7",
            "source": "127.0.0.1:40000",
            "sizes": [64, 128],
            "elapsed": 1.5,
            "timestamp_source": source,
        }

    def test_run(self) -> None:
        """The report of a flow that has run is valid, with times in seconds."""
        world = World()
        found = records.flowReport(world.run(Plan(count=3, interval=0.5)))
        check(found, "target")
        assert (found["sent"], found["received"]) == (3, 3)
        assert found["elapsed"] == pytest.approx(1 + 2 * LATENCY)
        assert found["rtt"]["median"] == pytest.approx(2 * LATENCY, rel=1 / 1024)
        check(records.eventFields(world.events[0]), "probe")

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("rtt", "p99"), -1.0),
            (("rtt", "median"), "1"),
            (("sent",), None),
            (("loss", "high"), 1.5),
            (("timestamp_source",), "guess"),
            (("more",), 1),
            (("outcomes", "more"), 1),
        ],
    )
    def test_invalid(self, path: tuple[str, ...], value: Any) -> None:
        """The schema refuses wrong values and fields."""
        document = records.document([flow(everyOutcome())])
        inner = document["targets"][0]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(document)

    def test_sums(self) -> None:
        """The sums that the schema documents hold."""
        found = records.flowReport(flow(everyOutcome()))
        outcomes = found["outcomes"]
        assert found["scheduled"] == found["sent"] + outcomes["not_sent"]
        assert found["sent"] == sum(outcomes.values()) - outcomes["not_sent"]
        assert found["received"] == outcomes["answered"] + outcomes["late"]
        assert (found["lost"], found["late"]) == (outcomes["lost"], outcomes["late"])
        assert found["loss"]["ratio"] == found["lost"] / (found["lost"] + found["received"] + outcomes["lost_own"])

    def test_outcomes(self) -> None:
        """The schema has every outcome."""
        schema = records.schema()["$defs"]
        assert set(schema["probe"]["properties"]["outcome"]["enum"]) == {outcome.value for outcome in Outcome}
        assert schema["target"]["properties"]["timestamp_source"]["enum"] == list(outcomes.TIMESTAMP_SOURCES)


class RowTests:
    """A line and a row for each event."""

    @given(events)
    def test_ndjson(self, what: Event) -> None:
        """An event is one line, and valid."""
        line = records.ndjsonLine(what)
        assert "\n" not in line
        fields = json.loads(line)
        check(fields, "probe")
        assert fields["outcome"] == what.outcome.value
        assert (fields["rtt"] is None) == (what.roundTrip is None)

    @given(events)
    def test_csv(self, what: Event) -> None:
        """A row can be read back with the columns of the header, with any characters in it."""
        reader = csv.DictReader(io.StringIO(f"{records.csvHeader()}\r\n{records.csvRow(what)}\r\n", newline=""))
        (row,) = reader
        assert tuple(reader.fieldnames or ()) == records.CSV_COLUMNS
        assert row["target"] == what.target
        assert row["seq"] == ("" if what.sequence is None else str(what.sequence))
        assert row["outcome"] == what.outcome.value

    def test_values(self) -> None:
        """Times are in seconds in both, and unknown values are empty or null."""
        what = event(Outcome.ANSWERED, roundTrip=0.000052, scheduleDeviation=-0.0000015, sentAt=1.5)
        assert json.loads(records.ndjsonLine(what)) == {
            "target": TARGET,
            "peer": PEER,
            "seq": 3,
            "outcome": "answered",
            "size": 64,
            "rtt": 0.000052,
            "reordered": False,
            "schedule_deviation": -0.0000015,
            "sent_at": 1.5,
            "detail": None,
            "source": None,
        }
        assert records.csvHeader() == "target,peer,seq,outcome,size,rtt,reordered,schedule_deviation,sent_at,detail,source"
        assert records.csvRow(what) == "localhost:7,127.0.0.1:7,3,answered,64,0.000052000,false,-0.000001500,1.500000000,,"
        assert records.csvRow(event(Outcome.LOST)) == "localhost:7,127.0.0.1:7,3,lost,64,,false,,,,"


class ImportTests:
    """Imports."""

    def test_noReactor(self) -> None:
        """Importing records and statistics installs no reactor."""
        modules = (
            *("outcomes", "packet", "records"),
            *("stats.distribution", "stats.histogram", "stats.jitter", "stats.summary", "stats.window"),
        )
        loaded = loadedBy(f"import {', '.join(f'udpecho.probe.{name}' for name in modules)}")
        assert set(modules) <= {name.removeprefix("udpecho.probe.") for name in loaded}
        assert not {"twisted.internet.reactor", "twisted.internet.udp"} & loaded
