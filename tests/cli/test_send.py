"""Tests of the C{udpecho} command, each on a real process."""

from __future__ import annotations

import errno
import os
import re
import select
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Process, Processes, Server, catches, command, eventually, tool, without
from tests.support.running import PATIENCE, hasIPv6, udpSocket, unusedPort
from udpecho._version import __version__

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")
needsFIFOs = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")

#: Seconds in which nothing should happen.
QUIET = 0.05


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, which logs nothing of what it answers."""
    with Processes(tmp_path_factory.mktemp("server")) as started:
        running = started.server("--log-datagrams", "0")
        yield running
        running.stop()


@pytest.fixture
def plain() -> Iterator[socket.socket]:
    """A plain socket as server."""
    with udpSocket() as sock:
        yield sock


def at(sock: socket.socket) -> str:
    """The address of a plain socket, as people write it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def answer(sock: socket.socket, *replies: bytes) -> bytes:
    """
    Take one datagram and answer it.

    @param replies: what to answer; by default the same bytes.

    @return: what came.
    """
    datagram, client = sock.recvfrom(65536)
    for reply in replies or (datagram,):
        sock.sendto(reply, client)
    return bytes(datagram)


def isQuiet(sock: socket.socket) -> bool:
    """Whether nothing comes for a moment."""
    return not select.select([sock], [], [], QUIET)[0]


def twoLines(size: int, peer: str) -> str:
    """What is printed when a datagram of that size was sent and answered."""
    return f"packet-written: bytes={size}\npacket-received: bytes={size} from={peer}\n"


def complaint(process: Process, status: int = 2) -> str:
    """
    Look that a process that is over has said one line on standard error, and nothing else.

    @return: the line.
    """
    assert process.status == status, process
    assert process.stdout == "", process
    return oneLine(process)


def oneLine(process: Process) -> str:
    """
    Look that a process has said one line on standard error.

    @return: the line.
    """
    assert re.fullmatch(r"udpecho[^\n]*: [^\n]+\n", process.stderr), process
    return process.stderr


class SendTests:
    """C{udpecho send}: one datagram, its reply, and the two lines."""

    def test_plainServer(self, processes: Processes, plain: socket.socket) -> None:
        """
        Standard input goes to a plain socket as one datagram; its answer gives the two lines, no other word, and status 0.
        """
        sending = processes.start("udpecho", "send", at(plain), feed=b"hello")
        assert answer(plain) == b"hello"
        assert isQuiet(plain)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(5, at(plain)), "")

    @pytest.mark.parametrize("family", [0, pytest.param(1, marks=needsIPv6)], ids=["IPv4", "IPv6"])
    def test_ownServer(self, processes: Processes, server: Server, family: int) -> None:
        """Our own server answers over IPv4 and IPv6; the peer is written as it was given."""
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
        """One byte more is refused with a sentence that names the limit; nothing is sent, nor said to have been."""
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


class InputTests:
    """What C{udpecho send} may be given to send."""

    def test_file(self, processes: Processes, plain: socket.socket) -> None:
        """FILE is sent instead of standard input."""
        (processes.directory / "greeting").write_bytes(b"from a file")
        sending = processes.start("udpecho", "send", at(plain), "greeting", feed=b"from a pipe")
        assert answer(plain) == b"from a file"
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(11, at(plain)), "")

    def test_dash(self, processes: Processes, plain: socket.socket) -> None:
        """C{-} is standard input."""
        sending = processes.start("udpecho", "send", at(plain), "-", feed=b"from a pipe")
        assert answer(plain) == b"from a pipe"
        assert sending.finish().status == 0

    def test_emptyPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An empty input is one empty datagram, answered like any other."""
        sending = processes.start("udpecho", "send", at(plain), feed=b"")
        assert answer(plain) == b""
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(0, at(plain)), "")
        assert isQuiet(plain)

    def test_null(self, processes: Processes, plain: socket.socket) -> None:
        """C{/dev/null} is an empty input, though no reactor can wait for it."""
        sending = processes.start("udpecho", "send", at(plain))
        assert answer(plain) == b""
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(0, at(plain)), "")

    @pytest.mark.parametrize("size", [0, 1, 40_000, 65_507])
    def test_redirectedFile(self, processes: Processes, plain: socket.socket, size: int) -> None:
        """A regular file may be standard input."""
        payload = os.urandom(size)
        (processes.directory / "input").write_bytes(payload)
        with (processes.directory / "input").open("rb") as file:
            sending = processes.start("udpecho", "send", at(plain), stdin=file)
        assert answer(plain) == payload
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(size, at(plain)))

    def test_restOfFile(self, processes: Processes, plain: socket.socket) -> None:
        """Of a file that was read in part before, the rest is sent."""
        (processes.directory / "input").write_bytes(b"header body")
        with (processes.directory / "input").open("rb", buffering=0) as file:
            file.read(7)
            sending = processes.start("udpecho", "send", at(plain), stdin=file)
            assert answer(plain) == b"body"
            assert sending.finish().status == 0

    def test_slowPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An input that comes in parts is one datagram all the same: nothing is sent before the end."""
        sending = processes.start("udpecho", "send", at(plain), stdin=subprocess.PIPE)
        sending.write(b"one ")
        assert isQuiet(plain)
        sending.write(b"two")
        sending.closeInput()
        assert answer(plain) == b"one two"
        sending.finish()
        assert (sending.status, sending.stdout) == (0, twoLines(7, at(plain)))

    def test_openPipe(self, processes: Processes, plain: socket.socket) -> None:
        """In pieces, each is sent as soon as it is whole, while the pipe stays open."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), stdin=subprocess.PIPE)
        sending.write(b"abcdef")
        assert answer(plain) == b"abcd"
        sending.until("^packet-received: bytes=4")
        assert isQuiet(plain)
        sending.write(b"gh")
        assert answer(plain) == b"efgh"
        sending.until("^packet-received: bytes=4[^$]*^packet-received: bytes=4")
        sending.closeInput()
        assert sending.finish().status == 0
        assert isQuiet(plain)

    def test_endlessPipe(self, processes: Processes, plain: socket.socket) -> None:
        """An input that is longer than a datagram is refused when that is clear, not at its end."""
        sending = processes.start("udpecho", "send", at(plain), stdin=subprocess.PIPE)
        sending.write(bytes(65_528))
        assert "65507" in complaint(sending.finish())
        assert isQuiet(plain)

    @needsFIFOs
    def test_fifo(self, processes: Processes, plain: socket.socket) -> None:
        """FILE may be a named pipe: what its writer writes until it closes it is the datagram."""
        fifo = processes.directory / "fifo"
        os.mkfifo(fifo)
        sending = processes.start("udpecho", "send", at(plain), "fifo")
        writer = eventually(lambda: _writerOf(fifo), "nobody reads the named pipe")
        os.write(writer, b"from ")
        assert isQuiet(plain)
        os.write(writer, b"a fifo")
        os.close(writer)
        assert answer(plain) == b"from a fifo"
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (0, twoLines(11, at(plain)), "")

    @needsFIFOs
    @pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="nothing tells here whether it waits")
    def test_fifoWithoutWriter(self, processes: Processes, plain: socket.socket) -> None:
        """While nobody has opened the named pipe for writing, an interrupt ends the wait for it."""
        os.mkfifo(processes.directory / "fifo")
        sending = processes.start("udpecho", "send", at(plain), "fifo")
        eventually(lambda: catches(sending.pid, signal.SIGINT, signal.SIGTERM), "it never listens to signals")
        sending.signal(signal.SIGINT)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (130, "", "")

    def test_fileOfPieces(self, processes: Processes, server: Server) -> None:
        """A file goes in pieces too."""
        host, port = server.addresses[0]
        (processes.directory / "input").write_bytes(os.urandom(100_000))
        sent = processes.run("udpecho", "send", "--chunk", "40000", f"{host}:{port}", "input")
        assert sent.status == 0, sent
        assert sent.stdout == "".join(twoLines(size, f"{host}:{port}") for size in (40_000, 40_000, 20_000))
        assert sent.stderr == "udpecho: sent=3 answered=3 unanswered=0 sent-bytes=100000 answered-bytes=100000\n"

    def test_missing(self, processes: Processes, plain: socket.socket) -> None:
        """A file that is not there gets a sentence with its name."""
        sent = processes.run("udpecho", "send", at(plain), "nowhere")
        assert complaint(sent) == f"udpecho: cannot read nowhere: {os.strerror(errno.ENOENT)}\n"

    def test_directory(self, processes: Processes, plain: socket.socket) -> None:
        """So does a directory, and nothing is sent."""
        sent = processes.run("udpecho", "send", at(plain), ".")
        assert complaint(sent) == f"udpecho: cannot read .: {os.strerror(errno.EISDIR)}\n"
        assert isQuiet(plain)

    def test_unreadable(self, processes: Processes, plain: socket.socket) -> None:
        """So does a file that one may not read."""
        path = processes.directory / "secret"
        path.write_bytes(b"secret")
        path.chmod(0)
        unprivileged = without("dac_override", "dac_read_search")
        sent = processes.run(*unprivileged, *command("udpecho"), "send", at(plain), "secret")
        assert complaint(sent) == f"udpecho: cannot read secret: {os.strerror(errno.EACCES)}\n"

    @pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that can be opened but not read")
    def test_failingRead(self, processes: Processes, plain: socket.socket) -> None:
        """So does a file that opens and then cannot be read; nothing is sent."""
        sent = processes.run("udpecho", "send", at(plain), "/proc/self/mem")
        assert complaint(sent) == f"udpecho: cannot read /proc/self/mem: {os.strerror(errno.EIO)}\n"
        assert isQuiet(plain)

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard input")
    def test_closed(self, processes: Processes, plain: socket.socket) -> None:
        """
        Without any standard input at all the sentence says so; nothing is sent, not even by chance what another descriptor
        that took its number has to read.
        """
        line = shlex.join([*command("udpecho"), "send", at(plain)])
        said = complaint(processes.run("sh", "-c", f"exec {line} <&-"))
        assert "standard input" in said
        assert "closed" in said or os.strerror(errno.EBADF) in said
        assert isQuiet(plain)

    def test_terminal(self, processes: Processes, plain: socket.socket) -> None:
        """At a terminal the input ends where the person says so."""
        pty = pytest.importorskip("pty")
        person, terminal = pty.openpty()
        try:
            sending = processes.start("udpecho", "send", at(plain), stdin=terminal)
            os.write(person, b"typed\n\x04")
            assert answer(plain) == b"typed\n"
            assert sending.finish().status == 0
        finally:
            os.close(person)
            os.close(terminal)


def _writerOf(fifo: Path) -> int | None:
    """Open a named pipe for writing, if somebody reads it."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as e:
        if e.errno == errno.ENXIO:
            return None
        raise


class ReplyTests:
    """What C{udpecho send} takes for the reply."""

    def test_otherFirst(self, processes: Processes, plain: socket.socket) -> None:
        """A datagram that is not what was sent is passed over, and the reply that follows it counts."""
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
        """Where only others come, the sentence at the deadline says how many."""
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
        """The bytes of the reply's line are those of the reply, not those that were sent."""
        sending = processes.start("udpecho", "send", "--no-verify", at(plain), feed=b"hello")
        answer(plain, b"")
        sending.finish()
        assert sending.stdout == f"packet-written: bytes=5\npacket-received: bytes=0 from={at(plain)}\n"

    def test_stranger(self, processes: Processes, plain: socket.socket) -> None:
        """The same bytes from another address are nothing to it, with C{--no-verify} either."""
        sending = processes.start("udpecho", "send", "--no-verify", "--timeout", "0.5", at(plain), feed=b"hello")
        datagram, client = plain.recvfrom(100)
        with udpSocket() as stranger:
            stranger.sendto(datagram, client)
        sending.finish()
        assert (sending.status, sending.stdout) == (1, "packet-written: bytes=5\n")
        assert sending.stderr == f"udpecho: no reply from {at(plain)} within 0.5 s\n"

    @pytest.mark.parametrize(("timeout", "written"), [("0.05", "0.05"), ("50ms", "0.05"), ("0", "0"), (".1", "0.1")])
    def test_timeout(self, processes: Processes, plain: socket.socket, timeout: str, written: str) -> None:
        """Without any reply there is status 1 and a sentence with the seconds."""
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
        """
        Where the system has no way to the peer (a broadcast address, which one must ask for) there is status 3 and a sentence.
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
        """Pieces that are the same bytes are told apart."""
        host, port = server.addresses[0]
        sent = processes.run("udpecho", "send", "--chunk", "1", f"{host}:{port}", feed=bytes(20))
        assert (sent.status, sent.stdout) == (0, twoLines(1, f"{host}:{port}") * 20)
        assert sent.stderr == "udpecho: sent=20 answered=20 unanswered=0 sent-bytes=20 answered-bytes=20\n"

    def test_lost(self, processes: Processes, plain: socket.socket) -> None:
        """
        A piece without a reply gives its sentence, the next ones go on, a reply that comes too late answers none of them, and
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
        """A refusal ends it with status 3, and the sums still come."""
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


class InterruptTests:
    """Signals."""

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_whileWaitingForTheReply(self, processes: Processes, plain: socket.socket, number: int, status: int) -> None:
        """Without a word, and with the status that shells give."""
        sending = processes.start("udpecho", "send", "--timeout", "60", at(plain), feed=b"hello")
        plain.recv(100)
        sending.until("^packet-written")
        sending.signal(number)
        sending.finish()
        assert (sending.status, sending.stdout, sending.stderr) == (status, "packet-written: bytes=5\n", "")

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_whileWaitingForInput(self, processes: Processes, plain: socket.socket, number: int, status: int) -> None:
        """In pieces, the sums are told of those that were sent."""
        sending = processes.start("udpecho", "send", "--chunk", "4", at(plain), stdin=subprocess.PIPE)
        sending.write(b"abcdef")
        answer(plain)
        sending.until("^packet-received")
        sending.signal(number)
        sending.finish()
        assert (sending.status, sending.stdout) == (status, twoLines(4, at(plain)))
        assert sending.stderr == "udpecho: sent=1 answered=1 unanswered=0 sent-bytes=4 answered-bytes=4\n"


class OutputTests:
    """Where the results cannot be written."""

    def test_nobodyReads(self, processes: Processes, plain: socket.socket) -> None:
        """When the reader of the results has gone, the command ends without a word, and not with status 0."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            sent = processes.run("udpecho", "send", at(plain), feed=b"hello", stdout=writing)
        finally:
            os.close(writing)
        assert sent.stderr == ""
        assert sent.status not in (0, None)

    def test_readerLeaves(self, processes: Processes, plain: socket.socket) -> None:
        """So it is when the reader leaves after the first line."""
        reading, writing = os.pipe()
        try:
            sending = processes.start("udpecho", "send", "--chunk", "1", at(plain), feed=b"abc", stdout=writing)
        finally:
            os.close(writing)
        try:
            assert select.select([reading], [], [], PATIENCE)[0]
            assert os.read(reading, 100) == b"packet-written: bytes=1\n"
        finally:
            os.close(reading)
        answer(plain)
        sending.finish()
        assert re.fullmatch("(udpecho: sent=1 .*\n)?", sending.stderr), sending
        assert sending.status not in (0, None)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_full(self, processes: Processes, plain: socket.socket) -> None:
        """A full disk gets one sentence, which says that it is about the output."""
        with open("/dev/full", "wb") as full:
            sent = processes.run("udpecho", "send", at(plain), feed=b"hello", stdout=full)
        said = oneLine(sent)
        assert "standard output" in said
        assert os.strerror(errno.ENOSPC) in said
        assert sent.status not in (0, None)

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard output")
    def test_closed(self, processes: Processes, server: Server) -> None:
        """
        With no standard output at all the datagram is sent and answered nevertheless, and no word of it gets into another
        descriptor that took its number.
        """
        host, port = server.addresses[0]
        line = shlex.join([*command("udpecho"), "send", f"{host}:{port}"])
        sent = processes.run("sh", "-c", f"exec {line} >&-", feed=b"hello")
        assert (sent.status, sent.stdout, sent.stderr) == (0, "", "")

    @pytest.mark.skipif(os.name != "posix", reason="a shell closes the standard error")
    def test_closedErrors(self, processes: Processes, plain: socket.socket) -> None:
        """With no standard error the complaints do not get among the results."""
        line = shlex.join([*command("udpecho"), "send", "--timeout", "0", at(plain)])
        sent = processes.run("sh", "-c", f"exec {line} 2>&-", feed=b"hello")
        assert (sent.status, sent.stdout) == (1, "packet-written: bytes=5\n")


class UsageTests:
    """What bad usage gets: one line on standard error, status 2, nothing on standard output."""

    @pytest.mark.parametrize(
        ("peer", "sentence"),
        [
            ("host", "address must be HOST:PORT, as in localhost:1234, got 'host'"),
            ("127.0.0.1", "address must be HOST:PORT, as in localhost:1234, got '127.0.0.1'"),
            (":1", "address must be HOST:PORT, as in localhost:1234, got ':1'"),
            ("", "address must be HOST:PORT, as in localhost:1234, got ''"),
            ("h:", "port must be 1 to 65535, got ''"),
            ("h:0", "port must be 1 to 65535, got '0'"),
            ("h:99999", "port must be 1 to 65535, got '99999'"),
            ("h:-1", "port must be 1 to 65535, got '-1'"),
            ("h:x", "port must be 1 to 65535, got 'x'"),
            ("::1:1234", r"IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '::1:1234'"),
            ("[::1]", r"IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]'"),
            ("[::1]x", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1]x'"),
            ("[::1]:", "port must be 1 to 65535, got ''"),
            ("[::1:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1:1'"),
            ("[nope]:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[nope]:1'"),
            ("[127.0.0.1]:1", "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[127.0.0.1]:1'"),
        ],
    )
    def test_address(self, processes: Processes, peer: str, sentence: str) -> None:
        """Each wrong HOST:PORT has its sentence, which says what would be right."""
        assert sentence in complaint(processes.run("udpecho", "send", peer))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            *[
                (["--timeout", text], f"duration must be 0s to 366 days, as in 0.5s or 500ms, got {text!r}")
                for text in ("-1", "nan", "inf", "x", "5y", "")
            ],
            (
                ["--timeout", "99999999999999999999"],
                "duration must be 0s to 366 days, as in 0.5s or 500ms, got '99999999999999999999'",
            ),
            *[(["--chunk", text], f"payload size must be 1 to 65527 bytes, got {text!r}") for text in ("0", "-1", "x")],
            (["--chunk", "65528"], "payload size must be 1 to 65527 bytes, got '65528'"),
            (["--chunk", "1.5"], "payload size must be 1 to 65527 bytes, got '1.5'"),
            *[
                (["--bind", text], f"local address must be an IP address, as in 127.0.0.1, got {text!r}")
                for text in ("localhost", "x:1", "127.0.0.1.1")
            ],
            (["--bind", "127.0.0.1:99999"], "port must be 0 to 65535, got '99999'"),
            (["--bind", "[::1"], "IPv6 address must be [ADDR]:PORT, as in [::1]:1234, got '[::1'"),
            (["--nonsense"], "--nonsense"),
            (["--timeout"], "--timeout"),
            (["one", "two"], "two"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_option(self, processes: Processes, options: list[str], sentence: str) -> None:
        """Each wrong option has its sentence."""
        assert sentence in complaint(processes.run("udpecho", "send", "127.0.0.1:1", *options))

    @pytest.mark.parametrize("arguments", [[], ["send"], ["nonsense"], ["--nonsense"]], ids=" ".join)
    def test_arguments(self, processes: Processes, arguments: list[str]) -> None:
        """What is missing, or unknown, is named."""
        wanted = {"": "COMMAND", "send": "HOST:PORT"}.get(" ".join(arguments), "nonsense")
        said = complaint(processes.run("udpecho", *arguments))
        assert wanted in said or "COMMAND" in said
        assert "--help" in said

    def test_bindTaken(self, processes: Processes, plain: socket.socket) -> None:
        """A local address that is taken is named; nothing is sent, nor said to have been."""
        with udpSocket() as taken:
            sent = processes.run("udpecho", "send", "--bind", at(taken), at(plain), feed=b"hello")
            assert complaint(sent) == f"udpecho: cannot send from {at(taken)}: {os.strerror(errno.EADDRINUSE)}\n"
        assert isQuiet(plain)

    def test_bindElsewhere(self, processes: Processes, plain: socket.socket) -> None:
        """So is one that is not this machine's."""
        sent = processes.run("udpecho", "send", "--bind", "192.0.2.1", at(plain), feed=b"hello")
        said = complaint(sent)
        assert "192.0.2.1" in said
        assert os.strerror(errno.EADDRNOTAVAIL) in said

    def test_bindOtherFamily(self, processes: Processes, plain: socket.socket) -> None:
        """A local address of the other family cannot reach the peer, and the sentence says so."""
        said = complaint(processes.run("udpecho", "send", "--bind", "::1", at(plain), feed=b"hello"))
        assert "127.0.0.1 cannot be reached from the local address: it is not of the same family" in said

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
    def test_anyOrder(self, processes: Processes, plain: socket.socket, tmp_path: Path, place: int) -> None:
        """FILE may stand before and after options."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")
        words = ["-t", "0", "--no-verify"]
        if place == 0:
            words = [at(plain), str(path), *words]
        elif place == 1:
            words = [at(plain), *words, str(path)]
        elif place == 2:
            words = ["-t", "0", at(plain), "--no-verify", str(path)]
        elif place == 3:
            words = [*words, at(plain), str(path)]
        else:
            words = [at(plain), "-t", "0", str(path), "--no-verify"]
        sent = processes.run("udpecho", "send", *words)
        assert (sent.status, sent.stdout) == (1, "packet-written: bytes=5\n")

    @pytest.mark.parametrize("host", ["nosuch.invalid", "a..b", "x" * 64 + ".invalid", "no such", "n\xf6.invalid"])
    def test_unresolvable(self, processes: Processes, host: str) -> None:
        """A name that has no address, or can have none, is named in the sentence."""
        said = complaint(processes.run("udpecho", "send", f"{host}:1234", feed=b"hello", environment={"PYTHONUTF8": "1"}))
        assert host in said
        assert "read" not in said

    def test_unknownScope(self, processes: Processes) -> None:
        """A link-local address by an interface that is not there gets a sentence with that interface's name."""
        said = complaint(processes.run("udpecho", "send", "[fe80::1%nosuch0]:1234", feed=b"hello"))
        assert "nosuch0" in said
        assert "standard input" not in said

    def test_version(self, processes: Processes) -> None:
        """C{--version} gives the name and the version."""
        told = processes.run("udpecho", "--version")
        assert (told.status, told.stdout, told.stderr) == (0, f"udpecho {__version__}\n", "")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["--help"], ["send"]), (["send", "--help"], ["HOST:PORT", "FILE", "--timeout", "--chunk", "--bind", "--no-verify"])],
    )
    def test_help(self, processes: Processes, arguments: list[str], words: list[str]) -> None:
        """C{--help} names what there is, on standard output."""
        told = processes.run("udpecho", *arguments)
        assert (told.status, told.stderr) == (0, ""), told
        for word in words:
            assert word in told.stdout


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
        assert [(one[1], one[2]) for one in sends] == [(opened[1], '"hello", 5, 0, NULL, 0) = 5')], calls
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
