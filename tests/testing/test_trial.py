"""Tests of L{udpecho.testing.trial}: test cases as users write them, run by trial."""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.processes import Process, Processes
from tests.support.running import STRICT
from tests.support.transfer import failingSeed

HEAD = """
import socket
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from udpecho import EchoServer, ResponseTimeout, echo
from udpecho import FaultPlan
from udpecho.testing.trial import UDPEchoMixin
"""

PASSING = """
class AsynchronousTests(UDPEchoMixin, TestCase):
    def setUp(self):
        self.watchForLeaks()

    async def test_server(self):
        server = self.startEchoServer()
        self.assertEqual(await echo(reactor, *server.address, b"hello"), 5)
        self.assertEqual(server.counters.echoed, 1)

    async def test_proxy(self):
        proxy = self.startFaultProxy(self.startEchoServer().address, seed=7, loss=1)
        with self.assertRaises(ResponseTimeout):
            await echo(reactor, *proxy.address, b"hello", timeout=0.3)
        self.assertEqual(proxy.up.outcomes, {"lost": 1})

    async def test_oneWay(self):
        proxy = self.startFaultProxy(self.startEchoServer().address, down=FaultPlan(delay=60))
        with self.assertRaises(ResponseTimeout):
            await echo(reactor, *proxy.address, b"hello", timeout=0.3)
        self.assertEqual(proxy.down.outcomes, {"delayed": 1})

class SynchronousTests(UDPEchoMixin, SynchronousTestCase):
    def test_network(self):
        self.watchForLeaks()
        network = self.makeNetwork(FaultPlan(7, delay=1800))
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        there.listenUDP(7, EchoServer())
        waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=7200)
        self.assertNoResult(waiting)
        network.advance(3600)
        self.assertEqual(self.successResultOf(waiting), 5)

    def test_server(self):
        self.watchForLeaks()
        server = self.startEchoServer()
        self.startFaultProxy(server.address)
"""

LEAKS = {
    "call": ("reactor.callLater(60, print, 'late')", "delayed call: .*print"),
    "reader": ("reactor.listenUDP(0, DatagramProtocol(), interface='127.0.0.1')", "reader: <.*DatagramProtocol.* on "),
    "socket": ("self.__class__.left = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "socket: descriptor .*SOCK_DGRAM"),
    "Deferred": (
        "Deferred().errback(ValueError('nobody looked'))",
        "unhandled failure in a Deferred: ValueError: nobody looked",
    ),
}

LEAKING = """
class LeakingTests(UDPEchoMixin, %s):
    def test_leaks(self):
        self.watchForLeaks()
        %s

    def test_next(self):
        self.watchForLeaks()
"""


def trial(processes: Processes, suite: str, *options: str) -> Process:
    """Run a suite."""
    (processes.directory / "test_suite.py").write_text(HEAD + suite)
    return processes.run(sys.executable, *STRICT, "-m", "twisted.trial", *options, "test_suite")


class MixinTests:
    """L{udpecho.testing.trial.UDPEchoMixin}."""

    @pytest.mark.parametrize("reactor", ["default", "asyncio"])
    def test_passes(self, reactor: str, processes: Processes) -> None:
        """Tests that use it as it is meant to be used pass in either kind of test case, and leave nothing that they, or trial,
        would find.
        """
        ran = trial(processes, PASSING, f"--reactor={reactor}")
        assert "PASSED (successes=5)" in ran.stdout, ran
        assert ran.status == 0

    @pytest.mark.parametrize("case", ["TestCase", "SynchronousTestCase"])
    @pytest.mark.parametrize("leak", LEAKS)
    def test_leaks(self, leak: str, case: str, processes: Processes) -> None:
        """A test that leaves something behind fails, and the failure names it; the next test passes."""
        statement, line = LEAKS[leak]
        ran = trial(processes, LEAKING % (case, statement))
        assert ran.status == 1, ran
        if leak == "Deferred":
            # Trial looks for these itself, and knows which of them a test has flushed.
            assert "ValueError: nobody looked" in ran.stdout, ran
        else:
            assert re.search(f"^(.*: )?left behind:\n(.*\n)*{line}", ran.stdout, re.MULTILINE), ran
        assert re.search(r"^  +test_next \.\.\. +\[OK\]$", ran.stdout, re.MULTILINE), ran
        assert re.search(r"^  +test_leaks \.\.\. +\[(FAIL|ERROR)\]$", ran.stdout, re.MULTILINE), ran

    def test_closing(self, processes: Processes) -> None:
        """In an asynchronous test case a port that is stopped without waiting is not left behind."""
        suite = """
class ClosingTests(UDPEchoMixin, TestCase):
    def test_closing(self):
        self.watchForLeaks()
        reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1").stopListening()
"""
        ran = trial(processes, suite)
        assert "PASSED (successes=1)" in ran.stdout, ran


FAILING = """
from tests.support.transfer import transfer

class FailingTests(UDPEchoMixin, %s):
    def test_transfer(self):
        transfer(self.makeNetwork(FaultPlan(SEED, loss=0.3, duplicate=0.2, jitter=0.05)))
"""


class DecisionsTests:
    """What a failed test prints."""

    @pytest.mark.parametrize("case", ["TestCase", "pyunit.TestCase"])
    def test_few(self, case: str, processes: Processes) -> None:
        """It prints the decisions that matter, and a test that replays them, which fails in the same way when it is pasted."""
        suite = (
            "import unittest as pyunit\n"
            + FAILING.replace("SEED", str(failingSeed(loss=0.3, duplicate=0.2, jitter=0.05))) % case
        )
        ran = trial(processes, suite)
        assert ran.status == 1, ran
        (found,) = re.findall(r"1 of \d+ decisions make it fail\. This test replays them:\n\n((?:    .*\n)+)", ran.stdout)
        assert "            server > client 2: lost  # " in found
        ran = trial(processes, suite + "\n" + found)
        assert re.search(r"^FAILED \((failures|errors)=2\)$", ran.stdout, re.MULTILINE), ran
        assert ran.stdout.count("stopped at block 3") >= 2
        assert ran.stdout.count("decisions make it fail") == 1, ran
