"""Fixtures for pytest, which finds this plugin once udpecho is installed.

Nothing of Twisted is loaded before a fixture runs, so that suites without these fixtures are not affected, and pytest-twisted
installs its reactor first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from udpecho.faults.proxy import FaultProxy
    from udpecho.testing.logged import LoggedErrors
    from udpecho.testing.memory_network import MemoryNetwork
    from udpecho.testing.trial import RunningServer


@pytest.fixture
def udpecho_server() -> Iterator[RunningServer]:
    """A real echo server on a free port of 127.0.0.1, with C{.address} and C{.counters}."""
    from twisted.internet import reactor

    from udpecho.testing.trial import RunningServer

    server = RunningServer(reactor)
    yield server
    server.stop()


@pytest.fixture
def udp_proxy(request: pytest.FixtureRequest) -> Iterator[Callable[..., FaultProxy]]:
    """Starts a real proxy: C{udp_proxy(upstream, seed=7, loss=0.1)}, with the faults of C{FaultPlan}. Send to
    its C{.address}.
    """
    if "udp_leaks" in request.fixturenames:
        # It starts first and ends last: what this fixture stops is not left behind.
        request.getfixturevalue("udp_leaks")
    from twisted.internet import reactor

    from udpecho.testing.trial import startProxy

    proxies: list[FaultProxy] = []

    def start(upstream: tuple[str, int], **faults: Any) -> FaultProxy:
        proxies.append(startProxy(reactor, upstream, **faults))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.stop()


@pytest.fixture
def udp_errors() -> Iterator[LoggedErrors]:
    """Fails the test if a failure is logged, as trial does; C{udp_errors.flush(ValueError)} takes those it has expected."""
    from udpecho.testing.logged import LoggedErrors

    errors = LoggedErrors()
    yield errors
    left = errors.finish()
    if left:
        pytest.fail(f"failures were logged:\n{left}", pytrace=False)


@pytest.fixture
def udp_network(udp_errors: LoggedErrors) -> MemoryNetwork:
    """A network in memory. The report of a failed test shows the trace of its datagrams."""
    from udpecho.testing.memory_network import MemoryNetwork

    return MemoryNetwork()


@pytest.fixture
def udp_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test if it leaves a reader, a writer, a delayed call, a socket or an unhandled failure of a Deferred."""
    from twisted.internet import reactor

    from udpecho.testing.leaks import LeakCheck

    check = LeakCheck(reactor)
    yield
    if request.config.pluginmanager.hasplugin("pytest_twisted") or request.config.pluginmanager.hasplugin("twisted"):
        import pytest_twisted
        from twisted.internet.task import deferLater

        # The reactor does first what it has to do at once, such as close a port that was stopped.
        for _ in range(2):
            pytest_twisted.blockon(deferLater(reactor, 0))
    left = check.finish()
    if left:
        pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the trace of a network with the failure of a test that used it."""
    outcome = yield
    # Another plugin's fixture may have this name: check without loading anything.
    loaded = sys.modules.get("udpecho.testing.memory_network")
    network = getattr(item, "funcargs", {}).get("udp_network")
    if loaded is None or not isinstance(network, loaded.MemoryNetwork):
        return
    report = outcome.get_result()
    if report.failed and report.when != "setup":
        report.sections.append(("udp_network trace", str(network.trace)))
