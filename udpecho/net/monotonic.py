"""Reactor time that no change of the wall clock touches."""

from __future__ import annotations

import time

from twisted.python import runtime

from udpecho.interfaces import Reactor


def useMonotonicTime(reactor: Reactor) -> None:
    """Make a reactor schedule by the monotonic clock (C{CLOCK_MONOTONIC}, C{clock_gettime(2)}). Whatever of udpecho waits for a
    deadline calls this first; a second call changes nothing.

    Twisted's reactors schedule by C{time.time()}. When the wall clock is set back by an hour, no delayed call runs for an hour;
    when it is set forward, all of them run at once (Twisted tickets 2424 and 5552). After this call C{reactor.seconds()}
    continues from the wall clock's time and ignores its later changes. So calls that are pending stay right, and so do those of
    the application. A reactor with a clock of its own, as C{task.Clock}, is left alone.

    @param reactor: an C{IReactorTime} provider.
    """
    if getattr(reactor, "seconds", None) is not runtime.seconds:
        return
    offset: float = runtime.seconds() - time.monotonic()

    def seconds() -> float:
        return time.monotonic() + offset

    reactor.seconds = seconds
    for call in reactor.getDelayedCalls():
        # Each call keeps the clock that it was made with, for its reset().
        call.seconds = seconds
