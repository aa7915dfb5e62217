"""Tests of L{udpecho.guard.networks}."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, AddressMap, AddressRanges, parseNetwork
from udpecho.pieces import finish

networks = st.builds(
    lambda number, length: IPv4Network((number >> 32 - length << 32 - length, length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


class ParseNetworkTests:
    """L{parseNetwork}."""

    @pytest.mark.parametrize("text", ["192.0.2.0/24", "0.0.0.0/0", "10.1.2.3/32", "2001:db8::/32", "::/0", "fe80::/10"])
    def test_network(self, text: str) -> None:
        """An address with a prefix length is that network."""
        assert parseNetwork(text) == (ip_network(text),)

    def test_address(self) -> None:
        """An address alone is the network of that address."""
        assert parseNetwork("192.0.2.1") == (IPv4Network("192.0.2.1/32"),)
        assert parseNetwork("2001:db8::1") == (IPv6Network("2001:db8::1/128"),)

    def test_names(self) -> None:
        """Three networks have names. This machine is not one of the private networks."""
        assert parseNetwork("any") == ANY
        assert parseNetwork("loopback") == LOOPBACK
        assert parseNetwork("private") == PRIVATE
        assert not [one for one in PRIVATE for other in LOOPBACK if one.version == other.version and one.overlaps(other)]

    def test_private(self) -> None:
        """The private networks are those of RFC 1918, RFC 6598, RFC 3927, RFC 4193 and link-local IPv6."""
        for host in ("10.0.0.1", "172.31.255.255", "192.168.1.1", "100.127.0.1", "169.254.1.1", "fd00::1", "fe80::1"):
            assert any(ip_address(host) in network for network in PRIVATE), host
        for host in ("9.255.255.255", "172.32.0.0", "100.128.0.0", "192.169.0.0", "2001:db8::1", "127.0.0.1", "::1"):
            assert not any(ip_address(host) in network for network in PRIVATE), host

    @pytest.mark.parametrize(
        "text",
        [
            *("", "public", "Private", "10/8", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/255.0.0.0"),
            *("10.0.0.256/8", "::/129", "2001:db8::/32/32", "fe80::1%eth0", "1234", "10.0.0.0/8 ", "localhost", "10.0.0.0/٨"),
        ],
    )
    def test_wrong(self, text: str) -> None:
        """Another text is refused, with what a network must be and what was given."""
        with pytest.raises(ValueError, match=r"^network must be an address with a prefix length, as in .*, got "):
            parseNetwork(text)

    def test_bitsBeyond(self) -> None:
        """A network with bits set beyond its prefix is refused, with the network that was probably meant."""
        with pytest.raises(ValueError, match=r"beyond its prefix length, as in 10\.0\.0\.0/8, got '10\.1\.2\.3/8'"):
            parseNetwork("10.1.2.3/8")
        with pytest.raises(ValueError, match="as in 2001:db8::/32, got "):
            parseNetwork("2001:db8::1/32")

    def test_mapped(self) -> None:
        """An IPv4 network in IPv6 form, which no source would match, is refused with its IPv4 form."""
        with pytest.raises(ValueError, match=r"as in 10\.0\.0\.0/8, got "):
            parseNetwork("::ffff:10.0.0.0/104")

    @settings(deadline=None)
    @given(st.text())
    def test_anyText(self, text: str) -> None:
        """For any text, the result is networks or a C{ValueError} that quotes it."""
        try:
            assert parseNetwork(text)
        except ValueError as e:
            assert repr(text) in str(e)  # noqa: PT017


class AddressRangesTests:
    """L{AddressRanges}."""

    @settings(deadline=None)
    @given(st.lists(networks, max_size=6), st.integers(0, 2**32 - 1))
    def test_contains(self, some: list[IPv4Network], address: int) -> None:
        """It contains what any of its networks contains, whether they overlap, touch or neither."""
        ranges = finish(AddressRanges.make(some, 4))
        addresses = {address, *(int(end) for net in some for end in (net.network_address, net.broadcast_address))}
        addresses |= {each + step for each in addresses for step in (-1, 1) if 0 <= each + step < 2**32}
        for each in addresses:
            assert (each in ranges) == any(ip_address(each) in net for net in some)

    def test_family(self) -> None:
        """Networks of the other family are not in it."""
        ranges = finish(AddressRanges.make([IPv4Network("0.0.0.0/0"), IPv6Network("fe80::/10")], 6))
        assert 1 not in ranges
        assert int(ip_address("fe80::1")) in ranges


class AddressMapTests:
    """L{AddressMap}."""

    @settings(deadline=None)
    @given(st.lists(networks, max_size=6), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8))
    def test_values(self, some: list[IPv4Network], addresses: list[int]) -> None:
        """It has the value of each address, and the set of the values of several."""
        ranges = finish(AddressRanges.make(some, 4))
        addresses += [int(net.network_address) for net in some]
        found = finish(AddressMap.make(ranges.edges, ranges.__contains__))
        assert [found[address] for address in addresses] == [address in ranges for address in addresses]
        assert found.valuesOf(addresses) == {address in ranges for address in addresses}

    def test_between(self) -> None:
        """An address with another value between two addresses of one value is not overlooked."""
        found = finish(AddressMap.make([10, 20], lambda address: 10 <= address < 20))
        assert found.valuesOf([1, 30]) == {False}
        assert found.valuesOf([1, 15, 30]) == {False, True}
        assert found.valuesOf([10, 19]) == {True}
