"""The health of a server: one datagram, sent as any client sends it, through each address that the server listens on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from twisted.internet import defer, error
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.client.connect import connect
from udpecho.client.protocol import EchoClient
from udpecho.daemon.states import Works
from udpecho.errors import NO_DESCRIPTOR, EchoError
from udpecho.interfaces import Reactor
from udpecho.server.drop_watch import DropWatch

#: Seconds until the reply must arrive.
HEALTH_TIMEOUT = 1.0
#: Seconds for which a result is valid: checks in that time share it.
AGE = 0.1
#: Bytes of random payload. Few, so that a server with a low maximum answers them.
SIZE = 8

#: Seconds between two looks at whether the self-echo was dropped, and the number of looks after which it is sent again: a
#: server under a flood loses some of what comes.
_lookInterval = 0.02
_looksToResend = 10
#: How many seconds later than due the timeout of a self-echo may come. If it is later, this process itself was kept waiting,
#: and the reply may be in the queue: the self-echo is repeated, once.
_maxLate = 0.2
#: As many checks may wait for one self-echo; more get the last result, so that they do not take all connections.
_maxWaiting = 16
#: Drops by decision: a server that drops a self-echo for one of these reasons has received it, and works.
_decisions = {
    "not_allowed": "refused by --allow",
    "rate_limited": "rate limited",
    "loop_guard": "refused by the loop guard",
    "too_large": "longer than --max-payload",
}
# The address is gone, or the interface of its scope is.
_addressMissing = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})
_loopbackOf = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class SelfEcho:
    """Has a server echo one datagram through each of its addresses. Checks at the same time share one self-echo.

    Its datagrams are like any others: the server counts and logs them, and a guard that does not allow this machine drops them.
    A server that drops one by decision works. It is known by its source and its content, so that no other datagram counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        addresses: Callable[[], Iterable[DatagramAddress]],
        timeout: float = HEALTH_TIMEOUT,
        size: int = SIZE,
        watches: Callable[[], Sequence[DropWatch]] | None = None,
    ) -> None:
        """@param reactor: an C{IReactorUDP} and C{IReactorTime} provider.
        @param addresses: returns the addresses that the server listens on now.
        @param timeout: seconds to wait for each reply.
        @param size: bytes of payload; no more than the server answers.
        @param watches: returns L{EchoService.watches <udpecho.server.service.EchoService.watches>}, in the order of the
            addresses; without them, a drop by decision counts as no reply.
        """
        self._reactor = reactor
        self._addresses = addresses
        self._timeout = timeout
        self._size = size
        self._watches: Callable[[], Sequence[DropWatch]] = (lambda: ()) if watches is None else watches
        self._waiting: list[defer.Deferred[dict[str, str | None]]] = []
        self._checking: defer.Deferred[Any] | None = None
        self._result: dict[str, str | None] = {}
        self._resultTime: float | None = None

    def check(self) -> defer.Deferred[dict[str, str | None]]:
        """@return: fires, within the timeout, with a mapping of each address, as in C{"[::1]:1234"}, to C{None} if the reply
        arrived, else to the reason why not; that is a L{Works} if the server dropped the datagram by decision. It is empty if
        the server does not listen. May be cancelled; the self-echo ends when all of its checks are cancelled.
        """
        if self._resultTime is not None:
            age = self._reactor.seconds() - self._resultTime
            if age < AGE or (len(self._waiting) >= _maxWaiting and age < 2 * self._timeout):
                return defer.succeed(dict(self._result))
        waiter: defer.Deferred[dict[str, str | None]] = defer.Deferred(self._cancelOne)
        self._waiting.append(waiter)
        if self._checking is None:
            checking = defer.Deferred.fromCoroutine(self._run())
            # It may have finished already.
            self._checking = checking if self._waiting else None
            checking.addErrback(self._failed, checking)
        return waiter

    async def _run(self) -> None:
        addresses = list(self._addresses())
        watches = [*self._watches()]
        watches += [DropWatch() for _ in addresses[len(watches) :]]
        checks = [defer.Deferred.fromCoroutine(self._checkOne(*each)) for each in zip(addresses, watches)]
        reasons = await defer.gatherResults(checks, consumeErrors=True)
        self._checking = None
        self._result, self._resultTime = dict(zip(map(formatAddress, addresses), reasons)), self._reactor.seconds()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(dict(self._result))

    def _failed(self, failure: Failure, checking: defer.Deferred[Any]) -> None:
        if checking is not self._checking:
            # It was cancelled; those who wait do so for another one.
            return
        self._checking = None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(failure)

    async def _checkOne(self, address: DatagramAddress, watch: DropWatch) -> str | None:
        try:
            return await self._echo(address, watch)
        except defer.CancelledError:
            raise
        except Exception as e:
            # Those who wait must get a result, whatever it is.
            if getattr(e, "errno", None) in NO_DESCRIPTOR:
                return "not checked: this process has no file descriptor left"
            return f"not checked: {str(e) or type(e).__name__}"

    async def _echo(self, address: DatagramAddress, watch: DropWatch) -> str | None:
        host = target(address)
        try:
            # From the address itself: else a datagram to an address that this machine has lost goes to another.
            client = await connect(self._reactor, host, address.port, self._timeout, bindAddress=(host, 0))
        except error.CannotListenError as e:
            if getattr(e.socketError, "errno", None) not in _addressMissing:
                return f"not checked: cannot send from {host}: {e.socketError}"
            if address.host in _loopbackOf:
                # A wildcard address can be bound before the machine has an address of its family.
                return Works(f"ok (not checked: this machine has no {host})")
            return f"this machine does not have {host}"
        except EchoError as e:
            if e.errno in NO_DESCRIPTOR:
                raise
            return str(e)
        try:
            begun = self._reactor.seconds()
            reason = await self._exchange(client, watch)
            if reason is not None and self._reactor.seconds() - begun > self._timeout + _maxLate:
                reason = await self._exchange(client, watch)
            return reason
        finally:
            watch.forget()
            await client.close()

    async def _exchange(self, client: EchoClient, watch: DropWatch) -> str | None:
        transport: Any = client.transport
        payload, source = os.urandom(self._size), transport.getHost()
        watch.expect(source.host, source.port, payload)
        echoing = client.echo(payload, self._timeout)
        looks = count(1)

        def look() -> None:
            if watch.reason is not None:
                echoing.cancel()
            elif next(looks) % _looksToResend == 0:
                with suppress(OSError):
                    transport.write(payload, None)

        looking = LoopingCall(look)
        looking.clock = self._reactor
        looking.start(_lookInterval, now=False)
        try:
            await echoing
        except (EchoError, defer.CancelledError) as e:
            reason = watch.reason
            if reason in _decisions:
                return Works(f"ok ({_decisions[reason]})")
            if reason is None and isinstance(e, defer.CancelledError):
                # A cancel is not the server's fault.
                raise
            return str(e) if reason is None else f"the server drops the datagram: {reason}"
        finally:
            if looking.running:
                looking.stop()
        return None

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
