"""Threads that neither keep the reactor waiting nor a process from ending."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

from udpecho.interfaces import Reactor

_T = TypeVar("_T")

#: How long the end of a process waits for a thread that is at work, in seconds.
_patience = 0.05
#: Seconds after which a thread gives way to another one. After each system call of a turn the reactor waits for that: with
#: Python's 5 ms a busy thread would leave it a few thousand datagrams a second.
_switchInterval = 0.0002


class _Thread(threading.Thread):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Or the interpreter would wait for it.
        super().__init__(*arguments, **options, daemon=True)

    def join(self, timeout: float | None = None) -> None:
        """Wait for an idle thread to end."""
        super().join(_patience)


def abandonThreads(reactor: Reactor) -> None:
    """Have the process end while threads of the reactor's pool are at work. These look names up (C{getaddrinfo(3)}), which
    cannot be cancelled, and takes many seconds while no name server answers. To be called by a command that uses the pool for
    nothing else, before the reactor runs.

    @param reactor: an C{IReactorThreads} provider.
    """
    reactor.getThreadPool().threadFactory = _Thread


def runInThread(reactor: Reactor, function: Callable[[], _T]) -> defer.Deferred[_T]:
    """Call a function in a thread of its own. The end of the process does not wait for it.

    @param reactor: an C{IReactorFromThreads} provider.
    @return: fires in the reactor with the result, or with the exception. It may be cancelled: the result is ignored then.
    """
    done: defer.Deferred[_T] = defer.Deferred()

    def work() -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(min(before, _switchInterval))
        result: _T | Failure
        try:
            result = function()
        except Exception:
            result = Failure()
        finally:
            sys.setswitchinterval(before)
        # An event loop that is closed takes nothing any more.
        with suppress(RuntimeError):
            reactor.callFromThread(done.callback, result)

    try:
        threading.Thread(target=work, name="udpecho", daemon=True).start()
    except RuntimeError:
        # The system allows no more threads.
        return defer.maybeDeferred(function)
    return done
