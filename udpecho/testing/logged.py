"""Failures that were logged in a test: what callbacks raise ends no run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ILogObserver)
class LoggedErrors:
    """Collects the failures that are logged, as trial does."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        """Collect one."""
        # A Deferred's is logged when it is collected, perhaps in another test: the check for leaks reports it.
        if "log_failure" in event and event.get("log_namespace") != "twisted.internet.defer":
            self._failures.append(event["log_failure"])

    def flush(self, *kinds: type[BaseException]) -> list[Failure]:
        """Take those of some kinds, by default all: the test has expected them. C{flushLoggedErrors} of trial does the same."""
        found = [failure for failure in self._failures if failure.check(*kinds or (BaseException,))]
        self._failures = [failure for failure in self._failures if failure not in found]
        return found

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Collect nothing meanwhile."""
        kept = list(self._failures)
        yield
        self._failures = kept

    def finish(self) -> str:
        """Collect no more.

        @return: the tracebacks of those that nobody has taken.
        """
        globalLogPublisher.removeObserver(self)
        return "\n".join(failure.getTraceback() for failure in self._failures)
