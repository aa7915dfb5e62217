"""Stop several parts of a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet import defer, error
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


def stopAll(parts: Mapping[str, Callable[[], object]]) -> defer.Deferred[None]:
    """Stop parts at the same time. One that cannot be stopped is a warning, and does not keep the others from it.

    @param parts: the functions that stop them, in their order, by what the warning calls each; they may return a Deferred.
    @return: fires when each part has stopped or has failed to.
    """

    def failed(failure: Failure, name: str) -> None:
        reason = str(failure.value) or type(failure.value).__name__
        _log.warn("cannot stop {part} as it should be: {reason}", part=name, reason=reason, failure=failure)

    stopping = [defer.maybeDeferred(stop).addErrback(failed, name) for name, stop in parts.items()]
    return defer.gatherResults(stopping).addCallback(lambda _: None)


def allowSecondStop(reactor: Any) -> None:
    """Have C{reactor.stop()} do nothing while the reactor stops: each further signal that asks for the stop calls it, and
    Twisted logs a traceback then.

    @param reactor: an C{IReactorCore} provider that this process has for itself.
    """
    stop = reactor.stop

    def stopOnce() -> None:
        with suppress(error.ReactorNotRunning):
            stop()

    reactor.stop = stopOnce
