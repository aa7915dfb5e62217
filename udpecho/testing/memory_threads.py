"""Threads of a host in memory: what a program would do in a thread is done at once, in order, in the thread of the test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.internet import threads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

_log = Logger()


class MemoryThreadPool(ThreadPool):
    """A thread pool without threads: when C{callInThread} returns, the work is done."""

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object] | None, func: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        """Call a function now, and another one with whether it returned, and the result or the failure."""
        if self.joined:
            return
        try:
            succeeded, result = True, func(*args, **kw)
        except Exception:
            succeeded, result = False, Failure()
        if onResult is not None:
            onResult(succeeded, result)
        elif not succeeded:
            _log.failure("Unhandled error in a thread", result)

    def adjustPoolsize(self, minthreads: int | None = None, maxthreads: int | None = None) -> None:
        """Note how many threads there should be. There are none."""
        self.min = self.min if minthreads is None else minthreads
        self.max = self.max if maxthreads is None else maxthreads

    def startAWorker(self) -> None:
        """Start none."""


def isBlocking(function: Callable[..., object]) -> bool:
    """Whether C{threads.blockingCallFromThread} passes a function to the reactor, and waits for its result."""
    return getattr(function, "__code__", None) in threads.blockingCallFromThread.__code__.co_consts


def callNow(function: Callable[..., object]) -> None:
    """Call what C{threads.blockingCallFromThread} waits for.

    @raise RuntimeError: if the result is not there at once: there is no other thread that could bring it meanwhile.
    """
    function()
    queue = inspect.getclosurevars(function).nonlocals["queue"]
    assert isinstance(queue, Queue)
    if queue.empty():
        raise RuntimeError(
            "blockingCallFromThread on a host in memory must get its result at once, got a Deferred that has not fired: "
            "there are no threads, and nothing happens while it waits"
        )
