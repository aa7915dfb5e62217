"""Tests of C{udpecho proxy}, as real processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
from contextlib import ExitStack

import pytest

from tests.support.commands import usageError
from tests.support.guards import needsIPv6, tool
from tests.support.processes import Processes, Server, command, eventually
from tests.support.proxy import ProxyProcess
from tests.support.running import udpSocket, unusedPort
from udpecho.addresses import formatAddress
from udpecho.faults.decision import Replay
from udpecho.faults.plan import FaultPlan


class ProxyCommandTests:
    """C{udpecho proxy} between real programs."""

    OPTIONS = ("--loss", "10%", "--delay", "50ms", "--jitter", "10ms", "--seed", "7")

    def test_ours(self, processes: Processes, server: Server) -> None:
        """Between our client and our server, with loss, delay and jitter, the seed determines which datagrams are answered."""
        plans = [FaultPlan(f"7 {direction}", loss=0.1, delay=0.05, jitter=0.01) for direction in ("up", "down")]
        # The second plan decides only about datagrams that the first lets through.
        expected = [all(plan.decide(1, 0).delays for plan in plans) for _ in range(20)]
        assert 0 < expected.count(False) < 5
        proxy = ProxyProcess(processes, server.addresses[0], *self.OPTIONS)
        sent = processes.run("udpecho", "send", "--chunk", "1", "--timeout", "300ms", proxy.written, feed=os.urandom(20))
        sums = proxy.stop()
        lines = re.sub("^packet-", "", sent.stdout, flags=re.MULTILINE)
        answered = [group.count("received") == 1 for group in lines.split("written")[1:]]
        assert answered == expected, (sent, proxy.process)
        assert sent.status == 1
        assert sums["up"]["datagrams"] == 20
        assert sums["up"]["delayed"] == sums["down"]["datagrams"]
        assert sums["down"]["delayed"] == expected.count(True)

    def test_socat(self, processes: Processes) -> None:
        """Between socat and socat, each way."""
        socat = tool("socat")
        port = unusedPort()
        upstream = processes.start(socat, "-u", "-b", "65536", f"UDP4-RECV:{port},bind=127.0.0.1", "-")
        eventually(lambda: _isBound(port), "socat's socket")
        proxy = ProxyProcess(processes, ("127.0.0.1", port), "--delay", "50ms", "--jitter", "10ms", "--seed", "7")
        for word in ("one", "two", "three"):
            assert processes.run(socat, "-u", "-", f"UDP4-SENDTO:{proxy.written}", feed=f"{word}\n".encode()).status == 0
            upstream.until(f"^{word}$")
        upstream.kill()
        assert proxy.stop()["up"] == {"datagrams": 3, "delayed": 3}

    def test_socatEchoes(self, processes: Processes) -> None:
        """A socat that echoes answers another socat."""
        socat = tool("socat")
        port = unusedPort()
        upstream = processes.start(socat, f"UDP4-LISTEN:{port},bind=127.0.0.1,fork", "SYSTEM:cat")
        eventually(lambda: _isBound(port), "socat's socket")
        proxy = ProxyProcess(processes, ("127.0.0.1", port), *self.OPTIONS, "--loss", "0")
        client = processes.start(socat, "-t", "5", "-", f"UDP4:{proxy.written}", stdin=-1)
        for word in ("one", "two", "three"):
            client.write(f"{word}\n".encode())
            client.until(f"^{word}$")
        client.kill()
        # With what it has forked.
        os.killpg(upstream.pid, signal.SIGKILL)
        sums = proxy.stop()
        assert sums["up"]["delayed"] >= 3
        assert sums["down"]["delayed"] >= 3

    def test_verbose(self, processes: Processes, server: Server) -> None:
        """C{--verbose} prints a line for each datagram in each direction, and the lines of one direction are decisions that can
        be replayed.
        """
        options = ("--verbose", "--direction", "up", "--corrupt", "50%", "--delay", "1ms", "--duplicate", "50%", "--seed", "x")
        proxy = ProxyProcess(processes, server.addresses[0], *options)
        with udpSocket() as sock:
            sock.connect(proxy.address)
            client = formatAddress(sock.getsockname())
            for _ in range(20):
                sock.send(b"hello")
                sock.recv(100)
            proxy.process.until(r"(?s)(^up: .*?){20}")
        sums = proxy.stop()
        lines = proxy.process.stdout.splitlines()[:-3]
        ups = [line for line in lines if line.startswith("up: ")]
        downs = [line for line in lines if line.startswith("down: ")]
        assert len(lines) == len(ups) + len(downs)
        plan = FaultPlan("x up", corrupt=0.5, delay=0.001, duplicate=0.5)
        assert ups == [f"up: bytes=5 client={client} {plan.decide(5, 0)}" for _ in range(20)]
        replay = Replay("\n".join(line.partition(f"{client} ")[2] for line in ups))
        assert sum("duplicated" in replay.decide(5, 0).reasons for _ in range(20)) == sums["up"]["duplicated"]
        assert set(downs) == {f"down: bytes=5 client={client} delivered +0.000000000"}
        assert len(downs) == sums["down"]["datagrams"]

    def test_rules(self, processes: Processes, server: Server) -> None:
        """C{--rule} decides about some datagrams, in addition to the other faults, and each direction counts by itself."""
        rules = ("--rule", "lose link=up starts=68 nth=2", "--rule", "replace=79 link=down nth=2")
        proxy = ProxyProcess(processes, server.addresses[0], "--delay", "1ms", *rules)
        with udpSocket() as sock:
            sock.connect(proxy.address)
            answers = []
            for number in range(3):
                sock.send(b"h%d" % number)
                if number != 1:
                    answers.append(sock.recv(100))
        sums = proxy.stop()
        assert answers == [b"h0", b"y"]
        assert sums["up"] == {"datagrams": 3, "delayed": 2, "lost": 1}
        assert sums["down"] == {"datagrams": 2, "delayed": 2, "replaced": 1}

    def test_quiet(self, processes: Processes, server: Server) -> None:
        """Without it only the sums are printed, at SIGINT and at SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            proxy = ProxyProcess(processes, server.addresses[0])
            with udpSocket() as sock:
                sock.sendto(b"hello", proxy.address)
                assert sock.recvfrom(100) == (b"hello", proxy.address)
            assert proxy.stop(number) == {
                "up": {"datagrams": 1, "delivered": 1},
                "down": {"datagrams": 1, "delivered": 1},
                "": {"refusals": 0, "passed-back": 0},
            }
            assert len(proxy.process.stdout.splitlines()) == 3

    def test_maxHeld(self, processes: Processes, server: Server) -> None:
        """What waits in the proxy has a bound of bytes, half of it for one client, and the sums have what had no place."""
        proxy = ProxyProcess(processes, server.addresses[0], "--delay", "300s", "--max-held", "10k", "-v")
        with udpSocket() as sock:
            for _ in range(20):
                sock.sendto(bytes(512), proxy.address)
            proxy.process.until(r"(?:up: bytes=512 .*\n){20}", "stdout")
        assert proxy.stop()["up"] == {"datagrams": 20, "delayed": 20, "held_full": 15, "own_loss": 5}

    def test_nobodyReads(self, processes: Processes, server: Server) -> None:
        """It ends without a traceback when nobody reads its output."""
        read, write = os.pipe()
        process = processes.start("udpecho", "proxy", "-v", "127.0.0.1:0", formatAddress(server.addresses[0]), stdout=write)
        os.close(write)
        address = process.until(r"from (\S+):(\d+) to", "stderr")
        os.close(read)
        with udpSocket() as sock:
            sock.sendto(b"hello", (address[1], int(address[2])))
            process.finish()
        assert process.status == 141, process
        assert "Traceback" not in process.stderr, process

    @needsIPv6
    def test_ipv6(self, processes: Processes, server: Server) -> None:
        """It passes datagrams between IPv6 clients and an IPv4 upstream."""
        process = processes.start("udpecho", "proxy", "[::1]:0", formatAddress(server.addresses[0]))
        port = int(process.until(r"^udpecho: passing datagrams from \[::1\]:(\d+) to 127\.0\.0\.1:\d+$", "stderr")[1])
        sent = processes.run("udpecho", "send", f"[::1]:{port}", feed=b"hello")
        assert sent.status == 0, sent
        assert "packet-received: bytes=5 " in sent.stdout
        process.stop()

    def test_name(self, processes: Processes) -> None:
        """The upstream may have a name."""
        host = socket.getaddrinfo("localhost", 0, type=socket.SOCK_DGRAM)[0][4][0]
        server = processes.server("--interface", str(host))
        process = processes.start("udpecho", "proxy", "127.0.0.1:0", f"localhost:{server.addresses[0][1]}")
        address = process.until(r"^udpecho: passing datagrams from (127\.0\.0\.1:\d+) to (\S+)$", "stderr")
        assert address[2] == formatAddress(server.addresses[0])
        sent = processes.run("udpecho", "send", address[1], feed=b"hello")
        assert sent.status == 0, sent
        assert "packet-received: bytes=5 " in sent.stdout
        process.stop()

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--loss", "110%"),
                "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got '110%'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--loss", "-1"),
                "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got '-1'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--idle-timeout", "0"),
                "argument --idle-timeout: duration must be 1us to 366 days, as in 0.5s or 500ms, got '0'",
            ),
            (("127.0.0.1:0", "127.0.0.1:9", "--loss", "x"), "argument --loss: share must be 0 to 1, as in 0.1 or 10%, got 'x'"),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--delay", "-1"),
                "argument --delay: duration must be 0s to 366 days, as in 0.5s or 500ms, got '-1'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--jitter", "1 day"),
                "argument --jitter: duration must be 0s to 366 days, as in 0.5s or 500ms, got '1 day'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--rate", "0"),
                "argument --rate: size must be 1 byte to less than 1g, as in 65536 or 64k, got '0'",
            ),
            (("127.0.0.1:0", "127.0.0.1:9", "--burst", "1%"), "argument --burst: burst must be P,R or P,R,K,H"),
            (
                ("127.0.0.1:0", "127.0.0.1:9", "--burst", "1%,x"),
                "argument --burst: share must be 0 to 1, as in 0.1 or 10%, got 'x'",
            ),
            (("127.0.0.1", "127.0.0.1:9"), "argument LISTEN: address must be ADDR:PORT"),
            (("::1", "127.0.0.1:9"), "port 0 for any free one, got '::1'"),
            (("::1:0", "127.0.0.1:9"), "port 0 for any free one, got '::1:0'"),
            (("[::1]", "127.0.0.1:9"), "port 0 for any free one, got '[::1]'"),
            (
                ("localhost:0", "127.0.0.1:9"),
                "argument LISTEN: local address must be an IP address, as in 127.0.0.1, got 'localhost:0'",
            ),
            (
                ("127.0.0.1:0", "127.0.0.1"),
                "argument UPSTREAM: address must be HOST:PORT, as in localhost:1234, got '127.0.0.1'",
            ),
            (("127.0.0.1:0", "127.0.0.1:0"), "argument UPSTREAM: port must be 1 to 65535, got '0'"),
        ],
    )
    def test_wrong(self, arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong value is refused in one line, with status 2."""
        assert sentence in usageError(capsys, "proxy", *arguments)

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("192.0.2.1:0", "127.0.0.1:9"), "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
            (("127.0.0.1:0", "nowhere.invalid:9"), "nowhere.invalid"),
        ],
    )
    def test_unusable(self, arguments: tuple[str, ...], sentence: str, processes: Processes) -> None:
        """So is an address that the system refuses, and a name without an address."""
        done = processes.run("udpecho", "proxy", *arguments)
        assert done.status == 2, done
        assert not done.stdout
        (line,) = done.stderr.splitlines()
        assert sentence in line, done

    def test_portInUse(self, processes: Processes) -> None:
        """So is a port that is in use."""
        with udpSocket() as sock:
            address = formatAddress(sock.getsockname())
            done = processes.run("udpecho", "proxy", address, "127.0.0.1:9")
        assert (done.status, done.stdout) == (2, ""), done
        assert done.stderr == f"udpecho: cannot listen on {address}: Address already in use\n"

    def test_descriptors(self, processes: Processes, server: Server) -> None:
        """When no descriptor is left for new clients, one line on standard error says so, and the sums have the drops."""
        words = [*command("udpecho"), "proxy", "127.0.0.1:0", formatAddress(server.addresses[0])]
        proxy = processes.start("sh", "-c", f"ulimit -n 24; exec {shlex.join(words)}")
        line = proxy.until(r"^udpecho: passing datagrams from 127\.0\.0\.1:(\d+) to ", "stderr")
        with ExitStack() as clients:
            for _ in range(40):
                clients.enter_context(udpSocket()).sendto(b"hello", ("127.0.0.1", int(line[1])))
            proxy.until(r"^udpecho: cannot open a socket for 127\.0\.0\.1:\d+: Too many open files$", "stderr")
        proxy.signal(signal.SIGINT)
        proxy.finish()
        assert len(proxy.stderr.splitlines()) == 2
        assert " no_socket=" in proxy.stdout


def _isBound(port: int) -> bool:
    """Whether a UDP port of 127.0.0.1 is bound."""
    try:
        with udpSocket(port=port):
            return False
    except OSError:
        return True
