"""For C{twisted.trial}: what the fixtures of the pytest plugin are, as methods that clean up after themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from udpecho.faults.decision import Decider
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.protocol import EchoServer
from udpecho.testing.leaks import LeakCheck
from udpecho.testing.memory_network import MemoryNetwork


class RunningServer:
    """
    An echo server on a free port of 127.0.0.1.

    @ivar address: its C{(host, port)} pair.
    @ivar counters: what came in and what became of it.
    """

    def __init__(self, reactor: Any) -> None:
        """Start it."""
        server = EchoServer()
        self._port = listen(reactor, 0, server)
        host: Any = self._port.getHost()
        self.address: tuple[str, int] = (host.host, host.port)
        self.counters = server.counters

    def stop(self) -> None:
        """Stop it at once."""
        assert isinstance(self._port, DatagramPort)
        self._port.abort()


def startProxy(
    reactor: Any,
    upstream: tuple[str, int],
    seed: int | str = 0,
    up: Decider | None = None,
    down: Decider | None = None,
    **faults: Any,
) -> FaultProxy:
    """
    Start a proxy on a free port of 127.0.0.1.

    @param upstream: where it passes datagrams to.
    @param seed: what its faults are drawn from.
    @param up: the plan of the direction from the clients.
    @param down: the plan of the direction to the clients.
    @param faults: the faults of each direction that has no plan of its own, as L{FaultPlan} takes them.
    """
    up = FaultPlan(f"{seed} up", **faults) if up is None else up
    down = FaultPlan(f"{seed} down", **faults) if down is None else down
    proxy = FaultProxy(reactor, upstream, up, down)
    proxy.start()
    return proxy


class UDPEchoMixin:
    """Mix it into a C{TestCase} or C{SynchronousTestCase}."""

    addCleanup: Callable[..., Any]
    fail: Callable[..., Any]

    def startEchoServer(self, reactor: Any = None) -> RunningServer:
        """
        Start an echo server on a free port; it stops with the test.

        @param reactor: by default the installed one.
        """
        server = RunningServer(_reactor(reactor))
        self.addCleanup(server.stop)
        return server

    def startFaultProxy(self, upstream: tuple[str, int], reactor: Any = None, **faults: Any) -> FaultProxy:
        """
        Start a proxy before a server; it stops with the test.

        @param faults: as L{startProxy} takes them.
        """
        proxy = startProxy(_reactor(reactor), upstream, **faults)
        self.addCleanup(proxy.stop)
        return proxy

    def makeNetwork(self, plan: Decider | None = None, latency: float = 0.0) -> MemoryNetwork:
        """Make a network in memory."""
        return MemoryNetwork(plan, latency)

    def watchForLeaks(self, reactor: Any = None) -> None:
        """
        Fail the test if it leaves a reader, a writer, a delayed call or a socket behind what was there before this call;
        unhandled failures of Deferreds trial looks for itself. Call it first: what is started after it is stopped before it
        looks.
        """
        reactor = _reactor(reactor)
        # Trial itself fails a test for what it has not flushed.
        check = LeakCheck(reactor, unhandled=not hasattr(self, "flushLoggedErrors"))

        def look() -> None:
            left = check.finish()
            if left:
                self.fail("left behind:\n" + "\n".join(left))

        def turn() -> Deferred[None]:
            # The reactor does first what it was asked to do at once: close a port that was told to stop, say.
            return deferLater(reactor, 0).addCallback(lambda _: deferLater(reactor, 0))

        self.addCleanup(look)
        if _isAsynchronous(self):
            self.addCleanup(turn)


def _isAsynchronous(case: object) -> bool:
    """Whether trial waits for the Deferreds of a test case."""
    from twisted.trial.unittest import TestCase

    return isinstance(case, TestCase)


def _reactor(reactor: Any) -> Any:
    if reactor is None:
        from twisted.internet import reactor as installed

        return installed
    return reactor
