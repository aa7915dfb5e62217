"""Tests of L{udpecho.net.monotonic}: deadlines on reactors of each kind while the wall clock is set."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.python import runtime

from tests.support.processes import Processes
from tests.support.running import REACTORS, Run, udpSocket
from tests.support.wall_clock import WallClock
from udpecho.daemon.drop_log import DropLog
from udpecho.daemon.http_pages import MetricsService
from udpecho.net.monotonic import useMonotonicTime
from udpecho.server.counters import Counters
from udpecho.server.metrics import makeRegistry

#: An application with a call of its own and an echo, which both take one second.
APPLICATION = """
import sys, time
from twisted.application.reactors import installReactor
installReactor(sys.argv[1])
from twisted.internet.task import deferLater, react
from udpecho import ResponseTimeout, echo

async def main(reactor, port):
    started = time.monotonic()
    ownCall = deferLater(reactor, 1)
    reply = echo(reactor, "127.0.0.1", int(port), b"?", 1)
    print("waiting", flush=True)
    await ownCall
    print("own call", time.monotonic() - started >= 1)
    try:
        await reply
    except ResponseTimeout:
        print("deadline", time.monotonic() - started >= 1)

react(main, sys.argv[2:])
"""


class ApplicationTests:
    """An application that uses udpecho on a reactor of its own."""

    @pytest.mark.parametrize("step", [-3600, 3600])
    @pytest.mark.parametrize("kind", list(REACTORS))
    def test_step(self, processes: Processes, tmp_path: Path, kind: str, step: int) -> None:
        """When the wall clock is set, the deadline of an echo and the application's own call come when they are due."""
        clock = WallClock(tmp_path)
        with udpSocket() as silent:
            arguments = ("-c", APPLICATION, kind, str(silent.getsockname()[1]))
            process = processes.start(sys.executable, *arguments, environment=clock.environment)
            process.until("^waiting$")
            clock.shift(step)
            assert process.finish().status == 0, process
        assert process.stdout.splitlines() == ["waiting", "own call True", "deadline True"], process


class UseMonotonicTimeTests:
    """L{useMonotonicTime}."""

    def test_continues(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reactor's time goes on from the wall clock's, and calls that are pending are reset by it."""
        reactor = runOnce.reactor
        before = time.time()
        pending = reactor.callLater(60, lambda: None)
        useMonotonicTime(reactor)
        seconds = reactor.seconds
        assert before <= seconds() <= time.time() + 1
        pending.reset(60)
        assert before + 60 <= pending.getTime() <= seconds() + 60
        assert pending.seconds is seconds
        pending.cancel()
        useMonotonicTime(reactor)
        assert reactor.seconds is seconds

    @pytest.mark.parametrize("part", ["the pages", "the log of drops"])
    def test_alone(self, part: str, runOnce: Run) -> None:
        """The parts of a daemon use it, also where an application uses them without a server."""
        reactor = runOnce.reactor
        if part == "the pages":
            pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
            MetricsService(reactor, "tcp:0", makeRegistry(Counters()), lambda: defer.succeed({}))
        else:
            DropLog(reactor, Counters())
        assert reactor.seconds is not runtime.seconds

    def test_otherClocks(self) -> None:
        """A reactor that does not go by the wall clock is left alone."""
        clock = Clock()
        useMonotonicTime(clock)
        clock.advance(1)
        assert clock.seconds() == 1
