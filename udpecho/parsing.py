"""
Values as people write them on a command line. Each reader raises C{ValueError} with one sentence that says what was wrong and
what would be right.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from decimal import Decimal
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


def parseLogRate(text: str) -> int | None:
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
    """Read how many processes serve: a number, or C{auto} for as many as there are processors for this one."""
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
    """Read a local address to listen on."""
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


#: The longest duration, a year of 366 days, in ns.
LONGEST = 366 * 86400 * 10**9
#: The highest rate, in probes a second.
HIGHEST_RATE = 1_000_000
#: How many sizes there may be, so that each size there is may be once.
MOST_SIZES = MAX_PAYLOAD_IPV6 + 1

_nanosecondsByUnit = {"": 10**9, "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_thousands = {"": 1, "k": 10**3, "m": 10**6}
_decimal = r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})"

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
    match = re.fullmatch(rf"{_decimal}(|ns|us|µs|ms|s|m|h)", text)
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
    """A duration in the largest unit of which it has one whole, without loss: C{1.5ms}."""
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
    match = re.fullmatch(rf"{_decimal}([kKmM]?)", text)
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
    """A number in digits, without zeroes at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parsePort(text: str, lowest: int = 1) -> int:
    """
    Read a port number.

    @param text: what the person wrote.
    @param lowest: 1 for a port to send to, 0 where 0 means "any free one".

    @raise ValueError: with a sentence that says what would be right.
    """
    port = int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else -1
    if not lowest <= port <= 65535:
        raise ValueError(f"{text!r} is not a port: a number from {lowest} to 65535 is")
    return port


def parseAddress(text: str) -> tuple[str, int]:
    """
    Read C{HOST:PORT} or C{[ADDR]:PORT}; the host may be a name.

    @raise ValueError: with a sentence that says what would be right.
    """
    host, port = _split(text)
    if port is None:
        raise ValueError(f"{text!r} has no port: write HOST:PORT, as in {_bracketed(host)}:1234")
    return host, parsePort(port)


def parseLocalAddress(text: str) -> tuple[str, int]:
    """
    Read a local address to send from: C{ADDR}, C{ADDR:PORT} or C{[ADDR]:PORT}; without a port, or with 0, any free one.

    @raise ValueError: with a sentence that says what would be right.
    """
    host, port = (text, None) if isIPv6Address(text) else _split(text)
    if not (isIPv6Address(host) or isIPAddress(host)) or isGroup(host):
        raise ValueError(f"{text!r} is not a local address: an IP address of this machine is, as in 127.0.0.1")
    return host, 0 if port is None else parsePort(port, lowest=0)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _split(text: str) -> tuple[str, str | None]:
    """Take the host and the port, if there is one, apart."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not isIPv6Address(host) or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address: write an IPv6 address and its port as [::1]:1234")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        if isIPv6Address(text) or isIPv6Address(text.rpartition(":")[0]):
            raise ValueError(f"{text!r} is ambiguous: write an IPv6 address in brackets, as in [::1]:1234")
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, as in localhost:1234")
    host, colon, port = text.partition(":")
    if not host:
        raise ValueError(f"{text!r} has no host: write HOST:PORT, as in localhost:1234")
    return host, port if colon else None


def checkTimeout(timeout: float) -> None:
    """
    @raise TypeError: if C{timeout} is not a number.
    @raise ValueError: if it is negative, not a number or without end: reactors choke on those.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r}")
    # An integer may be too large to be compared as a float by a reactor.
    if not 0 <= timeout <= sys.float_info.max:
        raise ValueError(f"a timeout is a number of seconds, 0 or more, not {timeout!r}")
