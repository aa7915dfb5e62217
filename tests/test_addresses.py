"""Tests of L{udpecho.addresses}, L{udpecho.parsing} and L{udpecho.errors}: what people write, and what they read."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer, error
from twisted.python import usage

from udpecho import errors, parsing
from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.parsing import parseAddress, parseLocalAddress, parsePort


class DatagramAddressTests:
    """L{DatagramAddress}."""

    def test_isThePair(self) -> None:
        """It equals the pair, hashes as it, and unpacks to it."""
        address = DatagramAddress(("127.0.0.1", 7))
        address.localHost = "127.0.0.2"
        assert address == ("127.0.0.1", 7)
        assert hash(address) == hash(("127.0.0.1", 7))
        host, port = address
        assert (host, port) == (address.host, address.port) == ("127.0.0.1", 7)

    def test_pickles(self) -> None:
        """It keeps what it knows when it is pickled."""
        address = DatagramAddress(("fe80::1", 7))
        address.scopeID = 3
        copy = pickle.loads(pickle.dumps(address))
        assert (copy, copy.scopeID) == (address, 3)

    def test_reads(self) -> None:
        """It reads as people write it."""
        address = DatagramAddress(("fe80::1", 7))
        assert str(address) == "[fe80::1]:7"
        address.scopeID = 3
        assert str(address) == "[fe80::1%3]:7"
        assert formatAddress(("fe80::1%eth0", 7)) == "[fe80::1%eth0]:7"
        assert formatAddress(("192.0.2.1", 1234)) == "192.0.2.1:1234"

    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(1, 65535))
    def test_roundTrip(self, host: Any, port: int) -> None:
        """What is written is read again."""
        assert parseAddress(formatAddress((str(host), port))) == (str(host), port)


class ParseTests:
    """Reading values: the good ones, and a sentence for each of the bad ones."""

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("localhost:7", ("localhost", 7)),
            ("127.0.0.1:65535", ("127.0.0.1", 65535)),
            ("[::1]:1234", ("::1", 1234)),
            ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ],
    )
    def test_address(self, text: str, address: tuple[str, int]) -> None:
        """A host, or an address in brackets, and a port."""
        assert parseAddress(text) == address

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("localhost", "'localhost' has no port: write HOST:PORT, as in localhost:1234"),
            ("[::1]", "'[::1]' has no port: write HOST:PORT, as in [::1]:1234"),
            (":7", "':7' has no host: write HOST:PORT, as in localhost:1234"),
            ("", "'' has no host: write HOST:PORT, as in localhost:1234"),
            ("h:0", "'0' is not a port: a number from 1 to 65535 is"),
            ("h:99999", "'99999' is not a port: a number from 1 to 65535 is"),
            ("h:-1", "'-1' is not a port: a number from 1 to 65535 is"),
            ("h:echo", "'echo' is not a port: a number from 1 to 65535 is"),
            ("h:", "'' is not a port: a number from 1 to 65535 is"),
            ("::1:1234", "'::1:1234' is ambiguous: write an IPv6 address in brackets, as in [::1]:1234"),
            ("udp://h:5", "'udp://h:5' is not an address: write HOST:PORT, as in localhost:1234"),
            ("h:1_2", "'1_2' is not a port: a number from 1 to 65535 is"),
            ("[::1]1234", "'[::1]1234' is not an address: write an IPv6 address and its port as [::1]:1234"),
            ("[::1", "'[::1' is not an address: write an IPv6 address and its port as [::1]:1234"),
            ("[localhost]:7", "'[localhost]:7' is not an address: write an IPv6 address and its port as [::1]:1234"),
        ],
    )
    def test_badAddress(self, text: str, sentence: str) -> None:
        """Each mistake has its own sentence."""
        with pytest.raises(ValueError, match=r".") as caught:
            parseAddress(text)
        assert str(caught.value) == sentence

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1", ("127.0.0.1", 0)),
            ("127.0.0.1:7", ("127.0.0.1", 7)),
            ("127.0.0.1:0", ("127.0.0.1", 0)),
            ("::1", ("::1", 0)),
            ("[::1]:7", ("::1", 7)),
            ("[::1]", ("::1", 0)),
        ],
    )
    def test_localAddress(self, text: str, address: tuple[str, int]) -> None:
        """A local address needs no port, and no brackets without one."""
        assert parseLocalAddress(text) == address

    @pytest.mark.parametrize("text", ["localhost", "eth0", "", "127.0.0.1:x", "[::1", "1.2.3", "224.0.0.1", "255.255.255.255"])
    def test_badLocalAddress(self, text: str) -> None:
        """A local address is no name."""
        with pytest.raises(ValueError, match=r"is not|has no host"):
            parseLocalAddress(text)

    def test_anyPort(self) -> None:
        """Port 0 is one where it stands for any."""
        assert parsePort("0", lowest=0) == 0

    @pytest.mark.parametrize(
        ("parser", "text", "value"),
        [
            (parsing.parseSeconds, "5", 5.0),
            (parsing.parseSeconds, "0", 0.0),
            (parsing.parseSeconds, "0.5", 0.5),
            (parsing.parseSeconds, ".5s", 0.5),
            (parsing.parseSeconds, "250ms", 0.25),
            (parsing.parseSeconds, "100us", 0.0001),
            (parsing.parseSeconds, "2m", 120.0),
            (parsing.parseSeconds, "1h", 3600.0),
            (parsing.parseBytes, "1", 1),
            (parsing.parseBytes, "64k", 65536),
            (parsing.parseBytes, "4M", 4194304),
            (parsing.parsePayloadSize, "0", 0),
            (parsing.parsePayloadSize, "65527", 65527),
            (parsing.parsePayloadSize, "1k", 1024),
            (parsing.parseLogRate, "0", 0),
            (parsing.parseLogRate, "10", 10),
            (parsing.parseLogRate, "all", None),
            (parsing.parseLimit, "0", 0),
            (parsing.parseLimit, "1000000000", 10**9),
            (parsing.parseInterface, "0.0.0.0", "0.0.0.0"),
            (parsing.parseInterface, "::", "::"),
        ],
    )
    def test_value(self, parser: Callable[[str], Any], text: str, value: Any) -> None:
        """Values as people write them."""
        assert parser(text) == pytest.approx(value)

    @pytest.mark.parametrize(
        ("parser", "texts"),
        [
            (parsing.parseSeconds, ["", "-1", "nan", "inf", "1e400", "5 s", "5d", "x", "1_0", "٣", "9" * 400]),
            (parsing.parseBytes, ["", "0", "-1", "1.5", "1g", "4MB", "x", "9999999999"]),
            (parsing.parsePayloadSize, ["", "-1", "65528", "1.5", "x", "9" * 30]),
            (parsing.parseLogRate, ["", "-1", "1.5", "some", "ALL", "9" * 30]),
            (parsing.parseLimit, ["", "-1", "1.5", "all", "1000000001", "1k", "٣", "9" * 30]),
            (partial(parsing.parseLimit, lowest=1), ["0", "-1"]),
            (
                parsing.parseInterface,
                ["", "localhost", "eth0", "1.2.3", "127.0.0.1:7", "[::1]", "224.0.0.1", "ff02::1", "255.255.255.255"],
            ),
        ],
    )
    def test_badValue(self, parser: Callable[[str], Any], texts: list[str]) -> None:
        """A sentence says what was wrong, and what would be right."""
        for text in texts:
            with pytest.raises(ValueError, match=r" is not a.*: ") as caught:
                parser(text)
            assert str(caught.value).startswith(repr(text))

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Whatever is written, it is read or refused with a sentence."""
        parsers: list[Callable[[str], Any]] = [
            parseAddress,
            parseLocalAddress,
            parsePort,
            parsing.parseSeconds,
            parsing.parseBytes,
            parsing.parsePayloadSize,
            parsing.parseLogRate,
            parsing.parseLimit,
            parsing.parseInterface,
        ]
        for parser in parsers:
            try:
                parser(text)
            except ValueError as e:
                assert type(e) is ValueError and ": " in str(e)  # noqa: PT017, PT018

    def test_option(self) -> None:
        """For C{twistd} the sentence has the option's name."""
        assert parsing.optionValue(parsing.parseLogRate, "log-datagrams", "5") == 5
        with pytest.raises(usage.UsageError, match="--log-datagrams: 'x' is not a rate"):
            parsing.optionValue(parsing.parseLogRate, "log-datagrams", "x")


class ErrorTests:
    """L{udpecho.errors}."""

    @pytest.mark.parametrize(
        ("kind", "bases"),
        [
            (errors.ResponseTimeout, [defer.TimeoutError]),
            (errors.PortUnreachable, [error.ConnectionRefusedError, error.ConnectError]),
            (errors.HostUnreachable, []),
            (errors.NetworkUnreachable, [errors.HostUnreachable]),
            (errors.MessageTooLong, [error.MessageLengthError]),
            (errors.ClientClosed, []),
        ],
    )
    def test_bases(self, kind: type[errors.EchoError], bases: list[Any]) -> None:
        """Each is an L{errors.EchoError}, and Twisted's own error of that meaning; it reads as its message."""
        for base in (errors.EchoError, *bases):
            assert issubclass(kind, base)
        reason = kind("this is why", 5)
        assert str(reason) == "this is why"
        assert reason.errno == 5

    @pytest.mark.parametrize(
        ("number", "kind"),
        [
            (errno.ECONNREFUSED, errors.PortUnreachable),
            (errno.ENETUNREACH, errors.NetworkUnreachable),
            (errno.EHOSTUNREACH, errors.HostUnreachable),
            (errno.EACCES, errors.HostUnreachable),
            (0, errors.HostUnreachable),
        ],
    )
    def test_unreachable(self, number: int, kind: type[errors.EchoError]) -> None:
        """The system's error number is named."""
        reason = errors.unreachable(number, "192.0.2.1:7")
        assert type(reason) is kind
        assert reason.errno == number
        assert "192.0.2.1:7" in str(reason)
