"""
What is probed, and how, as people write it on a command line. Each reader raises C{ValueError} with one sentence that says what
was wrong and what would be right.
"""

from __future__ import annotations

import re
from decimal import Decimal

from udpecho.addresses import MAX_PAYLOAD_IPV6

#: The longest duration, a year of 366 days, in ns.
LONGEST = 366 * 86400 * 10**9
#: The highest rate, in probes a second.
HIGHEST_RATE = 1_000_000
#: How many sizes there may be, so that each size there is may be once.
MOST_SIZES = MAX_PAYLOAD_IPV6 + 1

_nanosecondsByUnit = {"": 10**9, "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_thousands = {"": 1, "k": 10**3, "m": 10**6}
_number = r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"

#: The DSCP by its name: Class Selectors (RFC 2474), Assured and Expedited Forwarding (RFC 2597, RFC 3246), Voice-Admit (RFC
#: 5865), Lower Effort (RFC 8622), and what is not marked (RFC 2474's default, RFC 4594's DF).
DSCP = {
    "DF": 0,
    "BE": 0,
    "LE": 1,
    **{f"CS{n}": 8 * n for n in range(8)},
    **{f"AF{group}{precedence}": 8 * group + 2 * precedence for group in range(1, 5) for precedence in range(1, 4)},
    "VA": 44,
    "EF": 46,
}


def parseDuration(text: str, least: int = 1) -> int:
    """
    Read a duration: C{1s}, C{10ms}, C{100us}, or plain seconds as C{0.5}.

    It is exact: what C{100us} makes of floating-point seconds is not.

    @param least: the shortest that is right, in ns; 0 if none at all is.

    @return: whole nanoseconds, no more than a year has.
    """
    match = re.fullmatch(rf"{_number}(|ns|us|µs|ms|s|m|h)", text)
    nanoseconds = -1 if match is None else int((Decimal(match[1]) * _nanosecondsByUnit[match[2]]).to_integral_value())
    if not 0 <= nanoseconds <= LONGEST:
        raise ValueError(
            f"{text!r} is not a duration: seconds are, as in 1 or 0.5, or a number with a unit, as in 1s, 10ms or 100us, up to"
            " a year"
        )
    if nanoseconds < least:
        raise ValueError(f"{text!r} is too short: {formatDuration(least)} or more is right")
    return nanoseconds


def parseInterval(text: str, least: int = 1000) -> float:
    """
    Read a duration for who counts in seconds.

    @param least: the shortest that is right, in ns: a microsecond, or 0 if none at all is.

    @return: seconds.
    """
    return parseDuration(text, least) / 10**9


def formatDuration(nanoseconds: int) -> str:
    """
    A duration in the largest unit of which it has one whole, without loss: C{1.5ms}.
    """
    for unit in ("s", "ms", "us"):
        if nanoseconds >= _nanosecondsByUnit[unit]:
            return f"{_plain(Decimal(nanoseconds) / _nanosecondsByUnit[unit])}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def parseSizes(text: str) -> tuple[int, ...]:
    """
    Read the sizes of probes: C{64}; a list C{0,64,1400}; a range C{64-1400}, or with a step C{64-1400:100}; a list of these.

    @return: bytes of UDP payload, in the order in which they take turns. One that is there twice has two turns. A range ends
        with the last step that is not beyond its end.
    """
    sizes: list[int] = []
    for part in text.split(","):
        sizes += _sizes(part, text)
        if len(sizes) > MOST_SIZES:
            raise ValueError(f"{text!r} has too many sizes: up to {MOST_SIZES} are right")
    return tuple(sizes)


def _sizes(part: str, text: str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5})(?::([0-9]{1,5}))?)?", part, re.ASCII)
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: bytes are, as in 64, or a list or range of them, as in 0,64,1400 or 64-1400:100"
        )
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    step = 1 if match[3] is None else int(match[3])
    if max(first, last) > MAX_PAYLOAD_IPV6:
        raise ValueError(f"{max(first, last)} is not a datagram's size: a number of bytes from 0 to {MAX_PAYLOAD_IPV6} is")
    if first > last:
        raise ValueError(f"{part!r} is not a range: one that goes up is, as in {last}-{first}")
    if not step:
        raise ValueError(f"{part!r} is not a range: one with a step of 1 or more is, as in {first}-{last}:100")
    return range(first, last + 1, step)


def parseRate(text: str) -> float:
    """
    Read a rate: C{1000}, C{50k} (units of 1000), C{0.5}.

    @return: probes a second, above 0, no more than a million.
    """
    match = re.fullmatch(rf"{_number}([kKmM]?)", text)
    rate = 0.0 if match is None else float(Decimal(match[1]) * _thousands[match[2].lower()])
    if not 1e-6 <= rate <= HIGHEST_RATE:
        raise ValueError(f"{text!r} is not a rate: probes a second are, as in 1000 or 50k, above 0 and up to 1m")
    return rate


def parseTOS(text: str) -> int:
    """
    Read what the IPv4 TOS or IPv6 traffic class byte of probes is: a DSCP by its name, as C{EF} or C{AF41}, in the upper
    six bits of it (RFC 2474 section 3); or the whole byte as a number, as C{ping -Q} takes it, C{184} or C{0xb8}.

    @return: from 0 to 255.
    """
    if text.upper() in DSCP:
        return DSCP[text.upper()] << 2
    if re.fullmatch(r"[0-9]{1,3}|0[xX][0-9a-fA-F]{1,2}", text):
        tos = int(text, 16) if text[:2].lower() == "0x" else int(text)
        if tos <= 255:
            return tos
    raise ValueError(f"{text!r} is not a TOS byte: a DSCP's name is, as in EF, AF41 or CS6, or a number from 0 to 255 (0xff)")


def _plain(number: Decimal) -> str:
    """
    A number in digits, without zeroes at its end.
    """
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


__all__ = [
    "DSCP",
    "HIGHEST_RATE",
    "LONGEST",
    "MOST_SIZES",
    "formatDuration",
    "parseDuration",
    "parseInterval",
    "parseRate",
    "parseSizes",
    "parseTOS",
]
