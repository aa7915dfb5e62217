"""Long work in pieces, between which the reactor does all else.

While another thread runs Python code, the reactor waits after each system call for that to give way, and on a busy machine for
its turn on a processor, too.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall

_T = TypeVar("_T")

#: Work that yields after each piece of some tens of microseconds to a millisecond, and returns its result.
Work = Generator[None, None, _T]
#: Seconds of work in one turn of the reactor, and between two of them. A process that works without a rest waits for its turn
#: on a busy processor; one that rests is woken at once.
_share, _rest = 0.001, 0.004


def finish(work: Work[_T]) -> _T:
    """Do all the work now."""
    while True:
        try:
            next(work)
        except StopIteration as e:
            result: _T = e.value
            return result


def inPieces(reactor: Any, work: Work[_T]) -> defer.Deferred[_T]:
    """Do the work in pieces, one in each turn of the reactor.

    @param reactor: an C{IReactorTime} provider.
    @return: fires with the result, or with the exception. It may be cancelled: the work ends then.
    """
    calls: list[IDelayedCall] = []
    done: defer.Deferred[_T] = defer.Deferred(lambda _: calls.pop().cancel())

    def turn() -> None:
        calls.clear()
        end = reactor.seconds() + _share
        try:
            next(work)
            while reactor.seconds() < end:
                next(work)
        except StopIteration as e:
            done.callback(e.value)
        except Exception:
            done.errback()
        else:
            calls.append(reactor.callLater(_rest, turn))

    calls.append(reactor.callLater(0, turn))
    return done


def spareGarbageCollector() -> None:
    """Have the garbage collector look at nothing again that exists now, at the end of a start: all that a daemon has imported
    would take it longer than datagrams wait.
    """
    # PyPy's works in pieces.
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()
