"""Tests of L{udpecho.net.linux.icmp}."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from udpecho.addresses import DatagramAddress
from udpecho.net.linux import icmp


class RefuseTests:
    """L{icmp.refuse} and its checksum."""

    def test_refuseWithoutRight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system does not let raw sockets be opened, C{refuse} returns C{False} and raises nothing."""

        class Forbidden(socket.socket):
            def __init__(self, *arguments: Any) -> None:
                raise PermissionError(1, "as the test wants it")

        monkeypatch.setattr("udpecho.net.linux.icmp.socket.socket", Forbidden)
        assert not icmp.refuse(DatagramAddress(("127.0.0.1", 1234)), ("127.0.0.1", 4321), 5)

    def test_otherFamily(self) -> None:
        """So it does if the local address that it is given is not of the client's family."""
        assert not icmp.refuse(DatagramAddress(("127.0.0.1", 1234)), ("::1", 4321), 5)

    @pytest.mark.parametrize(
        ("message", "sum_"),
        # The example of RFC 1071, section 3, and the same with one more byte.
        [("0001f203f4f5f6f7", 0x220D), ("0001f203f4f5f6f780", 0xA20C), ("", 0xFFFF)],
    )
    def test_checksum(self, message: str, sum_: int) -> None:
        """The checksum is that of RFC 1071, for an odd number of bytes, too."""
        assert icmp.checksum(bytes.fromhex(message)) == sum_
