"""Tests of C{udpecho send}, each on a real process."""

from __future__ import annotations

import os
import re
import socket
import subprocess

import pytest

from tests.support.commands import answer, at, complaint, isQuiet, twoLines
from tests.support.guards import needsIPv6, tool
from tests.support.processes import Processes, Server, command
from tests.support.running import PATIENCE, udpSocket, unusedPort


class SendTests:
    """C{udpecho send}: one datagram, its reply, and the two lines."""

    def test_plainServer(self, processes: Processes, plain: socket.socket) -> None:
        """Standard input goes to a plain socket as one datagram; its answer gives the two lines, nothing else, and status 0."""
        sending = processes.start("udpecho", "send", at(plain), feed=b"hello")
        assert answer(plain) == b"hello"
        assert isQuiet(plain)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(5, at(plain)), "")

    @pytest.mark.parametrize("family", [0, pytest.param(1, marks=needsIPv6)], ids=["IPv4", "IPv6"])
    def test_ownServer(self, processes: Processes, server: Server, family: int) -> None:
        """Our own server answers over IPv4 and IPv6; the peer is printed as it was given."""
        host, port = server.addresses[family]
        peer = f"[{host}]:{port}" if family else f"{host}:{port}"
        sent = processes.run("udpecho", "send", peer, feed=b"hello")
        assert (sent.status, sent.stdout, sent.stderr) == (0, twoLines(5, peer), "")

    def test_name(self, processes: Processes, server: Server) -> None:
        """The host may be a name; the line of the reply has the address that answered."""
        port = server.addresses[0][1]
        sent = processes.run("udpecho", "send", f"localhost:{port}", feed=b"hello")
        assert sent.status == 0, sent
        assert sent.stdout in (twoLines(5, f"127.0.0.1:{port}"), twoLines(5, f"[::1]:{port}"))

    @pytest.mark.parametrize(
        "payload",
        [b"\0", bytes(1000), b"trailing\0\0\0", b"\0leading", b"\r\n\x1a\xff\xfe\x04", os.urandom(1472), os.urandom(9000)],
        ids=["NUL", "NULs", "trailing", "leading", "controls", "random", "fragments"],
    )
    def test_sameBytes(self, processes: Processes, plain: socket.socket, payload: bytes) -> None:
        """What arrives is what was given, NULs and all, and what comes back is compared with it to the last byte."""
        sending = processes.start("udpecho", "send", at(plain), feed=payload)
        assert answer(plain) == payload
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(len(payload), at(plain)))

    def test_longest(self, processes: Processes, server: Server) -> None:
        """65507 bytes, all that IPv4 can carry, go there and back."""
        host, port = server.addresses[0]
        sent = processes.run("udpecho", "send", f"{host}:{port}", feed=os.urandom(65507))
        assert (sent.status, sent.stdout, sent.stderr) == (0, twoLines(65507, f"{host}:{port}"), "")

    @needsIPv6
    def test_longestIPv6(self, processes: Processes, server: Server) -> None:
        """65527 bytes, all that IPv6 can carry, go there and back."""
        host, port = server.addresses[1]
        sent = processes.run("udpecho", "send", f"[{host}]:{port}", feed=os.urandom(65527))
        assert (sent.status, sent.stdout, sent.stderr) == (0, twoLines(65527, f"[{host}]:{port}"), "")

    @pytest.mark.parametrize("size", [65508, 65527, 65528, 200_000])
    def test_tooLong(self, processes: Processes, plain: socket.socket, size: int) -> None:
        """One byte more is refused with the limit; nothing is sent or reported as sent."""
        sent = processes.run("udpecho", "send", at(plain), feed=bytes(size))
        assert "65507" in complaint(sent)
        assert isQuiet(plain)

    @needsIPv6
    def test_tooLongIPv6(self, processes: Processes) -> None:
        """So it is over IPv6, with that limit."""
        with udpSocket("::1") as plain:
            sent = processes.run("udpecho", "send", at(plain), feed=bytes(65528))
            assert "65527" in complaint(sent)
            assert isQuiet(plain)

    def test_bind(self, processes: Processes, plain: socket.socket) -> None:
        """C{--bind ADDR} sends from that address."""
        sending = processes.start("udpecho", "send", "--bind", "127.0.0.3", at(plain), feed=b"hello")
        datagram, client = plain.recvfrom(100)
        assert (datagram, client[0]) == (b"hello", "127.0.0.3")
        plain.sendto(datagram, client)
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(5, at(plain)))

    def test_bindPort(self, processes: Processes, plain: socket.socket) -> None:
        """C{--bind ADDR:PORT} sends from that port."""
        port = unusedPort("127.0.0.3")
        sending = processes.start("udpecho", "send", "--bind", f"127.0.0.3:{port}", at(plain), feed=b"hello")
        datagram, client = plain.recvfrom(100)
        assert client == ("127.0.0.3", port)
        plain.sendto(datagram, client)
        assert sending.finish().status == 0

    @needsIPv6
    def test_bindChoosesTheFamily(self, processes: Processes) -> None:
        """A name is resolved to addresses of the same family as the local one."""
        try:
            socket.getaddrinfo("localhost", 1, socket.AF_INET6)
        except socket.gaierror:
            pytest.skip("localhost has no IPv6 address here")
        with udpSocket("::1") as plain:
            port = plain.getsockname()[1]
            sending = processes.start("udpecho", "send", "--bind", "::1", f"localhost:{port}", feed=b"hello")
            assert answer(plain) == b"hello"
            sending.finish()
            assert (sending.status, sending.stdout) == (0, twoLines(5, at(plain)))


class ReplyTests:
    """Which datagram is the reply."""

    def test_otherFirst(self, processes: Processes, plain: socket.socket) -> None:
        """Other datagrams are ignored, and the reply that follows them counts."""
        sending = processes.start("udpecho", "send", at(plain), feed=b"hello")
        answer(plain, b"other", b"hell", b"hello\0", b"", b"hello")
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(5, at(plain)), "")

    @pytest.mark.parametrize(
        ("payload", "replies", "counted"),
        [
            (b"hello", [b"hellO"], "1 other datagram"),
            (b"hello\0", [b"hello", b"", b"hello\0\0"], "3 other datagrams"),
            (b"", [b"\0"], "1 other datagram"),
        ],
    )
    def test_onlyOthers(
        self, processes: Processes, plain: socket.socket, payload: bytes, replies: list[bytes], counted: str
    ) -> None:
        """If only other datagrams come, the message at the deadline has their number."""
        sending = processes.start("udpecho", "send", "--timeout", "1", at(plain), feed=payload)
        answer(plain, *replies)
        sending.finish()
        assert (sending.status, sending.stdout) == (1, f"packet-written: bytes={len(payload)}\n")
        assert sending.stderr == f"udpecho: no reply from {at(plain)} within 1 s; {counted} from it ignored\n"

    def test_noVerify(self, processes: Processes, plain: socket.socket) -> None:
        """C{--no-verify} takes the first datagram from the peer, and counts its bytes."""
        sending = processes.start("udpecho", "send", "--no-verify", at(plain), feed=b"hello")
        answer(plain, b"other", b"hello")
        sending.finish()
        assert sending.status == 0
        assert sending.stdout == f"packet-written: bytes=5\npacket-received: bytes=5 from={at(plain)}\n"
        assert sending.stderr == ""

    def test_noVerifySize(self, processes: Processes, plain: socket.socket) -> None:
        """The line for the reply has the size of the reply, not that of the payload."""
        sending = processes.start("udpecho", "send", "--no-verify", at(plain), feed=b"hello")
        answer(plain, b"")
        sending.finish()
        assert sending.stdout == f"packet-written: bytes=5\npacket-received: bytes=0 from={at(plain)}\n"

    def test_otherSource(self, processes: Processes, plain: socket.socket) -> None:
        """The same bytes from another address are not the reply, even with C{--no-verify}."""
        sending = processes.start("udpecho", "send", "--no-verify", "--timeout", "0.5", at(plain), feed=b"hello")
        datagram, client = plain.recvfrom(100)
        with udpSocket() as other:
            other.sendto(datagram, client)
        sending.finish()
        assert (sending.status, sending.stdout) == (1, "packet-written: bytes=5\n")
        assert sending.stderr == f"udpecho: no reply from {at(plain)} within 0.5 s\n"

    @pytest.mark.parametrize(("timeout", "written"), [("0.05", "0.05"), ("50ms", "0.05"), ("0", "0"), (".1", "0.1")])
    def test_timeout(self, processes: Processes, plain: socket.socket, timeout: str, written: str) -> None:
        """Without a reply the status is 1, and the message has the seconds."""
        sent = processes.run("udpecho", "send", "--timeout", timeout, at(plain), feed=b"hello")
        assert (sent.status, sent.stdout) == (1, "packet-written: bytes=5\n")
        assert sent.stderr == f"udpecho: no reply from {at(plain)} within {written} s\n"

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    def test_refused(self, processes: Processes, host: str) -> None:
        """Where nothing listens there is status 3 and a sentence, at once."""
        with udpSocket(host) as sock:
            peer = at(sock)
        sent = processes.run("udpecho", "send", "--timeout", "60", peer, feed=b"hello")
        assert (sent.status, sent.stdout) == (3, "packet-written: bytes=5\n")
        assert sent.stderr == f"udpecho: {peer} refused the datagram: nothing listens on that port\n"

    def test_unreachable(self, processes: Processes) -> None:
        """Where the system has no route to the peer (a broadcast address, without C{SO_BROADCAST}) there is status 3 and a
        sentence.
        """
        sent = processes.run("udpecho", "send", "255.255.255.255:1234", feed=b"hello")
        assert complaint(sent, 3).startswith("udpecho: 255.255.255.255:1234 cannot be reached: ")


class ChunkTests:
    """C{udpecho send --chunk N}."""

    def test_oneAfterTheOther(self, processes: Processes, plain: socket.socket) -> None:
        """Each piece is answered before the next is sent, the last one is short, and the sums are on standard error."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), feed=b"abcdefghij")
        for piece in (b"abcd", b"efgh", b"ij"):
            datagram, client = plain.recvfrom(100)
            assert datagram == piece
            assert isQuiet(plain)
            plain.sendto(datagram, client)
        sending.finish()
        assert sending.status == 0
        assert sending.stdout == twoLines(4, at(plain)) + twoLines(4, at(plain)) + twoLines(2, at(plain))
        assert sending.stderr == "udpecho: sent=3 answered=3 unanswered=0 sent-bytes=10 answered-bytes=10\n"
        assert isQuiet(plain)

    def test_oneSocket(self, processes: Processes, plain: socket.socket) -> None:
        """All pieces come from one port."""
        sending = processes.start("udpecho", "send", "--chunk", "1", at(plain), feed=b"abc")
        clients = set()
        for _ in range(3):
            datagram, client = plain.recvfrom(100)
            clients.add(client)
            plain.sendto(datagram, client)
        assert sending.finish().status == 0
        assert len(clients) == 1

    @pytest.mark.parametrize(("payload", "pieces"), [(b"abcdefgh", [b"abcd", b"efgh"]), (b"abcd", [b"abcd"]), (b"", [b""])])
    def test_exactMultiple(self, processes: Processes, plain: socket.socket, payload: bytes, pieces: list[bytes]) -> None:
        """No empty datagram follows the last whole piece; an empty input is one empty datagram."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), feed=payload)
        assert [answer(plain) for _ in pieces] == pieces
        sending.finish()
        assert sending.status == 0
        assert sending.stdout == "".join(twoLines(len(piece), at(plain)) for piece in pieces)
        number, size = len(pieces), len(payload)
        assert (
            sending.stderr == f"udpecho: sent={number} answered={number} unanswered=0 sent-bytes={size} answered-bytes={size}\n"
        )
        assert isQuiet(plain)

    def test_equalPieces(self, processes: Processes, server: Server) -> None:
        """Pieces with the same bytes each get a reply."""
        host, port = server.addresses[0]
        sent = processes.run("udpecho", "send", "--chunk", "1", f"{host}:{port}", feed=bytes(20))
        assert (sent.status, sent.stdout) == (0, twoLines(1, f"{host}:{port}") * 20)
        assert sent.stderr == "udpecho: sent=20 answered=20 unanswered=0 sent-bytes=20 answered-bytes=20\n"

    def test_lost(self, processes: Processes, plain: socket.socket) -> None:
        """A piece without a reply is reported, the next ones are sent, a late reply answers none of them, and
        the status is 1.
        """
        sending = processes.start("udpecho", "send", "--chunk", "4", "--timeout", "1", at(plain), feed=b"abcdefghij")
        answer(plain)
        assert plain.recv(100) == b"efgh"
        datagram, client = plain.recvfrom(100)
        assert datagram == b"ij"
        plain.sendto(b"efgh", client)
        plain.sendto(b"ij", client)
        sending.finish()
        assert sending.status == 1
        assert sending.stdout == twoLines(4, at(plain)) + "packet-written: bytes=4\n" + twoLines(2, at(plain))
        assert sending.stderr == (
            f"udpecho: no reply from {at(plain)} within 1 s\n"
            "udpecho: sent=3 answered=2 unanswered=1 sent-bytes=10 answered-bytes=6\n"
        )

    def test_refused(self, processes: Processes, plain: socket.socket) -> None:
        """A refusal ends the run with status 3, and the sums are printed."""
        peer = at(plain)
        sending = processes.start("udpecho", "send", "--chunk", "4", peer, stdin=subprocess.PIPE)
        sending.write(b"abcd")
        answer(plain)
        sending.until("^packet-received")
        plain.close()
        sending.write(b"efghijkl")
        sending.finish()
        assert (sending.status, sending.stdout) == (3, twoLines(4, peer) + "packet-written: bytes=4\n")
        assert sending.stderr == (
            f"udpecho: {peer} refused the datagram: nothing listens on that port\n"
            "udpecho: sent=2 answered=1 unanswered=1 sent-bytes=8 answered-bytes=4\n"
        )

    def test_tooLong(self, processes: Processes, plain: socket.socket) -> None:
        """Pieces that IPv4 cannot carry are refused as a whole input would be."""
        sent = processes.run("udpecho", "send", "--chunk", "65508", at(plain), feed=bytes(70_000))
        assert (sent.status, sent.stdout) == (2, "")
        first, sums = sent.stderr.splitlines()
        assert "65507" in first
        assert sums == "udpecho: sent=0 answered=0 unanswered=0 sent-bytes=0 answered-bytes=0"
        assert isQuiet(plain)


class SystemCallTests:
    """What the kernel sees."""

    def test_connectsBeforeItSends(self, processes: Processes, server: Server) -> None:
        """A datagram socket is connected to the peer before the first byte is sent, on that socket, and without an address."""
        strace = tool("strace")
        if subprocess.run([strace, "-e", "trace=none", "true"], capture_output=True, timeout=PATIENCE).returncode:
            pytest.skip("strace may not trace here")
        host, port = server.addresses[0]
        trace = processes.directory / "trace"
        sent = processes.run(
            *[strace, "-f", "-e", "trace=network", "-o", str(trace)],
            *[*command("udpecho"), "send", f"{host}:{port}"],
            feed=b"hello",
        )
        assert (sent.status, sent.stdout) == (0, twoLines(5, f"{host}:{port}"))
        calls = trace.read_text()
        opened = re.search(r"\bsocket\(AF_INET, SOCK_DGRAM[^)]*\) = ([0-9]+)$", calls, re.MULTILINE)
        assert opened is not None, calls
        connected = re.search(
            rf"\bconnect\({opened[1]}, {{[^}}]*\bhtons\({port}\)[^}}]*{re.escape(host)}[^}}]*}}, [0-9]+\) = 0$",
            calls,
            re.MULTILINE,
        )
        assert connected is not None, calls
        sends = list(re.finditer(r"\bsend(?:to|msg|mmsg)?\(([0-9]+), (.*)$", calls, re.MULTILINE))
        assert [(one[1], one[2]) for one in sends] == [(opened[1], '"hello", 5, MSG_DONTWAIT, NULL, 0) = 5')], calls
        assert opened.end() < connected.start() < sends[0].start()


class OtherClientTests:
    """Other people's clients of our server."""

    @pytest.mark.parametrize("family", [0, pytest.param(1, marks=needsIPv6)], ids=["IPv4", "IPv6"])
    def test_socat(self, processes: Processes, server: Server, family: int) -> None:
        """C{socat} gets back what it sends."""
        host, port = server.addresses[family]
        peer = f"UDP6:[{host}]:{port}" if family else f"UDP4:{host}:{port}"
        client = processes.start(tool("socat"), "-", peer, stdin=subprocess.PIPE)
        for word in ("hello", "again"):
            client.write(f"{word}\n".encode())
            client.until(f"^{word}$")

    @pytest.mark.parametrize("family", [0, pytest.param(1, marks=needsIPv6)], ids=["IPv4", "IPv6"])
    def test_nc(self, processes: Processes, server: Server, family: int) -> None:
        """C{nc} gets back what it sends."""
        host, port = server.addresses[family]
        client = processes.start(tool("nc"), "-u", host, str(port), stdin=subprocess.PIPE)
        for word in ("hello", "again"):
            client.write(f"{word}\n".encode())
            client.until(f"^{word}$")
