"""Tests of L{udpecho.guard.bogons}, and of the loop guard."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from tests.support.guard import PUBLIC, batchOf, never, verdict
from udpecho.guard.guard import Guard
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import SERVICES, GuardPolicy

unlimited = GuardPolicy(rate=0)


class LoopTests:
    """Sources that might answer."""

    @pytest.mark.parametrize("port", [0, 1, 7, 13, 17, 19, 37, 53, 69, 123, 1023, *SERVICES])
    @pytest.mark.parametrize("host", [PUBLIC, "127.0.0.1", "2001:db8::1"])
    def test_services(self, host: str, port: int) -> None:
        """Nothing is sent to port 0, to a port of the system's services, and to services that answer anything."""
        assert verdict(Guard(unlimited), host, port) == "loop_guard"

    @pytest.mark.parametrize("port", [1024, 1025, 2048, 32768, 65535])
    def test_clients(self, port: int) -> None:
        """Other ports are clients' ports."""
        assert verdict(Guard(unlimited, ownPorts=[1234]), PUBLIC, port) is None

    @pytest.mark.parametrize("host", [PUBLIC, "127.0.0.1", "::1", "2001:db8::1"])
    def test_ownPorts(self, host: str) -> None:
        """Nothing is sent to one of our own ports, on any host; so not to ourselves either."""
        guard = Guard(unlimited, ownPorts=[1234, 4321])
        assert verdict(guard, host, 1234) == verdict(guard, host, 4321) == "loop_guard"
        assert verdict(guard, host, 1235) is None

    def test_ownPortsLater(self) -> None:
        """Our own ports may be set once they are known, and a new policy keeps them."""
        guard = Guard(unlimited, ownPorts=[1234])
        guard.setOwnPorts([5678])
        assert verdict(guard, PUBLIC, 1234) is None
        guard.configure(replace(unlimited, maxRate=1000))
        assert verdict(guard, PUBLIC, 5678) == "loop_guard"

    def test_clientOnThisHost(self) -> None:
        """A client on our own host, which has our own address, is answered."""
        assert verdict(Guard(unlimited, ownPorts=[1234]), "127.0.0.1", 40000) is None

    @pytest.mark.parametrize(
        "host",
        [
            *("0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
            *("::", "::2", "::192.0.2.1", "::ffff:192.0.2.1", "ff02::1", "ff0e::1"),
            *("2002:0a00:0001::1", "2002:7f00:1::1", "2002:e000:1::", "2002:ffff:ffff::1", "2002:c0a8:101::1"),
            *("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::224.0.0.1", "64:ff9b::255.255.255.255"),
        ],
    )
    def test_noHosts(self, host: str) -> None:
        """Nothing is sent to what is not the address of a host: this network, multicast, broadcast, unspecified, IPv4-mapped,
        IPv4-compatible, and transition addresses with an IPv4 address in them that is not global.
        """
        assert verdict(Guard(unlimited), host) == "loop_guard"

    @pytest.mark.parametrize(
        "host", ["1.0.0.0", "223.255.255.255", "255.255.255.254", "::1", "2002:c000:0201::1", "64:ff9b::192.0.2.1", "fe80::1"]
    )
    def test_hosts(self, host: str) -> None:
        """The addresses next to these are hosts' addresses, and so are transition addresses with a global IPv4 address."""
        assert verdict(Guard(unlimited), host) is None

    @pytest.mark.parametrize("prefix", ["2002::/16", "64:ff9b::/96"])
    @pytest.mark.parametrize(
        "network",
        [
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
            *("224.0.0.0/4", "240.0.0.0/4"),
        ],
    )
    def test_embedded(self, prefix: str, network: str) -> None:
        """Every IPv6 address made from such a network is refused, and the addresses just outside are not."""
        outer, inner = IPv6Network(prefix), IPv4Network(network)
        shift = 128 - 32 - outer.prefixlen
        first = int(outer.network_address) | int(inner.network_address) << shift
        last = first + (inner.num_addresses << shift) - 1
        middle = (first + last) // 2
        guard = Guard(unlimited)
        assert {verdict(guard, str(IPv6Address(address))) for address in (first, middle, middle + 1, last)} == {"loop_guard"}
        # 224/4 and 240/4 are neighbours; before 0/8, and after 240/4, something else than the prefix begins.
        if network not in ("0.0.0.0/8", "240.0.0.0/4"):
            assert verdict(guard, str(IPv6Address(first - 1))) is None
        if network not in ("224.0.0.0/4", "240.0.0.0/4"):
            assert verdict(guard, str(IPv6Address(last + 1))) is None

    def test_broadcasts(self) -> None:
        """The broadcast addresses of our own networks are refused if the guard has them."""
        guard = Guard(unlimited, broadcasts=[IPv4Address("192.0.2.255")])
        assert verdict(guard, "192.0.2.255") == "loop_guard"
        assert verdict(guard, "192.0.2.254") is None
        assert verdict(Guard(unlimited), "192.0.2.255") is None

    @pytest.mark.parametrize("source", [(PUBLIC, 0), (PUBLIC, 1234), (PUBLIC, 7), ("224.0.0.1", 9999), ("ff02::1", 9999)])
    def test_off(self, source: tuple[str, int]) -> None:
        """One switch turns all of this off."""
        assert verdict(Guard(replace(unlimited, refuseLoops=False), ownPorts=[1234]), *source) is None

    def test_entries(self) -> None:
        """In a batch, only the entries that are refused are dropped."""
        batch = batchOf((PUBLIC, 40000), (PUBLIC, 7), ("224.0.0.1", 40000), ("127.0.0.1", 40000), ("0.0.0.0", 0))
        Guard(ownPorts=[1234]).refuseEntries(batch)
        assert batch.dropped == {1: "loop_guard", 2: "loop_guard", 4: "loop_guard"}


class DualStackTests:
    """Batches of a socket that serves IPv4 and IPv6."""

    def test_mapped(self) -> None:
        """IPv4-mapped sources are judged as the IPv4 addresses that they are."""
        policy = GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("2001:db8::/32")), rate=0)
        guard = Guard(policy, dualStack=True)
        hosts = ["::ffff:192.0.2.1", "::ffff:10.0.0.1", "2001:db8::1", "2001:db9::1", "::ffff:224.0.0.1", "::192.0.2.1"]
        batch = batchOf(*((host, 40000) for host in hosts))
        guard.refuseEntries(batch)
        assert batch.dropped == {1: "not_allowed", 3: "not_allowed", 4: "loop_guard", 5: "loop_guard"}

    def test_noLoopGuard(self) -> None:
        """Without the loop guard too."""
        policy = GuardPolicy(allow=(*parseNetwork("192.0.2.0/24"), *parseNetwork("::/0")), rate=0, refuseLoops=False)
        guard = Guard(policy, dualStack=True)
        assert verdict(guard, "::ffff:10.0.0.1") == "not_allowed"
        assert verdict(guard, "::ffff:192.0.2.1") is None

    def test_limited(self) -> None:
        """They are limited as such: each IPv4 address has its own rate, the same in both forms."""
        guard = Guard(GuardPolicy(rate=1, burst=1), dualStack=True, seconds=lambda: 0.0, entropy=never)
        batch = batchOf(("::ffff:192.0.2.1", 40000), ("::ffff:192.0.2.1", 40001))
        guard.refuseEntries(batch)
        assert batch.dropped == {1: "rate_limited"}
        assert guard.refuse(5, (PUBLIC, 40000)) == "rate_limited"
        assert guard.busiest(9) == {"rate_limited": [("192.0.2.1/32", 2)]}
