"""What a host in memory has of any Twisted reactor: it starts and stops, has triggers of system events, and threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.base import ReactorBase
from twisted.logger import Logger

from udpecho.testing.clock import NetworkClock
from udpecho.testing.memory_resolver import MemoryResolver
from udpecho.testing.memory_threads import MemoryThreadPool, callNow, isBlocking

#: How long L{MemoryCore.run} goes on by default, in seconds of the network.
RUN_LIMIT = 86400.0

_log = Logger()


class Runner(Protocol):
    """What a reactor needs of its network."""

    clock: NetworkClock

    def runHosts(self, hosts: Collection[MemoryCore], limit: float) -> None:
        """Run until some hosts have stopped, or nothing is left to do.

        @raise RuntimeError: if it takes longer than C{limit} seconds of the network.
        """

    def hostStopped(self) -> None:
        """A host has stopped."""

    def addressesOf(self, name: str) -> Sequence[str]:
        """The addresses of a host by its name, none of an unknown one."""


class MemoryCore(ReactorBase):
    """A reactor whose time and turns are those of a network: it runs from the start, whenever the network does.

    What Twisted's reactors share does the rest: C{addSystemEventTrigger}, C{fireSystemEvent}, C{resolve}, C{installResolver}.
    """

    #: Whether a turn is scheduled in which the triggers of C{startup} run. Those that ReactorBase adds itself need none.
    _startsLater = True

    def __init__(self, network: Runner) -> None:
        self.network = network
        # A program of ReactorBase ends with crash(), which for a host is that its power is cut.
        vars(self)["crash"] = self.end
        super().__init__()
        del vars(self)["crash"]
        self._startsLater = self._stopped = False
        self.running = True

    # What ReactorBase leaves to each reactor

    def installWaker(self) -> None:
        """Nothing sleeps."""

    def wakeUp(self) -> None:
        """Nothing sleeps."""

    def _initThreads(self) -> None:
        self.installNameResolver(MemoryResolver(self.network.addressesOf))
        self.usingThreads = True

    def _initThreadPool(self) -> None:
        self.threadpool = MemoryThreadPool(0, 10, "twisted.internet.reactor")
        self.threadpool.start()

    # IReactorCore

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> Any:
        """@see: C{IReactorCore}. C{startup} is the host's next turn."""
        if eventType == "startup" and not self._started and not self._startsLater:
            self._startsLater = True
            self.network.clock.fly(0, self, self._start)
        return super().addSystemEventTrigger(phase, eventType, callable, *args, **kwargs)

    def callWhenRunning(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        """Call something in the host's first turn, or at once if it has had that or this is a callback of the network."""
        if self._started or self.network.clock.isRunning:
            return super().callWhenRunning(callable, *args, **kwargs)
        return self.addSystemEventTrigger("after", "startup", callable, *args, **kwargs)

    def _start(self) -> None:
        if not self._started and not self._stopped:
            self.startRunning(installSignalHandlers=False)

    def run(self, installSignalHandlers: bool = True, limit: float = RUN_LIMIT) -> None:
        """Run the network until this host stops, or nothing is left to do.

        Inside a callback of the network this returns at once, since the network runs already: so a program that ends with
        C{reactor.run()} may be started by a timer, one for each host.

        @param installSignalHandlers: has no effect: signals are the test's.
        @param limit: how long it may take, in seconds of the network.
        @raise RuntimeError: if it takes longer.
        @raise error.ReactorNotRestartable: if this host was stopped before.
        """
        if self._startedBefore and not self.running:
            raise error.ReactorNotRestartable
        if not self.network.clock.isRunning:
            self.network.runHosts([self], limit)

    def iterate(self, delay: float = 0) -> None:
        """Advance the network by C{delay} seconds."""
        self.network.clock.advance(delay)

    def stop(self) -> None:
        """Stop in the next turn: the triggers of C{shutdown} run, what is open is closed, and no timer runs any more.

        @raise error.ReactorNotRunning: if it was stopped before.
        """
        super().stop()
        self.network.clock.fly(0, self, self._shutDown)

    def _shutDown(self) -> None:
        if self._justStopped:
            self._justStopped = False
            self.fireSystemEvent("shutdown")

    def end(self) -> None:
        """The program ends: no timer runs any more."""
        self._started = self.running = False
        for call in self.network.clock.callsOf(self):
            # Not cancelled: the program may do that itself, once.
            call.delay(math.inf)
        self.network.hostStopped()

    # IReactorThreads

    def callFromThread(self, f: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Call something in the next turn, in the order of these calls.

        @raise RuntimeError: if C{threads.blockingCallFromThread} waits for a Deferred that does not fire at once.
        """
        if isBlocking(f):
            callNow(f)
        else:
            self.network.clock.fly(0, self, self._fromThread, f, args, kwargs)

    def _fromThread(self, function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if not self.running:
            return
        try:
            function(*args, **kwargs)
        except Exception:
            _log.failure("while calling from thread")
