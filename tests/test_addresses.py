"""Tests of L{udpecho.addresses}."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.addresses import DatagramAddress, formatAddress, isGroup
from udpecho.parsing import parseAddress


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
        """Its attributes survive pickling."""
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
        """What is written is read again; a link-local address has its scope."""
        text = f"{host}%eth0" if host.version == 6 and host.is_link_local else str(host)
        assert parseAddress(formatAddress((text, port))) == (text, port)

    @pytest.mark.parametrize(
        ("host", "group"),
        [("224.0.0.1", True), ("239.255.255.255", True), ("255.255.255.255", True), ("ff02::1", True)]
        + [(host, False) for host in ("127.0.0.1", "223.255.255.255", "240.0.0.1", "10.255.255.255", "::1", "fe80::1%eth0")],
    )
    def test_isGroup(self, host: str, group: bool) -> None:
        """Multicast groups, and the broadcast address."""
        assert isGroup(host) is group
