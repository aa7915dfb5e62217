"""Tests of L{udpecho.server.worker_messages}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from udpecho.server.worker_messages import MAX_TEXT, MessageReceiver, SentLog, decode, encode


def connected(handlers: dict[str, Callable[[Any], object]]) -> Any:
    """A receiver of messages that are all good."""
    receiver = MessageReceiver(handlers, lambda line: pytest.fail(repr(line[:100])))
    receiver.makeConnection(StringTransport())
    return receiver


class MessageTests:
    """L{udpecho.server.worker_messages}."""

    @given(st.lists(st.sampled_from([b"1", b"[]", b"true"])), st.lists(st.integers(1, 20)))
    def test_pieces(self, sent: list[bytes], sizes: list[int]) -> None:
        """Messages are the same in pieces of any sizes."""
        found: list[object] = []
        receiver = connected({"x": found.append})
        data = b"".join(b'{"x":' + value + b"}\n" for value in sent)
        for size in [*sizes, len(data)]:
            receiver.dataReceived(data[:size])
            data = data[size:]
        assert [encode("x", value) for value in found] == [b'{"x":' + value + b"}\n" for value in sent]

    def test_manyNetworks(self) -> None:
        """The longest configuration file fits into a message."""
        found: list[list[str]] = []
        networks = [f"2001:db8:{number:x}::/48" for number in range(2**16)]
        connected({"configure": found.append}).dataReceived(encode("configure", networks))
        assert found == [networks]

    def test_endless(self) -> None:
        """What has no end ends the connection: memory does not grow with it."""
        receiver = connected({})
        for _ in range(MessageReceiver.MAX_LENGTH // 65536):
            receiver.dataReceived(b"x" * 65536)
        assert not receiver.transport.disconnecting
        receiver.dataReceived(b"x")
        assert receiver.transport.disconnecting

    def test_failed(self) -> None:
        """What is no message, of an unknown kind, or fails to be handled, is reported with its line; the next is handled."""
        failed: list[bytes] = []
        found: list[object] = []
        receiver = MessageReceiver({"x": found.append, "y": lambda value: 1 / value}, failed.append)
        receiver.makeConnection(StringTransport())
        receiver.dataReceived(b'nonsense\n{"z":1}\n{"y":0}\n{"x":1}\n')
        assert failed == [b"nonsense", b'{"z":1}', b'{"y":0}']
        assert found == [1]

    def test_codec(self) -> None:
        """A message is read as it was written; other JSON, and what is none, is a mistake."""
        assert decode(encode("unlogged", [1, 2, 3, 4])) == ("unlogged", [1, 2, 3, 4])
        for line in (b"", b"hello", b"[]", b"{}", b'{"a":1,"b":2}'):
            with pytest.raises(ValueError):  # noqa: PT011
                decode(line)

    def test_log(self) -> None:
        """Warnings and failures are sent, with their tracebacks and not without end; what is less is not."""
        sent: list[bytes] = []
        observer = SentLog(sent.append)
        observer({"log_level": LogLevel.info, "log_format": "answering", "log_time": 0.0})
        observer({"log_level": LogLevel.warn, "log_format": "careful: {what}", "what": "ice", "log_time": 0.0})
        observer({"log_level": LogLevel.warn, "log_format": "x" * 100_000, "log_time": 0.0})
        try:
            raise ZeroDivisionError("by nought")
        except ZeroDivisionError:
            observer({"log_level": LogLevel.critical, "log_format": "bad", "log_failure": Failure(), "log_time": 0.0})
        first, second, third = [decode(line)[1] for line in sent]
        assert first == ["warn", "careful: ice"]
        assert len(second[1]) == MAX_TEXT
        assert third[0] == "critical"
        assert third[1].startswith("bad\n")
        assert "ZeroDivisionError: by nought" in third[1]
