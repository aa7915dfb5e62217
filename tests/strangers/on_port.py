"""Runs a play or a suite of a codebase on real sockets, and prints as JSON how many of our ports it opened, and the result.

C{python -m tests.strangers.on_port REACTOR stock|ours play NAME COUNT}, or C{... suite MODULE...}
"""

from __future__ import annotations

import json
import sys
import time
import unittest
from typing import Any

from twisted.python.reflect import namedAny

from udpecho.net.port import DatagramPort
from udpecho.net.replace import useDatagramPorts

#: How long a play may take, in seconds.
_LIMIT = 30.0


class Outcomes(unittest.TestResult):
    """The outcome of each test by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        """Until anything else is said, it passes."""
        self.outcomes[test.id()] = "passed"
        super().startTest(test)

    def addError(self, test: unittest.TestCase, error: Any) -> None:
        """It raised, or left something in the reactor."""
        self.outcomes[test.id()] = "error"

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:
        """It failed."""
        self.outcomes[test.id()] = "failed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        """It was skipped."""
        self.outcomes[test.id()] = "skipped"


def suite(modules: list[str]) -> dict[str, str]:
    """Run the tests of modules.

    @return: their outcomes.
    """
    result = Outcomes()
    unittest.defaultTestLoader.loadTestsFromNames(modules).run(result)
    return result.outcomes


def play(name: str, count: int) -> list[Any]:
    """Perform a play until it has noted so much.

    @return: what it noted.
    """
    from twisted.internet import reactor

    from tests.strangers import plays
    from tests.strangers.stage import Real

    noted: list[Any] = []
    deadline = time.monotonic() + _LIMIT

    def look() -> None:
        if len(noted) < count and time.monotonic() < deadline:
            reactor.callLater(0.01, look)
        else:
            reactor.stop()

    def start() -> None:
        nonlocal noted
        noted = getattr(plays, name)(Real(reactor))
        look()

    reactor.callWhenRunning(start)
    reactor.run()
    return noted


def main(reactor: str, port: str, what: str, *rest: str) -> None:
    """Install a reactor, and run."""
    namedAny(f"twisted.internet.{reactor}reactor").install()
    made = 0
    opened = DatagramPort.startListening

    def count(self: DatagramPort) -> None:
        nonlocal made
        made += 1
        opened(self)

    if port == "ours":
        from twisted.internet import reactor as installed

        DatagramPort.startListening = count  # type: ignore[method-assign]
        useDatagramPorts(installed)
    # What the codebases print goes elsewhere.
    output, sys.stdout = sys.stdout, sys.stderr
    result = suite(list(rest)) if what == "suite" else play(rest[0], int(rest[1]))
    print(json.dumps([made, result]), file=output)


if __name__ == "__main__":
    main(*sys.argv[1:])
