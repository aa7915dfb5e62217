"""Lookups that do not keep a process from ending."""

from __future__ import annotations

import threading
from typing import Any

from udpecho.interfaces import Reactor

#: How long the end of a process waits for a thread that is at work, in seconds.
_patience = 0.05


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
