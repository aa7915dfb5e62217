"""Where a play of a codebase takes place: hosts on a network in memory, or one machine with real sockets."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Stage(Protocol):
    """What a play needs."""

    def host(self, name: str) -> tuple[Any, str]:
        """Add a host.

        @return: its reactor and its address.
        """

    def on(self, reactor: Any) -> AbstractContextManager[Any]:
        """Run code as a host's: what imports the global reactor gets that host's."""

    def freePort(self) -> int:
        """@return: the number of a UDP port that is free on all hosts."""


class Real:
    """One machine: each host is the same reactor."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def host(self, name: str) -> tuple[Any, str]:
        """@see: L{Stage.host}"""
        return self.reactor, "127.0.0.1"

    def on(self, reactor: Any) -> AbstractContextManager[Any]:
        """@see: L{Stage.on}"""
        return nullcontext()

    def freePort(self) -> int:
        """@see: L{Stage.freePort}"""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            number: int = free.getsockname()[1]
            return number
