"""Finds what a test has left behind in its reactor."""

from __future__ import annotations

import gc
import os
import socket
from collections import Counter
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer


@implementer(ILogObserver)
class LeakCheck:
    """Compares a reactor, and the sockets of the process, with their state before the test."""

    def __init__(self, reactor: Any, unhandled: bool = True) -> None:
        """@param unhandled: whether to report unhandled failures of Deferreds; trial does that itself."""
        # A failed Deferred of an earlier test is reported when it is collected.
        gc.collect()
        self._reactor = reactor
        self._before = self._look()
        self._unhandled: list[str] = []
        if unhandled:
            globalLogPublisher.addObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        """Record an unhandled failure of a Deferred."""
        failure = event.get("log_failure")
        if failure is not None and event.get("log_namespace") == "twisted.internet.defer":
            self._unhandled.append(f"unhandled failure in a Deferred: {failure.type.__name__}: {failure.value}")

    def finish(self) -> list[str]:
        """Return a line for each thing that is left after the test."""
        gc.collect()
        globalLogPublisher.removeObserver(self)
        left = [line for key, line in self._look().items() if key not in self._before]
        return left + self._unhandled

    def _look(self) -> dict[Any, str]:
        reactor = self._reactor
        found: dict[Any, str] = {}
        own: Any = getattr(reactor, "_internalReaders", ())
        for reader in getattr(reactor, "getReaders", list)():
            if reader not in own:
                found["reader", reader] = f"reader: {reader!r}"
        for writer in getattr(reactor, "getWriters", list)():
            found["writer", writer] = f"writer: {writer!r}"
        # By function and number: a periodic call is another object each time.
        same: Counter[Any] = Counter()
        for call in reactor.getDelayedCalls():
            function = getattr(call, "func", call)
            same[function] += 1
            found["call", function, same[function]] = f"delayed call: {call}"
        for identity, line in _openSockets().items():
            found["socket", identity] = line
        return found


def _openSockets() -> dict[str, str]:
    """The open sockets of this process, by their inodes."""
    found = {}
    for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found[target] = f"socket: {_describe(int(descriptor))}"
    return found


def _describe(descriptor: int) -> str:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            return f"descriptor {descriptor}, {sock.type.name}, at {sock.getsockname()}"
    except OSError:
        return f"descriptor {descriptor}"
