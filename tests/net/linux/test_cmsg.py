"""Tests of L{udpecho.net.linux.cmsg} and L{udpecho.net.linux.sockopt}."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.net.linux import cmsg, sockopt


class ControlsTests:
    """L{udpecho.net.linux.sockopt}: control messages."""

    # A mapped address may be a broadcast address of IPv4, so that alone it says nothing.
    @given(
        st.ip_addresses().filter(lambda host: getattr(host, "ipv4_mapped", None) is None),
        st.integers(1, 255) | st.none(),
        st.integers(1, 65535),
    )
    def test_roundTrip(self, host: Any, hopLimit: int | None, segment: int) -> None:
        """What a reply is sent with is what is read of it when it comes, whichever call takes it."""
        isIPv6 = host.version == 6
        ancillary = cmsg.replyControls(isIPv6, str(host), hopLimit, segment)
        assert cmsg.unpackControls(cmsg.packControls(ancillary)) == ancillary
        read = cmsg.readControls((ancillary, 0))
        assert read.local is not None
        assert ip_address(read.local) == host
        assert read.hopLimit == hopLimit

    @given(st.integers(0, 60), st.integers(0, 50))
    def test_wrongLength(self, length: int, size: int) -> None:
        """A message whose length is less than that of its header, or more than there is, is left out."""
        data = struct.pack("@Nii", length, socket.IPPROTO_IP, sockopt.IP_TTL) + bytes(range(size))
        header = len(data) - size
        found = cmsg.unpackControls(data)
        if header <= length <= len(data):
            assert found == [(socket.IPPROTO_IP, sockopt.IP_TTL, data[header:length])]
        else:
            assert found == []

    @pytest.mark.parametrize(
        ("host", "expected"), [("127.0.0.1", False), ("127.255.255.255", True), ("224.0.0.1", True), ("ff02::1", True)]
    )
    def test_isGroup(self, host: str, expected: bool) -> None:
        """Groups and broadcast addresses are distinguished from this host's own."""
        assert sockopt.isNonUnicast(host) is expected
