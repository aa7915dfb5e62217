"""Tests of L{udpecho.testing.trace} and L{udpecho.testing.pcapng}: what a trace has, keeps, and writes for others to read."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from tests.support.guards import tool
from tests.support.memory import open_, pair
from udpecho.addresses import DatagramAddress
from udpecho.faults.decision import Replay
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.trace import IN_FLIGHT, Trace, TraceEntry

ONE, TWO = DatagramAddress(("10.0.0.1", 5000)), DatagramAddress(("10.0.0.2", 7))


def entry(payload: bytes, time: float = 0.0) -> TraceEntry:
    return TraceEntry(time, ONE, TWO, len(payload), IN_FLIGHT, payload, "one", "two")


def busy() -> MemoryNetwork:
    """A network with datagrams of all kinds in its trace."""
    network = MemoryNetwork(latency=0.125)
    one, two = pair(network)
    text = "delivered +0.000000000\nlost\nduplicated,delayed +0.500000000 +0.750000000\ncorrupted flip=0 +0.000000000"
    network.setPlan(one, two, Replay(text))
    port, _ = open_(one, "0.0.0.0", 5000)
    open_(two, "0.0.0.0", 7)
    for payload in (b"hello", b"lost", b"twice", b"corrupted"):
        port.write(payload, ("10.0.0.2", 7))
    six, _ = open_(two, "::", 8)
    six.write(b"odd", ("fd00::1", 9))
    port.write(b"nobody", ("10.9.9.9", 7))
    network.advance(10)
    return network


class ContentTests:
    """What a trace has of each datagram."""

    def test_copies(self) -> None:
        """The payload as it was sent; of each copy its time, its bytes and its receiver; the hosts by name."""
        hello, lost, twice, corrupted, six, none = busy().trace
        assert [e.payload for e in (hello, lost, twice)] == [b"hello", b"lost", b"twice"]
        assert [(copy.time, copy.outcome, copy.addresses) for copy in twice.copies] == [
            (0.625, "delivered", ["0.0.0.0:7"]),
            (0.875, "delivered", ["0.0.0.0:7"]),
        ]
        assert not lost.copies
        assert corrupted.copies[0].payload == b"borrupted"
        assert corrupted.payload == b"corrupted"
        assert (hello.sender, hello.receiver, six.sender, six.receiver) == ("one", "two", "two", "one")
        assert [(copy.outcome, copy.receivers) for copy in six.copies] == [("refused", ())]
        assert (none.outcome, none.receiver) == ("no route", "")

    def test_group(self) -> None:
        """Of a group the entry of each host names all ports that receive."""
        network = MemoryNetwork()
        one, two = pair(network)
        for _ in range(2):
            port = two.listenMulticast(7, DatagramProtocol(), listenMultiple=True)
            port.joinGroup("239.1.1.1")
        sender, _ = open_(one, "0.0.0.0")
        sender.write(b"all", ("239.1.1.1", 7))
        network.advance(1)
        found = {e.receiver: [copy.addresses for copy in e.copies] for e in network.trace}
        assert found == {"one": [[]], "two": [["0.0.0.0:7", "0.0.0.0:7"]]}

    def test_notSent(self) -> None:
        """What the sender's system refuses has a line that says why."""
        network = MemoryNetwork()
        one, _ = pair(network)
        port, _ = open_(one, "10.0.0.1")
        for size, address in ((65508, ("10.0.0.2", 7)), (5, ("255.255.255.255", 7)), (5, ("192.0.2.99", 7))):
            port.send(bytes(size), address, lambda reason: None)
        assert [e.outcome for e in network.trace] == ["not sent: Message too long", "not sent: Permission denied", "no route"]
        assert {e.source for e in network.trace} == {("10.0.0.1", port.getHost().port)}
        assert [e.size for e in network.trace] == [65508, 5, 5]

    def test_parts(self) -> None:
        """Filters return traces: of places, by host, name, address or port; in both directions; and what was lost."""
        network = busy()
        trace, (one, two) = network.trace, network.hosts.values()
        assert len(trace.sent("one")) == len(trace.sent(one)) == len(trace.sent("10.0.0.1")) == 5
        assert len(trace.sent(destination=7)) == 5
        assert len(trace.sent(("10.0.0.1", 5000), two)) == 4
        assert [e.size for e in trace.sent(two)] == [3]
        assert trace.between("two", one) == trace[:5]
        assert [e.payload for e in trace.undelivered()] == [b"lost", b"odd", b"nobody"]
        assert str(trace.matching(lambda e: e.size == 4)) == "0.000000  10.0.0.1:5000 > 10.0.0.2:7  4 B  lost"

    def test_detailed(self) -> None:
        """In detail each datagram has its bytes, and the times and receivers of its copies."""
        lines = busy().trace.matching(lambda e: e.payload == b"twice").detailed().splitlines()
        assert lines == [
            "0.000000  10.0.0.1:5000 > 10.0.0.2:7  5 B  duplicated,delayed: delivered, delivered",
            "    74 77 69 63 65",
            "    0.625000 delivered 0.0.0.0:7",
            "    0.875000 delivered 0.0.0.0:7",
        ]


class BoundTests:
    """How much a trace keeps."""

    def test_entries(self) -> None:
        """It keeps the last datagrams, counts those before, and says so."""
        trace = Trace(maxEntries=80)
        for number in range(1000):
            trace.append(entry(b"%d" % number, number))
            assert len(trace) <= 80
            assert len(trace) + trace.forgotten == number + 1
        assert len(trace) >= 70
        assert trace[-1].payload == b"999"
        assert str(trace).startswith(f"({trace.forgotten} datagrams before these are forgotten)\n")
        assert trace.payloadsForgotten == 0

    def test_bytes(self) -> None:
        """It keeps the last bytes of payload, and the lines of the datagrams whose payload is forgotten."""
        trace = Trace(maxEntries=90, maxBytes=8000)
        for number in range(200):
            trace.append(entry(bytes(100), number))
            trace[-1].arrive(number, "delivered", bytes(100), ())
            kept = [e for e in trace if e.payload is not None]
            assert sum(e.size for e in kept) <= 8000
            assert [e.payload for e in trace[: trace.payloadsForgotten]] == [None] * trace.payloadsForgotten
            assert len(kept) + trace.payloadsForgotten == len(trace)
        assert len(kept) >= 69
        assert trace.payloadsForgotten > 0
        trace.clear()
        assert (trace.forgotten, trace.payloadsForgotten, str(trace)) == (0, 0, "")

    def test_large(self) -> None:
        """One payload that is longer than all that is kept is forgotten alone."""
        trace = Trace(maxBytes=10)
        trace.append(entry(bytes(11)))
        assert trace[0].payload is None
        trace.append(entry(bytes(5)))
        assert trace[1].payload == bytes(5)


FIELDS: tuple[str, ...] = (
    "frame.time_epoch",
    "frame.interface_name",
    "frame.comment",
    "frame.packet_flags_direction",
    "udp.payload",
)
FIELDS += ("ip.src", "ipv6.src", "udp.srcport", "udp.dstport", "udp.checksum.status", "ip.checksum.status", "udp.length")


class PcapngTests:
    """The file for Wireshark."""

    def test_tshark(self, tmp_path: Path) -> None:
        """Wireshark's own reader finds every datagram and every copy, with names, times, comments and right checksums."""
        tshark = tool("tshark")
        busy().trace.writePcapng(tmp_path / "trace.pcapng")
        command = [tshark, "-r", "trace.pcapng", "-T", "fields", "-E", "separator=|", "-o", "udp.check_checksum:TRUE"]
        command += ["-o", "ip.check_checksum:TRUE", *(word for field in FIELDS for word in ("-e", field))]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
        rows = [dict(zip(FIELDS, line.split("|"))) for line in ran.stdout.splitlines()]
        assert len(rows) == 11, ran
        found = [(float(r["frame.time_epoch"]), r["frame.interface_name"], r["frame.comment"], r["udp.payload"]) for r in rows]
        hello, borrupted = b"hello".hex(), b"borrupted".hex()
        assert found[0] == (0.0, "one", "delivered", hello)
        assert (0.0, "one", "lost", b"lost".hex()) in found
        assert (0.0, "one", "no route", b"nobody".hex()) in found
        assert (0.125, "two", "delivered", hello) in found
        assert (0.125, "two", "delivered", borrupted) in found
        assert [row[0] for row in found if row[3] == b"twice".hex()] == [0.0, 0.625, 0.875]
        assert {r["ip.src"] or r["ipv6.src"] for r in rows} == {"10.0.0.1", "fd00::2"}
        # 1 is "good".
        assert {r["udp.checksum.status"] for r in rows} == {"1"}
        assert {r["ip.checksum.status"] for r in rows if r["ip.src"]} == {"1"}

    def test_capinfos(self, tmp_path: Path) -> None:
        """The file has an interface for each host, and times in nanoseconds."""
        capinfos = tool("capinfos")
        busy().trace.writePcapng(tmp_path / "trace.pcapng")
        ran = subprocess.run([capinfos, tmp_path / "trace.pcapng"], capture_output=True, text=True, timeout=120, check=True)
        assert "Number of packets:   11" in ran.stdout
        assert "Number of interfaces in file: 2" in ran.stdout
        assert "Name = one" in ran.stdout
        assert "Time precision = nanoseconds (9)" in ran.stdout
        assert "udpecho" in ran.stdout

    @pytest.mark.parametrize("size", [0, 1, 65507])
    def test_sizes(self, size: int, tmp_path: Path) -> None:
        """Of any size, and with a payload that is forgotten, the file is whole: blocks have the lengths that they say."""
        trace = Trace([entry(bytes(size))])
        trace[0].arrive(1.0, "delivered", bytes(size), ())
        trace.writePcapng(tmp_path / "whole")
        trace[0].payload = None
        trace.writePcapng(tmp_path / "less")
        for name, expected in (("whole", 28 + size), ("less", 28)):
            packets = blocks((tmp_path / name).read_bytes())
            assert [kind for kind, _ in packets] == [0x0A0D0D0A, 1, 1, 6, 6]
            for _, body in packets[3:]:
                assert int.from_bytes(body[12:16], "little") == expected
                assert int.from_bytes(body[16:20], "little") == 28 + size

    def test_empty(self, tmp_path: Path) -> None:
        """An empty trace is a file without packets."""
        Trace().writePcapng(tmp_path / "empty")
        assert [kind for kind, _ in blocks((tmp_path / "empty").read_bytes())] == [0x0A0D0D0A]
        with pytest.raises(OSError, match="No such file"):
            Trace().writePcapng(tmp_path / "missing" / "file")


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """The blocks of a file: type and body."""
    found: list[tuple[int, Any]] = []
    while data:
        kind, length = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")
        assert length % 4 == 0
        assert data[length - 4 : length] == data[4:8]
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found
