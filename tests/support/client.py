"""What the tests of the client share: outcomes of Deferreds, servers, and deadlines that need no waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from udpecho.client.protocol import EchoClient
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer


class Outcome:
    """Every result that a Deferred has fired with."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.results: list[Any] = []
        deferred.addBoth(self.results.append)

    @property
    def result(self) -> Any:
        """The one result."""
        (result,) = self.results
        return result

    @property
    def failure(self) -> BaseException:
        """The exception of the one result."""
        assert isinstance(self.result, Failure)
        assert self.result.value is not None
        return self.result.value


class ScriptedServer(DatagramProtocol):
    """A server that sends what the test wants.

    @ivar answer: returns the datagrams to send back for a datagram.
    """

    noisy = False

    def __init__(self, answer: Callable[[bytes], Iterable[bytes]]) -> None:
        self.answer = answer

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        for reply in self.answer(datagram):
            self.transport.write(reply, addr)  # type: ignore[union-attr]


def serve(reactor: Any, answer: Any = None, interface: str = "127.0.0.1") -> Any:
    """Start a server; without C{answer} it echoes."""
    return listen(reactor, 0, EchoServer() if answer is None else ScriptedServer(answer), interface)


def outstandingClient(reactor: Any) -> tuple[EchoClient, Any]:
    """The client that waits for a reply, and the delayed call of its deadline, of which there must be one."""
    ((client, deadline),) = (
        (call.func.__self__, call)
        for call in reactor.getDelayedCalls()
        if isinstance(getattr(call.func, "__self__", None), EchoClient)
    )
    return client, deadline
