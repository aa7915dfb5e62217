"""The fixture of tests on other people's code."""

from __future__ import annotations

import pytest

from tests.strangers.shelf import Shelf


@pytest.fixture(scope="session")
def shelf(request: pytest.FixtureRequest) -> Shelf:
    """Codebases of the package index."""
    cache = request.config.cache
    assert cache is not None
    return Shelf(cache.mkdir("strangers"))
