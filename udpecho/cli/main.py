"""The C{udpecho} command: it imports the rest when it runs, so that an interrupt meanwhile is one, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    @param arguments: the command line after C{udpecho}; by default that of this process.
    """
    former = signal.getsignal(signal.SIGINT)
    isDefault = former is signal.default_int_handler
    if isDefault:
        # Until the reactor has its handlers: an exception in the middle of an import may be swallowed. The shells' status.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    try:
        from udpecho.cli.run import run

        return run(arguments)
    finally:
        if isDefault:
            signal.signal(signal.SIGINT, former)
