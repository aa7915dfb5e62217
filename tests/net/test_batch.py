"""Tests of L{udpecho.net.batch}, on real sockets."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from zope.interface.verify import verifyObject

from tests.support.batches import bench, take, talker
from tests.support.guards import needsBatches, needsIPv6
from tests.support.running import udpSocket
from udpecho.interfaces import IDatagramBatch
from udpecho.net.linux import sockopt
from udpecho.net.linux.mmsg import SLOTS

pytestmark = needsBatches


class MessageBatchTests:
    """L{MessageBatch}."""

    @pytest.mark.parametrize(
        ("bound", "host"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.2"),
            pytest.param("::1", "::1", marks=needsIPv6),
            pytest.param("::", "::1", marks=needsIPv6),
        ],
    )
    def test_everySize(self, bound: str, host: str) -> None:
        """Datagrams of every size come back with the same bytes, from the address they were sent to, and what a batch reports
        of them is true.
        """
        most = 65527 if ":" in host else 65507
        with bench(bound) as bed, talker(bed, host) as sock:
            verifyObject(IDatagramBatch, bed.batch)
            for sizes in ([0, 1, 2, 3], [most], [1500, 0, most, 9000], list(range(40))):
                payloads = [bytes((size + at) % 256 for at in range(size)) for size in sizes]
                for payload in payloads:
                    sock.send(payload)
                batch = bed.batch
                assert bed.receive() == batch.entries == batch.datagrams == len(sizes)
                assert batch.sizes() == batch.longest() == sizes
                assert batch.counts() == [1] * len(sizes)
                assert batch.size == sum(sizes)
                assert batch.hosts() == [int(ip_address(host))] * len(sizes)
                assert batch.ports() == [sock.getsockname()[1]] * len(sizes)
                assert batch.scopes() == [0] * len(sizes)
                assert list(batch.nonUnicast()) == list(batch.truncated()) == list(batch.hopLimitExpired()) == []
                assert [batch.payloads(entry) for entry in range(len(sizes))] == [[payload] for payload in payloads]
                address = batch.address(0)
                assert address == sock.getsockname()[:2]
                assert (address.localHost, address.unicast, address.hopLimit) == (host, True, None)
                bed.send()
                assert take(sock, len(sizes)) == payloads
                assert bed.outcomes.pop(None) == [len(sizes), sum(sizes)]
                assert not bed.outcomes

    def test_nothingThere(self) -> None:
        """An empty queue is C{EAGAIN}, and leaves an empty batch."""
        with bench() as bed:
            with pytest.raises(BlockingIOError):
                bed.receive()
            assert bed.batch.entries == bed.batch.datagrams == bed.batch.size == 0

    def test_full(self) -> None:
        """A batch takes as many as it has slots; what is more waits for the next."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            for number in range(SLOTS + 3):
                sock.send(bytes([number]))
            assert bed.receive() == SLOTS
            bed.send()
            assert bed.receive() == 3
            bed.send()
            assert take(sock, SLOTS + 3) == [bytes([number]) for number in range(SLOTS + 3)]

    def test_sources(self) -> None:
        """Each reply goes to its own source."""
        with bench("0.0.0.0") as bed, ExitStack() as stack:
            socks = [stack.enter_context(talker(bed, f"127.0.0.{number}")) for number in range(1, 40)]
            for number, sock in enumerate(socks):
                sock.send(bytes(number))
            assert bed.receive() == len(socks)
            assert bed.batch.hosts() == [int(ip_address(sock.getsockname()[0])) for sock in socks]
            assert bed.batch.ports() == [sock.getsockname()[1] for sock in socks]
            bed.send()
            for number, sock in enumerate(socks):
                assert take(sock, 1) == [bytes(number)]

    def test_unknownReason(self) -> None:
        """A reason that is none is a mistake of the one who drops, and changes nothing."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            sock.send(b"hello")
            bed.receive()
            with pytest.raises(ValueError, match=r"reason must be one of loop_guard, .*, got 'weather'"):
                bed.batch.drop(0, "weather")
            bed.send()
            assert take(sock, 1) == [b"hello"]

    def test_groups(self) -> None:
        """What was sent to all hosts of a network is known."""
        with bench("0.0.0.0") as bed, udpSocket("127.0.0.1") as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            port = bed.sock.getsockname()[1]
            for host in ("127.0.0.1", "127.255.255.255", "127.0.0.3"):
                sock.sendto(b"hello", (host, port))
            assert bed.receive() == 3
            assert list(bed.batch.nonUnicast()) == [1]
            assert not bed.batch.address(1).unicast

    @pytest.mark.parametrize(
        ("bound", "host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), pytest.param("::", "::1", marks=needsIPv6)]
    )
    def test_hopLimits(self, bound: str, host: str) -> None:
        """A reply has one hop less than what it replies to; what has none left for a reply is known."""
        level, option, kind = (
            (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, sockopt.IPV6_HOPLIMIT)
            if ":" in host
            else (socket.IPPROTO_IP, socket.IP_TTL, sockopt.IP_TTL)
        )
        with bench(bound, hopLimits=True) as bed, talker(bed, host) as sock:
            assert sockopt.enableRecvHopLimit(sock)
            # No host sends IPv4 with 0, but by raw sockets.
            hops = [255, 64, 1, 2, *([0] if ":" in host else [])]
            for limit in hops:
                sock.setsockopt(level, option, limit)
                sock.send(b"hello")
            assert bed.receive() == len(hops)
            assert [bed.batch.address(entry).hopLimit for entry in range(len(hops))] == hops
            assert list(bed.batch.hopLimitExpired()) == [2, 4][: len(hops) - 3]
            for entry in bed.batch.hopLimitExpired():
                bed.batch.drop(entry, "loop_guard")
            bed.send()
            for expected in (254, 63, 1):
                (received,) = [data for at, what, data in sock.recvmsg(100, 100)[1] if (at, what) == (level, kind)]
                assert int.from_bytes(received, "little") == expected
            # What is sent separately later has the hop limit that came.
            assert bed.batch.address(0).hopLimit == 255

    def test_memory(self) -> None:
        """All is allocated once: what many batches take is what one takes."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            slots = vars(bed.batch.slots)
            buffers = [id(value) for value in slots.values() if isinstance(value, memoryview)]
            assert buffers
            for _ in range(20):
                sock.send(b"x" * 60000)
                bed.receive()
                bed.send()
                sock.recv(65535)
            assert [id(value) for value in slots.values() if isinstance(value, memoryview)] == buffers
