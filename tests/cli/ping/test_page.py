"""Tests of C{docs/ping.rst}: the page and the report agree."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.source import ROOT
from udpecho.cli.ping.command import addPing
from udpecho.cli.ping.text import percent
from udpecho.cli.ping.thresholds import RTT_FIGURES
from udpecho.probe.outcomes import TIMESTAMP_SOURCES, Outcome
from udpecho.probe.records import csvHeader, schema
from udpecho.probe.stats.distribution import QUANTILES, leastCount, wilson
from udpecho.probe.stats.summary import Statistics

PAGE = ROOT / "docs" / "ping.rst"


def kind(field: dict[str, Any]) -> str:
    """What values a field has, in words."""
    if "enum" in field:
        return "text"
    types = field["type"] if isinstance(field["type"], list) else [field["type"]]
    names = {"string": "text", "array": "list", "integer": "whole number"}
    return " or ".join(names[each] if each in names else str(each) for each in types)


def fields(part: dict[str, Any], above: str = "") -> Iterator[tuple[str, str, str]]:
    """The name, kind and meaning of all fields of an object, and of objects in it except the schedule deviation."""
    for name, field in part["properties"].items():
        yield above + name, kind(field), field["description"]
        if "properties" in field and name != "schedule_deviation":
            yield from fields(field, f"{above}{name}.")


def table(name: str) -> str:
    """The table of an object's fields, as it is to be on the page."""
    rows = [("Field", "Value", "Meaning")]
    for field, values, meaning in fields(schema()["$defs"][name]):
        more = " The fields are those of ``rtt``." if (name, field) == ("target", "schedule_deviation") else ""
        rows.append((f"``{field}``", values, meaning + more))
    head = f".. fields of {name}\n\n.. list-table::\n   :header-rows: 1\n   :widths: 22 14 64\n\n"
    return head + "".join(f"   * - {first}\n     - {second}\n     - {third}\n" for first, second, third in rows)


def options() -> Iterator[str]:
    """The options of the command, as they are to be on the page."""
    commands = argparse.ArgumentParser().add_subparsers()
    addPing(commands)
    for action in commands.choices["ping"]._actions:
        if action.option_strings and action.dest != "help":
            value = f" {action.metavar}" if action.metavar else ""
            yield ", ".join(f"``{name}``" for name in action.option_strings).removesuffix("``") + f"{value}``"


class PageTests:
    """The page."""

    text = PAGE.read_text()

    def test_options(self) -> None:
        """It has each option of C{udpecho ping}, with its short name and its value, and no other."""
        _, _, rest = self.text.partition("\nOptions\n-------\n")
        section, _, _ = rest.partition("\nOutcomes\n---")
        described = re.findall(r"^``-.*``$", section, re.MULTILINE)
        assert sorted(described) == sorted(options())

    def test_examples(self) -> None:
        """Each command that it shows is one that the command line takes."""
        parser = argparse.ArgumentParser()
        addPing(parser.add_subparsers())
        commands = re.findall(r"^   \$ udpecho (ping .*?)(?: [|>] .*)?$", self.text, re.MULTILINE)
        assert len(commands) > 3
        for command in commands:
            assert parser.parse_args(shlex.split(command)).targets

    @pytest.mark.parametrize("name", ["target", "probe"])
    def test_fields(self, name: str) -> None:
        """Its tables have every field of the JSON Schema, with its meaning there, and no other."""
        _, _, rest = self.text.partition(f".. fields of {name}\n")
        there = re.match(r"(\n|   .*\n|\.\. list-table::\n)*", rest)
        assert there is not None
        assert f".. fields of {name}\n{there[0]}".strip() == table(name).strip()

    def test_scheduleDeviation(self) -> None:
        """The fields of the schedule deviation are those of C{rtt}."""
        properties = schema()["$defs"]["target"]["properties"]
        assert list(properties["schedule_deviation"]["properties"]) == list(properties["rtt"]["properties"])

    def test_columns(self) -> None:
        """The fields of a line are the columns of the CSV."""
        assert [name for name, _, _ in fields(schema()["$defs"]["probe"])] == csvHeader().split(",")

    def test_outcomes(self) -> None:
        """It has each outcome, and no other."""
        _, _, rest = self.text.partition("Outcomes\n---")
        section, _, _ = rest.partition("\nStatistics\n---")
        described = re.findall(r"^   \* - ``(\w+)``$", section, re.MULTILINE)
        assert set(described) == {each.value for each in Outcome}
        assert len(described) == len(Outcome)
        ofProbes, _, _ = section.partition("Other datagrams")
        assert set(re.findall(r"^   \* - ``(\w+)``$", ofProbes, re.MULTILINE)) == set(Statistics().asDict()["outcomes"])

    def test_figures(self) -> None:
        """It names each figure that may have a limit, and how many replies percentiles need."""
        _, _, rest = self.text.partition("Figures are ")
        sentence, _, _ = rest.partition(". A figure")
        assert tuple(re.findall(r"``([a-z0-9.]+)``", sentence)) == RTT_FIGURES
        _, _, rest = self.text.partition("``1 - q**n >= 0.95``: ")
        sentence, _, _ = rest.partition(".\n")
        least = {name.replace("_", "."): str(leastCount(q)) for name, q in QUANTILES.items()}
        assert dict(re.findall(r"(p[0-9.]+) of\s+([0-9]+)", sentence)) == least

    def test_sources(self) -> None:
        """It names each source of timestamps."""
        _, _, rest = self.text.partition("``timestamp_source`` in the JSON document")
        sentence, _, _ = rest.partition("the other.")
        assert tuple(re.findall(r"``(\w+)``", sentence)) == TIMESTAMP_SOURCES

    def test_interval(self) -> None:
        """Its example of an interval is right."""
        share = wilson(0, 30)
        assert share is not None
        assert f"Nothing lost of 30 is not 0 %, it is less than {percent(share.high)[:-1]} %." in self.text
