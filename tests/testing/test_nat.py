"""Tests of L{udpecho.testing.nat} and L{udpecho.testing.mappings}: hosts behind NATs."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.support.memory import open_, wait
from udpecho.client.connect import connect, echo
from udpecho.errors import HostUnreachable, PortUnreachable, ResponseTimeout
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.testing.mappings import (
    ADDRESS_AND_PORT_DEPENDENT,
    ADDRESS_DEPENDENT,
    ENDPOINT_INDEPENDENT,
    Mappings,
    NATBehavior,
)
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.nat import NAT

EI, AD, APD = ENDPOINT_INDEPENDENT, ADDRESS_DEPENDENT, ADDRESS_AND_PORT_DEPENDENT


class Home:
    """A laptop at home, and a server outside."""

    def __init__(self, **behavior: Any) -> None:
        self.network = MemoryNetwork(latency=0.1)
        self.nat: NAT = self.network.nat("home", "203.0.113.1", NATBehavior(**behavior))
        self.laptop = self.nat.host("laptop", "192.168.0.2", "2001:db8::2")
        self.server = self.network.host("server", "198.51.100.7", "198.51.100.8", "2001:db8:1::7")
        self.port, self.inside = open_(self.laptop, "0.0.0.0", 5000)
        self.outside, self.seen = open_(self.server, "198.51.100.7", 7)

    def send(self, host: str = "198.51.100.7", number: int = 7) -> None:
        self.port.write(b"x", (host, number))
        self.network.advance(0.2)

    @property
    def sources(self) -> list[tuple[str, int]]:
        return [address for _, address in self.seen.datagrams]

    def answered(self, host: str = "198.51.100.7", number: int = 7, to: int = 5000) -> bool:
        """Whether a datagram from outside gets in."""
        before = len(self.inside.datagrams)
        sender = self.outside if (host, number) == ("198.51.100.7", 7) else open_(self.server, host, number)[0]
        sender.write(b"y", ("203.0.113.1", to))
        self.network.advance(0.2)
        if sender is not self.outside:
            sender.abort()
        return len(self.inside.datagrams) > before


class MappingTests:
    """What is mapped, and who may answer."""

    def test_translated(self) -> None:
        """A server sees the address outside, and its reply gets back; the host inside sees the server's own address."""
        home = Home()
        listen(home.server, 8, EchoServer(), "0.0.0.0")
        home.send(number=8)
        assert home.inside.datagrams == [(b"x", ("198.51.100.7", 8))]
        home.send()
        assert home.sources == [("203.0.113.1", 5000)]
        assert wait(home.network, echo(home.laptop, "server", 8, b"hello")) == 5
        assert str(home.nat) == "<NAT home>"

    @pytest.mark.parametrize(
        ("mapping", "ports"), [(EI, [5000, 5000, 5000]), (AD, [5000, 5000, 1024]), (APD, [5000, 1024, 1025])]
    )
    def test_mapping(self, mapping: str, ports: list[int]) -> None:
        """By its behavior a NAT keeps the port outside for other ports, and other addresses, of the destination."""
        home = Home(mapping=mapping)
        _, port8 = open_(home.server, "198.51.100.7", 8)
        _, other = open_(home.server, "198.51.100.8", 7)
        home.send()
        home.send(number=8)
        home.send("198.51.100.8")
        seen = [*home.seen.datagrams, *port8.datagrams, *other.datagrams]
        assert [address.port for _, address in seen] == ports

    @pytest.mark.parametrize(("filtering", "allowed"), [(EI, [1, 1, 1]), (AD, [1, 1, 0]), (APD, [1, 0, 0])])
    def test_filtering(self, filtering: str, allowed: list[int]) -> None:
        """By its behavior a NAT lets in those whom the host inside has sent to, others of their host, or anybody."""
        home = Home(filtering=filtering)
        assert not home.answered()
        home.send()
        found = [home.answered(), home.answered(number=8), home.answered("198.51.100.8")]
        assert found == [bool(expected) for expected in allowed]
        assert {"nat dropped", "delivered"} == {entry.outcome for entry in home.network.trace}

    @pytest.mark.parametrize(("refresh", "open_"), [(False, False), (True, True)])
    def test_timeout(self, refresh: bool, open_: bool) -> None:
        """A mapping ends after its timeout without datagrams from inside, and by option also from outside."""
        home = Home(timeout=30, refreshInbound=refresh)
        home.send()
        home.network.advance(20)
        assert home.answered()
        home.network.advance(20)
        assert home.answered() is open_
        home.network.advance(31)
        assert not home.answered()
        home.send()
        assert home.answered()

    def test_ports(self) -> None:
        """Two hosts with the same port get two ports; without preservation each gets the next."""
        home = Home(preservePorts=False)
        other, _ = open_(home.nat.host("phone", "192.168.0.3"), "0.0.0.0", 5000)
        home.send()
        other.write(b"z", ("198.51.100.7", 7))
        home.network.advance(1)
        assert home.sources == [("203.0.113.1", 1024), ("203.0.113.1", 1025)]

    def test_full(self) -> None:
        """A NAT whose ports are all taken drops, until some are free again."""
        mappings = Mappings(NATBehavior(mapping=EI, timeout=10))
        for number in range(1024, 65536):
            found = mappings.outbound(("192.168.0.2", number), ("198.51.100.7", 7), 0.0)
            assert found is not None
            assert found.port == number
        assert mappings.outbound(("192.168.0.3", 5000), ("198.51.100.7", 7), 5.0) is None
        assert mappings.outbound(("192.168.0.3", 5000), ("198.51.100.7", 7), 10.0) is not None
        assert len(mappings.active) == 1

    def test_fullRebind(self) -> None:
        """A NAT whose ports are all taken gives them again after a rebinding: there are no others."""
        mappings = Mappings(NATBehavior(mapping=EI, timeout=10))
        for number in range(1024, 65536):
            mappings.outbound(("192.168.0.2", number), ("198.51.100.7", 7), 0.0)
        mappings.rebind()
        assert mappings.outbound(("192.168.0.3", 5000), ("198.51.100.7", 7), 5.0) is not None
        assert len(mappings.active) == 1

    def test_wrong(self) -> None:
        """Behaviors, addresses and links that are none are refused with a sentence."""
        with pytest.raises(ValueError, match=r"^mapping must be one of endpoint-independent, .*, got 'symmetric'$"):
            NATBehavior(mapping="symmetric")
        with pytest.raises(ValueError, match=r"^timeout must be a number of seconds, more than 0, got 0$"):
            NATBehavior(timeout=0)
        home = Home()
        with pytest.raises(ValueError, match=r"^address of a NAT must be of IPv4, got '2001:db8::9'$"):
            home.network.nat("v6", "2001:db8::9")
        with pytest.raises(ValueError, match=r"^name of a host must be new, got 'home' again$"):
            home.network.host("home")
        with pytest.raises(ValueError, match="taken"):
            home.network.host("other", "203.0.113.1")
        with pytest.raises(ValueError, match=r"^link must join neighbors, got .*, which have a NAT between them$"):
            home.network.link(home.laptop, home.server)


class TraversalTests:
    """Peers behind NATs that reach each other, or do not."""

    @pytest.mark.parametrize(
        ("one", "other", "works"),
        [
            ({}, {}, True),
            ({"filtering": EI}, {"mapping": APD}, True),
            ({"filtering": AD}, {"mapping": APD}, True),
            ({}, {"mapping": APD}, False),
            ({"mapping": APD}, {"mapping": APD}, False),
        ],
    )
    def test_holePunching(self, one: dict[str, Any], other: dict[str, Any], works: bool) -> None:
        """Two peers learn their addresses outside from a server, and send to each other: it works unless one NAT changes
        the port for each destination and the other looks at ports (RFC 5128 section 3.3).
        """
        network = MemoryNetwork(latency=0.1)
        _, seen = open_(network.host("server", "198.51.100.7"), "0.0.0.0", 7)
        peers = []
        for number, behavior in enumerate((one, other), 1):
            # Not the port that the other behavior would keep by chance.
            nat = network.nat(f"nat{number}", f"203.0.113.{number}", NATBehavior(preservePorts=False, **behavior))
            peers.append(open_(nat.host(f"peer{number}", "192.168.0.2"), "0.0.0.0", 5000 + number))
            peers[-1][0].write(b"hello", ("198.51.100.7", 7))
        network.advance(1)
        # Plain pairs: they have no local address to answer from.
        first, second = ((address.host, address.port) for _, address in seen.datagrams)
        for _ in range(3):
            peers[0][0].write(b"to second", second)
            peers[1][0].write(b"to first", first)
            network.advance(1)
            for port, recorder in peers:
                # Who was reached answers the address that it sees.
                for _, address in recorder.datagrams[-1:]:
                    port.write(b"answer", address)
            network.advance(1)
        reached = [any(datagram == b"answer" for datagram, _ in recorder.datagrams) for _, recorder in peers]
        assert any(reached) is works
        assert all(reached) is works

    @pytest.mark.parametrize("hairpin", [True, False])
    def test_hairpin(self, hairpin: bool) -> None:
        """Two hosts behind one NAT reach each other by its address outside, if it does that; the source is of outside then."""
        home = Home(hairpin=hairpin, filtering=EI)
        other, recorder = open_(home.nat.host("phone", "192.168.0.3"), "0.0.0.0", 6000)
        other.write(b"hello", ("198.51.100.7", 7))
        home.network.advance(1)
        home.send("203.0.113.1", 6000)
        assert recorder.datagrams == ([(b"x", ("203.0.113.1", 5000))] if hairpin else [])
        assert home.network.trace[-1].outcome == ("delivered" if hairpin else "nat dropped")
        # Inside they reach each other anyhow.
        home.send("192.168.0.3", 6000)
        assert recorder.datagrams[-1] == (b"x", ("192.168.0.2", 5000))

    def test_forward(self) -> None:
        """A port that is forwarded lets anybody in, for ever, and replies leave from it."""
        home = Home(timeout=1)
        listen(home.laptop, 7, EchoServer(), "0.0.0.0")
        home.nat.forward(7000, home.laptop, 7)
        home.network.advance(100)
        assert wait(home.network, echo(home.server, "203.0.113.1", 7000, b"hello")) == 5
        home.nat.crash()
        home.nat.restart()
        assert wait(home.network, echo(home.server, "home", 7000, b"hello")) == 5
        with pytest.raises(ValueError, match=r"^port must be free, got 7000"):
            home.nat.forward(7000, home.laptop, 8)
        with pytest.raises(ValueError, match=r"^port must be 1 to 65535, got 0$"):
            home.nat.forward(0, home.laptop, 8)
        with pytest.raises(ValueError, match=r"^host must have an IPv4 address behind home, got <MemoryHost server>$"):
            home.nat.forward(7001, home.server, 8)

    def test_nested(self) -> None:
        """A NAT behind a NAT translates twice, with overlapping addresses."""
        network = MemoryNetwork(latency=0.1)
        provider = network.nat("provider", "203.0.113.1", NATBehavior(preservePorts=False))
        home = provider.nat("home", "100.64.0.2")
        laptop = home.host("laptop", "192.168.0.2")
        neighbour = provider.host("neighbour", "192.168.0.2")
        server = network.host("server", "198.51.100.7")
        listen(server, 7, EchoServer(), "0.0.0.0")
        for host in (laptop, neighbour):
            assert wait(network, echo(host, "server", 7, b"hello")) == 5
        assert [len(nat.mappings.active) for nat in (provider, home)] == [2, 1]


class ChangeTests:
    """NATs that change under way."""

    def test_rebind(self) -> None:
        """After a rebinding the server sees another port, and its replies get back; those to the former port do not."""
        home = Home()
        home.send()
        home.nat.rebind()
        assert not home.answered()
        home.send()
        assert home.sources == [("203.0.113.1", 5000), ("203.0.113.1", 1024)]
        assert home.answered(to=1024)
        assert not home.answered(to=5000)
        home.nat.rebind()
        home.send()
        assert home.sources[-1] == ("203.0.113.1", 5000)

    def test_client(self) -> None:
        """A client behind a NAT that rebinds is answered at its new port."""
        home = Home()
        listen(home.server, 8, EchoServer(), "0.0.0.0")
        client = wait(home.network, connect(home.laptop, "server", 8))
        for _ in range(3):
            assert wait(home.network, client.echo(b"hello")) == 5
            home.nat.rebind()

    def test_setAddress(self) -> None:
        """A NAT with another address forgets its mappings; the former address is nobody's."""
        home = Home()
        home.send()
        home.nat.setAddress("203.0.113.9")
        assert not home.answered()
        assert home.network.trace[-1].outcome == "no host"
        home.send()
        assert home.sources[-1] == ("203.0.113.9", 5000)
        with pytest.raises(ValueError, match="taken"):
            home.nat.setAddress("198.51.100.7")
        home.send()
        assert home.sources[-1] == ("203.0.113.9", 5000)

    def test_crash(self) -> None:
        """A NAT that has crashed passes nothing on, IPv6 neither; after a restart it has no mappings."""
        home = Home()
        home.send()
        home.nat.crash()
        home.send()
        assert home.network.trace[-1].outcome == "host down"
        assert not home.answered()
        home.nat.restart()
        assert not home.answered()
        home.send()
        assert home.answered()

    def test_linkCut(self) -> None:
        """The links to both sides of a NAT can be cut, each alone; faults of the network are not those of the home's link."""
        home = Home()
        for link in (home.network.link(home.laptop, home.nat), home.network.link(home.nat, home.server)):
            link.cut()
            home.send()
            assert home.network.trace[-1].outcome == "link cut"
            link.restore()
            home.send()
            assert home.network.trace[-1].outcome == "delivered"
        home.network.link(home.nat, home.server).cut()
        _, recorder = open_(home.nat.host("phone", "192.168.0.3"), "0.0.0.0", 6000)
        home.send("192.168.0.3", 6000)
        assert len(recorder.datagrams) == 1


class ReportTests:
    """What ICMP reports through NATs, hops and IPv6."""

    def test_refused(self) -> None:
        """A refusal gets back through a NAT to the host that it is for, after a round trip."""
        home = Home()
        with pytest.raises(PortUnreachable):
            wait(home.network, echo(home.laptop, "198.51.100.7", 9, b"hello"))
        assert home.network.clock.seconds() == pytest.approx(0.2, abs=0.02)

    def test_forgotten(self) -> None:
        """A refusal for which a NAT has no mapping any more is lost."""
        home = Home()
        home.network.at(0.15, home.nat.rebind)
        with pytest.raises(ResponseTimeout):
            wait(home.network, echo(home.laptop, "198.51.100.7", 9, b"hello", timeout=2))

    def test_hops(self) -> None:
        """A NAT is a hop: what has none left expires in it, and the sender is notified."""
        home = Home()
        home.port.connect("198.51.100.7", 7)
        for hops in (1, 2):
            home.port.hopLimit = hops
            home.port.write(b"x")
        home.network.advance(1)
        assert [entry.outcome for entry in home.network.trace] == ["expired", "delivered"]
        (error,) = home.inside.errors
        assert isinstance(error, HostUnreachable)
        assert error.errno == errno.EHOSTUNREACH

    def test_ipv6(self) -> None:
        """IPv6 goes through as it is, both ways, with a hop less."""
        home = Home()
        _, inside = open_(home.laptop, "::", 6000, decrementHopLimit=True)
        _, outside = open_(home.server, "::", 8)
        listen(home.laptop, 7, EchoServer(), "::")
        assert wait(home.network, echo(home.server, "2001:db8::2", 7, b"hello")) == 5
        port, _ = open_(home.server, "::")
        port.write(b"x", ("2001:db8::2", 6000))
        back, _ = open_(home.laptop, "::", 6001)
        back.write(b"y", ("2001:db8:1::7", 8))
        home.network.advance(1)
        assert [address.hopLimit for _, address in inside.datagrams] == [63]
        assert outside.datagrams == [(b"y", ("2001:db8::2", 6001))]
        home.laptop.removeAddress("2001:db8::2")
        port.write(b"z", ("2001:db8::2", 6000))
        home.network.advance(1)
        assert home.network.trace[-1].outcome == "no host"


def testPermissionsThatAreOverAreForgotten() -> None:
    """An endpoint that talks to ever others does not make memory grow."""
    mappings = Mappings(NATBehavior(timeout=10.0))
    for second in range(100):
        mapping = mappings.outbound(("192.168.0.1", 5), (f"10.0.0.{second}", 7), float(second))
    assert mapping is not None
    assert len(mapping.sentTo) == 10
