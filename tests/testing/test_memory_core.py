"""Tests of L{udpecho.testing.memory_core}: a host starts, stops, has triggers and threads, as any reactor."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet import defer, error, task, threads
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorPluggableNameResolver,
    IReactorPluggableResolver,
    IReactorThreads,
    IReactorTime,
    IResolverSimple,
)
from twisted.internet.protocol import DatagramProtocol
from zope.interface import Interface, implementer
from zope.interface.verify import verifyClass, verifyObject

from tests.conftest import CaughtErrors
from tests.support.memory import pair, wait
from tests.support.running import Recorder
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(latency=0.1)


@pytest.fixture
def host(network: MemoryNetwork) -> MemoryHost:
    return network.host("one", "10.0.0.1", "fd00::1")


class CoreTests:
    """C{IReactorCore}."""

    @pytest.mark.parametrize(
        "interface",
        [IReactorCore, IReactorTime, IReactorThreads, IReactorPluggableNameResolver, IReactorPluggableResolver],
    )
    def test_interfaces(self, interface: type[Interface], host: MemoryHost) -> None:
        """A host provides what every reactor does."""
        assert verifyClass(interface, MemoryHost)
        assert verifyObject(interface, host)

    def test_starts(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """What is to be called when the reactor runs is called in its first turn, in the order of the phases, and later at
        once.
        """
        made: list[object] = []
        assert host.running
        host.callWhenRunning(made.append, "running")
        host.addSystemEventTrigger("during", "startup", made.append, "during")
        host.addSystemEventTrigger("before", "startup", made.append, "before")
        removed = host.callWhenRunning(made.append, "removed")
        host.removeSystemEventTrigger(removed)
        assert made == []
        assert not host.getDelayedCalls()
        network.advance(0)
        assert made == ["before", "during", "running"]
        host.callWhenRunning(made.append, "at once")
        assert made[-1] == "at once"

    def test_stops(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """It stops in its next turn: the triggers run in the order of the phases and wait for Deferreds, then all is closed and
        no timer runs any more; a second time it is refused.
        """
        made: list[str] = []
        waiting: defer.Deferred[None] = defer.Deferred()
        protocol = Recorder()
        host.listenUDP(7, protocol)
        timer = host.callLater(5, made.append, "timer")
        host.addSystemEventTrigger("after", "shutdown", made.append, "after")
        host.addSystemEventTrigger("during", "shutdown", lambda: made.append(f"during {host.running}"))
        host.addSystemEventTrigger("before", "shutdown", lambda: waiting)
        host.stop()
        with pytest.raises(error.ReactorNotRunning):
            host.stop()
        host.callLater(1, waiting.callback, None)
        network.advance(0.5)
        assert made == []
        assert host.running
        assert protocol.transport is not None
        network.advance(20)
        assert made == ["during False", "after"]
        assert not host.running
        assert not host._byNumber
        timer.cancel()
        host.callLater(1, made.append, "too late")
        network.advance(20)
        assert len(made) == 2
        with pytest.raises(error.ReactorNotRestartable):
            host.run()

    def test_crashes(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """C{crash} stops it at once, without any trigger; other hosts go on."""
        made: list[str] = []
        other = network.host("two", "10.0.0.2")
        host.addSystemEventTrigger("before", "shutdown", made.append, "shutdown")
        host.callLater(1, made.append, "timer")
        other.callLater(1, made.append, "other")
        host.crash()
        network.advance(5)
        assert made == ["other"]
        assert not host.running

    def test_firesEvents(self, host: MemoryHost) -> None:
        """Events of a program's own are fired."""
        made: list[str] = []
        host.addSystemEventTrigger("before", "own", made.append, "own")
        host.fireSystemEvent("own")
        host.fireSystemEvent("another")
        assert made == ["own"]

    def test_service(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """A service of C{twisted.application} starts and stops with it, as C{startApplication} connects them."""
        service = MultiService()
        host.callWhenRunning(service.startService)
        host.addSystemEventTrigger("before", "shutdown", service.stopService)
        host.callLater(3, host.stop)
        network.advance(1)
        assert service.running
        host.run()
        assert not service.running
        assert host.seconds() == 3

    def test_resolves(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """Names are those of the network; a simple resolver can be installed."""
        network.host("two", "10.0.0.2")
        assert wait(network, host.resolve("two")) == "10.0.0.2"
        assert wait(network, host.resolve("10.9.9.9")) == "10.9.9.9"
        with pytest.raises(error.DNSLookupError):
            wait(network, host.resolve("three"))

        @implementer(IResolverSimple)
        class Resolver:
            def getHostByName(self, name: str, timeout: Sequence[int] = ()) -> defer.Deferred[str]:
                return defer.succeed("192.0.2.7")

        before = host.installResolver(Resolver())
        assert wait(network, host.resolve("anything")) == "192.0.2.7"
        host.installResolver(before)
        assert wait(network, host.resolve("two")) == "10.0.0.2"


class RunTests:
    """C{run}."""

    def test_untilStopped(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """A host runs until it stops, and the network with it, no longer; C{react} works."""
        times: list[float] = []
        other = network.host("two", "10.0.0.2")
        loop = task.LoopingCall(lambda: times.append(other.seconds()))
        loop.clock = other
        loop.start(1)
        host.callLater(2.5, host.stop)
        host.run(installSignalHandlers=False)
        assert times == [0, 1, 2]
        assert network.clock.seconds() == 2.5

        async def main(reactor: Any) -> None:
            await task.deferLater(reactor, 1)

        third = network.host("three")
        with pytest.raises(SystemExit) as caught:
            task.react(lambda reactor: defer.Deferred.fromCoroutine(main(reactor)), (), third)
        assert caught.value.code == 0
        assert not third.running

    def test_untilNothing(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """It ends when nothing is left to do, at the time of the last of it."""
        host.callLater(7, lambda: None)
        host.run()
        assert host.seconds() == 7
        assert host.running
        network.run()
        assert host.seconds() == 7

    def test_limit(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """What does not end ends with an error that says so."""
        loop = task.LoopingCall(lambda: None)
        loop.clock = host
        loop.start(1)
        with pytest.raises(RuntimeError, match=r"^hosts must stop within 10 s, got at 10 s still running: <MemoryHost one>$"):
            host.run(limit=10)
        with pytest.raises(RuntimeError, match=r"^hosts must stop within 5 s, got at 15 s still running: <MemoryHost one>$"):
            network.run(5)

    def test_network(self, network: MemoryNetwork) -> None:
        """The network runs until all hosts have stopped."""
        one, two = pair(network)
        two.callLater(1, two.stop)
        one.callLater(2, one.stop)
        one.callLater(30, lambda: None)
        network.run()
        assert network.clock.seconds() == 2

    def test_programs(self, network: MemoryNetwork) -> None:
        """Two programs that end with C{reactor.run()} run side by side when a timer of each host starts them."""
        one, two = pair(network)
        seen: list[object] = []

        class Server(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                assert self.transport is not None
                self.transport.write(datagram.upper(), addr)

        class Client(DatagramProtocol):
            def startProtocol(self) -> None:
                assert self.transport is not None
                self.transport.write(b"hello", ("10.0.0.2", 7))

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                from twisted.internet import reactor

                seen.append(datagram)
                reactor.stop()

        def program(protocol: DatagramProtocol, port: int) -> None:
            from twisted.internet import reactor as installed

            reactor: Any = installed
            reactor.callWhenRunning(reactor.listenUDP, port, protocol)
            reactor.run()
            seen.append("returned")

        two.callLater(0, program, Server(), 7)
        with network.running(one):
            program(Client(), 0)
        assert seen == ["returned", b"HELLO", "returned"]
        assert not one.running
        assert two.running


class ThreadsTests:
    """C{IReactorThreads}: no threads, but what is done in them is done."""

    def test_atOnce(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """Work is done at once and in order, in this thread; its result comes with the next turn, as what is called from a
        thread does.
        """
        made: list[object] = []
        host.callFromThread(made.append, "from a thread")
        host.callInThread(lambda: made.append(threading.current_thread()))
        pool = host.getThreadPool()

        def work() -> str:
            made.append("work")
            return "result"

        result = threads.deferToThreadPool(host, pool, work)
        failed = threads.deferToThreadPool(host, pool, lambda: 1 / 0)
        assert made == [threading.current_thread(), "work"]
        assert not result.called
        assert wait(network, result) == "result"
        assert made[-1] == "from a thread"
        with pytest.raises(ZeroDivisionError):
            wait(network, failed)
        host.suggestThreadPoolSize(3)
        pool.adjustPoolsize(2)
        assert (pool.min, pool.max, pool.workers, pool.threads) == (2, 3, 0, [])
        assert host.getThreadPool() is pool

    def test_logged(self, network: MemoryNetwork, host: MemoryHost, caught: CaughtErrors) -> None:
        """What raises where nobody waits for it is logged, and the rest is done."""
        made: list[str] = []
        host.callInThread(lambda: 1 / 0)
        host.callFromThread(lambda: 1 / 0)
        host.callFromThread(made.append, "rest")
        network.advance(0)
        assert len(caught.flush(ZeroDivisionError)) == 2
        assert made == ["rest"]

    def test_blocking(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """C{blockingCallFromThread} has a result that is there at once, and says so of one that is not."""
        assert threads.blockingCallFromThread(host, lambda: 1) == 1
        assert threads.blockingCallFromThread(host, lambda: defer.succeed(2)) == 2  # type: ignore[arg-type]
        with pytest.raises(ZeroDivisionError):
            threads.blockingCallFromThread(host, lambda: 1 / 0)
        with pytest.raises(RuntimeError, match=r"^blockingCallFromThread on a host in memory must get its result at once"):
            threads.blockingCallFromThread(host, lambda: task.deferLater(host, 1))

    def test_stopped(self, network: MemoryNetwork, host: MemoryHost) -> None:
        """A host that has stopped is called from no thread any more."""
        made: list[str] = []
        host.crash()
        host.callFromThread(made.append, "too late")
        network.advance(1)
        assert made == []
