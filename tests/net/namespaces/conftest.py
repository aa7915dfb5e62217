"""Fixtures of tests between hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.namespaces import (
    Network,
    network,
    whyNot,
)
from tests.support.processes import Processes


@pytest.fixture(scope="module")
def possible() -> None:
    """Skip the test where namespaces cannot be had."""
    reason = whyNot()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def net(possible: None) -> Iterator[Network]:
    """A network for one test. It is there before the reactor is, and goes after it."""
    with network() as made:
        yield made


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own, and leaves none."""
    with Processes(tmp_path) as started:
        yield started
