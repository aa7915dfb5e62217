"""Tests of L{udpecho.net.batch_sender}, on real sockets, with the system calls failing on purpose."""

from __future__ import annotations

import errno
import socket
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.batches import SEND_ERRORS, bench, segmentsOf, sendSegments, take, talker
from tests.support.guards import needsBatches
from tests.support.running import udpSocket
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.mmsg import SLOTS

pytestmark = needsBatches

#: Has the kernel report when each datagram came. Python has no name for it; the number is that of most machines.
SO_TIMESTAMP = 29
#: A datagram's size, and why it is dropped, if it is.
_entries = st.tuples(st.integers(0, 2000), st.sampled_from([None, None, None, "loop_guard", "too_large"]))
#: The length of each datagram, how many they are, the length of the last, and whether to send just one.
_batches = st.tuples(st.integers(1, 1400), st.integers(1, 64), st.integers(0, 1399), st.booleans())


def replies(sock: socket.socket, count: int) -> list[tuple[bytes, str, int | None]]:
    """Receive so many datagrams: payload, source address, and what is left of the hop limit, if the socket reports it."""
    found = []
    for _ in range(count):
        payload, ancillary, flags, source = sock.recvmsg(65535, 100)
        found.append((payload, source[0], cmsg.readControls((ancillary, flags)).hopLimit))
    return found


class BatchSenderTests:
    """L{BatchSender}, and batches without GRO."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(_entries, min_size=1, max_size=64),
        st.lists(st.integers(-3, 20), max_size=12),
        st.lists(st.sampled_from(SEND_ERRORS), min_size=3, max_size=3),
    )
    def test_accounts(self, entries: list[tuple[int, str | None]], script: list[int], numbers: list[int]) -> None:
        """Whatever is dropped, however short the counts that the system returns, and whatever it fails with, each datagram is
        reported once, and what was sent arrives unharmed and in order.
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
            assert sum(count for count, _ in bed.outcomes.values()) == len(entries)
            assert sum(size for _, size in bed.outcomes.values()) == sum(map(len, payloads))
            for reason in ("loop_guard", "too_large"):
                assert bed.outcomes.get(reason, [0])[0] == sum(why == reason for _, why in entries)
            assert bed.failures["send_failed"] == bed.outcomes.get("send_failed", [0])[0]
            came = take(sock, bed.outcomes.get(None, [0])[0])
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
            counts = bed.limitCalls(([at] if at else []) + [-number])
            bed.send()
            assert bed.outcomes == {None: [SLOTS - 1, SLOTS - 1], "send_failed": [1, 1]}
            assert take(sock, SLOTS - 1) == [bytes([entry]) for entry in range(SLOTS) if entry != at]
            assert len(counts) <= 3

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
            assert bed.separate == [bytes([entry]) for entry in range(at, SLOTS)]
            assert bed.outcomes == ({None: [at, at]} if at else {})
            for callback in bed.waiting:
                callback("send_timeout")
            assert bed.outcomes.pop("send_timeout") == [SLOTS - at, SLOTS - at]

    def test_interrupted(self) -> None:
        """A call that a signal interrupts is made again; one that sends nothing without an error is not."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            for script in ([-errno.EINTR, -errno.EINTR], [1, 0]):
                sock.send(b"one")
                sock.send(b"two")
                bed.receive()
                bed.limitCalls(list(script))
                bed.send()
                assert take(sock, 2) == [b"one", b"two"]

    @pytest.mark.isolated
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
            assert bed.outcomes == {None: [2, 11], "send_failed": [1, 4]}
            assert take(sock, 2) == [b"before", b"after"]

    def test_closed(self) -> None:
        """What is sent after the socket was closed is counted as failed, and goes nowhere."""
        with bench() as bed, talker(bed, "127.0.0.1") as sock:
            sock.send(b"hello")
            bed.receive()
            bed.batch.close()
            bed.send()
            assert bed.outcomes == {"send_failed": [1, 5]}
            assert take(sock, 0) == []


class SegmentationTests:
    """GRO batches: datagrams of one flow that the kernel keeps together."""

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(_batches, min_size=1, max_size=8),
        st.sampled_from(["127.0.0.1", "0.0.0.0"]),
        st.booleans(),
        st.lists(st.sampled_from([1, 2, -errno.EIO, -errno.EINVAL, -errno.EMSGSIZE, -errno.EPERM]), max_size=4),
    )
    def test_neverMoreOrLess(
        self, batches: list[tuple[int, int, int, bool]], bound: str, hopLimits: bool, script: list[int]
    ) -> None:
        """Random GSO batches between single datagrams, with a shorter last one or not, come back as the same datagrams, also
        when the system refuses to send some of them as one; the report has how many there were.
        """
        with bench(bound, segmentation=True, hopLimits=hopLimits) as bed, talker(bed, "127.0.0.1") as sock:
            sent: list[bytes] = []
            for number, (segment, count, last, alone) in enumerate(batches):
                count = min(count, 65000 // segment)
                payload = bytes([number]) * (segment * (count - 1) + min(segment, max(1, last)))
                if alone:
                    sock.send(payload[:segment])
                    sent.append(payload[:segment])
                else:
                    sendSegments(sock, payload, segment)
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
            assert sum(count for count, _ in bed.outcomes.values()) == len(sent)
            assert sum(size for _, size in bed.outcomes.values()) == sum(map(len, sent))
            failed = bed.outcomes.get("send_failed", [0])[0]
            replies = Counter(take(sock, len(sent) - failed))
            assert not replies - Counter(sent)

    def test_notTooMany(self) -> None:
        """After a receive call with GRO batches the next takes fewer of them, so that a guard that looks at each
        datagram is not busy for long; after one of single datagrams it takes as many as ever.
        """
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            for _ in range(12):
                sendSegments(sock, bytes(64), 1)
            bed.receive()
            assert (bed.batch.requested, bed.batch.datagrams) == (SLOTS, 12 * 64)
            for _ in range(12):
                sendSegments(sock, bytes(64), 1)
            assert (bed.receive(), bed.batch.requested, bed.batch.datagrams) == (8, 8, 512)
            assert (bed.receive(), bed.batch.datagrams) == (4, 256)
            sock.send(b"one")
            bed.receive()
            sock.send(b"another")
            bed.receive()
            assert bed.batch.requested == SLOTS

    def test_asOne(self) -> None:
        """A GRO batch comes as one entry and goes back with one send."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            payload = bytes(range(64)) * 64 + b"end"
            sendSegments(sock, payload, 64)
            assert bed.receive() == 1
            assert (bed.batch.datagrams, bed.batch.counts(), bed.batch.longest()) == (65, [65], [64])
            counts = bed.limitCalls([])
            bed.send()
            assert counts == [1]
            assert bed.separate == []
            assert take(sock, 65) == segmentsOf(payload, 64)

    def test_wildcard(self) -> None:
        """A GRO batch is answered from the address it was sent to."""
        with bench("0.0.0.0", segmentation=True) as bed, talker(bed, "127.0.0.3") as sock:
            sock.send(b"single")
            sendSegments(sock, b"x" * 250, 100)
            assert bed.receive() == 2
            assert bed.batch.address(1).localHost == "127.0.0.3"
            bed.send()
            assert take(sock, 4) == [b"single", b"x" * 100, b"x" * 100, b"x" * 50]
            assert bed.separate == []

    @pytest.mark.parametrize(
        ("number", "again", "other"),
        [(errno.EIO, False, False), (errno.EINVAL, False, True), (errno.EMSGSIZE, False, True)],
    )
    def test_remembered(self, number: int, again: bool, other: bool) -> None:
        """A GSO batch that the system refuses is sent one by one, and so are others for the same cause, at once."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            bed.limitCalls([-number])
            for segment, together in ((100, None), (100, again), (20, other)):
                payload = b"x" * 10 * segment
                sendSegments(sock, payload, segment)
                bed.receive()
                bed.separate.clear()
                bed.send()
                assert bool(bed.separate) is not bool(together)
                assert take(sock, 10) == segmentsOf(payload, segment)

    def test_notRemembered(self) -> None:
        """A GSO batch whose datagrams are refused one by one too means nothing for other batches."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            bed.keeps = True
            bed.limitCalls([-errno.EINVAL])
            for _ in range(2):
                sendSegments(sock, b"x" * 100, 10)
                bed.receive()
                bed.send()
            assert len(bed.separate) == 10
            assert take(sock, 10) == [b"x" * 10] * 10

    @pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
    def test_hopLimits(self, bound: str) -> None:
        """A reply has one hop less also in a batch with GRO batches, whether it is in one of them or not."""
        with bench(bound, segmentation=True, hopLimits=True) as bed, talker(bed, "127.0.0.1") as sock:
            assert sockopt.enableRecvHopLimit(sock)
            for hops, send in ((64, lambda: sendSegments(sock, b"x" * 250, 100)), (9, lambda: sock.send(b"single"))):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                send()
            assert bed.receive() == 2
            assert bed.batch.datagrams == 4
            bed.send()
            assert [hopLimit for _, _, hopLimit in replies(sock, 4)] == [63, 63, 63, 8]
            assert bed.separate == []

    def test_joined(self) -> None:
        """Replies of one flow and one length that follow each other are sent with one header."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            for number in range(6):
                sock.send(bytes([number]) * 10)
            assert bed.receive() == 6
            counts = bed.limitCalls([])
            bed.send()
            assert counts == [1]
            assert take(sock, 6) == [bytes([number]) * 10 for number in range(6)]

    def test_empty(self) -> None:
        """Empty datagrams are not joined: each is answered."""
        with bench(segmentation=True) as bed, talker(bed, "127.0.0.1") as sock:
            for _ in range(6):
                sock.send(b"")
            assert bed.receive() == 6
            bed.send()
            assert take(sock, 6) == [b""] * 6

    def test_queuedBefore(self) -> None:
        """What was queued before the kernel was asked for local addresses is answered from the one that was asked, too."""
        with bench("0.0.0.0") as bed, udpSocket("127.0.0.1") as sock:
            bed.sock.setsockopt(socket.IPPROTO_IP, sockopt.IP_PKTINFO, 0)
            sock.sendto(b"before", ("127.0.0.3", bed.sock.getsockname()[1]))
            bed.sock.setsockopt(socket.IPPROTO_IP, sockopt.IP_PKTINFO, 1)
            sock.sendto(b"after", ("127.0.0.2", bed.sock.getsockname()[1]))
            assert bed.receive() == 2
            assert [bed.batch.address(entry).localHost for entry in range(2)] == ["127.0.0.3", "127.0.0.2"]
            bed.send()
            assert replies(sock, 2) == [(b"before", "127.0.0.3", None), (b"after", "127.0.0.2", None)]

    def test_joinedByLocalAddress(self) -> None:
        """Requests of one flow to different local addresses are not joined: each is answered from the one it was sent to."""
        with bench("0.0.0.0", segmentation=True) as bed, udpSocket("127.0.0.1") as sock:
            hosts = ["127.0.0.1"] * 3 + ["127.0.0.2"] * 3 + ["127.0.0.3"] * 3
            for number, host in enumerate(hosts):
                sock.sendto(bytes([number]), (host, bed.sock.getsockname()[1]))
            assert bed.receive() == len(hosts)
            counts = bed.limitCalls([])
            bed.send()
            assert counts == [3]
            expected = [(bytes([number]), host) for number, host in enumerate(hosts)]
            assert [(payload, host) for payload, host, _ in replies(sock, len(hosts))] == expected

    def test_joinedByHopLimit(self) -> None:
        """Requests of one flow with different hop limits are not joined: each reply has one hop less than its request."""
        with bench(segmentation=True, hopLimits=True) as bed, talker(bed, "127.0.0.1") as sock:
            assert sockopt.enableRecvHopLimit(sock)
            hops = [64] * 3 + [5] * 3 + [200] * 3
            for number, limit in enumerate(hops):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
                sock.send(bytes([number]))
            assert bed.receive() == len(hops)
            counts = bed.limitCalls([])
            bed.send()
            assert counts == [3]
            expected = [(bytes([number]), limit - 1) for number, limit in enumerate(hops)]
            assert [(payload, limit) for payload, _, limit in replies(sock, len(hops))] == expected

    @pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
    def test_burstWithOtherControlMessages(self, bound: str) -> None:
        """So does each datagram of a GRO batch for which the kernel reports more."""
        with bench(bound, segmentation=True, hopLimits=True) as bed, talker(bed, "127.0.0.1") as sock:
            assert sockopt.enableRecvHopLimit(sock)
            bed.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 9)
            sendSegments(sock, b"x" * 250, 100)
            assert (bed.receive(), bed.batch.datagrams, bed.batch.counts()) == (1, 3, [3])
            bed.send()
            assert replies(sock, 3) == [(b"x" * size, "127.0.0.1", 8) for size in (100, 100, 50)]
            assert bed.separate == []

    @pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
    def test_otherControlMessages(self, bound: str) -> None:
        """A reply has one hop less, and leaves from its local address, also if the kernel reports more than is expected."""
        with bench(bound, hopLimits=True) as bed, talker(bed, "127.0.0.1") as sock:
            assert sockopt.enableRecvHopLimit(sock)
            bed.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
            for hops in (9, 2, 1):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                sock.send(b"hello")
            assert bed.receive() == 3
            assert bed.batch.address(0).hopLimit == 9
            assert list(bed.batch.hopLimitExpired()) == [2]
            bed.batch.drop(2, "loop_guard")
            bed.send()
            assert replies(sock, 2) == [(b"hello", "127.0.0.1", 8), (b"hello", "127.0.0.1", 1)]
            assert bed.separate == []
