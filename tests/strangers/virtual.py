"""Performs plays on a network in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.strangers.stage import Stage
from udpecho.faults.decision import Decider
from udpecho.testing.memory_network import MemoryNetwork

Play = Callable[[Stage], list[Any]]


class Virtual:
    """A network in memory."""

    def __init__(self, plan: Decider | None = None) -> None:
        self.network = MemoryNetwork(plan, latency=0.01)
        self.ports = 5000

    def host(self, name: str) -> tuple[Any, str]:
        """@see: L{Stage.host}"""
        address = f"10.0.0.{len(self.network.hosts) + 1}"
        return self.network.host(name, address), address

    def on(self, reactor: Any) -> AbstractContextManager[Any]:
        """@see: L{Stage.on}"""
        return self.network.running(reactor)

    def freePort(self) -> int:
        """@see: L{Stage.freePort}"""
        self.ports += 1
        return self.ports


@contextmanager
def theatre() -> Iterator[None]:
    """Where plays are performed: the global reactor is that of the play, and so are time and chance.

    All modules are searched for the reactor here, once, and not for each performance.
    """
    network = MemoryNetwork()
    with network.running(network.host("theatre", "10.0.0.1"), ownTime=True, seed=0):
        yield


def perform(play: Play, plan: Decider | None = None, seconds: float = 120) -> list[Any]:
    """Perform a play on a network in memory, in a L{theatre}.

    @return: what it noted.
    """
    random.seed(0)
    stage = Virtual(plan)
    noted = play(stage)
    with stage.network.running(next(iter(stage.network.hosts.values()))):
        stage.network.advance(seconds)
    return noted
