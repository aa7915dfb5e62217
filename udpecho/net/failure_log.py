"""Failures of what others have written, in the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

#: How many failures a second get their lines and their tracebacks.
MOST = 10


class FailureLog:
    """Logs the first failures of each second. Whoever sends datagrams can cause one with each."""

    def __init__(self, log: Logger, seconds: Callable[[], float] = time.monotonic) -> None:
        """@param seconds: a clock, in seconds."""
        self._log = log
        self._seconds = seconds
        self._ends = 0.0
        self._number = 0

    def failure(self, text: str, **fields: Any) -> None:
        """Log the exception that is being handled."""
        now = self._seconds()
        if now >= self._ends:
            left, self._number, self._ends = self._number - MOST, 0, now + 1
            if left > 0:
                self._log.warn("{left} more failures were not logged", left=left)
        self._number += 1
        if self._number <= MOST:
            self._log.failure(text, **fields)
