"""The configuration file of a daemon: one file in TOML, whose names are the options of its command line.

Its values are texts that the parser of the option reads, as those of the command line. Each problem is reported with the file's
name and its line.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NamedTuple

from udpecho.daemon.plain_toml import readPlain
from udpecho.options import LIST, NUMBER, SWITCH, TEXT, Option, Table, Value
from udpecho.pieces import Work, finish
from udpecho.printing import printable

#: The longest file that is read, in bytes.
MAX_SIZE = 2**20

# Nobody reads more problems, and finding the line of each takes time.
_mostProblems = 20
_longestText = 1000
# How many values of an array are a piece of work.
_piece = 50
_bareKey = re.compile(r"[A-Za-z0-9_-]+")
_place = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
# TOML's types, by the Python types that tomllib makes of them.
_types = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "a table"}
_wanted = {
    TEXT: "a string",
    NUMBER: "a number or a string",
    LIST: "a string or an array of strings",
    SWITCH: "true or false",
}


class ConfigurationError(ValueError):
    """A configuration file cannot be used.

    @ivar problems: its problems, each in one line.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(self.problems[0] + (f" (and {more} more: --check-config prints all)" if more else ""))


class FileOptions(NamedTuple):
    """The options of a configuration file, in its order.

    @ivar values: their values, as the command line would have them.
    @ivar parsed: what the parsers of the options made of these.
    """

    values: dict[str, Value]
    parsed: dict[str, Any]


def read(path: str, table: Table) -> FileOptions:
    """Read the options of a configuration file.

    @param table: the options of the daemon.
    @raise ConfigurationError: if it cannot be used.
    """
    return parse(contents(path), table, path)


def contents(path: str) -> bytes:
    """Read the text of a configuration file.

    @raise ConfigurationError: if that is refused, or it is too long.
    """
    try:
        return _contents(path)
    except (OSError, ValueError) as e:
        raise ConfigurationError([f"{printable(path)}: {getattr(e, 'strerror', None) or e}"]) from None


def parse(data: bytes | str, table: Table, path: str = "configuration") -> FileOptions:
    """Read the text of a configuration file, without access to any file.

    @param data: the text, in UTF-8.
    @param table: the options of the daemon.
    @param path: the name of the file in the problems.
    @raise ConfigurationError: if it cannot be used.
    """
    where = printable(path)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        bad = e.object.count(b"\n", 0, e.start) + 1
        raise ConfigurationError([f"{where}:{bad}: must be UTF-8, got byte {e.object[e.start]:#04x}"]) from None
    found = _load(text, where)
    options = FileOptions({}, {})
    problems: list[str] = []
    for name, value in found.items():
        try:
            if name not in table or not table[name].inFile:
                raise ValueError(_unknown(name, value, table))
            options.values[name], options.parsed[name] = finish(_optionValue(value, table[name]))
        except ValueError as e:
            line = _lineOf(name, text)
            problems.append(f"{where}{'' if line is None else f':{line}'}: {_key(name)}: {e}")
            if len(problems) == _mostProblems:
                break
    if problems:
        raise ConfigurationError(problems)
    return options


def parseInPieces(data: bytes, table: Table) -> Work[FileOptions | None]:
    """Read the text of a configuration file as L{parse} does, in pieces, if nothing in it is wrong or unusual.

    @return: C{None} if there is: L{parse} finds out what it is.
    """
    options = FileOptions({}, {})
    try:
        found = yield from readPlain(data.decode("utf-8-sig"))
        for name, value in (found or {}).items():
            if name not in table or not table[name].inFile:
                return None
            options.values[name], options.parsed[name] = yield from _optionValue(value, table[name])
    except ValueError:
        return None
    return None if found is None else options


def _contents(path: str) -> bytes:
    # Reading a pipe would block the reactor, and works once only.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("must be a regular file, which a reload can read again")
    with open(path, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError(f"must have at most {MAX_SIZE} bytes, got more")
    return data


def _load(text: str, where: str) -> dict[str, Any]:
    toml = _toml(where)
    try:
        loaded: dict[str, Any] = toml.loads(text)
        return loaded
    except RecursionError:
        raise ConfigurationError([f"{where}: options must not be nested: write name = value"]) from None
    except ValueError as e:
        message = " ".join(str(e).split())
        place = _place.search(message)
        line = place and (place[1] or _lines(text))
        reason = message[: place.start()] if place else message
        start = f"{where}:{line}" if line else where
        raise ConfigurationError([f"{start}: must be TOML: {reason[:1].lower()}{reason[1:]}"]) from None


def _toml(where: str) -> ModuleType:
    # The standard library has it since Python 3.11.
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigurationError([f"{where}: tomli must be installed to read TOML with Python 3.10: pip install 'udpecho[config]'"])


def _optionValue(value: Any, option: Option) -> Work[tuple[Value, Any]]:
    """@return: the value as the command line would have it, and what the option's parser makes of it.
    @raise ValueError: if the option does not take that value.
    """
    kind = option.kind
    # Python takes True for a number.
    if kind == SWITCH and isinstance(value, bool):
        return value, value
    if kind == NUMBER and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = _digits(value)
    if kind == LIST and isinstance(value, (str, list)):
        texts = tuple([value] if isinstance(value, str) else value)
        if not texts:
            raise ValueError("must have a value, got an empty array: leave the option out for its default")
        parsed: list[Any] = []
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"must be {_wanted[LIST]}, got an array with {_typeOf(text)}")
            parsed += option.listed(_parsed(text, option))
            if not number % _piece:
                yield
        return texts, parsed
    if isinstance(value, str) and kind != SWITCH:
        return value, _parsed(value, option)
    raise ValueError(f"must be {_wanted[kind]}, got {_typeOf(value)}")


def _parsed(text: str, option: Option) -> Any:
    if not text:
        raise ValueError("must have a value, got an empty string: leave the option out for its default")
    if "\0" in text:
        raise ValueError("must not have a NUL, which no command line can have")
    if len(text) > _longestText:
        raise ValueError(f"must have at most {_longestText} characters, got {len(text)}")
    return text if option.parse is None else option.parse(text)


def _digits(number: int | float) -> str:
    """Write a number without an exponent, which the command line does not read."""
    if isinstance(number, int):
        if abs(number) >= 10**20:
            raise ValueError("must have at most 20 digits, got more")
        return str(number)
    if not 1e-20 < abs(number) < 1e20:
        return str(number)
    return format(Decimal(repr(number)), "f").removesuffix(".0")


def _typeOf(value: Any) -> str:
    return _types.get(type(value), "a date or a time")


def _unknown(name: str, value: Any, table: Table) -> str:
    if isinstance(value, (dict, list)) and any(isinstance(item, dict) for item in (value, *value)):
        return "options must not be in a table: write name = value"
    known = [option.name for option in table.values() if option.inFile]
    near = get_close_matches(name[:80].lower().replace("_", "-"), known, 1)
    return "unknown option" + (f": did you mean {near[0]}?" if near else "")


def _lineOf(name: str, text: str) -> int | None:
    """The line of the first occurrence of a key, or of the table of its name, if it is found: the text before lacks the key."""
    key = re.escape(name)
    pattern = re.compile(rf"^[ \t]*(?:\[+[ \t]*)?(?:{key}|\"{key}\"|'{key}')[ \t]*[]=.]", re.MULTILINE)
    for match in list(pattern.finditer(text))[:8]:
        before = text[: match.start()]
        try:
            if name not in _toml("").loads(before):
                return _lines(before)
        except (ValueError, RecursionError):
            continue
    return None


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _key(name: str) -> str:
    return name if _bareKey.fullmatch(name) and len(name) <= 80 else ascii(name[:80])
