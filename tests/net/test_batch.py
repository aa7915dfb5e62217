"""
Tests of L{udpecho.net.batch}, L{udpecho.net.linux.gso} and of the control messages in L{udpecho.net.linux.sockopt}, on real
sockets, with the system calls failing on purpose.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from tests.support.running import PATIENCE, hasIPv6, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDatagramBatch, SendCallback
from udpecho.net import batch as module
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import SegmentLimits, countSegments
from udpecho.net.linux.mmsg import SLOTS, SystemCalls, systemCalls
from udpecho.net.selftest import unsupportedReason

pytestmark = pytest.mark.skipif(unsupportedReason() is not None, reason=f"no batches: {unsupportedReason()}")
needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")

#: What sendmmsg(2), send(2) and udp(7) name, and what firewalls and policies add.
SEND_ERRORS = [
    errno.EACCES,
    errno.EBADF,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EDESTADDRREQ,
    errno.EFAULT,
    errno.EHOSTUNREACH,
    errno.EINVAL,
    errno.EIO,
    errno.EISCONN,
    errno.EMSGSIZE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ENOTSOCK,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EPIPE,
]


#: A datagram's size, and why it is dropped, if it is.
_entries = st.tuples(st.integers(0, 2000), st.sampled_from([None, None, None, "loop_guard", "too_large"]))
#: The length of each datagram, how many they are, the length of the last, and whether to send just one.
_bursts = st.tuples(st.integers(1, 1400), st.integers(1, 64), st.integers(0, 1399), st.booleans())


class Bench:
    """
    A batch on a real socket, and a plain socket that talks to it.

    @ivar fates: what became of the datagrams: C{reason: [datagrams, bytes]}.
    @ivar apart: payloads that were sent one by one.
    @ivar keeps: have single sends wait instead of going out.
    """

    def __init__(self, sock: socket.socket, options: BatchOptions) -> None:
        self.sock = sock
        self.fates: dict[str | None, list[int]] = {}
        self.apart: list[bytes] = []
        self.waiting: list[SendCallback] = []
        self.keeps = False
        self.failures: Counter[str] = Counter()
        self.options = options
        self.batch = MessageBatch(options, BatchSender(options, self.sendOne, self.failures).send)

    def sendOne(self, payload: bytes, address: DatagramAddress, settled: SendCallback) -> None:
        self.apart.append(payload)
        if self.keeps:
            self.waiting.append(settled)
            return
        ancillary = cmsg.replyControls(self.batch.isIPv6, address.localHost, None)
        destination = (*address, 0, address.scopeID) if self.batch.isIPv6 else tuple(address)
        self.sock.sendmsg([payload], ancillary if self.options.destinations else [], 0, destination)
        settled(None)

    def receive(self) -> int:
        return self.batch.receive(self.sock.fileno())

    def send(self) -> None:
        def settled(reason: str | None, datagrams: int, size: int) -> None:
            fate = self.fates.setdefault(reason, [0, 0])
            fate[0] += datagrams
            fate[1] += size

        self.batch.send(settled)

    def limitCalls(self, results: list[int]) -> list[int]:
        """
        Have C{sendmmsg} do what a script says.

        @param results: for each call in turn how many entries to send at the most, or, below zero, the error number to fail
            with; then all goes through.

        @return: how many entries each call was asked to send, as they come.
        """
        real = systemCalls()
        asked: list[int] = []
        number = 0

        def sendmmsg(descriptor: int, address: int, count: int, flags: int) -> int:
            nonlocal number
            asked.append(count)
            number = 0
            result = results.pop(0) if results else count
            if result < 0:
                number = -result
                return -1
            return real.sendmmsg(descriptor, address, min(count, result), flags) if result else 0

        def recvmmsg(*arguments: Any) -> int:
            nonlocal number
            number = 0
            return real.recvmmsg(*arguments)

        self.batch.calls = SystemCalls(recvmmsg, sendmmsg, lambda: number or real.lastError())
        return asked


@contextmanager
def bench(host: str = "127.0.0.1", segmentation: bool = False, hopLimits: bool = False) -> Iterator[Bench]:
    """A batch on a socket bound to C{host}."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, 0))
        sock.setblocking(False)
        wildcard = host in ("0.0.0.0", "::")
        if wildcard:
            assert sockopt.enablePktinfo(sock)
        if hopLimits:
            assert sockopt.enableRecvHopLimit(sock)
        if segmentation and not sockopt.enableGRO(sock, True):
            pytest.skip("this kernel has no UDP_GRO")
        segments = SegmentLimits() if segmentation else None
        yield Bench(sock, BatchOptions(family == socket.AF_INET6, None if wildcard else host, wildcard, hopLimits, segments))


@contextmanager
def talker(bench: Bench, host: str) -> Iterator[socket.socket]:
    """A plain socket that is connected to a batch's."""
    with udpSocket(host) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        sock.connect((host, bench.sock.getsockname()[1]))
        yield sock


def burst(sock: socket.socket, payload: bytes, segment: int) -> None:
    """Send datagrams of one flow as one (C{UDP_SEGMENT})."""
    sock.sendmsg([payload], cmsg.replyControls(False, None, None, segment))


def take(sock: socket.socket, count: int) -> list[bytes]:
    """Receive so many datagrams, and see that no more are there."""
    taken = [sock.recv(65535) for _ in range(count)]
    sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        taken.append(sock.recv(65535))
    sock.settimeout(PATIENCE)
    return taken


def segmentsOf(payload: bytes, segment: int) -> list[bytes]:
    return [payload[at : at + segment] for at in range(0, len(payload), segment)]


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
        """
        Datagrams of every size come back with the same bytes, from the address that was asked, and what a batch says of them
        is true.
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
                assert bed.fates.pop(None) == [len(sizes), sum(sizes)]
                assert not bed.fates

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

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(_entries, min_size=1, max_size=64),
        st.lists(st.integers(-3, 20), max_size=12),
        st.lists(st.sampled_from(SEND_ERRORS), min_size=3, max_size=3),
    )
    def test_accounts(self, entries: list[tuple[int, str | None]], script: list[int], numbers: list[int]) -> None:
        """
        Whatever is dropped, however short the counts that the system returns, and whatever it fails with, each datagram is told
        of once, and what was sent arrives unharmed and in order.
        """
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            payloads = [bytes([number]) * size for number, (size, _) in enumerate(entries)]
            for payload in payloads:
                sock.send(payload)
            assert bed.receive() == len(entries)
            for number, (_, reason) in enumerate(entries):
                if reason is not None:
                    bed.batch.drop(number, reason)
            bed.limitCalls([-numbers[result] if result < 0 else max(result, 1) for result in script])
            bed.send()
            assert sum(count for count, _ in bed.fates.values()) == len(entries)
            assert sum(size for _, size in bed.fates.values()) == sum(map(len, payloads))
            for reason in ("loop_guard", "too_large"):
                assert bed.fates.get(reason, [0])[0] == sum(why == reason for _, why in entries)
            assert bed.failures["send_failed"] == bed.fates.get("send_failed", [0])[0]
            came = take(sock, bed.fates.get(None, [0])[0])
            wanted = iter([payload for payload, (_, reason) in zip(payloads, entries, strict=True) if reason is None])
            assert all(payload in wanted for payload in came)

    @pytest.mark.parametrize("at", [0, 1, 31, 62, 63])
    @pytest.mark.parametrize("number", SEND_ERRORS)
    def test_failingEntry(self, at: int, number: int) -> None:
        """An entry that the system refuses costs that entry only."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            for entry in range(SLOTS):
                sock.send(bytes([entry]))
            bed.receive()
            asked = bed.limitCalls(([at] if at else []) + [-number])
            bed.send()
            assert bed.fates == {None: [SLOTS - 1, SLOTS - 1], "send_failed": [1, 1]}
            assert take(sock, SLOTS - 1) == [bytes([entry]) for entry in range(SLOTS) if entry != at]
            assert len(asked) <= 3

    @pytest.mark.parametrize("at", [0, 1, 31, 63])
    def test_fullQueue(self, at: int) -> None:
        """When the send queue is full, the rest is sent one by one, and may wait."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            for entry in range(SLOTS):
                sock.send(bytes([entry]))
            bed.receive()
            bed.keeps = True
            bed.limitCalls(([at] if at else []) + [-errno.EAGAIN])
            bed.send()
            assert bed.apart == [bytes([entry]) for entry in range(at, SLOTS)]
            assert bed.fates == ({None: [at, at]} if at else {})
            for settled in bed.waiting:
                settled("send_timeout")
            assert bed.fates.pop("send_timeout") == [SLOTS - at, SLOTS - at]

    def test_interrupted(self) -> None:
        """A call that a signal interrupts is made again; one that sends nothing and says nothing is not made for ever."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            for script in ([-errno.EINTR, -errno.EINTR], [1, 0]):
                sock.send(b"one")
                sock.send(b"two")
                bed.receive()
                bed.limitCalls(list(script))
                bed.send()
                assert take(sock, 2) == [b"one", b"two"]

    def test_sourcePort0(self) -> None:
        """A datagram from port 0, which nobody can answer, does not keep the others from being answered."""
        try:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        except PermissionError:
            pytest.skip("needs a raw socket")
        with raw, bench() as bed, talker(bed, "127.0.0.1") as sock:
            sock.send(b"before")
            target = bed.sock.getsockname()
            raw.sendto((0).to_bytes(2, "big") + target[1].to_bytes(2, "big") + (8 + 4).to_bytes(2, "big") + b"\0\0evil", target)
            sock.send(b"after")
            assert bed.receive() == 3
            bed.send()
            assert bed.fates == {None: [2, 11], "send_failed": [1, 4]}
            assert take(sock, 2) == [b"before", b"after"]

    def test_unknownReason(self) -> None:
        """A reason that is none is a mistake of the one who drops, and changes nothing."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            sock.send(b"hello")
            bed.receive()
            with pytest.raises(ValueError, match=r"reason must be one of loop_guard, .*, got 'weather'"):
                bed.batch.drop(0, "weather")
            bed.send()
            assert take(sock, 1) == [b"hello"]

    def test_closed(self) -> None:
        """What is sent after the socket was closed is counted as failed, and goes nowhere."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            sock.send(b"hello")
            bed.receive()
            bed.batch.close()
            bed.send()
            assert bed.fates == {"send_failed": [1, 5]}
            assert take(sock, 0) == []

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
                (told,) = [data for at, what, data in sock.recvmsg(100, 100)[1] if (at, what) == (level, kind)]
                assert int.from_bytes(told, "little") == expected
            # What is sent apart later is told of the hop limit that came.
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


class SegmentationTests:
    """Bursts of one flow that the kernel keeps together."""

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(_bursts, min_size=1, max_size=8),
        st.sampled_from(["127.0.0.1", "0.0.0.0"]),
        st.booleans(),
        st.lists(st.sampled_from([1, 2, -errno.EIO, -errno.EINVAL, -errno.EMSGSIZE, -errno.EPERM]), max_size=4),
    )
    def test_neverMoreOrLess(
        self, bursts: list[tuple[int, int, int, bool]], bound: str, hopLimits: bool, script: list[int]
    ) -> None:
        """
        Random bursts between single datagrams, with a shorter last one or not, come back as the same datagrams, also when the
        system refuses to send some of them as one; the account says how many there were.
        """
        with bench(bound, segmentation=True, hopLimits=hopLimits) as bed, talker(bed, "127.0.0.1") as sock:
            sent: list[bytes] = []
            for number, (segment, count, last, alone) in enumerate(bursts):
                count = min(count, 65000 // segment)
                payload = bytes([number]) * (segment * (count - 1) + min(segment, max(1, last)))
                if alone:
                    sock.send(payload[:segment])
                    sent.append(payload[:segment])
                else:
                    burst(sock, payload, segment)
                    sent += segmentsOf(payload, segment)
            came: list[bytes] = []
            datagrams = 0
            bed.limitCalls(script)
            while True:
                try:
                    bed.receive()
                except BlockingIOError:
                    break
                batch = bed.batch
                datagrams += batch.datagrams
                payloads = [payload for entry in range(batch.entries) for payload in batch.payloads(entry)]
                came += payloads
                assert len(payloads) == sum(batch.counts()) == batch.datagrams
                assert [max(map(len, batch.payloads(entry))) for entry in range(batch.entries)] == batch.longest()
                bed.send()
            assert came == sent
            assert datagrams == len(sent)
            assert sum(count for count, _ in bed.fates.values()) == len(sent)
            assert sum(size for _, size in bed.fates.values()) == sum(map(len, sent))
            failed = bed.fates.get("send_failed", [0])[0]
            replies = Counter(take(sock, len(sent) - failed))
            assert not replies - Counter(sent)

    def test_notTooMany(self) -> None:
        """
        After a batch of bursts the next takes fewer of them, so that whoever looks at each datagram is not kept for long; after
        one of single datagrams it takes as many as ever.
        """
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            for _ in range(12):
                burst(sock, bytes(64), 1)
            bed.receive()
            assert (bed.batch.asked, bed.batch.datagrams) == (SLOTS, 12 * 64)
            for _ in range(12):
                burst(sock, bytes(64), 1)
            assert (bed.receive(), bed.batch.asked, bed.batch.datagrams) == (8, 8, 512)
            assert (bed.receive(), bed.batch.datagrams) == (4, 256)
            sock.send(b"one")
            bed.receive()
            sock.send(b"another")
            bed.receive()
            assert bed.batch.asked == SLOTS

    def test_asOne(self) -> None:
        """A burst comes as one entry and goes back with one send."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            payload = bytes(range(64)) * 64 + b"end"
            burst(sock, payload, 64)
            assert bed.receive() == 1
            assert (bed.batch.datagrams, bed.batch.counts(), bed.batch.longest()) == (65, [65], [64])
            asked = bed.limitCalls([])
            bed.send()
            assert asked == [1]
            assert bed.apart == []
            assert take(sock, 65) == segmentsOf(payload, 64)

    def test_wildcard(self) -> None:
        """A burst is answered from the address that was asked."""
        with bench("0.0.0.0", segmentation=True) as bed, talker(bed, "127.0.0.3") as sock:
            sock.send(b"single")
            burst(sock, b"x" * 250, 100)
            assert bed.receive() == 2
            assert bed.batch.address(1).localHost == "127.0.0.3"
            bed.send()
            assert take(sock, 4) == [b"single", b"x" * 100, b"x" * 100, b"x" * 50]
            assert bed.apart == []

    @pytest.mark.parametrize(
        ("number", "again", "other"),
        [(errno.EIO, False, False), (errno.EINVAL, False, True), (errno.EMSGSIZE, False, True)],
    )
    def test_remembered(self, number: int, again: bool, other: bool) -> None:
        """A burst that the system refuses is sent one by one, and so are others for the same cause, at once."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            bed.limitCalls([-number])
            for segment, together in ((100, None), (100, again), (20, other)):
                payload = b"x" * 10 * segment
                burst(sock, payload, segment)
                bed.receive()
                bed.apart.clear()
                bed.send()
                assert bool(bed.apart) is not bool(together)
                assert take(sock, 10) == segmentsOf(payload, segment)

    def test_notRemembered(self) -> None:
        """A burst whose datagrams are refused one by one too says nothing of bursts."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            bed.keeps = True
            bed.limitCalls([-errno.EINVAL])
            for _ in range(2):
                burst(sock, b"x" * 100, 10)
                bed.receive()
                bed.send()
            assert len(bed.apart) == 10
            assert take(sock, 10) == [b"x" * 10] * 10


class SegmentLimitsTests:
    """L{SegmentLimits}."""

    def test_causes(self) -> None:
        """Each cause stands for itself."""
        limits = SegmentLimits()
        assert limits.allow(1400, 128)
        assert "128 datagrams" in limits.refused(errno.EINVAL, 100, 128)
        assert limits.allow(1400, 127)
        assert not limits.allow(1, 128)
        assert "1400 bytes" in limits.refused(errno.EINVAL, 1400, 3)
        assert limits.allow(1399, 2)
        assert not limits.allow(1400, 2)
        assert "checksums" in limits.refused(errno.EIO, 10, 2)
        assert not limits.allow(1, 2)

    @given(st.integers(1, 65535), st.integers(1, 65535))
    def test_countSegments(self, size: int, segment: int) -> None:
        """A burst is cut into so many datagrams."""
        assert countSegments(size, segment) == len(segmentsOf(bytes(size), segment))


class SystemCallsTests:
    """L{systemCalls} and L{unsupportedReason}."""

    def test_works(self) -> None:
        """Here they work."""
        assert unsupportedReason() is None

    @pytest.mark.parametrize(("name", "value"), [("byteorder", "big"), ("maxsize", 2**31 - 1)])
    def test_otherLayouts(self, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
        """Where the layouts are others there are no batches, and the reason is told."""
        monkeypatch.setattr(sys, name, value)
        systemCalls.cache_clear()
        unsupportedReason.cache_clear()
        try:
            assert "64 bits, little-endian" in str(unsupportedReason())
        finally:
            systemCalls.cache_clear()
            unsupportedReason.cache_clear()

    def test_wrongLayout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A layout that is not this machine's is found out."""
        unsupportedReason.cache_clear()
        real = systemCalls()

        def recvmmsg(descriptor: int, address: int, count: int, flags: int, timeout: None) -> int:
            result = real.recvmmsg(descriptor, address, count, flags, timeout)
            return min(result, 3)

        monkeypatch.setattr(module, "systemCalls", lambda: SystemCalls(recvmmsg, real.sendmmsg, real.lastError))
        try:
            assert unsupportedReason() == "a batch has not the lengths of what was sent"
        finally:
            unsupportedReason.cache_clear()


class ControlsTests:
    """L{udpecho.net.linux.sockopt}: control messages."""

    @given(st.ip_addresses(), st.integers(1, 255) | st.none(), st.integers(1, 65535))
    def test_roundTrip(self, host: Any, hopLimit: int | None, segment: int) -> None:
        """What a reply is sent with is what is read of it when it comes, whichever call takes it."""
        isIPv6 = host.version == 6
        ancillary = cmsg.replyControls(isIPv6, str(host), hopLimit, segment)
        assert cmsg.unpackControls(cmsg.packControls(ancillary)) == ancillary
        read = cmsg.readControls(ancillary)
        assert read.local is not None
        assert ip_address(read.local) == host
        assert read.hopLimit == hopLimit

    @given(st.binary(max_size=100))
    def test_garbage(self, data: bytes) -> None:
        """What is no control message is not read beyond its end."""
        for _, _, message in cmsg.unpackControls(data):
            assert message in data

    @pytest.mark.parametrize(
        ("host", "expected"), [("127.0.0.1", False), ("127.255.255.255", True), ("224.0.0.1", True), ("ff02::1", True)]
    )
    def test_isGroup(self, host: str, expected: bool) -> None:
        """Groups and broadcast addresses are told from this host's own."""
        assert sockopt.isNonUnicast(host) is expected
