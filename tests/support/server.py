"""What the tests of the server share: its log lines, and a check of its counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer

from udpecho.interfaces import DROP_REASONS, IGuard
from udpecho.server.counters import CountersView

PEER = ("192.0.2.7", 4321)


@implementer(ILogObserver)
class Lines:
    """The log events of udpecho."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if str(event.get("log_namespace", "")).startswith("udpecho"):
            self.events.append(event)

    @property
    def texts(self) -> list[str]:
        """The events as they read."""
        return [formatEvent(event) for event in self.events]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged in a test."""
    observer = Lines()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)


def check(counters: CountersView) -> None:
    """Every datagram is accounted for."""
    assert counters.received == counters.echoed + sum(counters.dropped.values()) + counters.waiting
    assert counters.receivedBytes >= counters.echoedBytes + counters.droppedBytes
    assert set(counters.dropped) <= set(DROP_REASONS)
    if counters.waiting == 0:
        assert counters.receivedBytes == counters.echoedBytes + counters.droppedBytes


@implementer(IGuard)
class EvenPortsOnly:
    """A guard that has its own view."""

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        return "not_allowed" if address[1] % 2 else None
