"""The health of a server: one datagram, sent as any client sends it, through each address that the server listens on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.connect import echo
from udpecho.interfaces import Reactor
from udpecho.net.open import canBind

#: Seconds until the reply must arrive.
HEALTH_TIMEOUT = 1.0
#: Seconds for which a result is valid: checks in that time share it.
AGE = 0.1
#: Bytes of random payload. Few, so that a server with a low maximum answers them.
SIZE = 8

_loopbackOf = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class SelfEcho:
    """Has a server echo one datagram through each of its addresses. Checks at the same time share one self-echo.

    Its datagrams are like any others: the server counts and logs them, and a guard that does not allow this machine drops them.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: Callable[[], Iterable[DatagramAddress]],
        timeout: float = HEALTH_TIMEOUT,
        size: int = SIZE,
    ) -> None:
        """@param reactor: an C{IReactorUDP} and C{IReactorTime} provider.
        @param addresses: returns the addresses that the server listens on now.
        @param timeout: seconds to wait for each reply.
        @param size: bytes of payload; no more than the server answers.
        """
        self._reactor = reactor
        self._addresses = addresses
        self._timeout = timeout
        self._size = size
        self._waiting: list[defer.Deferred[dict[str, str | None]]] = []
        self._checking: defer.Deferred[Any] | None = None
        self._result: dict[str, str | None] = {}
        self._resultTime: float | None = None

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """@return: fires, within the timeout, with a mapping of each address, as in C{"[::1]:1234"}, to C{None} if the reply
        arrived, else to the reason why not. A wildcard address is not checked on a machine without the loopback address of its
        family, and works. The mapping is empty if the server does not listen. May be cancelled; the self-echo ends
        when all of its checks are cancelled.
        """
        if self._resultTime is not None and 0 <= self._reactor.seconds() - self._resultTime < AGE:
            return defer.succeed(dict(self._result))
        waiter: defer.Deferred[dict[str, str | None]] = defer.Deferred(self._cancelOne)
        self._waiting.append(waiter)
        if self._checking is None:
            checking = defer.Deferred.fromCoroutine(self._run())
            checking.addErrback(lambda failure: failure.trap(defer.CancelledError, defer.FirstError))
            # It may have finished already.
            self._checking = checking if self._waiting else None
        return waiter

    async def _run(self) -> None:
        results = await defer.gatherResults(map(self._echo, self._addresses()), consumeErrors=True)
        self._checking = None
        self._result, self._resultTime = dict(results), self._reactor.seconds()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(dict(self._result))

    def _echo(self, address: DatagramAddress) -> defer.Deferred[tuple[str, str | None]]:
        host, name = target(address), formatAddress(address)

        def failed(failure: Failure) -> Failure | tuple[str, str | None]:
            # A cancel is not the server's fault.
            if failure.check(defer.CancelledError):
                return failure
            # A wildcard address can be bound before the machine has an address of its family.
            if address.host in _loopbackOf and not canBind(self._reactor, host):
                return f"{name} (not checked: this machine has no {host})", None
            return name, str(failure.value) or type(failure.value).__name__

        echoed = echo(self._reactor, host, address.port, os.urandom(self._size), self._timeout)
        return echoed.addCallbacks(lambda _: (name, None), failed)

    def _cancelOne(self, waiter: defer.Deferred[dict[str, str | None]]) -> None:
        self._waiting.remove(waiter)
        checking = self._checking
        if checking is not None and not self._waiting:
            self._checking = None
            checking.cancel()


def target(address: DatagramAddress) -> str:
    """@return: the host at which this machine reaches an address of its own: for a wildcard address that is loopback."""
    host = _loopbackOf.get(address.host, address.host)
    return f"{host}%{address.scopeID}" if address.scopeID else host
