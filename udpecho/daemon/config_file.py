"""
The configuration file: one file in TOML, whose names are the options of C{twistd udpecho}.

It is turned into the arguments that would say the same on a command line, so that an option is read in one place, and an option
that the command line has is not taken from the file. What is wrong in the file is told with the file's name and the line.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from udpecho.server.settings import LIST, NUMBER, SETTINGS, SWITCH, TEXT, Setting, Value

#: Longer files are not read, in bytes.
MAX_SIZE = 2**20

# Nobody reads more problems, and to look up the line of each takes its time; no value is so long.
_mostProblems = 20
_longestText = 1000
_bareKey = re.compile(r"[A-Za-z0-9_-]+")
_place = re.compile(r" \(at (?:line ([0-9]+), column [0-9]+|end of document)\)$")
# Names of what TOML has, by the Python types that tomllib makes of it.
_words = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "a table"}
_wanted = {
    TEXT: "a string",
    NUMBER: "a number, or a string",
    LIST: "a string, or an array of strings",
    SWITCH: "true or false",
}


class ConfigurationError(ValueError):
    """
    A configuration file cannot be used.

    @ivar problems: all that is wrong with it, each in one line.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        """@param problems: one or more."""
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        super().__init__(self.problems[0] + (f" (and {more} more: --check-config tells them all)" if more else ""))


def read(path: str, known: Mapping[str, Setting] = SETTINGS) -> dict[str, Value]:
    """
    Read a configuration file.

    @param path: its path.
    @param known: the options that it may have.

    @return: what it has, in its order.

    @raise ConfigurationError: if it cannot be used.
    """
    try:
        data = _contents(path)
    except (OSError, ValueError) as e:
        raise ConfigurationError([f"{_shown(path)}: {getattr(e, 'strerror', None) or e}"]) from None
    return parse(data, known, path)


def parse(data: bytes | str, known: Mapping[str, Setting] = SETTINGS, path: str = "configuration") -> dict[str, Value]:
    """
    Read the text of a configuration file. Nothing else is looked at.

    @param data: the text, in UTF-8.
    @param known: the options that it may have.
    @param path: what the problems call the file.

    @return: what it has, in its order.

    @raise ConfigurationError: if it cannot be used.
    """
    where = _shown(path)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        bad = e.object.count(b"\n", 0, e.start) + 1
        raise ConfigurationError([f"{where}:{bad}: not UTF-8, as TOML is: byte {e.object[e.start]:#04x}"]) from None
    found = _load(text, where)
    values: dict[str, Value] = {}
    problems: list[str] = []
    for name, value in found.items():
        try:
            if name not in known:
                raise ValueError(_unknown(name, value, known))
            values[name] = _asOption(value, known[name])
        except ValueError as e:
            line = _lineOf(name, text)
            problems.append(f"{where}{'' if line is None else f':{line}'}: {_key(name)}: {e}")
            if len(problems) == _mostProblems:
                break
    if problems:
        raise ConfigurationError(problems)
    return values


def _contents(path: str) -> bytes:
    """
    @raise OSError: if the file cannot be read.
    @raise ValueError: if it is not a file, or too long for one of these.
    """
    # A pipe would keep the reactor waiting, and can be read once only.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a file: the configuration is one file, which a reload reads again")
    with open(path, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError(f"too long: a configuration has at most {MAX_SIZE} bytes")
    return data


def _load(text: str, where: str) -> dict[str, Any]:
    toml = _toml(where)
    try:
        loaded: dict[str, Any] = toml.loads(text)
    except RecursionError:
        raise ConfigurationError([f"{where}: nested too deeply: options stand by themselves, as in rate = 100"]) from None
    except ValueError as e:
        message = " ".join(str(e).split())
        place = _place.search(message)
        line = place and (place[1] or _lines(text))
        reason = message[: place.start()] if place else message
        raise ConfigurationError([f"{where}{f':{line}' if line else ''}: not TOML: {reason[:1].lower()}{reason[1:]}"]) from None
    return loaded


def _toml(where: str) -> ModuleType:
    """The standard library's reader, which Python has since 3.11, or the library that it was made from."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigurationError([f"{where}: Python 3.10 reads TOML with tomli, which is missing: pip install 'udpecho[config]'"])


def _asOption(value: Any, setting: Setting) -> Value:
    """@raise ValueError: if an option does not take that value."""
    # True is a number to Python, and not to people.
    kind = setting.kind
    if kind == SWITCH and isinstance(value, bool):
        return value
    if kind == NUMBER and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _one(_digits(value), setting)
    if isinstance(value, str) and kind != SWITCH:
        text = _one(value, setting)
        return (text,) if kind == LIST else text
    if kind == LIST and isinstance(value, list):
        if not value:
            raise ValueError("an empty array: leave the option out for its default")
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"an array with {_kindOf(item)} in it: {_wanted[LIST]} would be right")
        return tuple(_one(item, setting) for item in value)
    raise ValueError(f"{_kindOf(value)}: {_wanted[kind]} would be right")


def _one(text: str, setting: Setting) -> str:
    if not text:
        raise ValueError("an empty string: leave the option out for its default")
    if "\0" in text:
        raise ValueError("a string with a NUL in it: a command line cannot have one")
    if len(text) > _longestText:
        raise ValueError(f"a string of {len(text)} characters: {_longestText} are the most")
    if setting.parse is not None:
        setting.parse(text)
    return text


def _digits(number: int | float) -> str:
    """A number as the command line would have it, which knows no exponents."""
    if isinstance(number, int):
        if abs(number) >= 10**20:
            raise ValueError("a number of more than 20 digits")
        return str(number)
    if abs(number) in (0.0, float("inf")) or number != number or not 1e-20 < abs(number) < 1e20:
        return str(number)
    return format(Decimal(repr(number)), "f").removesuffix(".0")


def _kindOf(value: Any) -> str:
    return _words.get(type(value), "a date or a time")


def _unknown(name: str, value: Any, known: Mapping[str, Setting]) -> str:
    if isinstance(value, (dict, list)) and any(isinstance(item, dict) for item in (value, *value)):
        return "there are no tables here: options stand by themselves, as in rate = 100"
    near = get_close_matches(name[:80].lower().replace("_", "-"), known, 1)
    return "no option of udpecho has this name" + (f": {near[0]} is near" if near else "")


def _lineOf(name: str, text: str) -> int | None:
    """
    The line in which a key, or the table of its name, first stands, if that can be told: the text before it is a document
    without it.
    """
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


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)
