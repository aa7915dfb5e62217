"""Virtual time in which things happen one after the other, each at its own moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock


class NetworkClock(Clock):
    """
    A C{Clock} for a network: while it is advanced, each call is made at the time it was asked for, calls that it makes in turn
    included, and of two calls for one time the first asked for is first. C{Clock} itself is at the end of the step already
    when it makes the first call, and sorts all its calls for each new one.
    """

    def __init__(self) -> None:
        # What Clock keeps is kept here in another way.
        self._queue: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = count()
        self._active: dict[DelayedCall, None] = {}
        self._cancelled = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        """Call something in so many seconds, none or more, as reactors have it."""
        assert delay >= 0, f"{delay!r} is not a number of seconds from now on"
        call = DelayedCall(self.rightNow + delay, callable, args, kw, self._forget, self._push, self.seconds)
        self._active[call] = None
        self._push(call)
        return call

    @property
    def calls(self) -> list[DelayedCall]:  # type: ignore[override]
        """As C{Clock} has them: the calls that are to be made, the next one first."""
        return sorted(self._active, key=DelayedCall.getTime)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """The calls that are to be made."""
        return list(self._active)

    def fly(self, when: float, what: Callable[..., object], *arguments: object) -> None:
        """
        Call something in so many seconds that is no delayed call of anybody's, and cannot be cancelled: a datagram that is on
        its way.
        """
        heappush(self._queue, (self.rightNow + when, next(self._order), what, arguments))

    def advance(self, amount: float) -> None:
        """
        Let time pass, with all that happens meanwhile.

        @param amount: seconds.
        """
        end = self.rightNow + amount
        queue = self._queue
        while queue and queue[0][0] <= end:
            time, _, what, arguments = heappop(queue)
            if isinstance(what, DelayedCall):
                if what not in self._active:
                    continue
                if what.getTime() > time:
                    self._push(what)
                    continue
                del self._active[what]
                what.called = 1
                self.rightNow = max(self.rightNow, time)
                what.func(*what.args, **what.kw)
            else:
                self.rightNow = max(self.rightNow, time)
                what(*arguments)
        self.rightNow = max(self.rightNow, end)

    def _forget(self, call: DelayedCall) -> None:
        """A call was cancelled. Its place in the queue goes when its time comes, or when such places are too many."""
        del self._active[call]
        self._cancelled += 1
        if self._cancelled > 1000 and self._cancelled * 2 > len(self._queue):
            # In place: it may be under way.
            self._queue[:] = [entry for entry in self._queue if not _isCall(entry[2]) or entry[2] in self._active]
            heapify(self._queue)
            self._cancelled = 0

    def _push(self, call: DelayedCall) -> None:
        heappush(self._queue, (call.getTime(), next(self._order), call, ()))


def _isCall(what: object) -> bool:
    return isinstance(what, DelayedCall)
