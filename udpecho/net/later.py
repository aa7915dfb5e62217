"""Delayed calls: one that is there once at the most, and one that is repeated until something is done."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall

from udpecho.interfaces import Reactor


class SingleCall:
    """Calls a function later. To schedule it again while it is scheduled changes nothing."""

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
        """@param reactor: an C{IReactorTime} provider."""
        self._reactor = reactor
        self._function = function
        self._call: IDelayedCall | None = None

    @property
    def scheduled(self) -> bool:
        """Whether the call is still to come."""
        return self._call is not None

    def schedule(self, delay: float = 0) -> None:
        """Call the function after C{delay} seconds."""
        if self._call is None:
            self._call = self._reactor.callLater(delay, self._run)

    def cancel(self) -> None:
        """Do not call it. May be called at any time."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _run(self) -> None:
        self._call = None
        self._function()


def drain(reactor: Reactor, isDrained: Callable[[], bool], pause: Callable[[], float], timeout: float) -> defer.Deferred[bool]:
    """Look in turns of the reactor whether everything is done, with pauses between them, in seconds.

    @return: fires with whether that happened within C{timeout} seconds. Fails with an C{OSError} of C{isDrained}.
    """
    done: defer.Deferred[bool] = defer.Deferred()
    deadline = reactor.seconds() + timeout

    def turn() -> None:
        try:
            drained = isDrained()
        except OSError:
            done.errback()
            return
        if drained or reactor.seconds() >= deadline:
            done.callback(drained)
        else:
            reactor.callLater(pause(), turn)

    reactor.callLater(0, turn)
    return done
