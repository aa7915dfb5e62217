"""Virtual time: each event happens at its own moment.

An event is a delayed call, or something that flies: a datagram on its way, which nobody can cancel. The events of one moment
are in one bucket, in the order in which they were added. Only the moments, which are numbers, are in a heap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, NoReturn, TypeAlias, TypeVar

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.faults.models import number
from udpecho.testing.events import Event, EventLimit, NotFired, describe, mostFrequent

#: How many events there may be at one and the same time: more are an endless loop.
MAX_AT_ONCE = 1_000_000
#: How many events one call may make by default, at all its times.
MAX_EVENTS = 10_000_000
#: Of how many of the last events an error says what they were.
_RECENT = 1000
#: How many of the next events an error names.
_FOLLOWING = 3
#: How many calls are cancelled before their places are removed.
_FEW = 1000

#: The owner of something that flies, the function and its arguments.
_Flying: TypeAlias = tuple[object, Callable[..., object], tuple[Any, ...]]

_T = TypeVar("_T")

_log = Logger()


class NetworkCall(DelayedCall):
    """A delayed call on the clock of a network.

    @ivar owner: the host that it belongs to, C{None} for that of a test.
    """

    # Instead of those that the constructor of DelayedCall makes each time.
    delayed_time = 0.0
    called = 0
    cancelled = 0

    def __init__(
        self,
        clock: NetworkClock,
        owner: object,
        time: float,
        func: Callable[..., object],
        args: tuple[object, ...],
        kw: dict[str, object],
    ) -> None:
        """@param time: when to call C{func}, in seconds on the network's clock."""
        self.clock = clock
        self.owner = owner
        self.time = time
        self.func = func
        self.args = args
        self.kw = kw

    # What DelayedCall expects to be given.

    def seconds(self) -> float:
        """The time of the clock."""
        return self.clock.rightNow

    def resetter(self, call: DelayedCall) -> None:
        """It is to be made sooner than it was."""
        self.clock.add(self.time, self)

    def canceller(self, call: DelayedCall) -> None:
        """It is not to be made."""
        self.clock.forget()


class NetworkClock(Clock):
    """A C{Clock} for a network: while it advances, each call is made at its own time, calls made meanwhile included, and calls
    for the same time in the order of C{callLater}. C{Clock} itself is at the end of the step already when it makes the first
    call, and sorts all its calls for each new one.

    What a call raises is logged, as a reactor does, and the others are made nevertheless.

    @ivar owner: the host whose code runs, which whatever calls code of a host sets; C{None} outside of L{advance}.
    @ivar flying: how many things fly.
    """

    def __init__(self) -> None:
        # Instead of the attributes of Clock.
        self.owner: object = None
        self.flying = 0
        self._moments: list[float] = []
        self._buckets: dict[float, deque[NetworkCall | _Flying]] = {}
        self._recent: deque[NetworkCall | _Flying] = deque(maxlen=_RECENT)
        self._cancelled = 0
        self._few = _FEW
        self._running = ""
        self._stop = False

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> NetworkCall:
        """Call something after C{delay} seconds, as reactors do."""
        return self.schedule(None, delay, callable, args, kw)

    def schedule(
        self, owner: object, delay: float, callable: Callable[..., object], args: tuple[object, ...], kw: dict[str, object]
    ) -> NetworkCall:
        """Call something of a host after C{delay} seconds."""
        assert delay >= 0, f"delay must be 0 seconds or more, got {delay!r}"
        call = NetworkCall(self, owner, self.rightNow + delay, callable, args, kw)
        self.add(call.time, call)
        return call

    @property
    def calls(self) -> list[DelayedCall]:  # type: ignore[override]
        """The pending calls, the next one first, as C{Clock} has them."""
        return list(self._pending())

    def callsOf(self, owner: object) -> list[NetworkCall]:
        """The pending calls of a host, the next one first."""
        return [call for call in self._pending() if call.owner is owner]

    def fly(self, when: float, owner: object, what: Callable[..., object], *arguments: object) -> None:
        """Call something after C{when} seconds that is no delayed call and cannot be cancelled: a datagram arrives.

        @param owner: the host that it happens to, or C{None}.
        """
        self.flying += 1
        self.add(self.rightNow + when, (owner, what, arguments))

    def advance(self, amount: float, limit: int = MAX_EVENTS) -> None:
        """Advance by C{amount} seconds, and make all that is due meanwhile.

        @param limit: how many events there may be.
        @raise ValueError: if C{amount} is not a finite number of seconds, 0 or more.
        @raise EventLimit: if there are more events, or L{MAX_AT_ONCE} at one and the same time. Those that are left come with
            the next step.
        @raise RuntimeError: if a callback of the same clock calls this.
        """
        end = self._after(amount)
        with self._run("advance"):
            self._makeAll(end, limit)
        self.rightNow = max(self.rightNow, end)

    def step(self) -> Event | None:
        """Make the next event, and advance to its time.

        @return: what it was, C{None} if there is none left.
        @raise RuntimeError: if a callback of the same clock calls this.
        """
        with self._run("step"):
            moment = self._next()
            if moment == math.inf:
                return None
            event = self._describe(self._buckets[moment][0], moment)
            self._make(moment, 1)
        return event

    def runUntil(
        self, deferred: Deferred[_T] | Coroutine[Deferred[Any], Any, _T], timeout: float, limit: int = MAX_EVENTS
    ) -> _T:
        """Advance until a Deferred fires, or a coroutine returns, and no further.

        @param timeout: how long to wait for it, in seconds.
        @param limit: how many events there may be.
        @return: the result. A failure is raised.
        @raise NotFired: if it has not fired by then, or nothing is left that could let it.
        @raise EventLimit: as L{advance}.
        @raise ValueError: if C{timeout} is not a finite number of seconds, 0 or more.
        @raise RuntimeError: if a callback of the same clock calls this.
        """
        end = self._after(timeout)
        outcome: list[_T | Failure] = []
        waiting = True

        def fired(result: _T | Failure) -> _T | Failure | None:
            if not waiting:
                return result
            outcome.append(result)
            self.stop()
            return None if isinstance(result, Failure) else result

        with self._run("runUntil"):
            deferred = ensureDeferred(deferred)
            deferred.addBoth(fired)
            self._makeAll(end, limit)
        waiting = False
        if not outcome:
            raise NotFired(self._stillWaiting(deferred, timeout, end))
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def runUntilIdle(self, limit: int = MAX_EVENTS) -> None:
        """Advance until nothing flies, and no call is due at that time. Calls for later are left to come: what repeats itself
        never ends.

        @param limit: how many events there may be.
        @raise EventLimit: as L{advance}.
        @raise RuntimeError: if a callback of the same clock calls this.
        """
        with self._run("runUntilIdle"):
            while (moment := self._next()) <= self.rightNow or self.flying:
                limit = self._makeSome(moment, limit)

    def run(self, timeout: float, limit: int = MAX_EVENTS) -> None:
        """Advance until a callback calls L{stop}, or C{timeout} seconds are over or nothing is left: then to the last event.

        @raise EventLimit: as L{advance}, and so the others.
        """
        end = self._after(timeout)
        with self._run("run"):
            self._makeAll(end, limit)

    def stop(self) -> None:
        """End the present run after the event that calls this."""
        self._stop = True

    @property
    def isRunning(self) -> bool:
        """Whether this is called by a callback of the clock."""
        return bool(self._running)

    @property
    def isPending(self) -> bool:
        """Whether anything is left to come."""
        return self._next() < math.inf

    def add(self, moment: float, what: NetworkCall | _Flying) -> None:
        """Add an event at a moment that is not past."""
        bucket = self._buckets.get(moment)
        if bucket is None:
            self._buckets[moment] = deque((what,))
            heappush(self._moments, moment)
        else:
            bucket.append(what)

    def forget(self) -> None:
        """A call is cancelled. Its place is removed at its time, or when there are many of them."""
        self._cancelled += 1
        if self._cancelled < self._few:
            return
        self._cancelled = left = 0
        for moment, bucket in list(self._buckets.items()):
            alive = [what for what in bucket if _isLeft(what)]
            bucket.clear()
            bucket.extend(alive)
            left += len(alive)
            # That one may be in use.
            if not alive and moment != self._moments[0]:
                del self._buckets[moment]
        self._moments[:] = self._buckets
        heapify(self._moments)
        self._few = max(_FEW, left)

    def _pending(self) -> list[NetworkCall]:
        found = {what: None for bucket in self._buckets.values() for what in bucket if isinstance(what, NetworkCall)}
        return sorted((call for call in found if call.active()), key=DelayedCall.getTime)

    def _after(self, seconds: float) -> float:
        if not 0 <= number("seconds", seconds) < math.inf:
            raise ValueError(f"seconds must be a finite number, 0 or more, got {seconds!r}")
        return self.rightNow + seconds

    @contextmanager
    def _run(self, what: str) -> Generator[None, None, None]:
        if self._running:
            raise RuntimeError(f"a network must not be run by its own callbacks, got {what}() inside {self._running}()")
        self._running, self._stop = what, False
        try:
            yield
        finally:
            self._running, self.owner = "", None
            self._recent.clear()

    def _makeAll(self, end: float, limit: int) -> None:
        while self._moments and self._moments[0] <= end and not self._stop:
            limit = self._makeSome(end, limit)

    def _makeSome(self, end: float, limit: int) -> int:
        """Make some of the events that are due by a time, the first ones.

        @return: how many there may still be.
        """
        began = self.rightNow
        made = self._make(end, min(limit, MAX_AT_ONCE))
        if not self._stop and self._next() <= end:
            if made == limit:
                self._spins("events", made)
            if self.rightNow == began:
                self._spins("events of one time", made)
        return limit - made

    def _spins(self, what: str, made: int) -> NoReturn:
        recent = mostFrequent(map(self._describe, self._recent))
        raise EventLimit(
            f"{what} must come to an end, got {made} at {self.rightNow:g} s; "
            f"of the last {len(self._recent)} there were {recent}"
        )

    def _make(self, end: float, most: int) -> int:
        """Make the events that are due by a time, at most so many.

        @return: how many there were.
        """
        moments, buckets, recent = self._moments, self._buckets, self._recent
        made = 0
        while moments and (moment := moments[0]) <= end:
            bucket = buckets[moment]
            while bucket:
                if made == most or self._stop:
                    return made
                what = bucket.popleft()
                if isinstance(what, tuple):
                    self.flying -= 1
                elif not self._isDue(what, moment):
                    continue
                made += 1
                recent.append(what)
                if self.rightNow < moment:
                    self.rightNow = moment
                try:
                    if isinstance(what, tuple):
                        self.owner, function, arguments = what
                        function(*arguments)
                    else:
                        self.owner = what.owner
                        what.called = 1
                        what.func(*what.args, **what.kw)
                except Exception:
                    # As a reactor does. What ends a program or a test ends the run.
                    _log.failure("Unhandled error in {event}", event=self._describe(what))
            heappop(moments)
            del buckets[moment]
        return made

    def _isDue(self, call: NetworkCall, moment: float) -> bool:
        """Whether a call whose place is at a moment is to be made then. If it is later, it has a place there after this."""
        if call.called or call.cancelled:
            return False
        if call.delayed_time > 0:
            call.activate_delay()
            self.add(call.time, call)
            return False
        return call.time <= moment

    def _next(self) -> float:
        """The moment of the next event, infinite if there is none. What is not due any more is removed."""
        while self._moments:
            moment = self._moments[0]
            bucket = self._buckets[moment]
            while bucket:
                what = bucket[0]
                if isinstance(what, tuple) or self._isDue(what, moment):
                    return moment
                bucket.popleft()
            heappop(self._moments)
            del self._buckets[moment]
        return math.inf

    def _describe(self, what: NetworkCall | _Flying, moment: float | None = None) -> Event:
        owner, function, arguments = what if isinstance(what, tuple) else (what.owner, what.func, what.args)
        return describe(self.rightNow if moment is None else moment, owner, function, arguments)

    def _stillWaiting(self, deferred: Deferred[Any], timeout: float, end: float) -> str:
        if self._next() == math.inf:
            return f"{deferred} must fire, but nothing is left to do at {self.rightNow:g} s"
        self.rightNow = max(self.rightNow, end)
        moments = sorted(self._buckets)[:_FOLLOWING]
        following = [
            self._describe(what, moment)
            for moment in moments
            for what in islice(filter(_isLeft, self._buckets[moment]), _FOLLOWING)
        ]
        return f"{deferred} must fire within {timeout:g} s, got nothing by {self.rightNow:g} s; next come " + ", ".join(
            map(str, following[:_FOLLOWING])
        )


def _isLeft(what: NetworkCall | _Flying) -> bool:
    return isinstance(what, tuple) or what.active()
