"""The files in C{docs/deployment}, and what the tests of them share."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import PATIENCE
from tests.support.source import ROOT

DEPLOYMENT = ROOT / "docs" / "deployment"
KUBERNETES = DEPLOYMENT / "kubernetes"
UNITS = DEPLOYMENT / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
#: The metrics of the server, with their labels.
METRICS = {
    "udpecho_received_datagrams_total": set[str](),
    "udpecho_received_bytes_total": set[str](),
    "udpecho_echoed_datagrams_total": set[str](),
    "udpecho_echoed_bytes_total": set[str](),
    "udpecho_dropped_datagrams_total": {"reason"},
    "udpecho_kernel_dropped_datagrams_total": set[str](),
    "udpecho_batch_entries_bucket": {"le"},
    "udpecho_batch_entries_sum": set[str](),
    "udpecho_batch_entries_count": set[str](),
    "udpecho_limiter_fill_ratio": set[str](),
    "udpecho_build_info": {"version"},
}
#: The metrics of the prober, with their labels.
PROBE_METRICS = {
    "udpecho_probe_up": {"target", "source"},
    "udpecho_probe_sent_total": {"target", "source"},
    "udpecho_probe_outcomes_total": {"target", "source", "outcome"},
    "udpecho_probe_reordered_total": {"target", "source"},
    "udpecho_probe_own_queue_drops_total": {"target", "source"},
    "udpecho_probe_round_trip_seconds_bucket": {"target", "source", "le"},
    "udpecho_probe_round_trip_seconds_sum": {"target", "source"},
    "udpecho_probe_round_trip_seconds_count": {"target", "source"},
    "udpecho_probe_schedule_deviation_seconds_bucket": {"target", "source", "le"},
    "udpecho_probe_schedule_deviation_seconds_sum": {"target", "source"},
    "udpecho_probe_schedule_deviation_seconds_count": {"target", "source"},
}


def run(*arguments: str | Path, directory: Path | None = None, patience: float = PATIENCE) -> str:
    """Run a tool that must succeed.

    @param patience: seconds after which it has failed.
    @return: its standard output and standard error.
    """
    done = subprocess.run(
        arguments,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience,
        check=False,
    )
    assert done.returncode == 0, f"{done.args}:\n{done.stdout}"
    return done.stdout


def unit(name: str) -> dict[str, list[tuple[str, str]]]:
    """A unit's settings by section, in their order, as names may come several times."""
    sections: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = []
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections[section].append((key, value))
    return sections


def settings(name: str, section: str, key: str) -> list[str]:
    """All values of a setting."""
    return [value for found, value in unit(name)[section] if found == key]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file."""
    text = (DEPLOYMENT / "container" / "Containerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def instruction(name: str) -> str:
    """The last instruction of a name, which is the one that counts."""
    return [rest for found, rest in instructions() if found == name][-1]


def documents(text: str) -> list[dict[str, Any]]:
    """The resources in a text."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here")
    return [document for document in yaml.safe_load_all(text) if document]
