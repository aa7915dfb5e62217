"""Whole programs on a network in memory: with the global reactor, and until they stop."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

from udpecho.testing.clock import NetworkClock
from udpecho.testing.global_reactor import currentHost, globalReactor
from udpecho.testing.memory_core import RUN_LIMIT, MemoryCore
from udpecho.testing.own_chance import Chance
from udpecho.testing.own_chance import ownTime as ownTimeOf

_Host = TypeVar("_Host", bound=MemoryCore)


class Programs(Generic[_Host]):
    """What a network does for programs.

    @ivar clock: the clock of all hosts.
    @ivar hosts: the hosts by name.
    """

    hosts: Mapping[str, _Host]

    def __init__(self) -> None:
        self.clock = NetworkClock()
        self._chances: dict[int | str, Chance] = {}
        self._awaited: Collection[MemoryCore] = ()

    @contextmanager
    def running(self, host: _Host, *, ownTime: bool = False, seed: int | str | None = None) -> Generator[_Host, None, None]:
        """Make C{twisted.internet.reactor} the host that is running at any moment, as long as the context lasts: in each
        callback of a host that host, elsewhere the given one. Modules that have imported the reactor before get it, too.

        @param ownTime: whether C{time.time}, C{time.monotonic} and C{time.perf_counter} are C{seconds()} of that host.
        @param seed: from what C{random}, C{secrets} and C{os.urandom} get their numbers; a later context with the same seed
            goes on with them. Without a seed they are the machine's.
        @raise ValueError: if the host is not one of this network.
        """
        if not any(each is host for each in self.hosts.values()):
            raise ValueError(f"host must be one of this network, got {host!r}")
        with ExitStack() as stack:
            stack.enter_context(globalReactor(self, host))
            if seed is not None:
                stack.enter_context(self._chances.setdefault(seed, Chance(seed)).use())
            if ownTime:
                stack.enter_context(ownTimeOf(lambda: float(currentHost().seconds())))
            yield host

    def run(self, limit: float = RUN_LIMIT) -> None:
        """Run until all hosts have stopped, or nothing is left to do.

        @param limit: how long it may take, in seconds of the network.
        @raise RuntimeError: if it takes longer, or a callback of the network calls this.
        """
        self.runHosts(list(self.hosts.values()), limit)

    def runHosts(self, hosts: Collection[MemoryCore], limit: float) -> None:
        """Run until some hosts have stopped, or nothing is left to do.

        @raise RuntimeError: as L{run}.
        """
        if not any(host.running for host in hosts):
            return
        self._awaited = hosts
        try:
            self.clock.run(limit)
        finally:
            self._awaited = ()
        running = ", ".join(repr(host) for host in hosts if host.running)
        if running and self.clock.isPending:
            now = self.clock.rightNow
            raise RuntimeError(f"hosts must stop within {limit:g} s, got at {now:g} s still running: {running}")

    def hostStopped(self) -> None:
        """A host has stopped."""
        if self._awaited and not any(host.running for host in self._awaited):
            self.clock.stop()
