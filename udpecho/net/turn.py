"""The time that all ports of a reactor may take in one of its turns, together: no timer waits longer, whatever comes.

Each port works in a turn for a part of the time, until L{TurnBudget.isOver}. The descriptors that it leaves readable, or
writable, the reactor finds again in the next turn, always in the same order. So the ports that found no time come
first then, and of those the one that has not worked for longest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

from twisted.logger import Logger

from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall

#: Seconds in which ports begin to handle a datagram or a batch, in one turn. The last one may take some ms more.
TURN_TIME = 0.004
#: What they take in several turns is added up to so much, in seconds: a delayed call in each turn would cost too much.
_uncounted = 0.001

#: Work that can be left at any time: it ends soon when L{TurnBudget.isOver}, and is called again.
Work = Callable[[], object]

_log = Logger()

_budgets: dict[int, TurnBudget] = {}


class TurnBudget:
    """The budget of one reactor.

    Time is that of the monotonic clock, and not of the processor: it is quicker to read, and when the system runs others
    meanwhile, the timers are late by that, too. A turn begins for the budget whenever a delayed call of its own comes. In
    between, a reactor runs each delayed call that is due, so that none of them waits for more than one budget.

    @ivar seconds: the clock.
    @ivar until: when the work that is being done must be left, by this clock.
    """

    def __init__(self, reactor: Reactor, seconds: Callable[[], float] = time.perf_counter) -> None:
        """@param reactor: an C{IReactorTime} provider.
        @param seconds: a clock, in seconds.
        """
        self._reactor = reactor
        self.seconds = seconds
        self._users = 0
        self._left = TURN_TIME
        self.until = inf
        self._nextTurn = SingleCall(reactor, self._begin)
        self._postponed: dict[Work, None] = {}
        self._workedLast: dict[Work, int] = {}
        self._number = 0

    def run(self, work: Work) -> None:
        """Work now; or in the next turn if this one has no time left, or if others wait for that already."""
        # Without a running reactor there is no timer, and no next turn.
        isRunning = getattr(self._reactor, "running", True)
        if isRunning and (self._postponed or self._left <= 0):
            self.postpone(work)
        else:
            if self._postponed:
                self._postponed.pop(work, None)
            self._work(work, self._left if isRunning else inf)

    def _work(self, work: Work, share: float) -> None:
        # A program may run the reactor inside of a callback.
        began, outer = self.seconds(), self.until
        self.until = began + share
        try:
            work()
        finally:
            self.until = outer
            self._left -= self.seconds() - began
            if self._left < TURN_TIME - _uncounted and self._users:
                self._nextTurn.schedule()

    def isOver(self) -> bool:
        """Whether the work that is being done must be left."""
        return self.seconds() >= self.until

    def postpone(self, work: Work) -> None:
        """Have work done in the next turn, even if no descriptor is ready."""
        self._postponed[work] = None
        self._nextTurn.schedule()

    def forget(self, work: Work) -> None:
        """Do not do this any more."""
        self._postponed.pop(work, None)
        self._workedLast.pop(work, None)

    def _begin(self) -> None:
        self._left = TURN_TIME
        # What is postponed from now on is for the turn after this one.
        for work in sorted(self._postponed, key=lambda work: self._workedLast.get(work, 0)):
            if self._left > 0 and work in self._postponed:
                self._number += 1
                self._workedLast[work] = self._number
                self._postponed.pop(work)
                try:
                    self._work(work, self._left / (1 + len(self._postponed)))
                except OSError as e:
                    # The reactor, which finds the descriptor ready, closes it then.
                    _log.debug("cannot go on with {work}: {error}", work=work, error=e)
                except BaseException:
                    _log.failure("Unhandled error in {work}", work=work)
        if self._postponed:
            self._nextTurn.schedule()

    def opened(self) -> None:
        """There is one user more."""
        self._users += 1

    def closed(self, *works: Work) -> None:
        """There is one user less, with such work. The last one leaves nothing in the reactor."""
        for work in works:
            self.forget(work)
        self._users -= 1
        if not self._users:
            self._nextTurn.cancel()
            self._postponed.clear()
            _budgets.pop(id(self._reactor), None)


def turnBudget(reactor: Reactor) -> TurnBudget:
    """Open the budget of a reactor, for one more user, who closes it."""
    budget = _budgets.get(id(reactor))
    if budget is None:
        # It holds the reactor, so that no other object gets this id.
        budget = _budgets[id(reactor)] = TurnBudget(reactor)
    budget.opened()
    return budget
