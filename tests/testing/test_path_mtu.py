"""Tests of L{udpecho.testing.path_mtu}: narrow links, fragments that are lost together, and congestion marks."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error

from tests.support.memory import open_, pair
from tests.support.running import Recorder
from udpecho.errors import MessageTooLong
from udpecho.faults.decision import DELIVERED, LOST, Arrival, Replay
from udpecho.faults.plan import FaultPlan
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.path_mtu import (
    PMTUDISC_DO,
    PMTUDISC_DONT,
    PMTUDISC_INTERFACE,
    PMTUDISC_OMIT,
    PMTUDISC_PROBE,
    PMTUDISC_WANT,
    askEach,
    cut,
)

V4, V6 = "10.0.0.2", "fd00::2"


class Narrow:
    """Two hosts with a narrow link, and a connected socket."""

    def __init__(self, peer: str = V4, mode: int | None = None, plan: Any = None, **settings: Any) -> None:
        self.network = MemoryNetwork(plan, latency=0.1)
        self.one, self.two = pair(self.network)
        self.network.link(self.one, self.two).set(**settings)
        self.port, self.sender = open_(self.one, "::" if ":" in peer else "0.0.0.0")
        _, self.receiver = open_(self.two, "::" if ":" in peer else "0.0.0.0", 7)
        self.port.connect(peer, 7)
        if mode is not None:
            self.port.mtuDiscovery = mode

    def result(self, size: int) -> str:
        """What becomes of a payload: that it arrives, or an error of the send, or later."""
        arrived, errors = len(self.receiver.datagrams), len(self.sender.errors)
        try:
            self.port.write(b"x" * size)
        except error.MessageLengthError:
            return "refused"
        self.network.advance(1)
        if len(self.receiver.datagrams) > arrived:
            assert self.receiver.datagrams[-1][0] == b"x" * size
            return "arrived"
        if len(self.sender.errors) > errors:
            reason = self.sender.errors[-1]
            assert isinstance(reason, MessageTooLong)
            return f"limit {reason.limit}"
        return "nothing"


class DiscoveryTests:
    """What each C{IP_MTU_DISCOVER} does, as measured on Linux 6.18 with a router on whose far side the MTU was 1300."""

    @pytest.mark.parametrize(
        ("peer", "mode", "results"),
        [
            (V4, PMTUDISC_DONT, ["arrived"] * 2),
            (V4, PMTUDISC_OMIT, ["arrived"] * 2),
            (V4, PMTUDISC_INTERFACE, ["arrived"] * 2),
            (V4, PMTUDISC_WANT, ["limit 1272", "arrived"]),
            (V4, PMTUDISC_PROBE, ["limit 1272"] * 2),
            (V4, PMTUDISC_DO, ["limit 1272", "refused"]),
            (V6, PMTUDISC_DONT, ["limit 1252", "arrived"]),
            (V6, PMTUDISC_OMIT, ["nothing"] * 2),
            (V6, PMTUDISC_INTERFACE, ["nothing"] * 2),
            (V6, PMTUDISC_WANT, ["limit 1252", "arrived"]),
            (V6, PMTUDISC_PROBE, ["limit 1252"] * 2),
            (V6, PMTUDISC_DO, ["limit 1252", "refused"]),
        ],
    )
    def test_router(self, peer: str, mode: int, results: list[str]) -> None:
        """The first long datagram, the second, and a short one."""
        narrow = Narrow(peer, mode, mtu=1300, hops=1)
        assert [narrow.result(1400), narrow.result(1400), narrow.result(1200)] == [*results, "arrived"]

    @pytest.mark.parametrize("peer", [V4, V6])
    @pytest.mark.parametrize(
        ("mode", "result"),
        [
            (PMTUDISC_DONT, "arrived"),
            (PMTUDISC_OMIT, "arrived"),
            (PMTUDISC_WANT, "arrived"),
            (PMTUDISC_INTERFACE, "refused"),
            (PMTUDISC_PROBE, "refused"),
            (PMTUDISC_DO, "refused"),
        ],
    )
    def test_interface(self, peer: str, mode: int, result: str) -> None:
        """Without routers the MTU is that of the interface, which the host knows."""
        assert Narrow(peer, mode, mtu=1500).result(1600) == result

    def test_defaults(self) -> None:
        """Ports have the defaults of real ones: those of protocols that take batches ignore reports on IPv4."""
        one, _ = pair(MemoryNetwork())
        found = [
            one.listenUDP(0, kind(), interface).mtuDiscovery
            for kind in (EchoServer, Recorder)
            for interface in ("0.0.0.0", "::")
        ]
        assert found == [PMTUDISC_OMIT, PMTUDISC_WANT, PMTUDISC_WANT, PMTUDISC_WANT]

    def test_forgotten(self) -> None:
        """After ten minutes the host tries the whole path again; a restart forgets it too."""
        narrow = Narrow(mode=PMTUDISC_DO, mtu=1300, hops=1)
        assert [narrow.result(1400), narrow.result(1400)] == ["limit 1272", "refused"]
        narrow.network.link(narrow.one, narrow.two).set(mtu=None)
        narrow.network.advance(590)
        assert narrow.result(1400) == "refused"
        narrow.network.advance(10)
        assert narrow.result(1400) == "arrived"

    @pytest.mark.parametrize("peer", [V4, V6])
    def test_blackHole(self, peer: str) -> None:
        """Where reports are kept back, long datagrams are lost without a word, again and again."""
        narrow = Narrow(peer, mtu=1300, hops=1, reports=False)
        assert [narrow.result(size) for size in (1400, 1400, 1200)] == ["nothing", "nothing", "arrived"]

    def test_smallestIPv6(self) -> None:
        """A link of less than 1280 carries so much of IPv6 nevertheless (RFC 8200 section 5)."""
        assert Narrow(V6, PMTUDISC_DO, mtu=600).result(1280 - 48) == "arrived"
        assert Narrow(V6, PMTUDISC_DO, mtu=600).result(1280 - 47) == "refused"


class FragmentTests:
    """Datagrams in fragments."""

    @pytest.mark.parametrize(
        ("ipv6", "size", "sizes"),
        [(False, 2944, [1472, 1472]), (False, 2953, [1472, 1480, 1]), (True, 2888, [1440, 1448]), (False, 0, [0])],
    )
    def test_sizes(self, ipv6: bool, size: int, sizes: list[int]) -> None:
        """Each but the last has a multiple of 8 bytes, the first one with the UDP header (RFC 791 3.2, RFC 8200 4.5)."""
        assert [len(part) for part in cut(b"x" * size, ipv6, 1500)] == sizes

    def test_lostTogether(self) -> None:
        """The plan decides about each fragment; when one is lost, all are, and the trace says it."""
        narrow = Narrow(mode=PMTUDISC_DONT, mtu=1500)
        narrow.network.setPlan(
            narrow.one, narrow.two, Replay("delivered +0.000000000\nlost\ndelivered +0.000000000\ndelayed +0.500000000")
        )
        assert narrow.result(4000) == "nothing"
        assert narrow.result(4000) == "arrived"
        assert [entry.outcome for entry in narrow.network.trace] == [
            "lost,3 fragments,fragment lost",
            "delayed,3 fragments: delivered",
        ]

    def test_lossOfMany(self) -> None:
        """At a loss of 10 % each, a datagram of 10 fragments gets through in 35 % of the cases (0.9 ** 10)."""
        narrow = Narrow(mode=PMTUDISC_DONT, plan=FaultPlan(5, loss=0.1), mtu=1500)
        for _ in range(1000):
            narrow.port.write(b"x" * 14000)
        narrow.network.advance(1)
        # Within 3.89 standard deviations of the binomial.
        assert abs(len(narrow.receiver.datagrams) - 349) <= 3.89 * (1000 * 0.349 * 0.651) ** 0.5

    def test_copies(self) -> None:
        """A datagram arrives twice if each of its fragments does; the bytes are those of each copy, and gaps lose it."""
        answers = iter(
            [
                ((DELIVERED,), [Arrival(0.1, b"a" * 1472), Arrival(0.4, b"A" * 1472)]),
                (("duplicated",), [Arrival(0.3, b"b" * 10), Arrival(0.2, b"B" * 10)]),
                ((DELIVERED,), [Arrival(0.0, b"c" * 1472)]),
                (("truncated",), [Arrival(0.0, b"d" * 9)]),
                ((DELIVERED,), [Arrival(0.0, b"e" * 1472)]),
                (("delayed",), [Arrival(31.0, b"f" * 10)]),
                ((LOST,), []),
                ((DELIVERED,), [Arrival(0.0, b"f" * 10)]),
            ]
        )

        def ask(part: bytes) -> tuple[tuple[str, ...], list[Arrival]]:
            return next(answers)

        results = [askEach(ask, b"x" * 1482, False, 1500) for _ in range(4)]
        assert results[0] == (
            ("duplicated", "2 fragments"),
            [Arrival(0.3, b"a" * 1472 + b"b" * 10), Arrival(0.4, b"A" * 1472 + b"B" * 10)],
        )
        assert [arrivals for _, arrivals in results[1:]] == [[], [], []]


class CongestionTests:
    """Explicit congestion notification (RFC 3168)."""

    def test_codepoint(self) -> None:
        """A receiver that asks for it sees the codepoint of each datagram; another does not, nor does a reply have it."""
        network = MemoryNetwork()
        one, two = pair(network)
        sender, _ = open_(one, "0.0.0.0")
        receiver, recorder = open_(two, "0.0.0.0", 7)
        for reports, ecn in ((False, 2), (True, 2), (True, 1), (True, 0)):
            receiver.reportsECN, sender.ecn = reports, ecn
            sender.write(b"x", (V4, 7))
            network.advance(0)
        assert [address.ecn for _, address in recorder.datagrams] == [None, 2, 1, 0]
