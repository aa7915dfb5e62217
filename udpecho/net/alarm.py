"""Calls at a time that is exact to some ten us. A reactor's delayed calls are up to a millisecond late on C{epoll} and C{poll},
whose timeouts are in milliseconds. Linux has timers that are descriptors (C{timerfd_create(2)}): a reactor sees these at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.linux import sockopt
from udpecho.net.linux.proof import Proof
from udpecho.net.linux.timerfd import Timerfd

_second = 1_000_000_000
#: How far ahead the proof sets a timer, in ns.
_ahead = 1000 * _second
#: The longest delay in seconds, 68 years.
_longest = 2.0**31

_log = Logger()


@implementer(IReadDescriptor)
class _TimerAlarm:
    """A timer that is a descriptor."""

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
        self._reactor = reactor
        self._function = function
        self._timer = Timerfd()
        self._closed = False
        reactor.addReader(self)

    def schedule(self, delay: float) -> None:
        """Call the function after C{delay} seconds, and not when it was due before."""
        self._timer.set(time.monotonic_ns() + round(min(delay, _longest) * _second))

    def close(self) -> None:
        """Call it no more. May be called twice."""
        if not self._closed:
            self._closed = True
            self._reactor.removeReader(self)
            self._timer.close()

    def fileno(self) -> int:
        """@see: C{IReadDescriptor}"""
        return -1 if self._closed else self._timer.descriptor

    def doRead(self) -> None:
        """It is time."""
        # It stays readable until it is set again.
        self._timer.set(None)
        try:
            self._function()
        except Exception:
            # The reactor would not watch it any more.
            _log.failure("Unhandled error in {function}", function=self._function)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor does not watch this any more."""
        self.close()

    def logPrefix(self) -> str:
        """What the reactor's log lines begin with."""
        return "alarm"


class _CallAlarm:
    """The same by the reactor's delayed calls."""

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
        self._call = SingleCall(reactor, function)

    def schedule(self, delay: float) -> None:
        """@see: L{_TimerAlarm.schedule}"""
        self._call.cancel()
        self._call.schedule(delay)

    def close(self) -> None:
        """@see: L{_TimerAlarm.close}"""
        self._call.cancel()


@Proof
def exact() -> str | None:
    """Prove that a timer has the time that was set."""
    timer = Timerfd()
    try:
        timer.set(time.monotonic_ns() + _ahead)
        return None if 0 < timer.remaining() <= _ahead else "a timer has not the time that was set"
    finally:
        timer.close()


class Alarm:
    """Calls a function later, once for the last time that was set. It has a descriptor from the first time until L{cancel}."""

    def __init__(self, reactor: Reactor, function: Callable[[], object]) -> None:
        """@param reactor: an C{IReactorTime} provider; one with C{IReactorFDSet} is exact, where the system has such timers.
        @param function: what it raises is logged.
        """
        self._reactor = reactor
        self._function = function
        self._alarm: _TimerAlarm | _CallAlarm | None = None

    def schedule(self, delay: float) -> None:
        """Call the function after C{delay} seconds, and not when it was due before."""
        if self._alarm is None:
            self._alarm = self._open()
        self._alarm.schedule(delay)

    def cancel(self) -> None:
        """Do not call it. May be called at any time."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.close()

    def _open(self) -> _TimerAlarm | _CallAlarm:
        if sockopt.available and IReactorFDSet.providedBy(self._reactor):
            # There may be no descriptor left.
            with suppress(OSError):
                if exact.reason() is None:
                    return _TimerAlarm(self._reactor, self._function)
        return _CallAlarm(self._reactor, self._function)
