"""The plain part of TOML that a configuration file of options needs, read in pieces: a reload must not stop the server, and
C{tomllib} reads a whole text in one call. What is not plain is left to that.
"""

from __future__ import annotations

import re
from typing import Any

from udpecho.pieces import Work

_comment = r"(?:#[\t\x20-\x7e\x80-\U0010ffff]*(?=\n|\Z))"
# Each character fits in one way only: else to find that something else follows takes time without end. More is skipped first.
_blank = rf"[ \t\n]{{0,500}}(?:{_comment}[ \t\n]{{0,500}}){{0,20}}"
#: A basic string without escapes or a literal string, neither of them of several lines.
_string = r"""(?:"(?!"")([^"\\\x00-\x08\x0a-\x1f\x7f]*)"|'(?!'')([^'\x00-\x08\x0a-\x1f\x7f]*)')"""
_key = re.compile(rf"{_blank}([A-Za-z0-9_-]+)[ \t]*=[ \t]*")
_scalar = re.compile(
    rf"(?:{_string}|(true|false)|([+-]?(?:0|[1-9][0-9]{{0,17}}))|([+-]?(?:0|[1-9][0-9]{{0,17}})\.[0-9]{{1,17}}))(?![^ \t\n#])"
)
_item = re.compile(rf"{_blank}{_string}{_blank},")
_arrayEnd = re.compile(rf"{_blank}(?:{_string}{_blank})?\]")
_lineEnd = re.compile(rf"[ \t]*{_comment}?(?:\n|\Z)")
_end = re.compile(rf"{_blank}\Z")
_skipped = re.compile(_blank)
# How many values of an array are a piece of work.
_piece = 100


def readPlain(text: str) -> Work[dict[str, Any] | None]:
    """Read a text whose keys are bare, with strings, numbers, booleans, and arrays of strings as values.

    @return: as C{tomllib.loads}; C{None} if there is anything else, or anything wrong.
    """
    text = text.replace("\r\n", "\n")
    found: dict[str, Any] = {}
    at = 0
    while key := (yield from _find(_key, text, at)):
        name, at = key[1], key.end()
        if name in found:
            return None
        if text.startswith("[", at):
            items: list[str] = []
            at += 1
            while item := (yield from _find(_item, text, at)):
                items.append(item[1] if item[2] is None else item[2])
                at = item.end()
                if not len(items) % _piece:
                    yield
            last = yield from _find(_arrayEnd, text, at)
            if last is None:
                return None
            items += [string for string in last.groups() if string is not None]
            found[name], at = items, last.end()
        else:
            scalar = _scalar.match(text, at)
            if scalar is None:
                return None
            found[name], at = _valueOf(*scalar.groups()), scalar.end()
        lineEnd = _lineEnd.match(text, at)
        if lineEnd is None:
            return None
        at = lineEnd.end()
        yield
    return found if (yield from _find(_end, text, at)) else None


def _find(pattern: re.Pattern[str], text: str, at: int) -> Work[re.Match[str] | None]:
    """Match a pattern behind any amount of blank space and comments."""
    while (found := pattern.match(text, at)) is None and (skipped := _skipped.match(text, at)) and skipped[0]:
        at = skipped.end()
        yield
    return found


def _valueOf(basic: str | None, literal: str | None, boolean: str | None, whole: str | None, decimal: str | None) -> Any:
    if boolean is not None:
        return boolean == "true"
    if whole is not None:
        return int(whole)
    if decimal is not None:
        return float(decimal)
    return basic if literal is None else literal
