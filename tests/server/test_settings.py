"""Tests of L{udpecho.server.settings}: the one table of options."""

from __future__ import annotations

import json
from dataclasses import fields
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.documentation import optionTable
from tests.support.source import ROOT
from udpecho.daemon.server_tap import Options
from udpecho.guard.networks import PRIVATE
from udpecho.guard.policy import GuardPolicy
from udpecho.pieces import finish
from udpecho.server.settings import (
    OPTIONS,
    ServiceOptions,
    fromWorkerSettings,
    settingsFrom,
    toWorkerSettings,
)


def parsed(*arguments: str) -> tuple[ServiceOptions, GuardPolicy]:
    """The settings objects of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return settingsFrom(options)


class TableTests:
    """L{OPTIONS}."""

    @pytest.mark.parametrize("settings", [ServiceOptions, GuardPolicy])
    def test_fields(self, settings: type[Any]) -> None:
        """Each field of the settings objects has an option, and only one."""
        named = [option.field for option in OPTIONS.values() if option.owner is settings]
        assert sorted(named) == sorted(field.name for field in fields(settings))

    def test_defaults(self) -> None:
        """Without options the settings are the defaults of the settings objects."""
        assert parsed() == (ServiceOptions(), GuardPolicy())

    @pytest.mark.parametrize(
        ("arguments", "changed"),
        [
            ("--max-payload 1k", {"maxPayload": 1024}),
            ("--log-datagrams 7", {"logDatagrams": 7}),
            ("--log-datagrams all", {"logDatagrams": None}),
            ("--write-timeout 500ms", {"writeTimeout": 0.5}),
            ("--receive-buffer 4M", {"receiveBuffer": 4 * 2**20}),
            ("--no-offload", {"offload": False}),
            ("--workers 2", {"workers": 2}),
        ],
    )
    def test_service(self, arguments: str, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Each option of the service changes its own field."""
        monkeypatch.setattr("udpecho.daemon.server_tap.canShare", True)
        assert parsed(*arguments.split()) == (ServiceOptions(**changed), GuardPolicy())

    @pytest.mark.parametrize(
        ("arguments", "changed"),
        [
            ("--allow private --allow 192.0.2.0/24", {"allow": (*PRIVATE, ip_network("192.0.2.0/24"))}),
            ("--trust 2001:db8::1", {"trust": (ip_network("2001:db8::1"),)}),
            ("--rate 5", {"rate": 5}),
            ("--burst 6", {"burst": 6}),
            ("--max-rate 7", {"maxRate": 7}),
            ("--no-loop-guard", {"refuseLoops": False}),
            ("--dry-run", {"dryRun": True}),
        ],
    )
    def test_guard(self, arguments: str, changed: dict[str, Any]) -> None:
        """Each option of the guard changes its own field."""
        assert parsed(*arguments.split()) == (ServiceOptions(), GuardPolicy(**changed))

    def test_workers(self) -> None:
        """The workers get the whole settings objects, as JSON can carry them."""
        options = ServiceOptions(
            maxPayload=5, logDatagrams=None, writeTimeout=0.5, receiveBuffer=4096, offload=False, workers=3
        )
        policy = GuardPolicy(allow=PRIVATE, rate=7, refuseLoops=False)
        carried = json.loads(json.dumps(finish(toWorkerSettings(options, policy))))
        assert finish(fromWorkerSettings(carried)) == (options, policy)


class DocumentationTests:
    """The tables of options in the documentation are the one table."""

    @pytest.mark.parametrize(("path", "markup", "indent"), [("README.md", "markdown", ""), ("docs/server.rst", "rst", "   ")])
    def test_tables(self, path: str, markup: str, indent: str) -> None:
        """They have what L{optionTable} makes."""
        wanted = "\n".join(indent + line for line in optionTable(OPTIONS, markup))
        assert wanted in (ROOT / path).read_text(), f"the table of options in {path} must be:\n{wanted}"

    def test_help(self) -> None:
        """C{--help} has each option with its text and its default."""
        shown = " ".join(Options().getUsage(1000).split())
        for option in OPTIONS.values():
            default = option.default or option.defaultText
            assert f"--{option.name}{'=' if option.metavar else ''} {option.description}" in shown
            assert not default or f"{option.description} [default: {default}]" in shown
