"""Observers of the log that do something."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer


@implementer(ILogObserver)
class Reaction:
    """Calls a function inside the call that logs a line with some text, while it is entered.

    @ivar count: how often it came.
    """

    def __init__(self, text: str, function: Callable[[], object]) -> None:
        self._text = text
        self._function = function
        self.count = 0

    def __call__(self, event: dict[str, Any]) -> None:
        if self._text in formatEvent(event):
            self.count += 1
            self._function()

    def __enter__(self) -> Reaction:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, reason: BaseException | None, at: TracebackType | None) -> None:
        globalLogPublisher.removeObserver(self)
