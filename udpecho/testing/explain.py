"""The report of a test that failed on a network in memory: the decisions that matter, and a test that replays them."""

from __future__ import annotations

import contextlib
import io
import sys
import unittest
from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred

from udpecho.faults.journal import Journal
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.shrink import shrink

#: Seconds of processor time for which the decisions that matter are looked for.
SECONDS = 5.0


def explain(
    test: Callable[[Journal], object], journal: Journal, replaying: Callable[[str], str], seconds: float = SECONDS
) -> str:
    """Find the decisions that matter.

    @param test: runs the test again on a network with another journal, and raises if it fails.
    @param journal: of the network of the failed test.
    @param replaying: makes the source of a test that replays some decisions.
    @return: sentences about them, and that test.
    """
    if journal.forgotten:
        return f"More than {len(journal.entries)} datagrams: the decisions that matter are not looked for."
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = shrink(test, journal, seconds)
    except ValueError:
        return "The test does not fail again with the same decisions: something else in it is random, or outlasts it."
    if not found:
        return "The test fails without any fault, too."
    every = len(journal.entries)
    return f"{len(found.splitlines())} of {every} decisions make it fail. This test replays them:\n\n{replaying(found)}"


def indented(text: str, spaces: int) -> str:
    """Lines with spaces before each."""
    return "".join(f"{' ' * spaces}{line}\n" for line in text.splitlines())


class ExplainingMixin:
    """A mixin for test cases: when a test fails that has made one network, its report has the decisions that matter."""

    _testMethodName: str
    _journals: list[Journal] = []
    #: The journal of the next network, when the test is run again.
    _replayed: Journal | None = None

    def run(self, result: Any = None) -> Any:
        """Run the test."""
        self._journals = []
        if self._replayed is None:
            setattr(self, self._testMethodName, self._watched(getattr(self, self._testMethodName)))
        return super().run(result)  # type: ignore[misc]

    def replayNetwork(self, decisions: str) -> None:
        """Let the network that the test makes repeat recorded decisions, whatever its plans are.

        @param decisions: as L{MemoryNetwork.replay <udpecho.testing.memory_network.MemoryNetwork.replay>} takes them.
        """
        self._replayed = Journal.fromString(decisions)

    def _watch(self, network: MemoryNetwork) -> None:
        """Record what is decided on a network, or repeat what was recorded."""
        network.journal, self._replayed = self._replayed, None
        if network.journal is None:
            self._journals.append(network.record())

    def _watched(self, method: Callable[[], Any]) -> Callable[[], Any]:
        @wraps(method)
        def watched() -> Any:
            try:
                outcome = method()
            except unittest.SkipTest:
                raise
            except Exception:
                self._explain()
                raise
            if hasattr(outcome, "cr_frame") and hasattr(self, "successResultOf"):
                # Trial's own: unittest awaits its coroutines elsewhere.
                outcome = Deferred.fromCoroutine(outcome)
            return outcome.addErrback(self._failed) if isinstance(outcome, Deferred) else outcome

        return watched

    def _failed(self, failure: Any) -> Any:
        self._explain()
        return failure

    def _explain(self) -> None:
        running = getattr(sys.modules.get("twisted.internet.reactor"), "running", False)
        if len(self._journals) != 1 or running:
            return
        print(explain(self._again, self._journals[0], self._replaying))

    def _again(self, journal: Journal) -> None:
        case: Any = type(self)(self._testMethodName)  # type: ignore[call-arg]
        case._replayed = journal
        raised = _Raised()
        case.run(raised)
        if raised.first is not None:
            raise raised.first

    def _replaying(self, decisions: str) -> str:
        return (
            f"    def {self._testMethodName}_replayed(self):\n"
            f'        self.replayNetwork("""\n{indented(decisions, 12)}        """)\n'
            f"        self.{self._testMethodName}()\n"
        )


class _Raised(unittest.TestResult):
    """Keeps what a test has raised first."""

    first: BaseException | None = None

    def addError(self, test: Any, err: Any) -> None:
        self.first = self.first or err[1]

    addFailure = addError
