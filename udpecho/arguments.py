"""
Values as people write them on a command line. Each reader raises C{ValueError} with one sentence that says what was wrong and
what would be right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.python import usage

from udpecho.addresses import MAX_PAYLOAD_IPV6, isGroup

_T = TypeVar("_T")

#: How many workers there may be.
MAX_WORKERS = 256

_secondsByUnit = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_bytesByUnit = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_longestSeconds = 366 * 86400.0
_number = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([A-Za-z]*)", re.ASCII)


def optionValue(parser: Callable[[str], _T], option: str, text: str) -> _T:
    """
    Read an option's value for C{twistd}.

    @raise usage.UsageError: with the option's name and the parser's sentence.
    """
    try:
        return parser(text)
    except ValueError as e:
        raise usage.UsageError(f"--{option}: {e}") from None


def parseSeconds(text: str) -> float:
    """
    Read a duration: C{5}, C{0.5}, C{500ms}, C{2m}.

    @return: seconds, 0 or more, and no more than a year has.
    """
    match = _number.fullmatch(text)
    seconds = -1.0
    if match is not None and match[2] in _secondsByUnit:
        seconds = float(match[1]) * _secondsByUnit[match[2]]
    if not 0 <= seconds <= _longestSeconds:
        raise ValueError(
            f"{text!r} is not a duration: seconds are, as in 5 or 0.5, or a number with a unit, as in 500ms, up to a year"
        )
    return seconds


def parseBytes(text: str) -> int:
    """
    Read a size: C{65536}, C{64k}, C{4M}, in units of 1024.

    @return: bytes, 1 or more, and no more than a C int holds, which is what C{setsockopt} takes.
    """
    match = re.fullmatch(r"([0-9]{1,10})([kKmMgG]?)", text, re.ASCII)
    size = 0 if match is None else int(match[1]) * _bytesByUnit[match[2].lower()]
    if not 1 <= size < 2**30:
        raise ValueError(f"{text!r} is not a size: a number of bytes is, as in 65536 or 64k, less than 1g")
    return size


def parseShare(text: str) -> float:
    """
    Read a share: C{10%} or C{0.1}.

    @return: from 0 to 1.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(%?)", text, re.ASCII)
    share = -1.0 if match is None else float(match[1]) / (100 if match[2] else 1)
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a share: a percentage is, as in 10%, or a number from 0 to 1")
    return share


def parsePayloadSize(text: str, lowest: int = 0) -> int:
    """
    Read how long a datagram's payload may be.

    @return: bytes, from C{lowest} to 65527.
    """
    match = re.fullmatch(r"([0-9]{1,10})([kK]?)", text, re.ASCII)
    size = -1 if match is None else int(match[1]) * _bytesByUnit[match[2].lower()]
    if not lowest <= size <= MAX_PAYLOAD_IPV6:
        raise ValueError(f"{text!r} is not a payload's length: a number of bytes from {lowest} to {MAX_PAYLOAD_IPV6} is")
    return size


def parseRate(text: str) -> int | None:
    """
    Read how many datagrams a second have their lines in the log: a whole number, or C{all}.

    @return: the number, or C{None} for all.
    """
    if text == "all":
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a rate: a whole number of datagrams a second is, 0 for none, or all")
    return int(text)


def parseWorkers(text: str) -> int:
    """
    Read how many processes serve: a number, or C{auto} for as many as there are processors for this one.
    """
    if text == "auto":
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(available, MAX_WORKERS)
    number = int(text) if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) else 0
    if not 1 <= number <= MAX_WORKERS:
        raise ValueError(f"{text!r} is not a number of workers: a number from 1 to {MAX_WORKERS} is, or auto")
    return number


def parseLimit(text: str, lowest: int = 0) -> int:
    """
    Read how many datagrams are answered in a second, or at once.

    @param lowest: 0 where 0 means "no limit", else 1.

    @return: a whole number, no more than a billion.
    """
    limit = int(text) if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) else -1
    if not lowest <= limit <= 10**9:
        none = "" if lowest else ", or 0 for no limit"
        raise ValueError(f"{text!r} is not a limit: a whole number of datagrams from 1 to 1000000000 is{none}")
    return limit


#: The longest list of sizes.
_mostSizes = 65536


def parseSizes(text: str) -> tuple[int, ...]:
    """
    Read sizes of probes: C{64}, a list C{64,512,1400}, a range C{64-1400}, one in steps C{64-1400:8}, and lists of these.

    @return: each of them, in bytes, in that order.
    """
    sizes: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5})(?::([0-9]{1,5}))?)?", part, re.ASCII)
        first, last, step = (0, -1, 1) if match is None else (int(match[1]), int(match[2] or match[1]), int(match[3] or 1))
        if not (first <= last <= MAX_PAYLOAD_IPV6 and step):
            raise ValueError(
                f"{part!r} is not a size: bytes from 0 to {MAX_PAYLOAD_IPV6} are, as in 64, or a range of them, as in 64-1400,"
                " or 64-1400:8 in steps of 8"
            )
        sizes += range(first, last + 1, step)
    if len(sizes) > _mostSizes:
        raise ValueError(f"{text!r} is too many sizes: {_mostSizes} at the most")
    return tuple(sizes)


def parsePerSecond(text: str) -> float:
    """
    Read how many times a second: C{50}, C{0.5}, C{50k}.

    @return: more than 0, up to a million.
    """
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]*)?|\.[0-9]+)([kK]?)", text, re.ASCII)
    rate = 0.0 if match is None else float(match[1]) * (1000 if match[2] else 1)
    if not 1e-6 <= rate <= 1e6:
        raise ValueError(f"{text!r} is not a rate: a number in a second is, as in 100, 0.5 or 50k, up to a million")
    return rate


def parseInterval(text: str) -> float:
    """
    Read an interval: C{1s}, C{10ms}, C{100us}.

    @return: seconds, a microsecond or more.
    """
    seconds = parseSeconds(text)
    if seconds < 1e-6:
        raise ValueError(f"{text!r} is too short an interval: 1us is the shortest")
    return seconds


#: The code points of the differentiated services field that have names (RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622).
CODE_POINTS = {
    "default": 0,
    "be": 0,
    "le": 1,
    "ef": 46,
    "va": 44,
    **{f"cs{number}": 8 * number for number in range(8)},
    **{f"af{which}{drop}": 8 * which + 2 * drop for which in range(1, 5) for drop in range(1, 4)},
}


def parseTrafficClass(text: str) -> int:
    """
    Read the byte that was once the type of service: C{184}, C{0xb8}, or a code point's name, as in C{EF} and C{AF41}.

    @return: from 0 to 255; of a name the upper six bits.
    """
    if text.lower() in CODE_POINTS:
        return CODE_POINTS[text.lower()] << 2
    match = re.fullmatch(r"0[xX]([0-9a-fA-F]{1,2})|([0-9]{1,3})", text, re.ASCII)
    value = -1 if match is None else int(match[1], 16) if match[1] else int(match[2])
    if not 0 <= value <= 255:
        raise ValueError(
            f"{text!r} is not a traffic class: a byte is, as in 184 or 0xb8, or the name of a code point, as in EF, AF41 or CS1"
        )
    return value


def parseNumber(text: str, lowest: int, highest: int, what: str) -> int:
    """
    Read a whole number.

    @param what: what it is called, with its article.
    """
    number = int(text) if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) else -1
    if not lowest <= number <= highest:
        raise ValueError(f"{text!r} is not {what}: a whole number from {lowest} to {highest} is")
    return number


def parseInterface(text: str) -> str:
    """
    Read a local address to listen on.
    """
    if not (isIPAddress(text) or isIPv6Address(text)) or isGroup(text):
        raise ValueError(f"{text!r} is not an interface: an IP address is, as in 127.0.0.1, ::1 or 0.0.0.0, without a port")
    return text


__all__ = [
    "CODE_POINTS",
    "MAX_WORKERS",
    "optionValue",
    "parseBytes",
    "parseInterface",
    "parseInterval",
    "parseLimit",
    "parseNumber",
    "parsePayloadSize",
    "parsePerSecond",
    "parseRate",
    "parseSeconds",
    "parseShare",
    "parseSizes",
    "parseTrafficClass",
    "parseWorkers",
]
