"""Tests of L{udpecho.net.sources}, and of plain addresses on real sockets."""

from __future__ import annotations

import json
import marshal
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from tests.support.guards import needsIPv6, onlyLinux
from tests.support.ports import open_, path  # noqa: F401
from tests.support.running import Recorder, Run, sleep, udpSocket
from udpecho.net.sources import REMEMBERED, Arrival, Sources

PEER = ("192.0.2.1", 7)


class SourcesTests:
    """L{Sources}."""

    def test_plain(self) -> None:
        """What is handed over is a plain pair, with the scope in the host."""
        sources = Sources(DatagramProtocol())
        assert sources.handOver("a", PEER, Arrival()) == PEER
        scoped = sources.handOver("b", ("fe80::1", 7, 5, 3), Arrival())
        assert scoped == ("fe80::1%3", 7)
        assert type(scoped) is tuple

    def test_identity(self) -> None:
        """The very tuple finds how its own datagram came, an equal one how the latest did."""
        sources = Sources(DatagramProtocol())
        ways = [Arrival("192.0.2.8"), Arrival("192.0.2.9")]
        first, second = (sources.handOver(way, PEER, way) for way in ways)
        copy = (str(PEER[0]), int(PEER[1]))

        def found(address: tuple[str, int]) -> Arrival:
            source = sources.find(address)
            assert source is not None
            return source.arrival

        assert [found(first), found(second), found(copy)] == [*ways, ways[1]]
        # Each look-up by key must come here, or the latest would not be known.
        assert not sources.usual
        assert sources.handOver(ways[0], PEER, ways[0]) is first
        assert [found(first), found(second), found(copy)] == [*ways, ways[0]]

    def test_bounded(self) -> None:
        """The last ones are known, and no more than twice as many."""
        sources = Sources(DatagramProtocol())
        names = [(f"10.0.{number // 250}.{number % 250}", number) for number in range(5 * REMEMBERED)]
        for name in names:
            sources.handOver(name, name, Arrival("192.0.2.9"))
        assert all(sources.find(name) for name in names[-REMEMBERED:])
        assert sum(sources.find(name) is not None for name in names) <= 2 * REMEMBERED

    def test_usedAgain(self) -> None:
        """One that goes on sending is not forgotten."""
        sources = Sources(DatagramProtocol())
        first = sources.handOver("key", PEER, Arrival("192.0.2.9"))
        for number in range(1, 4 * REMEMBERED):
            sources.handOver(number, ("10.0.0.1", number), Arrival())
            if number % 1000 == 0:
                assert sources.handOver("key", PEER, Arrival("192.0.2.9")) is first
        assert sources.find(PEER) is not None

    def test_forget(self) -> None:
        """What is not true any more is not found, by key neither."""
        sources = Sources(DatagramProtocol())
        sources.handOver("key", PEER, Arrival("192.0.2.9"))
        source = sources.find(PEER)
        assert source is not None
        sources.forget(source)
        assert sources.find(PEER) is None
        assert not sources.usual


class PlainAddressTests:
    """What an ordinary protocol gets."""

    @pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0", pytest.param("::", marks=needsIPv6)])
    def test_type(self, runOnce: Run, interface: str) -> None:
        """A plain tuple that serialises, for the first datagram and the following ones, alone and in batches."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, interface)
            with udpSocket() as sock:
                for number in range(1, 40):
                    for _ in range(1 if number < 20 else 3):
                        sock.sendto(b"hello", ("127.0.0.1", port.getHost().port))
                    await protocol.count(number if number < 20 else 19 + 3 * (number - 19))
                name = sock.getsockname()
                expected = (f"::ffff:{name[0]}", name[1]) if ":" in interface else name
                assert {address for _, address in protocol.datagrams} == {expected}
                assert {type(address) for _, address in protocol.datagrams} == {tuple}
                assert marshal.loads(marshal.dumps(protocol.datagrams[-1][1])) == expected
                assert json.loads(json.dumps(protocol.datagrams[-1][1])) == list(expected)
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    @pytest.mark.parametrize(("interface", "hops"), [("0.0.0.0", None), ("0.0.0.0", True), ("127.0.0.1", True)])
    def test_replySource(self, runOnce: Run, interface: str, hops: bool | None) -> None:
        """A reply to the tuple, or to an equal one, leaves from the address that was asked, also later."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, interface, decrementHopLimit=hops)
            targets = ["127.0.0.2", "127.0.0.3"] if interface == "0.0.0.0" else ["127.0.0.1"] * 2
            with udpSocket() as sock:
                for target in targets:
                    sock.sendto(b"hello", (target, port.getHost().port))
                await protocol.count(2)
                await sleep(reactor, 0.01)
                (_, first), (_, second) = protocol.datagrams
                for address in (first, second, sock.getsockname()):
                    port.write(b"reply", address)
                sources = [sock.recvfrom(100)[1][0] for _ in range(3)]
                assert sources == [*targets, targets[1]]
            await port.stopListening()

        runOnce(test)

    @onlyLinux
    def test_addressIsGone(self, runOnce: Run) -> None:
        """When the address that was asked is gone, the system chooses another one."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port: Any = open_(reactor, protocol, "0.0.0.0")
            with udpSocket() as sock:
                gone = Arrival("192.0.2.77")
                port._endpoints.sources.handOver("key", sock.getsockname(), gone)
                port.write(b"still there", sock.getsockname())
                assert sock.recv(100) == b"still there"
                assert not port.dropped
            await port.stopListening()

        runOnce(test)
