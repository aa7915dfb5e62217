"""Whether a server answers: it is asked, as anybody would ask it, with one datagram through each address it listens on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.connect import echo

#: Seconds in which the datagram must be back.
TIMEOUT = 1.0
#: Seconds for which an answer holds: who asks again at once is told the same.
AGE = 0.1
#: Bytes of random payload. Few, so that servers for short datagrams take it.
SIZE = 8

_loopbackOf = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class SelfEcho:
    """
    Has a server echo one datagram through each of its addresses. However many ask at a time, there is one self-echo.

    Its datagrams are datagrams like any other: they are counted and logged, and a guard that does not allow the machine itself
    refuses them.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        addresses: Callable[[], Iterable[DatagramAddress]],
        timeout: float = TIMEOUT,
        size: int = SIZE,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """
        @param reactor: the reactor to run on.
        @param addresses: says what the server listens on now.
        @param timeout: seconds until the deadline of each datagram.
        @param size: bytes of payload; no more than the server answers.
        @param entropy: gives so many random bytes.
        """
        self._reactor = reactor
        self._addresses = addresses
        self._timeout = timeout
        self._size = size
        self._entropy = entropy
        self._waiting: list[defer.Deferred[dict[str, str | None]]] = []
        self._asking: defer.Deferred[None] | None = None
        self._found: dict[str, str | None] = {}
        self._foundAt: float | None = None

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """
        Ask the server.

        @return: fires, within the timeout, with a mapping of each address, as people write it, to C{None} if the datagram came
            back, else to a sentence that says why it did not. It is empty if the server does not listen. May be cancelled; when
            all who wait have cancelled, the self-echo is over.
        """
        if self._foundAt is not None and 0 <= self._reactor.seconds() - self._foundAt < AGE:
            return defer.succeed(dict(self._found))
        waiter: defer.Deferred[dict[str, str | None]] = defer.Deferred(self._leave)
        self._waiting.append(waiter)
        if self._asking is None:
            self._ask()
        return waiter

    def _ask(self) -> None:
        addresses = list(self._addresses())
        echoes = [self._echo(address) for address in addresses]
        asked = defer.gatherResults(echoes, consumeErrors=True)

        def over(reasons: list[str | None]) -> None:
            self._asking = None
            self._tell(dict(zip(map(formatAddress, addresses), reasons)))

        # It may be over at once.
        asking: defer.Deferred[list[str | None]] = defer.Deferred(lambda _: asked.cancel())
        self._asking = asking.addCallbacks(over, self._cancelled)
        asked.addCallbacks(asking.callback, asking.errback)

    def _echo(self, address: DatagramAddress) -> defer.Deferred[str | None]:
        echoed = echo(self._reactor, target(address), address.port, self._entropy(self._size), self._timeout)
        return echoed.addCallbacks(lambda _: None, _sentence)

    def _tell(self, found: dict[str, str | None]) -> None:
        self._found, self._foundAt = found, self._reactor.seconds()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(dict(found))

    def _leave(self, waiter: defer.Deferred[dict[str, str | None]]) -> None:
        self._waiting.remove(waiter)
        asking = self._asking
        if asking is not None and not self._waiting:
            self._asking = None
            asking.cancel()

    def _cancelled(self, reason: Failure) -> None:
        """Nobody waits any more."""
        reason.trap(defer.CancelledError, defer.FirstError)


def target(address: DatagramAddress) -> str:
    """
    Where to reach a server from its own machine: a wildcard address at the loopback address of its family, a link-local one
    with its scope.
    """
    host = _loopbackOf.get(address.host, address.host)
    return f"{host}%{address.scopeID}" if address.scopeID else host


def _sentence(reason: Failure) -> Failure | str:
    """Say why a datagram did not come back; a cancel is none of the server's."""
    if reason.check(defer.CancelledError):
        return reason
    return str(reason.value) or type(reason.value).__name__
