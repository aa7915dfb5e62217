"""A delayed call of which at most one is pending."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from udpecho.interfaces import Reactor
from udpecho.net.call_queue import cancelled


class SingleCall:
    """Calls a function later. To schedule it again while it is scheduled changes nothing."""

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
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


def poll(
    reactor: Reactor, condition: Callable[[], bool], timeout: float, pause: Callable[[], float] = lambda: 0
) -> defer.Deferred[bool]:
    """Look at a condition from the next turn on, until it holds.

    @param timeout: seconds until it is given up.
    @param pause: seconds from one look to the next.
    @return: fires with whether it holds. Fails with what C{condition} raises. May be cancelled.
    """
    deadline = reactor.seconds() + timeout

    def turn() -> None:
        try:
            holds = condition()
        except BaseException:
            result: bool | Failure = Failure()
        else:
            if done.called:
                # Cancelled by what the condition has called.
                return
            if not holds and reactor.seconds() < deadline:
                look.schedule(pause())
                return
            result = holds
        if not done.called:
            done.callback(result)

    def cancel(_: object) -> None:
        look.cancel()
        cancelled(done)

    look = SingleCall(reactor, turn)
    done: defer.Deferred[bool] = defer.Deferred(cancel)
    look.schedule()
    return done
