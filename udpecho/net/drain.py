"""Wait until a port has read and sent what there is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import defer

from udpecho.interfaces import Reactor

#: Seconds between two looks.
_interval = 0.01


def drain(reactor: Reactor, isDrained: Callable[[], bool], timeout: float) -> defer.Deferred[bool]:
    """
    Look in turns of the reactor whether everything is done.

    @param reactor: an C{IReactorTime} provider.
    @param timeout: seconds after which to give up.

    @return: fires with whether that happened in time. Fails with what C{isDrained} raises.
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
            reactor.callLater(_interval, turn)

    reactor.callLater(0, turn)
    return done
