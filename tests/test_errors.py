"""Tests of L{udpecho.errors}."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import defer, error

from udpecho import errors


class ErrorTests:
    """The exceptions."""

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
