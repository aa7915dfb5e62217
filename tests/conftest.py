"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

from tests.support.processes import Processes
from tests.support.running import ALL_REACTORS, REACTORS, Run
from tests.support.server import lines  # noqa: F401
from udpecho.net import features

pytest_plugins = ["pytester", "tests.support.isolation"]

# How long an example takes depends on what else the machine does.
settings.register_profile("udpecho", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("udpecho")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Twice as many workers as processors, since many tests wait for processes; none for tests that are named one by one."""
    if config.args and all("::" in argument for argument in config.args):
        return 0
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.fixture(params=list(ALL_REACTORS))
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """A reactor of each kind in turn: C{run(function)} runs a coroutine function in it, and fails if anything is left."""
    runner = Run(request.param)
    yield runner
    runner.close()


@pytest.fixture
def runOnce() -> Iterator[Run]:
    """As L{run}, on one reactor: for what does not depend on the kind."""
    runner = Run("epoll" if "epoll" in REACTORS else "select")
    yield runner
    runner.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own, and leaves none."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(autouse=True)
def knownFeatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test refuses is not lacking in the next."""
    for known in ("_missed", "_refused"):
        monkeypatch.setattr(features, known, dict(getattr(features, known)))


@implementer(ILogObserver)
class CaughtErrors:
    """Failures that were logged in a test."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if "log_failure" in event:
            self.events.append(event)

    def flush(self, kind: type[BaseException]) -> list[BaseException]:
        """Take those of a kind: the test has expected them."""
        found = [event for event in self.events if event["log_failure"].check(kind)]
        self.events = [event for event in self.events if event not in found]
        return [event["log_failure"].value for event in found]


@pytest.fixture(autouse=True)
def caught() -> Iterator[CaughtErrors]:
    """Fail a test in which a failure was logged that it did not flush."""
    errors = CaughtErrors()
    globalLogPublisher.addObserver(errors)
    yield errors
    globalLogPublisher.removeObserver(errors)
    for event in errors.events:
        event["log_failure"].printTraceback()
    assert not errors.events, "failures were logged"
