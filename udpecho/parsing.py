"""Text to values, one function for each kind of value that people write on a command line or in a configuration file.

Each raises C{ValueError} with what the value must be and what was given: C{port must be 1 to 65535, got '0'}.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.python import usage
from twisted.python.failure import Failure

from udpecho.addresses import MAX_PAYLOAD_IPV6, isGroup
from udpecho.processors import availableProcessors

_T = TypeVar("_T")

MAX_WORKERS = 256
#: The longest duration, a year of 366 days, in nanoseconds.
MAX_DURATION = 366 * 86400 * 10**9
#: The highest rate, in probes a second.
MAX_RATE = 1_000_000
#: The most sizes in a list: each possible size once.
MAX_SIZES = MAX_PAYLOAD_IPV6 + 1

_Units = Mapping[str, "int | Fraction"]
_noUnit: _Units = {"": 1}
_nanoseconds: _Units = {
    "": 10**9,
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_bytes: _Units = {"": 1, "k": 1024, "K": 1024, "m": 1024**2, "M": 1024**2, "g": 1024**3, "G": 1024**3}
_percents: _Units = {"": Fraction("0.01"), "%": Fraction("0.01")}
_thousands: _Units = {"": 1, "k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6}
_shares: _Units = {"": 1, "%": Fraction("0.01")}

_numberAndUnit = re.compile(r"([0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100})([A-Za-zµ%]*)")

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


def optionValue(parser: Callable[[str], _T], option: str, text: str) -> _T:
    """Read an option's value for C{twistd}.

    @raise usage.UsageError: with the option's name and the parser's message.
    """
    try:
        return parser(text)
    except ValueError as e:
        raise usage.UsageError(f"--{option}: {e}") from None


def _error(rule: str, given: object) -> ValueError:
    return ValueError(f"{rule}, got {given!r}")


def _decimal(text: str, rule: str, lowest: int | Fraction, highest: int, units: _Units) -> Fraction:
    """Read a decimal number, with a unit perhaps. The result is exact. C{lowest} and C{highest} are in the smallest unit, and
    allowed.
    """
    match = _numberAndUnit.fullmatch(text)
    if match is None or match[2] not in units or not lowest <= (value := Fraction(match[1]) * units[match[2]]) <= highest:
        raise _error(rule, text)
    return value


def _whole(text: str, rule: str, lowest: int, highest: int, units: _Units = _noUnit) -> int:
    """Read a whole number, as L{_decimal} reads a decimal one."""
    if "." in text:
        raise _error(rule, text)
    return int(_decimal(text, rule, lowest, highest, units))


def parseNumber(text: str, lowest: int, highest: int, what: str) -> int:
    """Read a whole number. C{what} is its name, for the message."""
    return _whole(text, f"{what} must be {lowest} to {highest}", lowest, highest)


def parsePort(text: str, lowest: int = 1) -> int:
    """Read a port number. C{lowest} is 0 where 0 means "any free one"."""
    return parseNumber(text, lowest, 65535, "port")


def parseDuration(text: str, least: int = 1) -> int:
    """Read a duration: C{1s}, C{10ms}, C{100us}, or plain seconds as C{0.5}.

    @param least: the shortest that is allowed, in nanoseconds.
    @return: nanoseconds, exact as floating-point seconds would not be; no more than a year has.
    """
    rule = f"duration must be {formatDuration(least)} to 366 days, as in 0.5s or 500ms"
    return round(_decimal(text, rule, least, MAX_DURATION, _nanoseconds))


def parseSeconds(text: str) -> float:
    """Read a duration that may be zero, in seconds."""
    return parseDuration(text, least=0) / 10**9


def parseInterval(text: str) -> float:
    """Read a duration of a microsecond or more, in seconds."""
    return parseDuration(text, least=1000) / 10**9


def formatDuration(nanoseconds: int) -> str:
    """Write a duration without loss, in the largest unit of which it has one whole: C{1.5ms}."""
    for unit in ("s", "ms", "us"):
        if nanoseconds >= _nanoseconds[unit]:
            text = f"{Decimal(nanoseconds) / int(_nanoseconds[unit]):f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def parseBytes(text: str) -> int:
    """Read a size: C{65536}, C{64k}, C{4M}, in units of 1024.

    @return: bytes, fewer than 1 GiB: C{setsockopt} takes a C int, and Linux doubles the size of a buffer.
    """
    return _whole(text, "size must be 1 byte to less than 1g, as in 65536 or 64k", 1, 2**30 - 1, _bytes)


def parsePayloadSize(text: str, lowest: int = 0) -> int:
    """Read the size of a datagram's payload, from C{lowest} to 65527 bytes."""
    return _whole(text, f"payload size must be {lowest} to {MAX_PAYLOAD_IPV6} bytes", lowest, MAX_PAYLOAD_IPV6, _bytes)


def parseShare(text: str) -> float:
    """Read a share, C{10%} or C{0.1}, from 0 to 1."""
    return float(_decimal(text, "share must be 0 to 1, as in 0.1 or 10%", 0, 1, _shares))


def parsePercent(text: str, what: str) -> float:
    """Read a percentage, C{1%}, or C{1} for the same. C{what} is its name, for the message. The result is from 0 to 1."""
    return float(_decimal(text, f"{what} must be a percentage from 0 to 100, as in 1% or 0.5", 0, 1, _percents))


def parseRate(text: str) -> float:
    """Read a rate, C{1000}, C{50k} (units of 1000) or C{0.5}, in probes a second."""
    rule = f"rate must be 0.000001 to {MAX_RATE} probes a second, as in 0.5, 1000 or 50k"
    return float(_decimal(text, rule, Fraction("0.000001"), MAX_RATE, _thousands))


def parseLogRate(text: str) -> int | None:
    """Read how many datagrams a second have log lines of their own: a whole number, or C{None} for C{all}."""
    return None if text == "all" else _whole(text, "rate must be 0 to 1000000000 datagrams a second, or all", 0, 10**9)


def parseLimit(text: str, lowest: int = 0) -> int:
    """Read how many datagrams are answered in a second, or at once. C{lowest} is 0 where 0 means "no limit"."""
    none = "" if lowest else ", or 0 for no limit"
    return _whole(text, f"limit must be 1 to 1000000000 datagrams{none}", lowest, 10**9)


def parseWorkers(text: str) -> int:
    """Read how many processes serve: a number, or C{auto} for as many as this process may use processors."""
    if text == "auto":
        return min(availableProcessors(), MAX_WORKERS)
    return _whole(text, f"workers must be 1 to {MAX_WORKERS}, or auto", 1, MAX_WORKERS)


def parseSizes(text: str) -> tuple[int, ...]:
    """Read the sizes of probes: C{64}; a list C{0,64,1400}; a range C{64-1400}, or with a step C{64-1400:100}; a list of these.

    @return: bytes of UDP payload, in the order in which they take turns. One that is there twice has two turns. A range ends
        with the last step that is not beyond its end.
    """
    sizes: list[int] = []
    for part in text.split(","):
        sizes += _sizes(part, text)
        if len(sizes) > MAX_SIZES:
            raise _error(f"number of sizes must be 1 to {MAX_SIZES}", text)
    return tuple(sizes)


def _sizes(part: str, text: str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5})(?::([0-9]{1,5}))?)?", part, re.ASCII)
    if match is None:
        raise _error("sizes must be bytes, as in 64, 0,64,1400 or 64-1400:100", text)
    first, last = (parsePayloadSize(size) for size in (match[1], match[2] or match[1]))
    step = int(match[3] or 1)
    if first > last:
        raise _error(f"range of sizes must go up, as in {last}-{first}", part)
    if not step:
        raise _error(f"step of a range must be 1 or more, as in {first}-{last}:100", part)
    return range(first, last + 1, step)


def parseTOS(text: str) -> int:
    """Read the IPv4 TOS or IPv6 traffic class byte of probes: a DSCP by its name, as C{EF} or C{AF41}, in the upper six bits of
    it (RFC 2474 section 3); or the whole byte as a number, as C{ping -Q} takes it, C{184} or C{0xb8}.

    @return: from 0 to 255.
    """
    if text.upper() in DSCP:
        return DSCP[text.upper()] << 2
    if re.fullmatch("0[xX][0-9a-fA-F]{1,2}", text):
        return int(text, 16)
    return _whole(text, "TOS must be a DSCP name, as in EF or AF41, or 0 to 255", 0, 255)


def parseInterface(text: str) -> str:
    """Read a local address to listen on: a link-local IPv6 one with its scope, as in C{fe80::1%eth0}."""
    if not (isIPAddress(text) or isIPv6Address(text)) or text.endswith("%") or isGroup(text):
        raise _error("interface must be an IP address, as in 127.0.0.1, ::1 or 0.0.0.0", text)
    address = ip_address(text.partition("%")[0])
    # The system binds none of these.
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise _error(f"interface must be an IPv4 address as itself, {address.ipv4_mapped}", text)
        if address.is_link_local != ("%" in text):
            raise _error("interface must have a scope if its address is link-local, as in fe80::1%eth0, and only then", text)
    return text


def parseSocketName(text: str) -> str:
    """Read the name, or the position, of a socket that systemd passes. C{FileDescriptorName=} in C{systemd.socket(5)} allows no
    others.
    """
    if not re.fullmatch("[ -9;-~]{1,255}", text):
        raise _error("name of a socket must have 1 to 255 printable ASCII characters and no colon", text)
    return text


def parseAddress(text: str) -> tuple[str, int]:
    """Read C{HOST:PORT} or C{[ADDR]:PORT}; the host may be a name. A link-local IPv6 address has its scope."""
    host, port = _split(_decoded(text))
    if _notInNames.search(host):
        raise _error("host must be a name or an IP address, as in localhost", text)
    if port is None:
        raise _error(_bracketedAddress if ":" in host else _plainAddress, text)
    if "%" not in host and isIPv6Address(host) and ip_address(host).is_link_local:
        raise _error(f"link-local address must have a scope, as in [{host}%eth0]:{port}", text)
    return host, parsePort(port)


def parseTarget(text: str) -> str:
    """Check C{HOST:PORT} or C{[ADDR]:PORT}; the host may be a name, to be looked up later.

    @return: the text itself.
    """
    parseAddress(text)
    return _decoded(text)


def parseLocalAddress(text: str) -> tuple[str, int]:
    """Read a local address to send from: C{ADDR}, C{ADDR:PORT} or C{[ADDR]:PORT}; without a port, or with 0, any free one."""
    host, port = (text, None) if isIPv6Address(text) else _split(text)
    if not (isIPv6Address(host) or isIPAddress(host)) or isGroup(host):
        raise _error("local address must be an IP address, as in 127.0.0.1", text)
    return host, 0 if port is None else parsePort(port, lowest=0)


def parseListen(text: str, what: str = "address") -> tuple[str, int]:
    """Read the address that a proxy listens on, C{ADDR:PORT}; port 0 is any.

    @param what: what it is called in an error.
    @raise ValueError: if it is none.
    """
    host, port = parseLocalAddress(text)
    if host == text or (not port and not text.endswith(":0")):
        raise ValueError(f"{what} must be ADDR:PORT, as in 127.0.0.1:9000, port 0 for any free one, got {text!r}")
    return host, port


def checkFamily(local: str, peer: str) -> None:
    """Check that a local address is of the family of its peer, as far as that is an address and not a name.

    @raise ValueError: if it is not.
    """
    if (isIPAddress(peer) or isIPv6Address(peer)) and (":" in peer) != (":" in local):
        raise _error(f"local address must be an IPv{6 if ':' in peer else 4} address to reach {peer}", local)


def _decoded(text: str) -> str:
    """Read bytes of the command line that are UTF-8 where the locale is not: Python keeps them as surrogates."""
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError:
        return text


# Controls, spaces and what was not decoded.
_notInNames = re.compile("[\0- \x7f-\xa0\u2028\u2029\ud800-\udfff]")
_plainAddress = "address must be HOST:PORT, as in localhost:1234"
_bracketedAddress = "IPv6 address must be [ADDR]:PORT, as in [::1]:1234"


def _split(text: str) -> tuple[str, str | None]:
    """Split an address into the host and the port, if there is one."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not isIPv6Address(host) or (rest and not rest.startswith(":")):
            raise _error(_bracketedAddress, text)
        return host, rest[1:] if rest else None
    host, colon, port = text.partition(":")
    if ":" in port or not host:
        isIPv6 = isIPv6Address(text) or isIPv6Address(text.rpartition(":")[0])
        raise _error(_bracketedAddress if isIPv6 else _plainAddress, text)
    return host, port if colon else None


def parseEndpoint(text: str) -> str:
    """Read the description of an endpoint to listen on, as in C{tcp:9107:interface=127.0.0.1}. Whether systemd passes the
    socket of a C{systemd:} endpoint is known at the start only.
    """
    # Only few want one, and Twisted's endpoints take a while to import.
    from twisted.internet.endpoints import StandardIOEndpoint, serverFromString
    from twisted.internet.protocol import Factory

    rule = "endpoint must be one to listen on, as in tcp:9107:interface=127.0.0.1 or tcp6:9107:interface=\\:\\:1"
    if re.fullmatch(r"systemd:(domain=)?(INET6?|UNIX):(index=[0-9]{1,4}|name=[^:]+)", text):
        return text
    failures: list[Failure] = []
    try:
        endpoint = serverFromString(_Listener(), text)
        # Other endpoints may do more than to call the reactor.
        if re.match("(haproxy:)?(tcp6?|ssl|unix):", text):
            endpoint.listen(Factory()).addErrback(failures.append)
    except Exception:
        # The parsers of the parts raise exceptions of any kind.
        raise _error(rule, text) from None
    # One has no path, the other is a single connection.
    if re.fullmatch(r"unix:(address=)?", text) or isinstance(endpoint, StandardIOEndpoint):
        raise _error(rule, text)
    if failures:
        failures[0].raiseException()
    return text


class _Listener:
    """A reactor that only checks what an endpoint would listen on, for what no system binds."""

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        parsePort(str(port), lowest=0)
        parseNumber(str(backlog), 0, 2**31 - 1, "backlog")
        if isIPAddress(interface) or isIPv6Address(interface):
            parseInterface(interface)

    def listenSSL(self, port: int, factory: object, context: object, backlog: int = 50, interface: str = "") -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> None:
        # sockaddr_un has 108 bytes for a path and its NUL, unix(7).
        if len(os.fsencode(address)) > 107:
            raise _error("path of a socket must have 107 bytes at most", address)


def firstTwice(values: Iterable[_T]) -> _T | None:
    """The first value that is there a second time, if there is one."""
    found: set[_T] = set()
    for value in values:
        if value in found:
            return value
        found.add(value)
    return None


def checkTimeout(timeout: float) -> None:
    """Check a timeout in seconds.

    @raise TypeError: if it is not a number.
    @raise ValueError: if it is negative, infinite or NaN: reactors choke on those.
    """
    rule = "timeout must be a number of seconds, 0 or more"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"{rule}, got {timeout!r}")
    # An integer may be too large to be compared as a float by a reactor.
    if not 0 <= timeout <= sys.float_info.max:
        raise _error(rule, timeout)
