"""Tests of L{udpecho.daemon.http_pages} on UNIX sockets: their files and locks."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import Run
from tests.support.server import Lines

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")

from prometheus_client import CollectorRegistry
from twisted.internet import defer

from tests.support.pages import Pages, serving
from udpecho.daemon.http_pages import MetricsService
from udpecho.daemon.start_errors import CannotServeMetrics

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no UNIX sockets")


class UNIXTests:
    """C{--metrics unix:PATH}."""

    def test_removed(self, runOnce: Run, tmp_path: Path) -> None:
        """The endpoint may be a UNIX socket, which the stop removes."""

        async def work(pages: Pages) -> None:
            status, _, _ = await pages.get("/metrics")
            assert status == 200

        path = tmp_path / "socket"
        serving(runOnce, work, description=f"unix:{path}")
        assert not path.exists()

    @pytest.mark.parametrize("lock", [None, "own", "other"])
    def test_afterAKill(self, runOnce: Run, tmp_path: Path, lock: str | None) -> None:
        """The socket of a server that was killed is removed, also if a process has the PID that its lock names: after a
        restart of a container that is this one.
        """

        async def work(pages: Pages) -> None:
            assert (await pages.get("/metrics"))[0] == 200

        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        if lock is not None:
            path.with_name("socket.lock").symlink_to(str(os.getpid() if lock == "own" else os.getppid()))
        serving(runOnce, work, description=f"unix:{path}")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_otherFile(self, runOnce: Run, tmp_path: Path, kind: str) -> None:
        """What is not a socket is in use, and stays; so does what is not a lock."""
        path, lock = tmp_path / "notes", tmp_path / "notes.lock"
        (tmp_path / "target").write_text("precious")
        path.symlink_to("target") if kind == "link" else path.write_text("precious")
        lock.write_text("precious")

        async def work(pages: Pages) -> None:
            raise AssertionError("it was bound")

        with pytest.raises(CannotServeMetrics):
            serving(runOnce, work, description=f"unix:{path}:lockfile=0")
        assert path.is_symlink() == (kind == "link")
        assert path.read_text() == lock.read_text() == "precious"

    def test_wrongLock(self, runOnce: Run, tmp_path: Path) -> None:
        """A lock that names no process is one reason why the pages cannot be served, and stays."""
        lock = tmp_path / "socket.lock"
        lock.symlink_to("nobody")

        async def work(pages: Pages) -> None:
            raise AssertionError("it was bound")

        with pytest.raises(CannotServeMetrics):
            serving(runOnce, work, description=f"unix:{tmp_path / 'socket'}")
        assert lock.is_symlink()

    def test_lockOnly(self, runOnce: Run, tmp_path: Path) -> None:
        """A lock without a socket is removed if it names this process, which has none there."""

        async def work(pages: Pages) -> None:
            assert (await pages.get("/metrics"))[0] == 200

        path = tmp_path / "socket"
        path.with_name("socket.lock").symlink_to(str(os.getpid()))
        serving(runOnce, work, description=f"unix:{path}")

    @pytest.mark.parametrize("full", [False, True])
    def test_taken(self, runOnce: Run, tmp_path: Path, full: bool) -> None:
        """The socket of a server that runs is refused, and left as it is, also if nobody accepts its connections."""
        path = tmp_path / "socket"
        path.with_name("socket.lock").symlink_to(str(os.getppid()))

        async def check(reactor: Any) -> None:
            with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
                other.bind(str(path))
                other.listen(0)
                if full:
                    waiting.connect(str(path))
                service = MetricsService(reactor, f"unix:{path}", CollectorRegistry(), lambda: defer.succeed({}))
                with pytest.raises(CannotServeMetrics):
                    service.privilegedStartService()
            assert sorted(entry.name for entry in tmp_path.iterdir()) == ["socket", "socket.lock"]

        runOnce(check)

    @pytest.mark.parametrize("missing", ["socket", "socket.lock"])
    def test_notRemoved(self, runOnce: Run, tmp_path: Path, lines: Lines, missing: str) -> None:
        """A socket file that cannot be removed at the stop is a warning; all is closed."""

        async def work(pages: Pages) -> None:
            (tmp_path / missing).unlink()

        serving(runOnce, work, description=f"unix:{tmp_path / 'socket'}")
        (warning,) = [text for text in lines.texts if "cannot remove" in text]
        assert warning.startswith(f"cannot remove the socket {tmp_path / 'socket'}: No such file")
