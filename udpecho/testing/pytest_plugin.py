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
    """A network in memory. The report of a failed test shows the trace of its datagrams, the decisions that matter, and a test
    that replays them.
    """
    from udpecho.testing.memory_network import MemoryNetwork

    network = MemoryNetwork()
    network.record()
    return network


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    help = "seconds to look for the decisions that make a test with udp_network fail, by running it again; 0 for not at all [5]"
    parser.getgroup("udpecho").addoption("--udp-shrink", type=float, default=5.0, metavar="SECONDS", help=help)


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
    """When a test fails on its network, find out which decisions matter."""
    outcome = yield
    network = _networkOf(pyfuncitem)
    seconds = pyfuncitem.config.getoption("--udp-shrink")
    if outcome.excinfo is not None and network is not None and seconds > 0 and _canRunAgain(pyfuncitem):
        if network.journal is None or network.journal.replays or issubclass(outcome.excinfo[0], pytest.skip.Exception):
            return
        from udpecho.testing.explain import explain

        errors: Any = pyfuncitem.funcargs["udp_errors"]
        with errors.ignoring():
            pyfuncitem.stash[_explained] = explain(
                lambda journal: _runAgain(pyfuncitem, journal),
                network.journal,
                lambda decisions: _replaying(pyfuncitem, decisions),
                seconds,
            )


#: The decisions that matter.
_explained = pytest.StashKey[str]()


def _networkOf(item: pytest.Item) -> MemoryNetwork | None:
    """The network of a test. Another plugin's fixture may have its name: check without loading anything."""
    loaded = sys.modules.get("udpecho.testing.memory_network")
    network = getattr(item, "funcargs", {}).get("udp_network")
    return network if loaded is not None and isinstance(network, loaded.MemoryNetwork) else None


def _arguments(item: pytest.Function) -> dict[str, Any]:
    """The arguments of a test without its network."""
    return {name: item.funcargs[name] for name in item._fixtureinfo.argnames if name != "udp_network"}


def _canRunAgain(item: pytest.Function) -> bool:
    """Whether a test needs nothing but a network and its parameters: other fixtures may remember."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    given = all(name in parameters and parameters[name] is value for name, value in _arguments(item).items())
    return given and not any(hasattr(item.cls, name) for name in ("setup_method", "setUp", "setup_class"))


def _runAgain(item: pytest.Function, journal: Any) -> None:
    from udpecho.testing.memory_network import MemoryNetwork

    network = MemoryNetwork()
    network.journal = journal
    function = item.obj if item.cls is None else getattr(item.cls(), item.originalname)
    function(udp_network=network, **_arguments(item))


def _replaying(item: pytest.Function, decisions: str) -> str:
    from udpecho.testing.explain import indented

    function = item.originalname if item.cls is None else f"{item.cls.__qualname__}().{item.originalname}"
    arguments = "".join(f", {name}={value!r}" for name, value in _arguments(item).items())
    return (
        f"def {item.originalname}_replayed(udp_network):\n"
        f'    udp_network.replay("""\n{indented(decisions, 8)}    """)\n'
        f"    {function}(udp_network{arguments})\n"
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the trace of a network with the failure of a test that used it."""
    outcome = yield
    network = _networkOf(item)
    if network is None:
        return
    report = outcome.get_result()
    if report.failed and report.when != "setup":
        report.sections.append(("udp_network trace", str(network.trace)))
        explained = item.stash.get(_explained, None)
        if explained is not None:
            report.sections.append(("udp_network decisions", explained))
