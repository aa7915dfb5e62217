"""Tests of what L{udpecho.server.worker_pool} does about workers that are silent, in virtual time."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import CaughtErrors
from tests.support.guards import needsSharing
from tests.support.running import udpSocket
from tests.support.server import Lines
from tests.support.workers import FakeProcess, Pool
from udpecho.server.worker_process import WorkerProcess

pytestmark = needsSharing

REPORT = {"busiest": {}, "wouldDrop": {}, "fill": 0.0}


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Two workers that answer."""
    with udpSocket() as first, udpSocket() as second:
        pool = Pool([[first], [second]])
        for process in pool.clock.started:
            process.apply()
        yield pool


def go(pool: Pool, seconds: int, *alive: FakeProcess) -> None:
    """Let time pass, in which some workers report."""
    for _ in range(seconds):
        pool.clock.advance(1)
        for process in alive:
            process.send("guard", REPORT)


class SilenceTests:
    """A worker that has been ready, and is silent."""

    def test_killed(self, pool: Pool, lines: Lines) -> None:
        """It soon does not count as one that answers, is killed within 10 seconds, and replaced; what it had taken and not
        answered is counted.
        """
        silent, other = pool.clock.started
        assert pool.pool.silent() == []
        go(pool, 3, other)
        assert [tuple(worker) for worker in pool.pool.silent()] == [(1, "has not answered for 3 s", False)]
        assert not silent.killed
        go(pool, 3, other)
        assert (silent.killed, other.killed) == (True, False)
        pool.pool.counters[0].receive(5)
        silent.end(None, signal.SIGKILL)
        assert [tuple(worker) for worker in pool.pool.silent()] == [(1, "starting", True)]
        assert lines.texts == [
            "worker 1 has not answered for 6 s, and is killed",
            "worker 1 was killed by SIGKILL; unfinished datagrams, counted as send_failed: 1; another takes its place at once",
        ]
        pool.clock.advance(0)
        pool.newest.apply()
        assert pool.pool.silent() == []

    def test_anything(self, pool: Pool) -> None:
        """All that a worker writes is a sign of life, also the beginning of a message."""
        silent, other = pool.clock.started
        for _ in range(5):
            go(pool, 5, other)
            silent.protocol.childDataReceived(1, b"{")
        assert not silent.killed

    def test_immortal(self, pool: Pool, lines: Lines) -> None:
        """One that does not die, as in a system call that cannot be interrupted, is killed again and again, and does not count
        as one that answers meanwhile.
        """
        _, other = pool.clock.started
        go(pool, 18, other)
        assert lines.texts == ["worker 1 has not answered for 6 s, and is killed"] * 3
        assert [worker.number for worker in pool.pool.silent()] == [1]

    def test_parentStopped(self, pool: Pool, lines: Lines) -> None:
        """While this process itself is stopped, or its machine asleep, nobody is killed: there are no looks."""
        for _ in range(3):
            pool.clock.advance(3600)
            for process in pool.clock.started:
                process.send("guard", REPORT)
        assert lines.texts == []
        assert pool.pool.silent() == []

    def test_stop(self, pool: Pool, lines: Lines) -> None:
        """After the stop the silence of a worker that answers what is queued is its own matter."""
        stopped: list[None] = []
        pool.pool.stop(1.0).addCallback(stopped.append)
        pool.clock.advance(5)
        assert lines.texts == []
        for process in pool.clock.started:
            process.end()
        assert stopped == [None]
        assert pool.clock.getDelayedCalls() == []

    def test_cannotBeKilled(self, pool: Pool, caught: CaughtErrors, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the system refuses to kill a worker that hangs, that is logged, and it is tried again."""

        def refuse(process: WorkerProcess) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr(WorkerProcess, "kill", refuse)
            go(pool, 6)
        assert len(caught.flush(PermissionError)) == 2
        go(pool, 6)
        assert pool.newest.killed


class StartTests:
    """A worker that is not ready."""

    def test_hangs(self, lines: Lines) -> None:
        """It is killed within 10 seconds. Each attempt that fails doubles the time, up to a minute, for a slow machine."""
        with udpSocket() as sock:
            pool = Pool([[sock]])
            for patience in (9, 18, 36, 60, 60):
                process = pool.newest
                go(pool, patience - 1)
                assert not process.killed
                go(pool, 1)
                assert process.killed
                assert lines.texts[-1] == f"worker 1 has not answered for {patience} s, and is killed"
                process.end(None, signal.SIGKILL)
                assert [tuple(worker) for worker in pool.pool.silent()] == [(1, "ended before it was ready", False)]
                while pool.newest is process:
                    pool.clock.advance(0.1)
            pool.newest.apply()
            assert pool.ready == [None]
            assert pool.pool.silent() == []
