"""The C{udpecho} command: it imports the rest when it runs, so that an interrupt meanwhile is one, too."""

from __future__ import annotations

import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    @param arguments: the command line after C{udpecho}; by default that of this process.
    """
    try:
        from udpecho.cli.run import run

        return run(arguments)
    except KeyboardInterrupt:
        # Before the reactor has its handlers. The shells' status of a signal.
        return 128 + signal.SIGINT
