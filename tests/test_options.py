"""Numbers on the command line: the limits in the message of each option are those that hold."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import pytest

from udpecho.cli.run import _makeParser
from udpecho.parsing import parseDuration, parsePort
from udpecho.probe.settings import OPTIONS as PROBE_OPTIONS
from udpecho.server.settings import OPTIONS as SERVER_OPTIONS

_unit = r"(?: ?(days|us|ms|s|g|bytes?))?"
_limits = re.compile(rf"(?:be|or|from) ([0-9.]+){_unit} to (less than )?([0-9.]+){_unit}")


def parsers() -> Iterator[tuple[str, Callable[[str], Any]]]:
    """All parsers of values, by the name of their option."""
    for table in (SERVER_OPTIONS, PROBE_OPTIONS):
        for option in table.values():
            if option.parse is not None:
                yield f"twistd --{option.name}", option.parse
    subcommands: Any = next(action for action in _makeParser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in subcommands.choices.items():
        for action in parser._actions:
            if action.type is not None:
                yield f"{name} {action.option_strings[-1] if action.option_strings else action.dest}", action.type


def refusal(parse: Callable[[str], Any], text: str) -> str | None:
    """The message for a text, C{None} if it is accepted."""
    try:
        parse(text)
    except (ValueError, argparse.ArgumentTypeError) as e:
        return str(e)
    return None


def numeric() -> Iterator[tuple[str, Callable[[str], Any], re.Match[str]]]:
    """The options whose message for what is no number has limits."""
    for name, parse in parsers():
        match = _limits.search(refusal(parse, "-") or "")
        # A pattern has a length, a burst several numbers.
        if match is not None and name not in ("ping --pattern", "proxy --burst"):
            yield name, parse, match


def written(number: str, unit: str | None) -> tuple[Fraction, str]:
    """A number of a message as an option takes it, and its unit."""
    if unit == "days":
        return Fraction(number) * 24, "h"
    return Fraction(number), "" if unit is None or unit.startswith("byte") else unit


def text(number: Fraction) -> str:
    """A number in plain digits."""
    whole, rest = divmod(number, 1)
    return f"{whole}" + (f".{int(rest * 10**30):030}".rstrip("0") if rest else "")


NUMERIC = list(numeric())


class LimitTests:
    """Each numeric option."""

    def test_all(self) -> None:
        """There are as many as there should be, of all commands."""
        assert {"ping --count", "ping --rate", "ping --fail-if-loss", "send --chunk", "proxy --loss"} <= {
            name for name, *_ in NUMERIC
        }
        assert {"twistd --port", "twistd --rate", "twistd --workers", "twistd --max-payload"} <= {name for name, *_ in NUMERIC}

    @pytest.mark.parametrize(("name", "parse", "match"), NUMERIC, ids=[name for name, *_ in NUMERIC])
    def test_limits(self, name: str, parse: Callable[[str], Any], match: re.Match[str]) -> None:
        """The limits that its message names are accepted, and the next number beyond them is refused with the same limits."""
        low, lowUnit = written(match[1], match[2])
        high, highUnit = written(match[4], match[5])
        isWhole = refusal(parse, text(high - Fraction(1, 2)) + highUnit) is not None or high > 10**6
        least = Fraction(1) if isWhole else Fraction(1, 10**20)
        inside = [text(low) + lowUnit]
        beyond = [text(high + least) + highUnit]
        (beyond if match[3] else inside).append(text(high) + highUnit)
        if match[3]:
            inside.append(text(high * 1024**3 - 1))
        if low > 0 and not re.search("or 0 for", match.string):
            beyond.append(text(low - (Fraction(1) if isWhole and low >= 1 else low / 10**6)) + lowUnit)
        for each in inside:
            assert refusal(parse, each) is None, each
        for each in beyond:
            message = refusal(parse, each)
            assert message is not None, each
            assert match[0] in message
            assert message.endswith(f"got {each!r}")

    @pytest.mark.parametrize(("name", "parse", "match"), NUMERIC, ids=[name for name, *_ in NUMERIC])
    @pytest.mark.parametrize(
        "given",
        [
            *("", " ", "-1", "nan", "inf", "1e400", "1e-400", "\uff11", "\u0661", "\xb2", "--", "0b1", "1" * 5000, "." * 9),
        ],
    )
    def test_others(self, name: str, parse: Callable[[str], Any], match: re.Match[str], given: str) -> None:
        """What is not a number, or not one in ASCII digits, or far too large a one, is refused with the limits."""
        assert match[0] in (refusal(parse, given) or "")


class ExactTests:
    """Numbers with many digits."""

    def test_exact(self) -> None:
        """Any number of digits is exact, and zeros before it are nothing."""
        assert parsePort("0" * 50 + "7") == 7
        assert parseDuration("0." + "0" * 8 + "1" + "0" * 50) == 1
        with pytest.raises(ValueError, match="duration must be"):
            parseDuration("31622400000000000." + "0" * 60 + "1ns")
