"""Fixtures of tests between hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.namespaces import Network, network


@pytest.fixture
def net() -> Iterator[Network]:
    """A network for one test. It is there before the reactor is, and goes after it."""
    with network() as made:
        yield made
