"""Exit statuses, argument parsing and printing for all commands of C{udpecho}."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from udpecho.printing import printable, printableLines

# Exit statuses.
ANSWERED = 0
UNANSWERED = 1
WRONG_INPUT = 2
UNREACHABLE = 3
#: Ended by a signal: this plus the signal's number, as in shells; 130 for an interrupt.
SIGNALLED = 128
#: The reader of the results is gone: as if by C{SIGPIPE}, which Python ignores.
READER_GONE = SIGNALLED + 13

_T = TypeVar("_T")


class Parser(argparse.ArgumentParser):
    """Prints a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit."""
        _printError(f"{self.prog}: {printable(message)} (see {self.prog} --help)")
        sys.exit(WRONG_INPUT)

    def _print_message(self, message: str, file: Any = None) -> None:
        # The help, or the version: argparse ignores that it cannot be printed.
        Printer().line(message.rstrip("\n"))


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

    def complain(self) -> int:
        """Print the reason, unless the reader has closed its end and does not want more.

        @return: the exit status.
        """
        if isinstance(self.reason, BrokenPipeError):
            return READER_GONE
        complain(f"cannot write to standard output: {self.reason.strerror}")
        return UNANSWERED


class Printer:
    """Prints results to standard output."""

    def line(self, line: str) -> None:
        """Print a line, or several; nothing if who started the command has closed standard output.

        @raise CannotPrint: if standard output does not take it.
        """
        try:
            print(printableLines(line), flush=True)
        except OSError as e:
            silence(1)
            raise CannotPrint(e) from None


def complain(sentence: str) -> None:
    """Print a message, of one line or several, to standard error."""
    _printError(f"udpecho: {printableLines(sentence)}")


def _printError(text: str) -> None:
    # Without standard error, print would use standard output.
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            silence(2)


def silence(descriptor: int) -> None:
    """Print no more to standard output (1) or error (2), which takes nothing. Python would try again when it exits, complain,
    and change the exit status.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
