"""Tests of the plugins, C{twistd udpecho} and C{twistd udpecho-client}, each on a real process."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process, Processes, Server, command, eventually, isRunning, logged, sums, without
from tests.support.running import PATIENCE, REACTORS, hasIPv6, udpSocket, unusedPort
from udpecho.net.linux import sockopt

needsIPv6 = pytest.mark.skipif(not hasIPv6(), reason="this machine has no ::1")
onlyLinux = pytest.mark.skipif(not sockopt.available, reason="the local address is known on Linux only")
needsRoot = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may do this")
needsPrivilege = pytest.mark.skipif(
    not hasattr(socket, "SOCK_RAW") or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has raw sockets"
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


def client(address: tuple[str, int]) -> socket.socket:
    """A plain socket that is connected to a server: it hears what comes from that very address only."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def written(sock: socket.socket) -> str:
    """A plain socket's own address, as people write it."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def echoed(sock: socket.socket, payload: bytes) -> bytes:
    """
    Send a payload through a connected socket.

    @return: what comes back.
    """
    sock.send(payload)
    return sock.recv(65536)


def datagramLines(lines: list[str]) -> list[str]:
    """The lines of a log that are about datagrams."""
    return [line for line in lines if line.startswith(("packet-", "datagrams-"))]


def everything(process: Process) -> str:
    """All that a process has written, whichever way."""
    return process.stdout + process.stderr


class ServerTests:
    """C{twistd -n udpecho}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_reactors(self, processes: Processes, reactor: str) -> None:
        """
        On each reactor it says where it answers, echoes over IPv4 and IPv6, logs both ways with the four lines of the
        design, and at C{SIGTERM} logs one line of sums and leaves nothing behind.
        """
        server = processes.server(twistd=["twistd", "-n", "--reactor", reactor])
        port = server.addresses[0][1]
        assert server.addresses == [("127.0.0.1", port), *([("::1", port)] if hasIPv6() else [])]
        wanted = []
        for address, payload in zip(server.addresses, (b"hello", b"\0\0")):
            with client(address) as sock:
                assert echoed(sock, payload) == payload
                wanted += [
                    f"packet-received: bytes={len(payload)} from={written(sock)}",
                    f"packet-written: bytes={len(payload)} to={written(sock)}",
                ]
        found = server.stop()
        assert datagramLines(server.log()) == wanted
        size = 7 if hasIPv6() else 5
        assert found == {
            "received": len(wanted) // 2,
            "echoed": len(wanted) // 2,
            "dropped": 0,
            "received-bytes": size,
            "echoed-bytes": size,
            "dropped-bytes": 0,
        }
        assert f"{reactor}reactor" in server.process.stdout
        assert os.listdir(processes.directory) == []

    def test_startUpLine(self, processes: Processes) -> None:
        """On loopback alone it says which options open it to the network."""
        server = processes.server()
        server.stop()
        assert [line for line in server.log() if "--interface 0.0.0.0 --interface ::" in line]

    def test_help(self, processes: Processes) -> None:
        """C{twistd} lists both plugins, and each one's options with their defaults."""
        assert re.search(r"^ +udpecho +A UDP echo server", processes.run("twistd", "--help").stdout, re.MULTILINE)
        told = processes.run("twistd", "udpecho", "--help").stdout
        for option in ("port", "interface", "max-payload", "log-datagrams", "write-timeout", "receive-buffer", "workers"):
            assert f"--{option}=" in told
        told = processes.run("twistd", "udpecho-client", "--help").stdout
        for option in ("host=", "port=", "timeout=", "bind=", "chunk=", "no-verify"):
            assert f"--{option}" in told

    def test_composed(self, processes: Processes) -> None:
        """In a C{.tac} file, in a C{MultiService}, it works as under C{twistd udpecho}."""
        (processes.directory / "composed.tac").write_text(
            textwrap.dedent(
                """
                from twisted.application.service import Application, MultiService
                from twisted.internet import reactor
                from udpecho import EchoService

                application = Application("composed")
                together = MultiService()
                together.setServiceParent(application)
                EchoService(reactor, port=0).setServiceParent(together)
                EchoService(reactor, port=0, interfaces=["127.0.0.2"]).setServiceParent(together)
                """
            )
        )
        process = processes.start("twistd", "-noy", "composed.tac")
        found = process.until("answering on 127.0.0.1:([0-9]+)")
        other = process.until("answering on 127.0.0.2:([0-9]+)$")
        with client(("127.0.0.1", int(found[1]))) as sock, client(("127.0.0.2", int(other[1]))) as second:
            assert echoed(sock, b"hello") == b"hello"
            assert echoed(second, b"again!") == b"again!"
        process.stop()
        assert "Traceback" not in everything(process)
        told = sorted(line for line in logged(process.stdout) if line.startswith("stopped: "))
        assert [line.partition(" dropped")[0] for line in told] == ["stopped: received=1 echoed=1"] * 2


class JournalTests:
    """C{--log-datagrams}."""

    def flood(self, server: Server, number: int) -> None:
        """Send many datagrams of two bytes, which the server sees all at once, and wait for the replies."""
        with client(server.addresses[0]) as sock:
            server.process.signal(signal.SIGSTOP)
            for _ in range(number):
                sock.send(b"hi")
            server.process.signal(signal.SIGCONT)
            for _ in range(number):
                assert sock.recv(100) == b"hi"

    def test_default(self, processes: Processes) -> None:
        """Ten datagrams a second get their lines; what was left out is summed up in one line, while the server runs."""
        server = processes.server()
        self.flood(server, 30)
        server.process.until("datagrams-not-logged: received=20 bytes=40 written=20 bytes=40$")
        found = server.stop()
        lines = datagramLines(server.log())
        assert sum(line.startswith("packet-received: bytes=2 from=127.0.0.1:") for line in lines) == 10
        assert sum(line.startswith("packet-written: bytes=2 to=127.0.0.1:") for line in lines) == 10
        assert len(lines) == 21
        assert found["echoed"] == 30

    def test_atTheStop(self, processes: Processes) -> None:
        """What is not yet summed up when the server stops is summed up then."""
        server = processes.server("--log-datagrams", "3")
        self.flood(server, 5)
        server.stop()
        lines = datagramLines(server.log())
        assert lines[6:] == ["datagrams-not-logged: received=2 bytes=4 written=2 bytes=4"]

    def test_none(self, processes: Processes) -> None:
        """With 0 there is no line of any datagram, of the left out neither; the sums at the stop come all the same."""
        server = processes.server("--log-datagrams", "0")
        self.flood(server, 30)
        found = server.stop()
        assert datagramLines(server.log()) == []
        assert found["received"] == 30
        assert found["echoed-bytes"] == 60

    def test_all(self, processes: Processes) -> None:
        """With C{all} each one has its lines."""
        server = processes.server("--log-datagrams", "all")
        self.flood(server, 30)
        server.stop()
        lines = datagramLines(server.log())
        assert [line.partition(":")[0] for line in lines] == ["packet-received", "packet-written"] * 30


class DaemonTests:
    """C{twistd udpecho}, in the background."""

    def test_daemon(self, processes: Processes) -> None:
        """
        It goes into the background once it answers, with its process identifier and its log in files, and at C{SIGTERM} logs
        the sums and takes its process identifier away.
        """
        pidFile, log = processes.daemon("echo.pid"), processes.directory / "echo.log"
        started = processes.run("twistd", "--pidfile", "echo.pid", "--logfile", "echo.log", "udpecho", "--port", "0")
        assert (started.status, started.stdout, started.stderr) == (0, "", "")
        pid = int(pidFile.read_text())
        found = eventually(lambda: re.search("answering on 127.0.0.1:([0-9]+)", log.read_text()), "it does not answer")
        with client(("127.0.0.1", int(found[1]))) as sock:
            assert echoed(sock, b"hello") == b"hello"
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not isRunning(pid), "it goes on")
        assert not pidFile.exists()
        assert "Traceback" not in log.read_text()
        assert sums(log.read_text())["echoed"] == 1
        assert [line.partition(":")[0] for line in datagramLines(logged(log.read_text()))] == [
            "packet-received",
            "packet-written",
        ]

    def test_clientIsRefused(self, processes: Processes) -> None:
        """The client has no standard input in the background, and says what to do instead of starting."""
        refused = processes.run("twistd", "udpecho-client", "--host", "127.0.0.1", "--port", "9")
        assert refused.status == usageStatus()
        said = everything(refused)
        assert said.count("a daemon has no standard input to send: run twistd -n udpecho-client") == 1
        assert "Traceback" not in said
        assert os.listdir(processes.directory) == []


class TwistTests:
    """Under C{twist}."""

    def test_text(self, processes: Processes) -> None:
        """It answers and logs as under C{twistd}."""
        server = processes.server(twistd=["twist", "--log-format=text"])
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
            own = written(sock)
        assert server.stop()["echoed"] == 1
        assert datagramLines(server.log()) == [f"packet-received: bytes=5 from={own}", f"packet-written: bytes=5 to={own}"]

    def test_json(self, processes: Processes) -> None:
        """A log in JSON has the values as fields."""
        server = processes.server(twistd=["twist", "--log-format=json"])
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
            own = written(sock)
        process = server.process.stop()
        assert not process.stderr
        events: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.replace("\x1e", "").splitlines()]
        assert not [event for event in events if "log_failure" in event]
        received = [event for event in events if event["log_format"].startswith("packet-received")]
        assert [(event["bytes"], event["from"]) for event in received] == [(5, own)]
        sent = [event for event in events if event["log_format"].startswith("packet-written")]
        assert [(event["bytes"], event["to"]) for event in sent] == [(5, own)]
        assert len([event for event in events if event["log_format"].startswith("stopped: ")]) == 1

    def test_client(self, processes: Processes) -> None:
        """The client does its work under it, and its log in JSON has the values as fields too."""
        with udpSocket() as plain:
            process = processes.start(
                *["twist", "--log-format=json", "udpecho-client", "--host", "127.0.0.1"],
                *["--port", str(plain.getsockname()[1])],
                feed=b"hello",
            )
            plain.sendto(*plain.recvfrom(100))
            process.finish()
            peer = written(plain)
        assert (process.status, process.stderr) == (0, "")
        events: list[dict[str, Any]] = [json.loads(line) for line in process.stdout.replace("\x1e", "").splitlines()]
        (sent,) = [event for event in events if event["log_format"].startswith("packet-written")]
        (received,) = [event for event in events if event["log_format"].startswith("packet-received")]
        assert (sent["bytes"], received["bytes"], received["from"]) == (5, 5, peer)

    def test_badOption(self, processes: Processes) -> None:
        """A wrong option gets its sentence."""
        refused = processes.run("twist", "udpecho", "--port", "x")
        assert refused.status not in (0, None)
        assert everything(refused).count("--port: port must be 0 to 65535, got 'x'") == 1
        assert "Traceback" not in everything(refused)

    def test_portInUse(self, processes: Processes) -> None:
        """A port that is taken gets one line."""
        with udpSocket() as taken:
            refused = processes.run("twist", "udpecho", "--port", str(taken.getsockname()[1]))
            assert refused.status == 1
            assert everything(refused).count(f"cannot listen on {written(taken)}: {os.strerror(errno.EADDRINUSE)}") == 1
        assert "Traceback" not in everything(refused)


class AddressTests:
    """C{--port} and C{--interface}."""

    def test_several(self, processes: Processes) -> None:
        """It answers on each address that it is given, on one port."""
        hosts = ["127.0.0.2", *(["::1"] if hasIPv6() else []), "127.0.0.3"]
        server = processes.server(*[word for host in hosts for word in ("--interface", host)])
        assert server.addresses == [(host, server.addresses[0][1]) for host in hosts]
        for address in server.addresses:
            with client(address) as sock:
                assert echoed(sock, b"hello") == b"hello"
        assert server.stop()["echoed"] == len(hosts)

    def test_short(self, processes: Processes) -> None:
        """C{-i} and C{-p} are the same options."""
        port = unusedPort()
        server = Server(processes.start("twistd", "-n", "udpecho", "-p", str(port), "-i", "127.0.0.1"))
        assert server.addresses == [("127.0.0.1", port)]
        server.stop()

    @needsIPv6
    @onlyLinux
    def test_wildcards(self, processes: Processes) -> None:
        """
        All of IPv4 and all of IPv6 go together on one port; each answer comes from the address that was asked, and there is no
        word of opening it to the network.
        """
        server = processes.server("--interface", "0.0.0.0", "--interface", "::")
        port = server.addresses[0][1]
        assert server.addresses == [("0.0.0.0", port), ("::", port)]
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            with client((host, port)) as sock:
                assert echoed(sock, b"hello") == b"hello"
        assert server.stop()["echoed"] == 3
        assert "only this machine" not in server.process.stdout

    def test_ownDefault(self, processes: Processes) -> None:
        """Without C{--port} it is the seed's, 1234."""
        try:
            with udpSocket(port=1234):
                pass
        except OSError:
            pytest.skip("port 1234 is taken")
        server = Server(processes.start("twistd", "-n", "udpecho"))
        assert server.addresses[0] == ("127.0.0.1", 1234)
        server.stop()

    @needsRoot
    def test_privileged(self, processes: Processes) -> None:
        """Root binds port 7 and then becomes nobody, and answers as such."""
        nobody = 65534
        try:
            with udpSocket(port=7):
                pass
        except OSError:
            pytest.skip("port 7 is taken")
        server = processes.server(
            "--interface",
            "127.0.0.1",
            twistd=["twistd", "-n", "--pidfile=", "--uid", str(nobody), "--gid", str(nobody)],
            port=7,
        )
        assert server.addresses == [("127.0.0.1", 7)]
        status = Path(f"/proc/{server.process.pid}/status")
        if status.exists():
            ids = dict(re.findall(r"^([UG]id):\s+(.*)$", status.read_text(), re.MULTILINE))
            assert {*ids["Uid"].split(), *ids["Gid"].split()} == {str(nobody)}
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
        assert server.stop()["echoed"] == 1

    @pytest.mark.parametrize("family", [0, pytest.param(1, marks=needsIPv6)], ids=["IPv4", "IPv6"])
    def test_inUse(self, processes: Processes, family: int) -> None:
        """Where one of the addresses is taken, one line names it, the status is 1, and there is nothing left behind."""
        with udpSocket(("127.0.0.1", "::1")[family]) as taken:
            refused = processes.run("twistd", "-n", "udpecho", "--port", str(taken.getsockname()[1]))
            self.refused(refused, f"cannot listen on {written(taken)}: {os.strerror(errno.EADDRINUSE)}")
        assert os.listdir(processes.directory) == []

    def test_inUseInTheBackground(self, processes: Processes) -> None:
        """So it is when it was to go into the background: the person who started it is told, and the log has the line too."""
        processes.daemon("twistd.pid")
        with udpSocket() as taken:
            sentence = f"cannot listen on {written(taken)}: {os.strerror(errno.EADDRINUSE)}"
            self.refused(processes.run("twistd", "udpecho", "--port", str(taken.getsockname()[1])), sentence)
        log = processes.directory / "twistd.log"
        eventually(lambda: sentence in log.read_text(), "the log does not have it")
        assert log.read_text().count(sentence) == 1
        assert "Traceback" not in log.read_text()
        assert os.listdir(processes.directory) == ["twistd.log"]

    @pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
    def test_elsewhere(self, processes: Processes, host: str) -> None:
        """An address that is not this machine's gets one line that names it."""
        number = errno.EADDRNOTAVAIL
        if ":" in host and not hasIPv6():
            number = errno.EAFNOSUPPORT
        refused = processes.run("twistd", "-n", "udpecho", "--port", "1234", "--interface", host)
        named = f"[{host}]" if ":" in host else host
        self.refused(refused, f"cannot listen on {named}:1234: {os.strerror(number)}")

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or not os.path.exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        reason="nothing tells which ports are for root",
    )
    def test_forbidden(self, processes: Processes) -> None:
        """A port that is for root gets one line that says so."""
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 7:
            pytest.skip("everybody may have port 7 here")
        unprivileged = without("net_bind_service")
        refused = processes.run(*unprivileged, *command("twistd"), "-n", "udpecho", "--port", "7")
        self.refused(refused, f"cannot listen on 127.0.0.1:7: {os.strerror(errno.EACCES)}")
        assert "for root" in everything(refused)

    def refused(self, process: Process, sentence: str) -> None:
        """Look that a process that is over has said a sentence once, and nothing worse."""
        said = everything(process)
        assert process.status == 1, process
        assert said.count(sentence) == 1, process
        assert "Traceback" not in said, process


class LimitTests:
    """C{--max-payload}, C{--receive-buffer} and C{--write-timeout}."""

    def test_maxPayload(self, processes: Processes) -> None:
        """Longer datagrams are dropped, and counted; others are answered."""
        server = processes.server("--max-payload", "100")
        with client(server.addresses[0]) as sock:
            sock.send(bytes(101))
            assert echoed(sock, bytes(100)) == bytes(100)
            sock.send(bytes(65507))
            assert echoed(sock, b"") == b""
        found = server.stop()
        assert found == {
            "received": 4,
            "echoed": 2,
            "dropped": 2,
            "too_large": 2,
            "received-bytes": 65708,
            "echoed-bytes": 100,
            "dropped-bytes": 65608,
        }

    def test_onlyEmpty(self, processes: Processes) -> None:
        """With 0 only empty datagrams are answered."""
        server = processes.server("--max-payload", "0")
        with client(server.addresses[0]) as sock:
            sock.send(b"x")
            assert echoed(sock, b"") == b""
        assert server.stop()["too_large"] == 1

    def test_receiveBuffer(self, processes: Processes) -> None:
        """A size that the system grants is taken without a word."""
        server = processes.server("--receive-buffer", "64k")
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
        server.stop()
        assert "receive buffer" not in server.process.stdout

    @onlyLinux
    def test_receiveBufferByForce(self, processes: Processes) -> None:
        """Who may, gets more than the system's limit."""
        limit = Path("/proc/sys/net/core/rmem_max")
        size = int(limit.read_text()) + 65536 if limit.exists() else 2**24
        with udpSocket() as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_RCVBUFFORCE, size)
            except PermissionError:
                pytest.skip("only who may administer the network has the force")
        server = processes.server("--receive-buffer", str(size))
        server.stop()
        assert "receive buffer" not in server.process.stdout

    @onlyLinux
    def test_receiveBufferTooLarge(self, processes: Processes) -> None:
        """
        Others are warned, on each address, of how much less they got and what to do about it; the server runs all the same.
        """
        unprivileged = without("net_admin")
        server = processes.server("--receive-buffer", "1023m", twistd=[*unprivileged, *command("twistd"), "-n"])
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
        server.stop()
        warnings = [line for line in server.log() if "receive buffer" in line]
        assert len(warnings) == len(server.addresses)
        host, port = server.addresses[0]
        with udpSocket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**30 - 2**20)
            granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        assert warnings[0].startswith(
            f"{host}:{port} has a receive buffer of {granted} bytes, not {1023 * 2**20}: the system's limit is lower"
        )
        assert f"net.core.rmem_max={1023 * 2**20}" in warnings[0]

    @pytest.mark.parametrize("timeout", ["0", "500ms"])
    def test_writeTimeout(self, processes: Processes, timeout: str) -> None:
        """A timeout for a full send queue does nothing to replies that the system takes at once."""
        server = processes.server("--write-timeout", timeout)
        with client(server.addresses[0]) as sock:
            for _ in range(20):
                sock.send(b"hello")
            for _ in range(20):
                assert sock.recv(100) == b"hello"
        assert server.stop()["echoed"] == 20


@cache
def usageStatus() -> int:
    """The status that this release of C{twistd} ends with when its own options are wrong: the older ones have 0."""
    return subprocess.run([*command("twistd"), "--nonsense"], capture_output=True, check=False, timeout=PATIENCE).returncode


class UsageTests:
    """Wrong options: one sentence, and the status, as C{twistd} has them for its own, and no traceback."""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            *[(["--port", text], f"--port: port must be 0 to 65535, got {text!r}") for text in ("99999", "-1", "x", "", "1.5")],
            *[
                (
                    ["--interface", text],
                    f"--interface: interface must be an IP address, as in 127.0.0.1, ::1 or 0.0.0.0, got {text!r}",
                )
                for text in ("localhost", "127.0.0.1:1234", "[::1]", "")
            ],
            (
                ["--interface", "::1", "--interface", "127.0.0.1", "--interface", "::1"],
                "--interface: ::1 is given twice: once is enough",
            ),
            (["--interface", "0:0::1", "--interface", "::1"], "--interface: ::1 is given twice: once is enough"),
            (
                ["--interface", "127.0.0.1", "--interface", "0.0.0.0"],
                "--interface: 127.0.0.1 is in 0.0.0.0 already: one of them is enough",
            ),
            *[
                (
                    ["--log-datagrams", text],
                    f"--log-datagrams: rate must be 0 to 1000000000 datagrams a second, or all, got {text!r}",
                )
                for text in ("-1", "1.5", "some")
            ],
            *[
                (
                    ["--write-timeout", text],
                    f"--write-timeout: duration must be 0s to 366 days, as in 0.5s or 500ms, got {text!r}",
                )
                for text in ("nan", "-1", "inf", "x", "99999999999999999999")
            ],
            *[
                (
                    ["--receive-buffer", text],
                    f"--receive-buffer: size must be 1 byte to less than 1g, as in 65536 or 64k, got {text!r}",
                )
                for text in ("0", "-1", "4x", "1g")
            ],
            *[
                (["--max-payload", text], f"--max-payload: payload size must be 0 to 65527 bytes, got {text!r}")
                for text in ("70000", "-1", "x")
            ],
            (["--nonsense"], "nonsense"),
            (["stray"], "Wrong number of arguments."),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_server(self, processes: Processes, options: list[str], sentence: str) -> None:
        """Each of the server's options."""
        self.refused(processes.run("twistd", "-n", "udpecho", "--port", "0", *options), sentence)
        assert os.listdir(processes.directory) == []

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ([], "--host: the server's name or IP address must be given"),
            (["--host", ""], "--host: the server's name or IP address must be given"),
            (["--host", "h", "--port", "0"], "--port: port must be 1 to 65535, got '0'"),
            (["--host", "h", "--timeout", "nan"], "--timeout: duration must be 0s to 366 days, as in 0.5s or 500ms, got 'nan'"),
            (
                ["--host", "h", "--bind", "nowhere"],
                "--bind: local address must be an IP address, as in 127.0.0.1, got 'nowhere'",
            ),
            (["--host", "h", "--chunk", "0"], "--chunk: payload size must be 1 to 65527 bytes, got '0'"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_client(self, processes: Processes, options: list[str], sentence: str) -> None:
        """Each of the client's options."""
        self.refused(processes.run("twistd", "-n", "udpecho-client", *options), sentence)

    def refused(self, process: Process, sentence: str) -> None:
        """Look that a process that is over has said a sentence in one line."""
        said = everything(process)
        assert process.status == usageStatus(), process
        assert len([line for line in said.splitlines() if sentence in line]) == 1, process
        assert "Traceback" not in said, process


class StopTests:
    """C{SIGTERM} and C{SIGINT}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_answersWhatIsQueued(self, processes: Processes, reactor: str) -> None:
        """What came before the stop is answered, more than one turn's worth, and is in the sums."""
        server = processes.server("--log-datagrams", "0", twistd=["twistd", "-n", "--reactor", reactor])
        number = 200
        with client(server.addresses[0]) as sock:
            server.process.signal(signal.SIGSTOP)
            for one in range(number):
                sock.send(struct.pack("!I", one))
            server.process.signal(signal.SIGTERM)
            server.process.signal(signal.SIGCONT)
            replies = [struct.unpack("!I", sock.recv(100))[0] for _ in range(number)]
        server.process.finish()
        assert replies == list(range(number))
        found = sums(server.process.stdout)
        assert found["received"] == found["echoed"] == number
        assert "Traceback" not in everything(server.process)

    def test_interrupt(self, processes: Processes) -> None:
        """An interrupt at the terminal stops it as C{SIGTERM} does."""
        server = processes.server()
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
        server.process.signal(signal.SIGINT)
        server.process.finish()
        assert "Traceback" not in everything(server.process)
        assert sums(server.process.stdout)["echoed"] == 1

    def test_freesThePort(self, processes: Processes) -> None:
        """The next server has the port at once."""
        first = processes.server()
        port = first.addresses[0][1]
        first.stop()
        second = processes.server(port=port)
        assert second.addresses == first.addresses
        second.stop()


class OddDatagramTests:
    """Whatever a sender sends, there is no traceback, and the sums add up."""

    def test_sizes(self, processes: Processes) -> None:
        """The empty one and the longest are answered."""
        server = processes.server()
        total = 0
        for address, longest in zip(server.addresses, (65507, 65527)):
            with client(address) as sock:
                for size in (0, 1, 8192, 8193, 40_000, longest):
                    payload = os.urandom(size)
                    assert echoed(sock, payload) == payload
                    total += size
        found = server.stop()
        assert found["echoed"] == 6 * len(server.addresses)
        assert found["echoed-bytes"] == total

    @onlyLinux
    def test_broadcast(self, processes: Processes) -> None:
        """What was sent to a broadcast address is not answered."""
        server = processes.server("--interface", "0.0.0.0")
        port = server.addresses[0][1]
        with udpSocket("0.0.0.0") as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"hello", ("127.255.255.255", port))
            with client(("127.0.0.1", port)) as other:
                assert echoed(other, b"hello") == b"hello"
            assert not select.select([sock], [], [], 0)[0]
        found = server.stop()
        assert (found["received"], found["echoed"], found["not_allowed"]) == (2, 1, 1)

    @onlyLinux
    def test_multicast(self, processes: Processes) -> None:
        """Nor is what was sent to a group that somebody on this machine has joined."""
        server = processes.server("--interface", "0.0.0.0")
        port = server.addresses[0][1]
        group = socket.inet_aton("239.255.77.77")
        with udpSocket("0.0.0.0") as member, udpSocket("127.0.0.1") as sock:
            try:
                member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton("127.0.0.1"))
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                sock.sendto(b"hello", (socket.inet_ntoa(group), port))
            except OSError:
                pytest.skip("the loopback interface carries no multicast here")
            with client(("127.0.0.1", port)) as other:
                assert echoed(other, b"hello") == b"hello"
            assert not select.select([sock], [], [], 0)[0]
        found = server.stop()
        assert found["echoed"] == 1
        # A group's datagrams have one hop by default, and so none for a reply.
        assert found.get("not_allowed", 0) + found.get("loop_guard", 0) == found["received"] - 1

    @needsPrivilege
    def test_fromPortZero(self, processes: Processes) -> None:
        """
        A datagram that says it came from port 0 cannot be answered, and costs that one reply only, if nothing else refuses it.
        """
        server = processes.server("--interface", "127.0.0.1", "--no-loop-guard")
        port = server.addresses[0][1]
        try:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        except PermissionError:
            pytest.skip("raw sockets are forbidden here")
        with raw:
            # Source port, destination port, length, no checksum (RFC 768).
            raw.sendto(struct.pack("!HHHH", 0, port, 13, 0) + b"hello", ("127.0.0.1", 0))
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hi") == b"hi"
        assert server.stop() == {
            "received": 2,
            "echoed": 1,
            "dropped": 1,
            "send_failed": 1,
            "received-bytes": 7,
            "echoed-bytes": 2,
            "dropped-bytes": 5,
        }
        assert "packet-received: bytes=5 from=127.0.0.1:0" in server.log()

    def test_unansweredClient(self, processes: Processes) -> None:
        """A client that has gone before its reply comes does no harm to the next one."""
        server = processes.server()
        for _ in range(3):
            with client(server.addresses[0]) as sock:
                server.process.signal(signal.SIGSTOP)
                sock.send(b"hello")
            server.process.signal(signal.SIGCONT)
        with client(server.addresses[0]) as sock:
            assert echoed(sock, b"hello") == b"hello"
        assert server.stop()["echoed"] == 4


class ClientTests:
    """C{twistd -n udpecho-client}."""

    @pytest.fixture
    def plain(self) -> Iterator[socket.socket]:
        """A plain socket as server."""
        with udpSocket() as sock:
            yield sock

    def start(self, processes: Processes, plain: socket.socket, *options: str, reactor: str = "select", **how: Any) -> Process:
        """Start the client of a plain socket."""
        host, port = plain.getsockname()[:2]
        return processes.start(
            *["twistd", "-n", "--reactor", reactor, "udpecho-client", "--host", host, "--port", str(port), *options], **how
        )

    def finished(self, process: Process) -> list[str]:
        """
        Wait until a client has stopped, and look that it did so quietly.

        @return: the lines of its log that are its own.
        """
        process.finish()
        assert "Traceback" not in everything(process), process
        assert not process.stderr, process
        return re.findall(r"\[udpecho\.[^\]]*\] (.*)$", process.stdout, re.MULTILINE)

    @pytest.mark.parametrize("input", ["file", "pipe", "null"])
    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_reactors(self, processes: Processes, plain: socket.socket, reactor: str, input: str) -> None:
        """
        On each reactor standard input, be it a file, a pipe or C{/dev/null}, goes out as one datagram; it and its reply are
        logged, then the process is over, with status 0.
        """
        payload = b"" if input == "null" else b"hello"
        (processes.directory / "input").write_bytes(payload)
        with (processes.directory / "input").open("rb") as file:
            how: dict[str, dict[str, Any]] = {"file": {"stdin": file}, "pipe": {"feed": payload}, "null": {}}
            process = self.start(processes, plain, reactor=reactor, **how[input])
        datagram, peer = plain.recvfrom(100)
        plain.sendto(datagram, peer)
        lines = self.finished(process)
        assert datagram == payload
        assert lines[:2] == [
            f"packet-written: bytes={len(payload)}",
            f"packet-received: bytes={len(payload)} from={written(plain)}",
        ]
        assert process.status == 0
        assert sorted(os.listdir(processes.directory)) == ["input"]

    @needsIPv6
    def test_ipv6(self, processes: Processes) -> None:
        """The peer's IPv6 address is in brackets in the log."""
        server = processes.server()
        process = processes.start(
            *["twistd", "-n", "--pidfile=", "udpecho-client", "--host", "::1", "--port", str(server.addresses[1][1])],
            feed=b"hello",
        )
        assert self.finished(process)[:2] == [
            "packet-written: bytes=5",
            f"packet-received: bytes=5 from=[::1]:{server.addresses[1][1]}",
        ]
        server.stop()

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_refused(self, processes: Processes, plain: socket.socket, reactor: str) -> None:
        """Where nothing listens, the sentence is logged, and the process is over."""
        peer = written(plain)
        process = self.start(processes, plain, "--timeout", "60", reactor=reactor, stdin=subprocess.PIPE)
        plain.close()
        process.write(b"hello")
        process.closeInput()
        assert self.finished(process) == [
            "packet-written: bytes=5",
            f"{peer} refused the datagram: nothing listens on that port",
        ]

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_timeout(self, processes: Processes, plain: socket.socket, reactor: str) -> None:
        """Without a reply, so it is."""
        process = self.start(processes, plain, "--timeout", "50ms", reactor=reactor, feed=b"hello")
        assert self.finished(process)[:2] == ["packet-written: bytes=5", f"no reply from {written(plain)} within 0.05 s"]

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_unresolvable(self, processes: Processes, reactor: str) -> None:
        """Without an address for the name, so it is."""
        process = processes.start(
            *["twistd", "-n", "--reactor", reactor, "udpecho-client", "--host", "nosuch.invalid", "--port", "9"], feed=b"hello"
        )
        (line,) = self.finished(process)
        assert "no address for 'nosuch.invalid'" in line

    def test_bindTaken(self, processes: Processes, plain: socket.socket) -> None:
        """Without its local address, so it is; the sentence names that address."""
        with udpSocket() as taken:
            process = self.start(processes, plain, "--bind", written(taken), feed=b"hello")
            (line,) = self.finished(process)
            assert written(taken) in line
            assert os.strerror(errno.EADDRINUSE) in line

    def test_tooLong(self, processes: Processes, plain: socket.socket) -> None:
        """So it is with an input that no datagram can carry."""
        (line,) = self.finished(self.start(processes, plain, feed=bytes(65508)))
        assert "65507" in line

    @pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that can be opened but not read")
    def test_unreadable(self, processes: Processes, plain: socket.socket) -> None:
        """So it is with an input that cannot be read, and the sentence says that it is about the input."""
        with open("/proc/self/mem", "rb", buffering=0) as file:
            process = self.start(processes, plain, stdin=file)
        (line,) = self.finished(process)
        assert line == f"cannot read standard input: {os.strerror(errno.EIO)}"

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_closedInput(self, processes: Processes, reactor: str) -> None:
        """So it is without any standard input, whichever of the reactor's descriptors took its number."""
        arguments = ["-n", "--reactor", reactor, "udpecho-client", "--host", "127.0.0.1", "--port", str(unusedPort())]
        process = processes.run("sh", "-c", f"exec {shlex.join([*command('twistd'), *arguments])} <&-")
        assert "Traceback" not in everything(process)
        assert everything(process).count("standard input is closed") == 1
        assert "packet-written" not in process.stdout

    def test_chunks(self, processes: Processes, plain: socket.socket) -> None:
        """With C{--chunk} it goes in pieces, one after the other; the sums are logged at the end."""
        process = self.start(processes, plain, "--chunk", "4", feed=b"abcdefghij")
        pieces = []
        for _ in range(3):
            datagram, peer = plain.recvfrom(100)
            assert not select.select([plain], [], [], 0.02)[0]
            plain.sendto(datagram, peer)
            pieces.append(datagram)
        lines = self.finished(process)
        assert pieces == [b"abcd", b"efgh", b"ij"]
        expected = []
        for size in (4, 4, 2):
            expected += [f"packet-written: bytes={size}", f"packet-received: bytes={size} from={written(plain)}"]
        assert lines == [*expected, "sent=3 answered=3 unanswered=0 sent-bytes=10 answered-bytes=10"]

    @pytest.mark.parametrize(("options", "answered"), [(["--no-verify"], True), ([], False)])
    def test_verify(self, processes: Processes, plain: socket.socket, options: list[str], answered: bool) -> None:
        """A datagram that is not what was sent is the reply only with C{--no-verify}."""
        process = self.start(processes, plain, "--timeout", "0.5", *options, feed=b"hello")
        _, peer = plain.recvfrom(100)
        plain.sendto(b"other!", peer)
        lines = self.finished(process)
        if answered:
            assert lines[1] == f"packet-received: bytes=6 from={written(plain)}"
        else:
            assert lines[1] == f"no reply from {written(plain)} within 0.5 s; 1 other datagram from it ignored"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_stoppedWhileItWaits(self, processes: Processes, plain: socket.socket, reactor: str, number: int) -> None:
        """A signal ends the wait for the reply; that is logged, with the sums."""
        process = self.start(processes, plain, "--timeout", "60", reactor=reactor, feed=b"hello")
        plain.recv(100)
        process.until(r"packet-written: bytes=5$")
        process.signal(number)
        assert self.finished(process) == [
            "packet-written: bytes=5",
            "interrupted: sent=1 answered=0 unanswered=1 sent-bytes=5 answered-bytes=0",
        ]

    def test_stoppedWhileItReads(self, processes: Processes, plain: socket.socket) -> None:
        """So it ends the wait for input."""
        process = self.start(processes, plain, "--chunk", "4", stdin=subprocess.PIPE)
        process.write(b"abcdef")
        plain.sendto(*plain.recvfrom(100))
        process.until("packet-received: bytes=4")
        process.signal(signal.SIGTERM)
        assert self.finished(process)[-1] == "interrupted: sent=1 answered=1 unanswered=0 sent-bytes=4 answered-bytes=4"
