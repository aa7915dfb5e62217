"""The fixtures of the pytest plugin as methods for C{twisted.trial}, which clean up after themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from udpecho.faults.decision import Decider
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.interfaces import Reactor
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.testing.explain import ExplainingMixin
from udpecho.testing.leaks import LeakCheck
from udpecho.testing.memory_network import MemoryNetwork


class RunningServer:
    """An echo server on a free port of 127.0.0.1.

    @ivar address: its C{(host, port)} pair.
    @ivar counters: its L{Counters <udpecho.server.counters.Counters>}.
    """

    def __init__(self, reactor: Reactor) -> None:
        server = EchoServer()
        self._port: Any = listen(reactor, 0, server)
        host = self._port.getHost()
        self.address: tuple[str, int] = (host.host, host.port)
        self.counters = server.counters

    def stop(self) -> None:
        """Stop it at once."""
        self._port.abort()


def startProxy(
    reactor: Reactor,
    upstream: tuple[str, int],
    seed: int | str = 0,
    up: Decider | None = None,
    down: Decider | None = None,
    **faults: Any,
) -> FaultProxy:
    """Start a proxy on a free port of 127.0.0.1.

    @param upstream: the C{(host, port)} that it passes datagrams to.
    @param up: the plan of the direction from the clients, and C{down} that of the direction to them.
    @param faults: the faults of each direction without a plan of its own, as L{FaultPlan} takes them.
    """
    up = FaultPlan(f"{seed} up", **faults) if up is None else up
    down = FaultPlan(f"{seed} down", **faults) if down is None else down
    proxy = FaultProxy(reactor, upstream, up, down)
    proxy.start()
    return proxy


class UDPEchoMixin(ExplainingMixin):
    """A mixin for C{TestCase} and C{SynchronousTestCase}. By default the methods use the installed reactor."""

    addCleanup: Callable[..., Any]
    fail: Callable[..., Any]

    def startEchoServer(self, reactor: Reactor = None) -> RunningServer:
        """Start an echo server on a free port of 127.0.0.1; it stops with the test."""
        server = RunningServer(_reactor(reactor))
        self.addCleanup(server.stop)
        return server

    def startFaultProxy(self, upstream: tuple[str, int], reactor: Reactor = None, **faults: Any) -> FaultProxy:
        """Start a proxy as L{startProxy} does; it stops with the test."""
        proxy = startProxy(_reactor(reactor), upstream, **faults)
        self.addCleanup(proxy.stop)
        return proxy

    def makeNetwork(self, plan: Decider | None = None, latency: float = 0.0) -> MemoryNetwork:
        """Make a network in memory. When the test fails, the decisions that matter are printed, and a test that replays them:
        if the mixin stands before the test case among the bases of the class, and the test makes one network.
        """
        network = MemoryNetwork(plan, latency)
        self._watch(network)
        return network

    def watchForLeaks(self, reactor: Reactor = None) -> None:
        """Fail the test if it leaves a reader, a writer, a delayed call or a socket that was not there before this call; trial
        reports unhandled failures of Deferreds. Call it first: what starts after it stops before the check.
        """
        reactor = _reactor(reactor)
        # Trial itself fails a test for failures that it has not flushed.
        check = LeakCheck(reactor, unhandled=not hasattr(self, "flushLoggedErrors"))

        def look() -> None:
            left = check.finish()
            if left:
                self.fail("left behind:\n" + "\n".join(left))

        def turn() -> Deferred[None]:
            # The reactor does first what it has to do at once, such as close a port that was stopped.
            return deferLater(reactor, 0).addCallback(lambda _: deferLater(reactor, 0))

        self.addCleanup(look)
        # Trial waits for the Deferreds of this kind only.
        from twisted.trial.unittest import TestCase

        if isinstance(self, TestCase):
            self.addCleanup(turn)


def _reactor(reactor: Reactor) -> Reactor:
    if reactor is None:
        from twisted.internet import reactor as installed

        return installed
    return reactor
