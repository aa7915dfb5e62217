"""Tests of L{udpecho.parsing}."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python import usage

from udpecho import parsing
from udpecho.addresses import MAX_PAYLOAD_IPV6, formatAddress

MS = 1_000_000
sizes = st.integers(0, MAX_PAYLOAD_IPV6)

#: Each parser, what its value must be, and texts that are not.
WRONG: list[tuple[Callable[[str], Any], str, list[str]]] = [
    (
        parsing.parsePort,
        "port must be 1 to 65535",
        ["", "0", "65536", "-1", "+1", "echo", "1_2", "1.5", "80.", " 80", "٣", "9" * 30],
    ),
    (partial(parsing.parsePort, lowest=0), "port must be 0 to 65535", ["", "65536", "-1"]),
    (
        partial(parsing.parseNumber, lowest=2, highest=9, what="number of legs"),
        "number of legs must be 2 to 9",
        ["1", "10", "2k"],
    ),
    (
        parsing.parseDuration,
        "duration must be 1ns to 366 days, as in 0.5s or 500ms",
        ["", "ms", "0", "-1", "1 s", "1d", "1S", "1e3", "1s1", "inf", "nan", "٣", "8785h", "9" * 30, "1\n"],
    ),
    (
        parsing.parseSeconds,
        "duration must be 0s to 366 days, as in 0.5s or 500ms",
        ["", "-1", "nan", "inf", "1e400", "5 s", "5d", "x", "1_0", "٣", "9" * 400, "8784.1h"],
    ),
    (parsing.parseInterval, "duration must be 1us to 366 days, as in 0.5s or 500ms", ["0", "999ns", "0.0000009", "8785h"]),
    (
        parsing.parseBytes,
        "size must be 1 byte to less than 1g, as in 65536 or 64k",
        ["", "0", "-1", "1.5", "1.5k", "1g", "1048576k", "4MB", "x", "9999999999"],
    ),
    (parsing.parsePayloadSize, "payload size must be 0 to 65527 bytes", ["", "-1", "65528", "64k", "1.5", "x", "9" * 30]),
    (partial(parsing.parsePayloadSize, lowest=1), "payload size must be 1 to 65527 bytes", ["0", "65528"]),
    (parsing.parseShare, "share must be 0 to 1, as in 0.1 or 10%", ["", "1.1", "101%", "-1", "%", "1e-3", "10 %"]),
    (
        parsing.parseRate,
        "rate must be 0.000001 to 1000000 probes a second, as in 0.5, 1000 or 50k",
        ["", "0", "-5", "k", "1g", "1.1m", "50k/s", "1e3", "0.0000001", "inf"],
    ),
    (
        parsing.parseLogRate,
        "rate must be 0 to 1000000000 datagrams a second, or all",
        ["", "-1", "1.5", "some", "ALL", "9" * 30],
    ),
    (
        parsing.parseLimit,
        "limit must be 1 to 1000000000 datagrams, or 0 for no limit",
        ["", "-1", "1.5", "all", "1000000001", "1k", "٣", "9" * 30],
    ),
    (partial(parsing.parseLimit, lowest=1), "limit must be 1 to 1000000000 datagrams", ["0", "-1"]),
    (parsing.parseWorkers, "workers must be 1 to 256, or auto", ["", "0", "257", "-1", "1.5", "Auto"]),
    (
        parsing.parseSizes,
        "sizes must be bytes, as in 64, 0,64,1400 or 64-1400:100",
        ["", ",", "64,", "-1", "1-", "1-2:", "64k", "1-2-3", "1:2", "٣", "6 4", "1.5", "999999"],
    ),
    (
        parsing.parseTOS,
        "TOS must be a DSCP name, as in EF or AF41, or 0 to 255",
        ["", "AF44", "AF51", "CS8", "256", "0x100", "-1", "0x", "EF ", "1.0", "b8", "٣"],
    ),
    (
        parsing.parseInterface,
        "interface must be an IP address, as in 127.0.0.1, ::1 or 0.0.0.0",
        ["", "localhost", "eth0", "1.2.3", "127.0.0.1:7", "[::1]", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1%"],
    ),
    (
        parsing.parseInterface,
        "interface must have a scope if its address is link-local, as in fe80::1%eth0, and only then",
        ["fe80::1", "FEBF::1", "::1%lo", "::%2", "2001:db8::1%eth0"],
    ),
    (parsing.parseInterface, "interface must be an IPv4 address as itself, 127.0.0.1", ["::ffff:127.0.0.1", "::FFFF:7f00:1"]),
    (
        parsing.parseSocketName,
        "name of a socket must have 1 to 255 printable ASCII characters and no colon",
        ["", "a:b", "\x00", "\n", "\x7f", "\xe4", "x" * 256],
    ),
    (
        parsing.parseLocalAddress,
        "local address must be an IP address, as in 127.0.0.1",
        ["localhost", "eth0", "1.2.3", "localhost:7", "224.0.0.1", "255.255.255.255:7", "[ff02::1]:7"],
    ),
    (
        parsing.parseEndpoint,
        "endpoint must be one to listen on, as in tcp:9107:interface=127.0.0.1 or tcp6:9107:interface=\\:\\:1",
        ["unix:", "unix:address=", "stdio:", "tcp"],
    ),
]
PARSERS = [parsing.parseAddress, *(parser for parser, _, _ in WRONG)]


class ErrorTests:
    """The message for a wrong value."""

    @pytest.mark.parametrize(
        ("parser", "rule", "text"), [(parser, rule, text) for parser, rule, texts in WRONG for text in texts]
    )
    def test_wrong(self, parser: Callable[[str], Any], rule: str, text: str) -> None:
        """It has what the value must be, and what was given."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parser(text)
        assert str(caught.value) == f"{rule}, got {text!r}"

    @given(st.sampled_from(PARSERS), st.text(max_size=30))
    @settings(max_examples=300)
    def test_anything(self, parser: Callable[[str], Any], text: str) -> None:
        """Every text is read, or refused with one line of this form."""
        try:
            parser(text)
        except ValueError as e:
            assert type(e) is ValueError  # noqa: PT017
            assert " must " in str(e)  # noqa: PT017
            assert ", got " in str(e)  # noqa: PT017
            assert len(str(e).splitlines()) == 1  # noqa: PT017

    def test_option(self) -> None:
        """For C{twistd} it begins with the option's name."""
        assert parsing.optionValue(parsing.parsePort, "port", "5") == 5
        with pytest.raises(usage.UsageError) as caught:
            parsing.optionValue(parsing.parsePort, "port", "x")
        assert str(caught.value) == "--port: port must be 1 to 65535, got 'x'"


class ValueTests:
    """Values as people write them."""

    @pytest.mark.parametrize(
        ("parser", "text", "value"),
        [
            (parsing.parsePort, "1", 1),
            (parsing.parsePort, "65535", 65535),
            (partial(parsing.parsePort, lowest=0), "0", 0),
            (parsing.parseSeconds, "5", 5.0),
            (parsing.parseSeconds, "0", 0.0),
            (parsing.parseSeconds, "0.5", 0.5),
            (parsing.parseSeconds, ".5s", 0.5),
            (parsing.parseSeconds, "250ms", 0.25),
            (parsing.parseSeconds, "100us", 100e-6),
            (parsing.parseSeconds, "2m", 120.0),
            (parsing.parseSeconds, "1h", 3600.0),
            (parsing.parseInterval, "1us", 1e-6),
            (parsing.parseInterval, "20us", 20e-6),
            (parsing.parseBytes, "1", 1),
            (parsing.parseBytes, "64k", 65536),
            (parsing.parseBytes, "4M", 4194304),
            (parsing.parseBytes, "1023m", 1023 * 1024**2),
            (parsing.parsePayloadSize, "0", 0),
            (parsing.parsePayloadSize, "65527", 65527),
            (parsing.parsePayloadSize, "1k", 1024),
            (parsing.parseShare, "0", 0.0),
            (parsing.parseShare, "0.1", 0.1),
            (parsing.parseShare, "10%", 0.1),
            (parsing.parseShare, "100%", 1.0),
            (parsing.parseLogRate, "0", 0),
            (parsing.parseLogRate, "10", 10),
            (parsing.parseLogRate, "all", None),
            (parsing.parseLimit, "0", 0),
            (parsing.parseLimit, "1000000000", 10**9),
            (parsing.parseWorkers, "1", 1),
            (parsing.parseWorkers, "256", 256),
            (parsing.parseRate, "1000", 1000.0),
            (parsing.parseRate, "50k", 50_000.0),
            (parsing.parseRate, "1.5K", 1500.0),
            (parsing.parseRate, "0.000001", 1e-6),
            (parsing.parseRate, "1m", 1e6),
            (parsing.parseRate, "1M", 1e6),
            (parsing.parseInterface, "0.0.0.0", "0.0.0.0"),
            (parsing.parseInterface, "::", "::"),
            (parsing.parseSocketName, "udpecho.socket", "udpecho.socket"),
            (parsing.parseSocketName, "x" * 255, "x" * 255),
            (parsing.parseSocketName, "0", "0"),
            (parsing.parseInterface, "fe80::1%eth0", "fe80::1%eth0"),
            (parsing.parseAddress, "localhost:7", ("localhost", 7)),
            (parsing.parseAddress, "127.0.0.1:65535", ("127.0.0.1", 65535)),
            (parsing.parseAddress, "[::1]:1234", ("::1", 1234)),
            (parsing.parseAddress, "[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
            (parsing.parseLocalAddress, "127.0.0.1", ("127.0.0.1", 0)),
            (parsing.parseLocalAddress, "127.0.0.1:7", ("127.0.0.1", 7)),
            (parsing.parseLocalAddress, "127.0.0.1:0", ("127.0.0.1", 0)),
            (parsing.parseLocalAddress, "::1", ("::1", 0)),
            (parsing.parseLocalAddress, "[::1]:7", ("::1", 7)),
            (parsing.parseLocalAddress, "[::1]", ("::1", 0)),
        ],
    )
    def test_value(self, parser: Callable[[str], Any], text: str, value: Any) -> None:
        """Each parser, with the limits of its range and every way to write a value."""
        found = parser(text)
        assert found == value
        assert type(found) is type(value)

    def test_autoWorkers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C{auto} is the number of processors that this process may use, within the limit."""
        monkeypatch.setattr("udpecho.processors._quotas", lambda root: [])
        monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
        assert parsing.parseWorkers("auto") == 3
        monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(300)), raising=False)
        assert parsing.parseWorkers("auto") == 256


class AddressTests:
    """L{parsing.parseAddress} and L{parsing.parseLocalAddress}."""

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("localhost", "address must be HOST:PORT, as in localhost:1234, got 'localhost'"),
            ("[::1]", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]'"),
            (":7", "address must be HOST:PORT, as in localhost:1234, got ':7'"),
            ("", "address must be HOST:PORT, as in localhost:1234, got ''"),
            ("h:0", "port must be 1 to 65535, got '0'"),
            ("h:", "port must be 1 to 65535, got ''"),
            ("::1:1234", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '::1:1234'"),
            ("::1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '::1'"),
            ("2001:db8::1:echo", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '2001:db8::1:echo'"),
            ("udp://h:5", "address must be HOST:PORT, as in localhost:1234, got 'udp://h:5'"),
            ("[::1]1234", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]1234'"),
            ("[::1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1'"),
            ("[localhost]:7", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[localhost]:7'"),
        ],
    )
    def test_wrong(self, text: str, message: str) -> None:
        """Each mistake has its own message."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parsing.parseAddress(text)
        assert str(caught.value) == message

    @pytest.mark.parametrize("text", ["127.0.0.1:x", "127.0.0.1:65536", "[::1]:-1"])
    def test_localPort(self, text: str) -> None:
        """A local port may be 0."""
        port = text.rpartition(":")[2]
        with pytest.raises(ValueError, match=f"port must be 0 to 65535, got '{port}'"):
            parsing.parseLocalAddress(text)

    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 65535))
    def test_roundTrip(self, host: Any, port: int) -> None:
        """A formatted address is read again; a link-local one has its scope."""
        text = f"{host}%eth0" if host.version == 6 and host.is_link_local else str(host)
        assert parsing.parseAddress(formatAddress((text, port))) == (text, port)

    def test_scope(self) -> None:
        """A link-local address without its scope is nobody's."""
        with pytest.raises(ValueError, match=r"address must have a scope, as in \[fe80::1%eth0\]:7, got '\[fe80::1\]:7'"):
            parsing.parseAddress("[fe80::1]:7")
        assert parsing.parseAddress("[::ffff:169.254.1.1]:7") == ("::ffff:169.254.1.1", 7)


class DurationTests:
    """L{parsing.parseDuration} and L{parsing.formatDuration}."""

    @pytest.mark.parametrize(
        ("text", "nanoseconds"),
        [
            ("1", 1000 * MS),
            ("0.5", 500 * MS),
            (".5", 500 * MS),
            ("1.", 1000 * MS),
            ("1s", 1000 * MS),
            ("10ms", 10 * MS),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("7ns", 7),
            ("2m", 120_000 * MS),
            ("1h", 3600_000 * MS),
            ("0.0000001", 100),
            ("8784h", parsing.MAX_DURATION),
        ],
    )
    def test_units(self, text: str, nanoseconds: int) -> None:
        """Seconds, and numbers with units, to the nanosecond."""
        assert parsing.parseDuration(text) == nanoseconds

    def test_least(self) -> None:
        """The caller sets the shortest."""
        assert parsing.parseDuration("0", least=0) == 0
        assert parsing.parseDuration("10us", least=10_000) == 10_000
        with pytest.raises(ValueError, match=r"duration must be 10us to 366 days, as in 0.5s or 500ms, got '9us'"):
            parsing.parseDuration("9us", least=10_000)

    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [(0, "0s"), (7, "7ns"), (1500, "1.5us"), (10 * MS, "10ms"), (1000 * MS, "1s"), (100_000 * MS, "100s")],
    )
    def test_format(self, nanoseconds: int, text: str) -> None:
        """The unit is the largest of which there is one."""
        assert parsing.formatDuration(nanoseconds) == text

    @given(st.integers(0, parsing.MAX_DURATION))
    def test_roundTrip(self, nanoseconds: int) -> None:
        """A formatted duration is read again without loss."""
        assert parsing.parseDuration(parsing.formatDuration(nanoseconds), least=0) == nanoseconds


class SizesTests:
    """L{parsing.parseSizes}."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("64", (64,)),
            ("0", (0,)),
            ("0,64,1400", (0, 64, 1400)),
            ("1400,64,64", (1400, 64, 64)),
            ("64-67", (64, 65, 66, 67)),
            ("64-400:100", (64, 164, 264, 364)),
            ("64-264:100", (64, 164, 264)),
            ("7-7", (7,)),
            ("0,10-12,65527", (0, 10, 11, 12, 65527)),
            ("0-65527", tuple(range(65528))),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_forms(self, text: str, expected: tuple[int, ...]) -> None:
        """Sizes, lists, ranges, and lists of ranges, in their order."""
        assert parsing.parseSizes(text) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("65528", "payload size must be 0 to 65527 bytes, got '65528'"),
            ("0-65528", "payload size must be 0 to 65527 bytes, got '65528'"),
            ("0,9-5", "range of sizes must go up, as in 5-9, got '9-5'"),
            ("5-9:0", "step of a range must be 1 or more, as in 5-9:100, got '5-9:0'"),
            ("0-65527,1", "number of sizes must be 1 to 65528, got '0-65527,1'"),
        ],
    )
    def test_wrong(self, text: str, message: str) -> None:
        """Wrong sizes and ranges have messages of their own."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parsing.parseSizes(text)
        assert str(caught.value) == message

    @given(st.lists(sizes, min_size=1, max_size=50).map(tuple))
    def test_list(self, some: tuple[int, ...]) -> None:
        """A list is read in its order."""
        assert parsing.parseSizes(",".join(map(str, some))) == some

    @given(sizes, sizes, st.integers(1, 9000))
    def test_range(self, one: int, other: int, step: int) -> None:
        """A range begins with its first size, goes on by its step, and is not beyond its last."""
        first, last = min(one, other), max(one, other)
        assert parsing.parseSizes(f"{first}-{last}:{step}") == tuple(range(first, last + 1, step))


class RateTests:
    """L{parsing.parseRate}."""

    @given(st.integers(1, 10**9))
    def test_exact(self, thousandths: int) -> None:
        """The result is the number nearest to what was written, in any unit."""
        nearest = float(Fraction(thousandths, 1000))
        assert parsing.parseRate(f"{thousandths // 1000}.{thousandths % 1000:03}") == nearest
        assert parsing.parseRate(f"{thousandths // 10**6}.{thousandths % 10**6:06}k") == nearest


class TOSTests:
    """L{parsing.parseTOS}."""

    @pytest.mark.parametrize(
        ("text", "tos"),
        [
            ("EF", 0xB8),
            ("ef", 0xB8),
            ("AF11", 0x28),
            ("AF41", 0x88),
            ("AF43", 0x98),
            ("CS0", 0),
            ("CS6", 0xC0),
            ("VA", 0xB0),
            ("LE", 0x04),
            ("DF", 0),
            ("BE", 0),
            ("0xb8", 0xB8),
            ("0XB8", 0xB8),
            ("3", 3),
        ],
    )
    def test_forms(self, text: str, tos: int) -> None:
        """Names are the upper six bits, numbers the whole byte; the values are those of the RFCs."""
        assert parsing.parseTOS(text) == tos

    @given(st.integers(0, 255))
    def test_number(self, tos: int) -> None:
        """Each byte is read, in both ways to write it."""
        assert parsing.parseTOS(str(tos)) == parsing.parseTOS(f"0x{tos:x}") == tos


class TimeoutTests:
    """L{parsing.checkTimeout}."""

    @pytest.mark.parametrize("timeout", [0, 0.5, 5, 1e308])
    def test_right(self, timeout: float) -> None:
        """Any finite number of seconds, from 0, is a timeout."""
        parsing.checkTimeout(timeout)

    @pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400])
    def test_wrong(self, timeout: float) -> None:
        """A negative, infinite or undefined number is refused."""
        with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, 0 or more, got "):
            parsing.checkTimeout(timeout)

    @pytest.mark.parametrize("timeout", ["5", b"5", None, True])
    def test_type(self, timeout: Any) -> None:
        """Another type is a C{TypeError}."""
        with pytest.raises(TypeError) as caught:
            parsing.checkTimeout(timeout)
        assert str(caught.value) == f"timeout must be a number of seconds, 0 or more, got {timeout!r}"
