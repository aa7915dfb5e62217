"""Tests of L{tests.support}: that it reports what happens in processes of their own."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.isolation import whyNotIsolated
from tests.support.processes import Processes
from tests.support.running import udpSocket
from tests.support.source import ROOT

needsIsolation = pytest.mark.skipif(whyNotIsolated() is not None, reason=f"{whyNotIsolated()}")


@needsIsolation
class IsolationTests:
    """L{tests.support.isolation}."""

    def test_reports(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """What an isolated test does is reported as that of any other: passed, failed, skipped, and an error in a fixture."""
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        pytester.makepyfile(
            """
            import os, pytest
            pytestmark = pytest.mark.isolated
            @pytest.fixture
            def broken():
                yield
                raise ValueError
            def test_passes(): pass
            def test_fails(): assert os.getpid() == 0, "in here"
            def test_skips(): pytest.skip()
            def test_teardown(broken): pass
            """
        )
        result = pytester.runpytest_subprocess("-p", "tests.support.isolation", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=2, failed=1, skipped=1, errors=1)
        result.stdout.fnmatch_lines(["E*AssertionError: in here"])

    def test_crash(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """A test whose process dies has not passed."""
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        pytester.makepyfile("import os, pytest\n@pytest.mark.isolated\ndef test_dies(): os.kill(os.getpid(), 9)")
        result = pytester.runpytest_subprocess("-p", "tests.support.isolation", "-p", "no:cacheprovider")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*ended with status -9*"])

    @pytest.mark.isolated
    def test_loopback(self) -> None:
        """It has a loopback interface to itself, with the ports and the raw sockets that are for root only."""
        assert Path("/proc/net/udp").read_text().count("\n") == 1
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), udpSocket(port=7):
            pass


class SignalTests:
    """L{tests.support.processes}."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
    def test_ignored(self, number: signal.Signals, processes: Processes) -> None:
        """Processes have the default action of a signal that the tests have inherited as ignored."""
        before = signal.signal(number, signal.SIG_IGN)
        try:
            process = processes.start(sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)")
            assert signal.getsignal(number) is signal.SIG_IGN
        finally:
            signal.signal(number, before)
        process.until("ready")
        process.signal(number)
        assert process.finish().status in (-number, 1)
