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

from udpecho.addresses import MAX_PAYLOAD_IPV6, isGroup, parsePort

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


_wantedEndpoint = "write an endpoint, as in tcp:9107:interface=127.0.0.1 or tcp6:9107:interface=\\:\\:1"


def parseEndpoint(text: str) -> str:
    """
    Look whether a text describes an endpoint to listen on, as in C{tcp:9107:interface=127.0.0.1}.

    @return: the text.

    @raise ValueError: with a sentence that says what would be right.
    """
    # Only few want one, and Twisted's endpoints take a while to import.
    from twisted.internet.endpoints import StandardIOEndpoint, serverFromString

    if re.fullmatch(r"unix:(address=)?", text):
        raise ValueError(f"{text!r} is nowhere to listen: it has no path; {_wantedEndpoint}")
    port = re.match(r"(?:tcp6?|ssl):(?:port=)?([^:=]*)(?::|$)", text)
    try:
        if port is not None:
            parsePort(port[1], lowest=0)
        # An endpoint keeps its reactor until it is told to listen, and this one never is.
        endpoint = serverFromString(object(), text)
    except ValueError as e:
        raise ValueError(f"{text!r} is nowhere to listen: {e}; {_wantedEndpoint}") from None
    except Exception:
        # What parses the parts raises whatever it stumbles over.
        raise ValueError(f"{text!r} is nowhere to listen: {_wantedEndpoint}") from None
    if isinstance(endpoint, StandardIOEndpoint):
        raise ValueError(f"{text!r} is nowhere to listen: it is one connection; {_wantedEndpoint}")
    return text


__all__ = [
    "MAX_WORKERS",
    "optionValue",
    "parseBytes",
    "parseEndpoint",
    "parseInterface",
    "parseLimit",
    "parseNumber",
    "parsePayloadSize",
    "parseRate",
    "parseSeconds",
    "parseShare",
    "parseWorkers",
]
