"""Rules as text, for the command line: C{lose starts=0004 nth=3}."""

from __future__ import annotations

from collections.abc import Callable

from udpecho.addresses import MAX_PAYLOAD_IPV6
from udpecho.faults.matching import Match, Place, matching
from udpecho.faults.rules import Rules, corrupt, delay, deliver, duplicate, lose, replace, truncate
from udpecho.parsing import parseLocalAddress, parseNumber, parsePayloadSize, parsePort, parseSeconds, parseShare

#: The highest number of a datagram, or count of datagrams.
_MOST = 10**9


def parseRule(text: str, seed: int | str = 0) -> Rules:
    """Read a rule: what becomes of a datagram, then the conditions. Each sees only the datagrams that fulfil those before it.

    The actions are C{lose}, C{deliver}, C{delay=TIME}, C{duplicate} or C{duplicate=COPIES}, C{corrupt} or C{corrupt=BIT},
    C{truncate=SIZE}, C{replace=HEX}; the conditions C{starts=HEX}, C{contains=HEX}, C{from=ADDR}, C{to=ADDR}, C{link=up},
    C{size=SIZE} or C{size=LEAST-MOST}, C{during=START-END}, C{share=SHARE}, C{nth=NUMBER,...}, C{first=COUNT}, C{after=COUNT},
    C{every=COUNT}.

    @param seed: decides about the share.
    @raise ValueError: if the text is not a rule.
    """
    match = matching()
    action, *conditions = text.split() or [""]
    for condition in conditions:
        name, _, value = condition.partition("=")
        if name not in _conditions:
            known = ", ".join(f"{name}=" for name in _conditions)
            raise ValueError(f"condition must be one of {known}, got {condition!r}")
        match = _conditions[name](match, value, seed)
    name, equals, value = action.partition("=")
    if name not in _actions or (equals and name in _plain) or (not equals and name not in _plain | _optional):
        known = ", ".join(name if name in _plain | _optional else f"{name}=" for name in _actions)
        raise ValueError(f"rule must start with one of {known}, got {text!r}")
    return _actions[name](match, value)


def _count(value: str, what: str, least: int = 1) -> int:
    return parseNumber(value, least, _MOST, what)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"bytes must be hexadecimal digits, as in 0004, got {text!r}") from None


def _place(text: str) -> Place:
    if text.isdigit():
        return parsePort(text)
    host, port = parseLocalAddress(text)
    return (host, port) if port else host


def _size(match: Match, text: str) -> Match:
    least, dash, most = text.partition("-")
    lowest = parsePayloadSize(least)
    highest = parsePayloadSize(most) if most else MAX_PAYLOAD_IPV6 if dash else lowest
    return match.size(lowest, highest)


def _during(match: Match, text: str) -> Match:
    start, _, end = text.partition("-")
    return match.during(parseSeconds(start), *([parseSeconds(end)] if end else []))


_conditions: dict[str, Callable[[Match, str, int | str], Match]] = {
    "starts": lambda match, value, _: match.startingWith(_bytes(value)),
    "contains": lambda match, value, _: match.containing(_bytes(value)),
    "from": lambda match, value, _: match.source(_place(value)),
    "to": lambda match, value, _: match.destination(_place(value)),
    "link": lambda match, value, _: match.link(value),
    "size": lambda match, value, _: _size(match, value),
    "during": lambda match, value, _: _during(match, value),
    "share": lambda match, value, seed: match.probability(parseShare(value), seed),
    "nth": lambda match, value, _: match.nth(*[_count(number, "nth") for number in value.split(",")]),
    "first": lambda match, value, _: match.first(_count(value, "first")),
    "after": lambda match, value, _: match.after(_count(value, "after", 0)),
    "every": lambda match, value, _: match.every(_count(value, "every")),
}

_actions: dict[str, Callable[[Match, str], Rules]] = {
    "lose": lambda match, _: lose(match),
    "deliver": lambda match, _: deliver(match),
    "delay": lambda match, value: delay(parseSeconds(value), match),
    "duplicate": lambda match, value: duplicate(match, parseNumber(value, 1, 1000, "copies") if value else 1),
    "corrupt": lambda match, value: corrupt(match, parseNumber(value, 0, 8 * MAX_PAYLOAD_IPV6 - 1, "bit") if value else 0),
    "truncate": lambda match, value: truncate(parsePayloadSize(value), match),
    "replace": lambda match, value: replace(_bytes(value), match),
}
_plain = {"lose", "deliver"}
_optional = {"duplicate", "corrupt"}
