"""Tests of L{udpecho.testing.pytest_plugin}: suites as users write them, each run by a pytest of its own."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from tests.support.running import STRICT
from tests.support.transfer import failingSeed

#: How the plugin is found: by itself where udpecho is installed.
FOUND = (
    []
    if [point for point in entry_points(group="pytest11") if point.name == "udpecho"]
    else ["-p", "udpecho.testing.pytest_plugin"]
)
#: Without pytest-twisted.
WITHOUT = ["-p", "no:twisted", "-p", "no:pytest_twisted"]

SERVER = """
import pytest_twisted
from twisted.internet import reactor
from udpecho import echo

@pytest_twisted.ensureDeferred
async def test_echo(udp_leaks, udpecho_server):
    host, port = udpecho_server.address
    assert await echo(reactor, host, port, b"hello") == 5
    assert udpecho_server.counters.received == udpecho_server.counters.echoed == 1

@pytest_twisted.ensureDeferred
async def test_another(udp_leaks, udpecho_server):
    assert udpecho_server.counters.received == 0
"""

PROXY = """
import pytest, pytest_twisted
from twisted.internet import reactor
from udpecho import ResponseTimeout, connect, echo
from udpecho import FaultPlan

@pytest_twisted.ensureDeferred
async def test_lossy(udp_leaks, udpecho_server, udp_proxy):
    proxy = udp_proxy(udpecho_server.address, seed=7, loss=1)
    with pytest.raises(ResponseTimeout):
        await echo(reactor, *proxy.address, b"hello", timeout=0.3)
    assert proxy.up.outcomes == {"lost": 1}
    assert udpecho_server.counters.received == 0

@pytest_twisted.ensureDeferred
async def test_oneWay(udpecho_server, udp_proxy, udp_leaks):
    proxy = udp_proxy(udpecho_server.address, down=FaultPlan(loss=1))
    with pytest.raises(ResponseTimeout):
        await echo(reactor, *proxy.address, b"hello", timeout=0.3)
    assert (proxy.up.outcomes, proxy.down.outcomes) == ({"delivered": 1}, {"lost": 1})

@pytest_twisted.ensureDeferred
async def test_two(udp_leaks, udpecho_server, udp_proxy):
    near = udp_proxy(udp_proxy(udpecho_server.address, delay=60).address)
    client = await connect(reactor, *near.address)
    with pytest.raises(ResponseTimeout):
        await client.echo(b"hello", timeout=0.3)
    await client.close()
"""

NETWORK = """
from udpecho import EchoServer, echo
from udpecho import FaultPlan

def test_anHour(udp_leaks, udp_network):
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())
    udp_network.setPlan(here, there, FaultPlan(7, delay=1800))
    waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=3600)
    udp_network.advance(1799)
    assert len(udp_network.trace) == 1
    udp_network.advance(1)
    assert waiting.result == 5
"""

LEAKS = {
    "call": ("    reactor.callLater(60, print, 'late')", "*delayed call: *print*"),
    "reader": (
        "    reactor.listenUDP(0, DatagramProtocol(), interface='127.0.0.1')",
        "*reader: <*DatagramProtocol* on *>",
    ),
    "socket": (
        "    global left\n    left = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    left.bind(('127.0.0.1', 0))",
        "*socket: descriptor *, SOCK_DGRAM, at ('127.0.0.1', *)*",
    ),
    "Deferred": (
        "    Deferred().errback(ValueError('nobody looked'))",
        "*unhandled failure in a Deferred: ValueError: nobody looked*",
    ),
}

LEAKING = """
import socket
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
"""
for name, (statement, _) in LEAKS.items():
    LEAKING += f"\ndef test_{name}(udp_leaks):\n{statement}\n\ndef test_after_{name}(udp_leaks):\n    pass\n"

LOSSY = """
from udpecho import EchoServer, echo
from udpecho import FaultPlan

def test_lossy(udp_network):
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())
    udp_network.setPlan(here, there, FaultPlan(7, loss=1))
    waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=1)
    waiting.addErrback(lambda failure: failure.value)
    udp_network.advance(1)
    assert waiting.result == 5

def test_other():
    assert False
"""

UNRELATED = """
import subprocess, sys

def test_stranger():
    loaded = {name for name in sys.modules if name.partition(".")[0] in ("twisted", "zope")}
    # Some installations of zope load it whenever Python starts.
    started = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    assert not loaded - set(started.stdout.split()), loaded
    # The package itself is loaded, since the plugin is in it.
    assert "udpecho.testing.pytest_plugin" in sys.modules
"""


def run(pytester: pytest.Pytester, suite: str, *options: str) -> pytest.RunResult:
    """Run a suite, with every warning an error."""
    pytester.makepyfile(suite)
    unused = [word for name in ("cacheprovider", "hypothesispytest", "xdist") for word in ("-p", f"no:{name}")]
    return pytester.runpytest_subprocess(*STRICT, *unused, *FOUND, *options)


def failsByLeaks(result: pytest.RunResult) -> None:
    """Check that each test that leaves something behind has failed, with a line that names it, and no other."""
    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    for name, (_, line) in LEAKS.items():
        result.stdout.fnmatch_lines([f"*_ ERROR at teardown of test_{name} _*", "left behind:", line])


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
class PytestTwistedTests:
    """Suites that use pytest-twisted, on the reactors that it installs."""

    def test_passes(self, reactor: str, pytester: pytest.Pytester) -> None:
        """Tests that use a fixture as it is meant to be used pass, with no warning and nothing left behind."""
        pytester.makepyfile(test_server=SERVER, test_proxy=PROXY)
        result = run(pytester, NETWORK, f"--reactor={reactor}")
        result.assert_outcomes(passed=6)
        assert result.ret == 0

    def test_leaks(self, reactor: str, pytester: pytest.Pytester) -> None:
        """A test that leaves something behind fails, and the failure names it; the next test does not."""
        failsByLeaks(run(pytester, LEAKING, f"--reactor={reactor}"))

    def test_closing(self, reactor: str, pytester: pytest.Pytester) -> None:
        """A port that a test stops without waiting is not left behind."""
        suite = """
from twisted.internet import reactor
from udpecho import EchoServer, listen

def test_stops(udp_leaks):
    listen(reactor, 0, EchoServer()).stopListening()
"""
        run(pytester, suite, f"--reactor={reactor}").assert_outcomes(passed=1)


class PluginTests:
    """The plugin with or without pytest-twisted."""

    def test_trace(self, pytester: pytest.Pytester) -> None:
        """The failure of a test that used a network shows the trace of its datagrams, and that of another does not."""
        result = run(pytester, LOSSY, *WITHOUT)
        result.assert_outcomes(failed=2)
        title = "*-- udp_network trace --*"
        result.stdout.fnmatch_lines(["*_ test_lossy _*", title, "0.000000  192.0.2.1:32768 > 192.0.2.2:7  5 B  lost"])
        assert sum("udp_network trace" in line for line in result.outlines) == 1

    def test_noTrace(self, pytester: pytest.Pytester) -> None:
        """A test that passes shows none."""
        assert "trace" not in run(pytester, NETWORK, *WITHOUT, "-rA").stdout.str()

    def test_leaksWithout(self, pytester: pytest.Pytester) -> None:
        """Leaks are found without pytest-twisted, too."""
        failsByLeaks(run(pytester, LEAKING, *WITHOUT))

    def test_fixturesWithout(self, pytester: pytest.Pytester) -> None:
        """Without pytest-twisted all fixtures can be had, and a network in memory is all that a test needs."""
        everything = f"{NETWORK}\ndef test_all(udp_leaks, udpecho_server, udp_proxy):\n    udp_proxy(udpecho_server.address)\n"
        run(pytester, everything, *WITHOUT).assert_outcomes(passed=2)

    def test_otherErrors(self, pytester: pytest.Pytester) -> None:
        """A failure that is logged, and is none of a Deferred's, is not taken for one."""
        suite = """
from twisted.logger import Logger

def test_logs(udp_leaks):
    try:
        1 / 0
    except ZeroDivisionError:
        Logger().failure("Unhandled, by its text")
"""
        run(pytester, suite, *WITHOUT).assert_outcomes(passed=1)

    def test_loggedErrors(self, pytester: pytest.Pytester) -> None:
        """What a timer of a network raises fails its test, unless the test takes it."""
        suite = """
def test_left(udp_network):
    udp_network.host("one").callLater(1, lambda: 1 / 0)
    udp_network.advance(2)

def test_another(udp_network, udp_errors):
    udp_network.host("one").callLater(1, lambda: 1 / 0)
    udp_network.advance(2)
    assert udp_errors.flush(ValueError) == []

def test_taken(udp_network, udp_errors):
    udp_network.host("one").callLater(1, lambda: 1 / 0)
    udp_network.advance(2)
    assert len(udp_errors.flush(ZeroDivisionError, ValueError)) == 1
"""
        result = run(pytester, suite, *WITHOUT)
        result.assert_outcomes(passed=3, errors=2)
        result.stdout.fnmatch_lines(["failures were logged:", "*ZeroDivisionError: division by zero"])

    def test_fixtureOfAnother(self, pytester: pytest.Pytester) -> None:
        """A suite that has a fixture of its own by the name of one of ours is left alone."""
        suite = """
import pytest

@pytest.fixture
def udp_network():
    return []

def test_own(udp_network):
    assert udp_network
"""
        run(pytester, suite, *WITHOUT).assert_outcomes(failed=1)

    def test_traceOfALeak(self, pytester: pytest.Pytester) -> None:
        """A test that fails by what it has left behind shows the trace of its network, too."""
        suite = """
from udpecho import EchoServer, echo

def test_leaks(udp_leaks, udp_network):
    client, _ = udp_network.host("client", "192.0.2.1"), udp_network.host("server", "192.0.2.2")
    echo(client, "192.0.2.2", 7, b"hello")
    udp_network.advance(1)
"""
        result = run(pytester, suite, *WITHOUT)
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(
            ["unhandled failure in a Deferred: PortUnreachable: *", "0.000000  192.0.2.1:32768 > *refused"]
        )

    def test_periodic(self, pytester: pytest.Pytester) -> None:
        """What is done again and again since before the test is not left behind by the test."""
        suite = """
import pytest
from twisted.internet.task import LoopingCall

@pytest.fixture(scope="session")
def ticker():
    ticking = LoopingCall(lambda: None)
    ticking.start(100)
    yield ticking
    ticking.stop()

def test_ticks(ticker, udp_leaks):
    ticker.reset()
    ticker.stop()
    ticker.start(100)
"""
        run(pytester, suite, *WITHOUT).assert_outcomes(passed=1)

    def test_stranger(self, pytester: pytest.Pytester) -> None:
        """A suite that uses none of it loads nothing of Twisted."""
        run(pytester, UNRELATED, *WITHOUT).assert_outcomes(passed=1)

    def test_help(self, pytester: pytest.Pytester) -> None:
        """Each fixture is listed with what it is."""
        listed = run(pytester, UNRELATED, *WITHOUT, "--fixtures").stdout
        for name in ("udpecho_server", "udp_proxy", "udp_network", "udp_leaks"):
            listed.fnmatch_lines([f"{name} -- *pytest_plugin.py:*", "    [A-Z]*"])


FAULTS = {"loss": 0.3, "duplicate": 0.2, "jitter": 0.05}
#: A suite with a bug that a seed finds.
TRANSFER = """
import pytest
from udpecho import FaultPlan
from tests.support.transfer import transfer

def prepare(network, seed):
    client, server = network.host("client", "192.0.2.1"), network.host("server", "192.0.2.2")
    plan = FaultPlan(seed, loss=0.3, duplicate=0.2, jitter=0.05)
    network.setPlan(server, client, plan)
    network.setPlan(client, server, plan)

@pytest.mark.parametrize("seed", [SEED])
def test_transfer(udp_network, seed):
    prepare(udp_network, seed)
    transfer(udp_network)
"""


class DecisionsTests:
    """The report of a test that fails by a seed."""

    def test_few(self, pytester: pytest.Pytester) -> None:
        """It has the decisions that matter, and a test that replays them, which fails in the same way when it is pasted."""
        seed = failingSeed(**FAULTS)
        suite = TRANSFER.replace("SEED", str(seed))
        result = run(pytester, suite, *WITHOUT)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*-- udp_network decisions --*", "1 of * decisions make it fail. This test replays them:"])
        lines = result.outlines
        start = lines.index("def test_transfer_replayed(udp_network):")
        pasted = lines[start : start + 5]
        assert pasted[2].startswith("        server > client 2: lost  # ")
        assert pasted[4] == f"    test_transfer(udp_network, seed={seed})"
        result = run(pytester, suite + "\n" + "\n".join(pasted), *WITHOUT, "-k", "replayed")
        result.assert_outcomes(failed=1, deselected=1)
        result.stdout.fnmatch_lines(["E *AssertionError: stopped at block 3"])
        assert "decisions make it fail" not in result.stdout.str()
        assert "decisions make it fail" not in run(pytester, suite, *WITHOUT, "--udp-shrink=0").stdout.str()

    def test_others(self, pytester: pytest.Pytester) -> None:
        """A test that fails without faults, one that is random, one that skips, and one with a fixture of its own."""
        suite = """
import itertools, pytest

numbers = itertools.count()

@pytest.fixture
def own():
    return []

def test_always(udp_network):
    assert False

def test_once(udp_network):
    assert next(numbers)

def test_skips(udp_network):
    pytest.skip("not here")

def test_fixture(udp_network, own):
    own.append(1)
    assert not own

def test_logs(udp_network):
    udp_network.host("one").callLater(1, lambda: 1 / 0)
    udp_network.advance(1)
    assert False

class GroupTests:
    def test_method(self, udp_network):
        assert False
"""
        result = run(pytester, suite, *WITHOUT)
        # The failure that is logged is reported once, not once more for each time that the test was run again.
        result.assert_outcomes(failed=4, skipped=1, errors=1)
        logged = result.stdout.str().partition("failures were logged:\n")[2].partition("---")[0]
        assert logged.count("ZeroDivisionError: division by zero") == 1
        text = result.stdout.str()
        assert text.count("-- udp_network decisions --") == 4
        assert text.count("The test fails without any fault, too.") == 3
        assert text.count("The test does not fail again with the same decisions") == 1
