"""Tests of L{udpecho.cli.ping.text}: what people read, and what programs do."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.processes import tool
from tests.support.source import loadedBy
from udpecho.cli.ping import text
from udpecho.probe import outcomes, records
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.stats.summary import Statistics

jsonschema: Any = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")

MS = 1_000_000
TARGET, PEER = "localhost:7", "127.0.0.1:7"


def event(outcome: Outcome, **more: Any) -> Event:
    """What became of probe 3."""
    values = {"target": TARGET, "peer": PEER, "outcome": outcome, "sequence": 3, "size": 64}
    return Event(**{**values, **more})


def some() -> Statistics:
    """Statistics of 100 probes, of each fate one or more."""
    told = Statistics(1000 * MS)
    for sequence in range(100):
        told.probeSent(sequence, 5000 + sequence)
        if sequence in (20, 21, 22):
            told.timedOut(sequence)
        elif sequence == 30:
            told.refused(sequence)
        elif sequence == 31:
            told.unreachable(sequence)
        elif sequence != 40:
            told.replyReceived(sequence, 2000 * MS if sequence == 50 else MS)
    told.replyReceived(40, MS)
    told.probeNotSent(100)
    told.probeSent(101, 0)
    told.replyReceived(7, MS)
    told.ownDrops(1)
    for outcome in (Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN, Outcome.UNMATCHED):
        told.datagramReceived(outcome)
    return told


class LineTests:
    """Lines for people."""

    @pytest.mark.parametrize(
        ("what", "line"),
        [
            (event(Outcome.ANSWERED, roundTrip=52_000), "64 bytes from 127.0.0.1:7: seq=3 time=0.052 ms"),
            (event(Outcome.ANSWERED, roundTrip=52_000, size=1), "1 byte from 127.0.0.1:7: seq=3 time=0.052 ms"),
            (
                event(Outcome.ANSWERED, roundTrip=MS, reordered=True),
                "64 bytes from 127.0.0.1:7: seq=3 time=1.00 ms (reordered)",
            ),
            (event(Outcome.LATE, roundTrip=1500 * MS), "64 bytes from 127.0.0.1:7: seq=3 time=1500 ms (late)"),
            (event(Outcome.DUPLICATE, roundTrip=MS), "64 bytes from 127.0.0.1:7: seq=3 time=1.00 ms (DUP!)"),
            (event(Outcome.CORRUPT, sequence=None), "64 bytes from 127.0.0.1:7: corrupted"),
            (event(Outcome.CUT, sequence=None, size=20), "20 bytes from 127.0.0.1:7: the beginning of a reply only"),
            (event(Outcome.LONGER, sequence=None, size=65), "65 bytes from 127.0.0.1:7: a reply with something behind it"),
            (event(Outcome.FOREIGN, sequence=None, size=5), "5 bytes from 127.0.0.1:7: not a reply to this session"),
            (event(Outcome.UNMATCHED), "64 bytes from 127.0.0.1:7: seq=3 a reply to a probe long past"),
            (event(Outcome.LOST), "127.0.0.1:7: seq=3 no reply"),
            (event(Outcome.LOST_OWN), "127.0.0.1:7: seq=3 lost in our own receive queue"),
            (event(Outcome.REFUSED), "127.0.0.1:7: seq=3 refused, nothing listens on that port"),
            (event(Outcome.UNREACHABLE, detail="No route to host"), "127.0.0.1:7: seq=3 cannot be reached: No route to host"),
            (event(Outcome.NOT_SENT, detail="No buffer space"), "127.0.0.1:7: seq=3 not sent: No buffer space"),
            (event(Outcome.OUTSTANDING), "127.0.0.1:7: seq=3 is under way"),
        ],
    )
    def test_line(self, what: Event, line: str) -> None:
        """Each outcome has its own line."""
        assert text.probeLine(what) == line

    def test_everyOutcome(self) -> None:
        """No outcome is without one, and no two read the same."""
        assert len({text.probeLine(event(outcome)) for outcome in Outcome}) == len(Outcome)

    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [
            (0, "0.000"),
            (52_400, "0.052"),
            (999_499, "0.999"),
            (999_600, "1.00"),
            (9_994_000, "9.99"),
            (9_996_000, "10.0"),
            (99_940_000, "99.9"),
            (99_960_000, "100"),
            (12_345_678_901, "12346"),
        ],
    )
    def test_milliseconds(self, nanoseconds: int, text: str) -> None:
        """Times have the digits that ping gives them."""
        assert records.milliseconds(nanoseconds) == text

    def test_head(self) -> None:
        """The first line has the address that the name stands for, if it is another."""
        assert text.headLine(TARGET, PEER, 64) == "PING localhost:7 (127.0.0.1:7) 64 bytes of data"
        assert text.headLine(PEER, PEER, 1) == "PING 127.0.0.1:7 1 byte of data"


class SummaryTests:
    """The lines at the end."""

    def test_whole(self) -> None:
        """All of it, with everything that can happen."""
        assert text.summary(TARGET, some(), 10.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "101 probes sent, 95 received, +1 duplicates, +1 corrupt, +1 cut, +1 longer, +1 foreign, +1 unmatched, "
            "+1 reordered, +1 late, 2.04% loss, time 10000ms",
            "without a reply: 2 lost on the way, 1 lost in our own receive queue, 1 refused, 1 unreachable, 1 not sent, "
            "1 under way",
            "loss between 0.561% and 7.14% (95 %), longest run 3",
            "rtt min/avg/max/stddev = 1.000/22.042/2000.000/205.093 ms",
            "rtt p50/p90/p95/p99/p99.9/max = 1.000/1.000/1.000/-/-/2000.000 ms",
            "jitter 10.245 ms, ipdv mean/max = 43.457/1999.000 ms, p95-p50 0.000 ms",
            "send error p50/p90/p95/p99/p99.9/max = 0.005/0.005/0.005/-/-/0.005 ms",
        ]

    def test_clean(self) -> None:
        """Where nothing is wrong, nothing of that is said."""
        told = Statistics()
        for sequence in range(2):
            told.probeSent(sequence, 1000)
            told.replyReceived(sequence, MS + sequence * MS)
        assert text.summary(TARGET, told, 1.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "2 probes sent, 2 received, 0% loss, time 1000ms",
            "loss between 0% and 65.8% (95 %)",
            "rtt min/avg/max/stddev = 1.000/1.500/2.000/0.707 ms",
            "rtt p50/p90/p95/p99/p99.9/max = 1.500/-/-/-/-/2.000 ms",
            "jitter 0.062 ms, ipdv mean/max = 1.000/1.000 ms, p95-p50 - ms",
            "send error p50/p90/p95/p99/p99.9/max = 0.001/-/-/-/-/0.001 ms",
        ]

    def test_nothing(self) -> None:
        """Before the first probe there is a summary too."""
        assert text.summary(TARGET, Statistics(), 0.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "0 probes sent, 0 received, no loss known, time 0ms",
        ]

    def test_refused(self) -> None:
        """A port where nothing listens does not read as loss."""
        told = Statistics()
        told.probeSent(0)
        told.refused(0)
        lines = text.summary(TARGET, told, 0.0).splitlines()
        assert lines[1:3] == ["1 probes sent, 0 received, no loss known, time 0ms", "without a reply: 1 refused"]

    @pytest.mark.parametrize(
        ("sent", "lost", "shown"),
        [(30_000, 1, "0.00333% loss"), (200_000, 1, "<0.001% loss"), (1000, 999, "99.9% loss"), (5000, 4999, ">99.9% loss")],
    )
    def test_almost(self, sent: int, lost: int, shown: str) -> None:
        """What is not quite none, or not quite all, does not read as none or all."""
        told = Statistics()
        for sequence in range(sent):
            told.probeSent(sequence)
            if sequence < lost:
                told.timedOut(sequence)
            else:
                told.replyReceived(sequence, MS)
        assert shown in text.summary(TARGET, told, 0.0)


class FpingTests:
    """The line that C{fping -C} has."""

    def test_line(self) -> None:
        """Times have three digits, a lost one is a dash."""
        times = [52_000, None, 1_234_567, 12_345_678, 123_456_789]
        assert text.fpingLine(PEER, times) == "127.0.0.1:7 : 0.052 - 1.23 12.3 123"

    def test_real(self) -> None:
        """The line has the form of fping's own."""
        command = [tool("fping"), "-q", "-C", "3", "-p", "20", "127.0.0.1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        line = done.stderr.strip()
        if done.returncode or " : " not in line:
            pytest.skip("fping may not send here")
        times = [None if each == "-" else round(float(each) * MS) for each in line.partition(" : ")[2].split()]
        assert text.fpingLine("127.0.0.1", times) == line


# For programs


def check(value: Any, name: str | None = None) -> None:
    """Check a value against the schema, or against one of its definitions."""
    schema = records.schema()
    if name is not None:
        schema = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def described(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All fields that a schema has, with their paths."""
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
    roundTrip=st.none() | st.integers(0, 1 << 62),
    reordered=st.booleans(),
    sendError=st.none() | st.integers(-(1 << 40), 1 << 40),
    sentAt=st.none() | st.floats(0, 1e11),
    detail=st.none() | st.text(),
)


class DocumentTests:
    """The JSON document and its schema."""

    def test_schema(self) -> None:
        """The schema is one, and says of every field what it means."""
        schema = records.schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        fields = dict(described(schema))
        assert len(fields) > 70
        assert [path for path, field in fields.items() if len(field.get("description", "")) < 5] == []

    def test_strict(self) -> None:
        """It is strict: each field of an object must be there, and no other may be."""
        schema = records.schema()
        objects = [schema, *schema["$defs"].values()]
        objects += [field for _, field in described(schema) if field.get("type") == "object"]
        for each in objects:
            assert each["additionalProperties"] is False
            assert each["required"] == list(each["properties"])

    @pytest.mark.parametrize("told", [some(), Statistics()], ids=["some", "none"])
    @pytest.mark.parametrize("source", outcomes.TIMESTAMP_SOURCES)
    def test_valid(self, told: Statistics, source: str) -> None:
        """What is written is what the schema describes, with much data and with none, as strict JSON."""
        full = records.targetReport(TARGET, told, source, peer=PEER, source="127.0.0.1:40000", sizes=[64, 128], elapsed=1.5)
        document = records.document([full, records.targetReport(TARGET, told, source)])
        check(document)
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["schema"] == 1
        assert [each["timestamp_source"] for each in document["targets"]] == [source] * 2

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
        """The schema sees what is wrong."""
        target = records.targetReport(TARGET, some(), "kernel")
        inner = target
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(records.document([target]))

    def test_sums(self) -> None:
        """The sums that the schema promises hold in the document."""
        found = records.targetReport(TARGET, some(), "kernel")
        outcomes = found["outcomes"]
        assert found["scheduled"] == found["sent"] + outcomes["not_sent"]
        assert found["sent"] == sum(outcomes.values()) - outcomes["not_sent"]
        assert found["received"] == outcomes["answered"] + outcomes["late"]
        assert (found["lost"], found["late"]) == (outcomes["lost"], outcomes["late"])
        assert found["loss"]["ratio"] == found["lost"] / (found["lost"] + found["received"] + outcomes["lost_own"])

    def test_outcomes(self) -> None:
        """The schema knows every outcome."""
        schema = records.schema()["$defs"]
        assert set(schema["probe"]["properties"]["outcome"]["enum"]) == {outcome.value for outcome in Outcome}
        assert schema["target"]["properties"]["timestamp_source"]["enum"] == list(outcomes.TIMESTAMP_SOURCES)

    def test_badSource(self) -> None:
        """Where times come from is one of three."""
        with pytest.raises(ValueError, match="'sundial' is not where times come from: one of kernel, monotonic, mixed is"):
            records.targetReport(TARGET, Statistics(), "sundial")


class RowTests:
    """A line and a row for each event."""

    @given(events)
    def test_ndjson(self, what: Event) -> None:
        """A line is one line, and what the schema describes."""
        line = records.ndjsonLine(what)
        assert "\n" not in line
        fields = json.loads(line)
        check(fields, "probe")
        assert fields["outcome"] == what.outcome.value
        assert (fields["rtt"] is None) == (what.roundTrip is None)

    @given(events)
    def test_csv(self, what: Event) -> None:
        """A row is read again with the columns of the header, whatever characters are in it."""
        reader = csv.DictReader(io.StringIO(f"{records.csvHeader()}\r\n{records.csvRow(what)}\r\n", newline=""))
        (row,) = reader
        assert tuple(reader.fieldnames or ()) == records.CSV_COLUMNS
        assert row["target"] == what.target
        assert row["seq"] == ("" if what.sequence is None else str(what.sequence))
        assert row["outcome"] == what.outcome.value

    def test_values(self) -> None:
        """Times are in seconds in both, and nothing stands for nothing."""
        what = event(Outcome.ANSWERED, roundTrip=52_000, sendError=-1500, sentAt=1.5)
        assert json.loads(records.ndjsonLine(what)) == {
            "target": TARGET,
            "peer": PEER,
            "seq": 3,
            "outcome": "answered",
            "size": 64,
            "rtt": 0.000052,
            "reordered": False,
            "send_error": -0.0000015,
            "sent_at": 1.5,
            "detail": None,
            "source": None,
        }
        assert records.csvHeader() == "target,peer,seq,outcome,size,rtt,reordered,send_error,sent_at,detail,source"
        assert records.csvRow(what) == "localhost:7,127.0.0.1:7,3,answered,64,0.000052000,false,-0.000001500,1.500000000,,"
        assert records.csvRow(event(Outcome.LOST)) == "localhost:7,127.0.0.1:7,3,lost,64,,false,,,,"


class ImportTests:
    """What the pure half loads."""

    def test_noReactor(self) -> None:
        """Importing all of it loads no reactor, and no socket of Twisted's."""
        modules = (
            *("outcomes", "packet", "records"),
            *("stats.distribution", "stats.histogram", "stats.jitter", "stats.summary", "stats.window"),
        )
        loaded = loadedBy(f"import {', '.join(f'udpecho.probe.{name}' for name in modules)}")
        assert set(modules) <= {name.removeprefix("udpecho.probe.") for name in loaded}
        assert not {"twisted.internet.reactor", "twisted.internet.udp"} & loaded
