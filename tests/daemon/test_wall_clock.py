"""Tests of the daemons and commands while the wall clock is set, as the first NTP synchronisation after a boot does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.manager import Manager
from tests.support.processes import Processes
from tests.support.running import udpSocket
from tests.support.wall_clock import WallClock

steps = pytest.mark.parametrize("step", [-3600, 3600])


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """The wall clock of the processes."""
    return WallClock(tmp_path)


class WallClockTests:
    """What is due by the monotonic clock happens then."""

    def test_watchdog(self, processes: Processes, clock: WallClock) -> None:
        """The server, with workers, feeds systemd's watchdog."""
        with Manager(watchdog=1) as manager:
            environment = {**manager.environment, **clock.environment}
            options = ("--port", "0", "--interface", "127.0.0.1", "--workers", "2")
            server = manager.start(processes, "twistd", "-n", "--pidfile=", "udpecho", *options, environment=environment)
            manager.until("WATCHDOG=1")
            clock.shift(-3600)
            manager.pending()
            for _ in range(3):
                manager.until("WATCHDOG=1")
            server.stop()
        assert "not fed" not in server.stdout, server

    def test_probeService(self, processes: Processes, clock: WallClock) -> None:
        """The probe service goes on, also to a target that is to be tried again."""
        with udpSocket() as silent, udpSocket() as later:
            targets = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (silent, later)]
            options = [option for target in targets for option in ("--target", target)]
            service = processes.start(
                "twistd", "-n", "--pidfile=", "udpecho-probe", "-i", "1s", *options, environment=clock.environment
            )
            # The second one starts half an interval later.
            silent.recv(100)
            clock.shift(-3600)
            later.recv(100)
            for _ in range(3):
                silent.recv(100)
            service.stop()
        assert "Traceback" not in service.stdout, service

    @steps
    def test_send(self, processes: Processes, clock: WallClock, step: int) -> None:
        """The timeout of C{udpecho send} is as long as ever."""
        with udpSocket() as silent:
            peer = f"127.0.0.1:{silent.getsockname()[1]}"
            process = processes.start("udpecho", "send", "--timeout", "1", peer, feed=b"?", environment=clock.environment)
            silent.recv(10)
            before = time.monotonic()
            clock.shift(step)
            assert process.finish().status == 1, process
        # It had begun to wait before the datagram came.
        assert time.monotonic() - before >= 0.5
        assert "within 1 s" in process.stderr

    @steps
    def test_proxy(self, processes: Processes, clock: WallClock, step: int) -> None:
        """A datagram that C{udpecho proxy} delays arrives, and no earlier."""
        with udpSocket() as upstream, udpSocket() as client:
            address = f"127.0.0.1:{upstream.getsockname()[1]}"
            options = ("127.0.0.1:0", address, "--delay", "500ms", "--verbose")
            process = processes.start("udpecho", "proxy", *options, environment=clock.environment)
            port = int(process.until(r"from \S+:(\d+) to", "stderr")[1])
            before = time.monotonic()
            client.sendto(b"?", ("127.0.0.1", port))
            process.until("delayed")
            clock.shift(step)
            assert upstream.recv(10) == b"?"
            assert time.monotonic() - before >= 0.5
            process.stop()
