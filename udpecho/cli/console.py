"""Exit statuses, argument parsing and printing for all commands of C{udpecho}."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

# Exit statuses.
ANSWERED = 0
UNANSWERED = 1
WRONG_INPUT = 2
UNREACHABLE = 3
#: Ended by a signal: this plus the signal's number, as in shells; 130 for an interrupt.
SIGNALLED = 128

_T = TypeVar("_T")


class Parser(argparse.ArgumentParser):
    """Prints a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def argument(parser: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse print a parser's own message."""

    def parse(text: str) -> _T:
        try:
            return parser(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return parse


def addArgument(
    group: argparse._ActionsContainer, names: str, metavar: str, parser: Callable[[str], Any], text: str, default: Any = None
) -> None:
    """Add an option with a value, or an operand. Spaces separate several names; C{text} is the help."""
    group.add_argument(*names.split(), metavar=metavar, type=argument(parser), default=default, help=text)


class CannotPrint(Exception):
    """Standard output does not take the results."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason

    def complain(self) -> None:
        """Print the reason, unless the reader has closed its end and does not want more."""
        if not isinstance(self.reason, BrokenPipeError):
            complain(f"cannot write to standard output: {self.reason.strerror}")


class Printer:
    """Prints results to standard output."""

    def line(self, line: str) -> None:
        """Print a line.

        @raise CannotPrint: if standard output does not take it.
        """
        try:
            print(line, flush=True)
        except OSError as e:
            # Else Python would try, and complain, again when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise CannotPrint(e) from None


def complain(sentence: str) -> None:
    """Print a message to standard error."""
    # Without standard error, print would use standard output.
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"udpecho: {sentence}", file=sys.stderr, flush=True)
