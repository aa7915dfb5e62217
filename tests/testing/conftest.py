"""The fixture of tests that run on sockets and in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.memory import Play, Virtual
from tests.support.running import Run
from udpecho.net.linux import sockopt


@pytest.fixture(params=["sockets", pytest.param("memory")])
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """A machine, real and in memory in turn: C{play(function)} runs a coroutine function there with its reactor."""
    if request.param == "memory":
        yield Virtual()
        return
    if not sockopt.available:
        pytest.skip("a network in memory behaves as Linux's")
    runner = Run("epoll")
    yield runner
    runner.close()
