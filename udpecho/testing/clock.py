"""Virtual time: each call is made at its own moment."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

#: How many calls and datagrams there may be at one and the same time: more are an endless loop.
MAX_AT_ONCE = 1_000_000


class NetworkClock(Clock):
    """A C{Clock} for a network: while it advances, each call is made at its own time, calls made meanwhile included, and calls
    for the same time in the order of C{callLater}. C{Clock} itself is at the end of the step already when it makes the first
    call, and sorts all its calls for each new one.

    @ivar owner: the host whose code runs, which whatever calls code of a host sets; C{None} outside of L{advance}.
    """

    def __init__(self) -> None:
        self.owner: object = None
        # Instead of the attributes of Clock.
        self._queue: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = count()
        self._active: dict[DelayedCall, object] = {}
        self._cancelled = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        """Call something after C{delay} seconds, as reactors do."""
        return self.schedule(None, delay, callable, args, kw)

    def schedule(
        self, owner: object, delay: float, callable: Callable[..., object], args: tuple[object, ...], kw: dict[str, object]
    ) -> DelayedCall:
        """Call something of a host after C{delay} seconds."""
        assert delay >= 0, f"delay must be 0 seconds or more, got {delay!r}"
        call = DelayedCall(self.rightNow + delay, callable, args, kw, self._forget, self._push, self.seconds)
        self._active[call] = owner
        self._push(call)
        return call

    def callsOf(self, owner: object) -> list[DelayedCall]:
        """The pending calls of a host, the next one first."""
        return [call for call in self.calls if self._active[call] is owner]

    @property
    def calls(self) -> list[DelayedCall]:  # type: ignore[override]
        """The pending calls, the next one first, as C{Clock} has them."""
        return sorted(self._active, key=DelayedCall.getTime)

    def fly(self, when: float, what: Callable[..., object], *arguments: object) -> None:
        """Call something after C{when} seconds that is no delayed call and cannot be cancelled: a datagram arrives."""
        heappush(self._queue, (self.rightNow + when, next(self._order), what, arguments))

    def advance(self, amount: float) -> None:
        """Advance by C{amount} seconds, and make all calls that are due meanwhile.

        @raise RuntimeError: if there is no end of calls for one and the same time.
        """
        try:
            self._run(self.rightNow + amount)
        finally:
            self.owner = None

    def _run(self, end: float) -> None:
        queue = self._queue
        since, made = self.rightNow, 0
        while queue and queue[0][0] <= end:
            if made == MAX_AT_ONCE and queue[0][0] <= since:
                raise RuntimeError(
                    f"calls for one time must come to an end, got {made} at {since:g} s: do two protocols answer each other?"
                )
            time, _, what, arguments = heappop(queue)
            if time > since:
                since, made = time, 0
            made += 1
            self.rightNow = max(self.rightNow, time)
            if not isinstance(what, DelayedCall):
                what(*arguments)
            elif what in self._active:
                if what.getTime() > time:
                    self._push(what)
                else:
                    self.owner = self._active.pop(what)
                    what.called = 1
                    what.func(*what.args, **what.kw)
        self.rightNow = max(self.rightNow, end)

    def _forget(self, call: DelayedCall) -> None:
        # Its entry in the queue is removed at its time, or when there are too many such entries.
        del self._active[call]
        self._cancelled += 1
        if self._cancelled > 1000 and self._cancelled * 2 > len(self._queue):
            # In place: advance may be iterating.
            self._queue[:] = [
                entry for entry in self._queue if not isinstance(entry[2], DelayedCall) or entry[2] in self._active
            ]
            heapify(self._queue)
            self._cancelled = 0

    def _push(self, call: DelayedCall) -> None:
        heappush(self._queue, (call.getTime(), next(self._order), call, ()))
