"""Tests of L{udpecho.client.checks}, through the functions that check."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock

from tests.support.client import Outcome
from tests.support.transports import StockTransport
from udpecho.client.checks import checkLocalAddress, checkPeer
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import MessageTooLong


class ArgumentTests:
    """A wrong argument fails the call at once, with what it must be and what it was, and nothing is sent."""

    @pytest.fixture(autouse=True)
    def _client(self) -> Any:
        self.clock = Clock()
        self.transport = StockTransport()
        self.client = EchoClient(self.clock)
        self.client.makeConnection(self.transport)
        yield
        assert self.transport.written == []
        assert self.clock.getDelayedCalls() == []

    def failures(self, kind: type[Exception], *deferreds: Any) -> list[str]:
        """The messages of Deferreds that must have failed with exactly this exception."""
        found = [Outcome(deferred).failure for deferred in deferreds]
        assert {type(failure) for failure in found} == {kind}
        return [str(failure) for failure in found]

    @pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400])
    def test_timeout(self, timeout: float) -> None:
        """A timeout is a number of seconds, 0 or more, and finite."""
        for message in self.failures(
            ValueError,
            self.client.echo(b"hello", timeout),
            echo(self.clock, "127.0.0.1", 7, b"hello", timeout),
            connect(self.clock, "127.0.0.1", 7, timeout),
        ):
            assert "timeout" in message
            assert repr(timeout) in message
        with pytest.raises(ValueError, match=f"timeout .*{re.escape(repr(timeout))}"):
            EchoClient(self.clock, timeout)

    @pytest.mark.parametrize("timeout", ["5", b"5", True, [5]])
    def test_timeoutType(self, timeout: Any) -> None:
        """A timeout is a number."""
        (message,) = self.failures(TypeError, self.client.echo(b"hello", timeout))
        assert "timeout" in message
        assert repr(timeout) in message

    @pytest.mark.parametrize("payload", ["hello", None, 5, ["hello"]])
    def test_payloadType(self, payload: Any) -> None:
        """A payload is bytes."""
        expected = f"payload must be bytes, got {type(payload).__name__}"
        messages = self.failures(TypeError, self.client.echo(payload), echo(self.clock, "127.0.0.1", 7, payload))
        assert messages == [expected, expected]

    def test_payloadSize(self) -> None:
        """A payload fits into a datagram."""
        failure = Outcome(echo(self.clock, "127.0.0.1", 7, bytes(65528))).failure
        assert isinstance(failure, MessageTooLong)
        assert failure.limit == 65527
        assert str(failure) == "payload to any peer must be at most 65527 bytes, got 65528"

    @pytest.mark.parametrize("port", [0, 70000, -1, 65536])
    def test_port(self, port: int) -> None:
        """A peer's port is 1 to 65535."""
        expected = f"port must be 1 to 65535, got {port}"
        messages = self.failures(ValueError, echo(self.clock, "127.0.0.1", port, b""), connect(self.clock, "127.0.0.1", port))
        assert messages == [expected, expected]

    def test_portEnds(self) -> None:
        """The first and the last port are ports; a local one may be 0, for any."""
        for port in (1, 65535):
            checkPeer("127.0.0.1", port)
        for port in (0, 65535):
            assert checkLocalAddress(("127.0.0.1", port)) is IPv4Address
            assert checkLocalAddress(("::1", port)) is IPv6Address

    @pytest.mark.parametrize(
        ("host", "port", "message"),
        [
            (b"127.0.0.1", 7, "host must be a string, a name or an IP address, got b'127.0.0.1'"),
            (None, 7, "host must be a string, a name or an IP address, got None"),
            ("127.0.0.1", "7", "port must be an integer, got '7'"),
            ("127.0.0.1", 7.0, "port must be an integer, got 7.0"),
            ("127.0.0.1", True, "port must be an integer, got True"),
        ],
    )
    def test_peerType(self, host: Any, port: Any, message: str) -> None:
        """A host is a string, a port is an integer."""
        assert self.failures(TypeError, echo(self.clock, host, port, b"")) == [message]

    @pytest.mark.parametrize(
        ("address", "kind", "message"),
        [
            (("127.0.0.1", 65536), ValueError, "local port must be 0 to 65535, got 65536"),
            (("127.0.0.1", -1), ValueError, "local port must be 0 to 65535, got -1"),
            (("nonsense", 0), ValueError, "local address must be an IP address of this machine, got 'nonsense'"),
            *(
                (wrong, TypeError, f"local address must be a pair of an IP address and a port, got {wrong!r}")
                for wrong in ((b"127.0.0.1", 0), "127.0.0.1", "", 5555, ("127.0.0.1",), ("127.0.0.1", True), ["127.0.0.1", 0])
            ),
        ],
    )
    def test_bindAddress(self, address: Any, kind: type[Exception], message: str) -> None:
        """A local address is a pair of an IP address and a port."""
        assert self.failures(kind, connect(self.clock, "127.0.0.1", 7, bindAddress=address)) == [message]
