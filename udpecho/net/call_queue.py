"""Calls of the code of applications: callbacks of Deferreds, and functions that are notified of something.

Such code may call back into what calls it: it closes a client, cancels a Deferred, sends again. So what has happened is
complete first: it is removed from tables, its deadline is cancelled. The calls are collected in a L{CallQueue}, which makes
them one after the other. What they collect themselves waits until they return. So a call is never inside another one of the
same object, and inside those of other objects only so many deep.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from udpecho.net.failure_log import FailureLog

#: How many calls may be inside each other, of different objects: a callback of one client closes another one, for example.
MAX_NESTED = 4

_log = Logger()


class _Nesting(threading.local):
    """The calls that are inside each other in this thread. C{waiting} are those that would be too deep.

    Nobody may be emptying a queue for good: with greenlets (pytest-twisted), a program goes on inside a callback, and what it
    does there is to work as anywhere else.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.waiting: deque[Callable[[], object]] = deque()
        self._emptying = False

    def call(self, function: Callable[[], object]) -> None:
        """Call a function now, or after one of those that it would be inside of."""
        if self.depth >= MAX_NESTED:
            self.waiting.append(function)
            return
        self.depth += 1
        try:
            function()
        finally:
            self.depth -= 1
        if self.waiting and not self._emptying:
            self._emptying = True
            try:
                while self.waiting:
                    self.call(self.waiting.popleft())
            finally:
                self._emptying = False


_nesting = _Nesting()


class CallQueue:
    """The calls of applications' code by one object. What they raise is logged, and the others are made nevertheless.

    @ivar isEmptying: whether this is inside one of the calls.
    """

    __slots__ = ("_calls", "_failures", "isEmptying")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._failures: FailureLog | None = None
        self.isEmptying = False

    def add(self, function: Callable[..., object], *arguments: Any) -> None:
        """Collect a call; L{run} makes it."""
        self._calls.append((function, arguments))

    def addResult(self, done: defer.Deferred[Any], result: object) -> None:
        """Collect the result of a Deferred, or an exception to fail with. If it is cancelled meanwhile, this is ignored."""
        self._calls.append((_fire, (done, result)))

    def addResults(self, waiting: list[defer.Deferred[Any]], result: object) -> None:
        """Take all from a list, and collect for each the same result, as L{addResult}."""
        for done in waiting:
            self.addResult(done, result)
        waiting.clear()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Make a call after those that were collected before."""
        self._calls.append((function, arguments))
        self.run()

    def run(self) -> None:
        """Make the calls that were collected, unless this is inside one of them: then they are made when that one returns."""
        if self._calls and not self.isEmptying:
            _nesting.call(self._empty)

    def _empty(self) -> None:
        if self.isEmptying:
            return
        self.isEmptying = True
        calls = self._calls
        try:
            while calls:
                function, arguments = calls.popleft()
                try:
                    function(*arguments)
                except BaseException:
                    # As in a Deferred: the others would be made late or never.
                    if self._failures is None:
                        self._failures = FailureLog(_log)
                    self._failures.failure("Unhandled error in {function}", function=function)
        finally:
            self.isEmptying = False


def _fire(done: defer.Deferred[Any], result: object) -> None:
    if done.called:
        return
    if isinstance(result, BaseException):
        done.errback(result)
    else:
        done.callback(result)


def finish(done: defer.Deferred[Any], result: object) -> None:
    """Fire a Deferred with a result, or an exception, before this returns. If its callbacks would be too deep inside others,
    they run a little later.
    """
    done.pause()
    _fire(done, result)
    _nesting.call(done.unpause)


def cancelled(done: defer.Deferred[Any]) -> None:
    """What a canceller does at its end, when all that it has to clean up is."""
    finish(done, defer.CancelledError())
