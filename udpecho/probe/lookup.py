"""The names of targets, looked up again while they are probed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.probe.target import Target, addressesOf, failureMessage

#: Seconds from one lookup to the next, at least, while a target does not answer.
PAUSE = 10.0

_log = Logger()


class Lookup:
    """Looks the name of one target up again: every so often, and while it does not answer. The reactor is not blocked."""

    def __init__(
        self,
        reactor: Reactor,
        target: Target,
        interval: float | None,
        found: Callable[[str, Sequence[DatagramAddress]], object],
    ) -> None:
        """@param reactor: an C{IReactorTime} and C{IReactorPluggableNameResolver} provider.
        @param interval: the time from one lookup to the next, at the most, in seconds; C{None} for L{request} only.
        @param found: called with the name of the target and its addresses, in the resolver's order.
        """
        self._reactor = reactor
        self._target = target
        self._interval = interval
        self._found = found
        self._lookup: defer.Deferred[None] | None = None
        self._endedAt = float(reactor.seconds()) - PAUSE
        self._reported: str | None = None
        self._next = SingleCall(reactor, self._begin)
        self._schedule()

    def _schedule(self) -> None:
        if self._interval is not None:
            # Many targets that began together are not looked up together.
            self._next.schedule(self._interval * random.uniform(0.5, 1))

    def request(self) -> None:
        """Look up now, if there was none lately."""
        if self._lookup is None and self._reactor.seconds() - self._endedAt >= PAUSE:
            self._begin()

    def _begin(self) -> None:
        self._next.cancel()
        self._lookup = lookup = defer.Deferred.fromCoroutine(self._lookUp())
        lookup.addErrback(self._failed)
        lookup.addBoth(self._ended)

    async def _lookUp(self) -> None:
        addresses = await addressesOf(self._reactor, self._target.name, self._target.family)
        self._reported = None
        self._found(self._target.name, addresses)

    def _failed(self, failure: Failure) -> None:
        if failure.check(defer.CancelledError):
            return
        reason = failureMessage(cast(Exception, failure.value))
        if reason != self._reported:
            self._reported = reason
            _log.warn("cannot look up {target} again: {reason}", target=self._target.name, reason=reason)

    def _ended(self, _: object) -> None:
        cancelled, self._lookup = self._lookup is None, None
        if not cancelled:
            self._endedAt = float(self._reactor.seconds())
            self._schedule()

    def stop(self) -> None:
        """Look up no more."""
        self._next.cancel()
        lookup, self._lookup = self._lookup, None
        if lookup is not None:
            lookup.cancel()
