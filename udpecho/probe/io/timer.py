"""When to send the next probe, and which sockets can be read.

A reactor's own delayed calls are up to a millisecond late on C{epoll} and C{poll}, whose timeouts are in milliseconds. And it
takes an entry in the error queue of a socket, where timestamps of sending are, for the end of a connection. So on Linux it
watches one descriptor for all: an C{epoll(7)} instance that has the sockets in it, and a timer in ns (C{timerfd_create(2)}).
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.errors import NO_DESCRIPTOR
from udpecho.interfaces import Reactor
from udpecho.net import features
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.linux import sockopt
from udpecho.net.linux.proof import Proof
from udpecho.net.linux.timerfd import Timerfd
from udpecho.net.turn import turnBudget

_second = 1_000_000_000
_none: frozenset[int] = frozenset()
#: How far ahead the proof sets a timer, in ns, and for how many seconds it waits for one.
_ahead = 1000 * _second
_patience = 0.1

_log = Logger()

#: Called when it is time, or a socket has something, with the descriptors that can be read, or have an error.
Turn = Callable[["set[int] | frozenset[int]"], None]


@implementer(IReadDescriptor)
class Watch:
    """One descriptor in the reactor, on Linux.

    @ivar isOver: whether the turn has no more time for what is to be read.
    """

    def __init__(self, reactor: Reactor, turn: Turn) -> None:
        """@param reactor: an C{IReactorFDSet} provider.
        @raise OSError: if the system has no such descriptors.
        """
        self._reactor = reactor
        self._turn = turn
        self._at: int | None = None
        self._timer, self._epoll = _open()
        self._budget = turnBudget(reactor)
        self.isOver = self._budget.isOver
        reactor.addReader(self)

    def watch(self, descriptor: int) -> None:
        """Watch a socket."""
        self._epoll.register(descriptor, select.EPOLLIN)

    def setDeadline(self, time: int | None) -> None:
        """Call for a turn at a time of the monotonic clock, and not at the one before. A turn may come earlier.

        @param time: ns; C{None} for never.
        """
        if time == self._at or self._epoll.closed:
            return
        self._at = time
        self._timer.set(time)

    def close(self) -> None:
        """Watch nothing any more. May be called twice."""
        if not self._epoll.closed:
            self._reactor.removeReader(self)
            self._budget.closed(self._look)
            self._epoll.close()
            self._timer.close()

    def fileno(self) -> int:
        """@see: C{IReadDescriptor}"""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def doRead(self) -> None:
        """There is something: look when the turn has time for it."""
        self._budget.run(self._look)

    def _look(self) -> None:
        """Find out what has happened."""
        ready = {descriptor for descriptor, _ in self._epoll.poll(0)}
        if self._timer.descriptor in ready:
            ready.discard(self._timer.descriptor)
            # It stays readable until it is set again.
            self._at = -1
        try:
            self._turn(ready)
        except Exception:
            _log.failure("Unhandled error in {turn}", turn=self._turn)
        if self._at == -1:
            self.setDeadline(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor does not watch this any more."""
        self.close()

    def logPrefix(self) -> str:
        """What the reactor's log lines begin with."""
        return "probes"


def _open() -> tuple[Timerfd, select.epoll]:
    timer = Timerfd()
    try:
        epoll = select.epoll()
        epoll.register(timer.descriptor, select.EPOLLIN)
    except BaseException:
        timer.close()
        raise
    return timer, epoll


@Proof
def watching() -> str | None:
    """Prove that a timer has the time that was set, and that it is seen."""
    timer, epoll = _open()
    with epoll:
        try:
            before = time.monotonic_ns()
            timer.set(before + _ahead)
            left = timer.remaining()
            if not before + _ahead - time.monotonic_ns() <= left <= _ahead or epoll.poll(0):
                return "a timer has not the time that was set"
            timer.set(1)
            if [descriptor for descriptor, _ in epoll.poll(_patience)] != [timer.descriptor]:
                return "a timer whose time has come is not seen"
        finally:
            timer.close()
    return None


class DelayedTurns:
    """The same by a reactor's delayed calls, for sockets that need no watching."""

    def __init__(self, reactor: Reactor, turn: Turn, monotonic: Callable[[], int]) -> None:
        """@param reactor: an C{IReactorTime} provider.
        @param monotonic: the clock, in ns.
        """
        self._monotonic = monotonic
        self._at: int | None = None
        self._call = SingleCall(reactor, lambda: turn(_none))

    def isOver(self) -> bool:
        """Nothing is read in such a turn."""
        return False

    def watch(self, descriptor: int) -> None:
        """Sockets without a descriptor call by themselves."""

    def setDeadline(self, time: int | None) -> None:
        """@see: L{Watch.setDeadline}"""
        if time == self._at and self._call.scheduled:
            return
        self._call.cancel()
        self._at = time
        if time is not None:
            self._call.schedule(max(0, time - self._monotonic()) / _second)

    def close(self) -> None:
        """Call no more."""
        self._call.cancel()


def openWatch(reactor: Reactor, turn: Turn, monotonic: Callable[[], int]) -> Watch | DelayedTurns:
    """Watch as well as system and reactor can.

    @raise OSError: if there is no descriptor left.
    """
    if sockopt.available and IReactorFDSet.providedBy(reactor):
        try:
            reason = watching.reason()
            if reason is None:
                return Watch(reactor, turn)
            features.missed(features.TIMER, reason)
        except OSError as e:
            # That is of the moment; to use less would be for as long as the prober runs.
            if e.errno in NO_DESCRIPTOR:
                raise
            features.missed(features.TIMER, e)
    return DelayedTurns(reactor, turn, monotonic)
