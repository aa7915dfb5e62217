"""What the tests of a network in memory share: to run on a host in memory, and ports."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from tests.support.running import PATIENCE, CuriousRecorder
from udpecho.net.open import listen
from udpecho.testing.memory_host import MemoryHost
from udpecho.testing.memory_network import MemoryNetwork

_T = TypeVar("_T")
Play = Callable[..., Any]


def wait(network: MemoryNetwork, work: Deferred[_T], patience: float = PATIENCE) -> _T:
    """Advance a network until a Deferred fires, and return its result or raise its failure."""
    outcome: list[Any] = []
    work.addBoth(outcome.append)
    end = network.clock.seconds() + patience
    while not outcome:
        assert network.clock.seconds() < end, f"no result within {patience} s:\n{network.trace}"
        network.advance(0.01)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


class Virtual:
    """Runs a coroutine function on a host in memory, as L{Run} does on a reactor with sockets."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.reactor = self.network.host("machine")

    def __call__(self, function: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> _T:
        result = wait(self.network, Deferred.fromCoroutine(function(self.reactor, *arguments)))
        assert not self.reactor.getDelayedCalls()
        assert not self.reactor._byNumber
        # What the system does after the program has closed a connection.
        self.network.advance(1)
        assert not self.reactor._streams()
        return result


def addressOf(port: Any) -> tuple[str, int]:
    bound = port.getHost()
    return bound.host, bound.port


def open_(
    reactor: Any, interface: str = "127.0.0.1", number: int = 0, protocol: DatagramProtocol | None = None, **options: Any
) -> tuple[Any, Any]:
    """Listen, with our own port or the one in memory.

    @return: the port and its protocol.
    """
    protocol = CuriousRecorder() if protocol is None else protocol
    return listen(reactor, number, protocol, interface, **options), protocol


def share(reactor: Any, interface: str, number: int = 0) -> tuple[Any, Any]:
    """Listen on a number that others may share."""
    protocol = CuriousRecorder()
    return reactor.listenMulticast(number, protocol, interface, 65535, True), protocol


async def close(*ports: Any) -> None:
    await gatherResults([maybeDeferred(port.stopListening) for port in ports])


async def unused(reactor: Any, interface: str = "127.0.0.1") -> int:
    """A number on which nothing listens."""
    port, _ = open_(reactor, interface)
    number: int = port.getHost().port
    await close(port)
    return number


def pair(network: MemoryNetwork) -> tuple[MemoryHost, MemoryHost]:
    """Two hosts, of both families."""
    return network.host("one", "10.0.0.1", "fd00::1"), network.host("two", "10.0.0.2", "fd00::2")
