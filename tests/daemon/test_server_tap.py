"""Tests of C{twistd udpecho}, each on a real process."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import socket
import struct
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.guards import needsIPv6, needsRoot, onlyLinux, without
from tests.support.processes import Process, Processes, Server, command, eventually, isRunning, logged, sums
from tests.support.running import REACTORS, hasIPv6, udpSocket, unusedPort
from tests.support.server import client, datagramLines, echoed, everything, isRefused, written
from udpecho.net.linux import sockopt
from udpecho.server.settings import OPTIONS


class ServerTests:
    """C{twistd -n udpecho}."""

    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_reactors(self, processes: Processes, reactor: str) -> None:
        """On each reactor it logs where it answers, echoes over IPv4 and IPv6, logs both ways with the four lines of the
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
        """On loopback alone it logs which options open it to the network."""
        server = processes.server()
        server.stop()
        assert [line for line in server.log() if "--interface 0.0.0.0 --interface ::" in line]

    def test_help(self, processes: Processes) -> None:
        """C{twistd} lists the plugin, and shows its options."""
        assert re.search(r"^ +udpecho +A UDP echo server", processes.run("twistd", "--help").stdout, re.MULTILINE)
        shown = processes.run("twistd", "udpecho", "--help").stdout
        assert all(f"--{option.name}" in shown for option in OPTIONS.values())

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
        stopped = sorted(line for line in logged(process.stdout) if line.startswith("stopped: "))
        assert [line.partition(" dropped")[0] for line in stopped] == ["stopped: received=1 echoed=1"] * 2


class LogDatagramsTests:
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
        """It goes into the background once it answers, with its process identifier and its log in files, and at C{SIGTERM} logs
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

    def test_badOption(self, processes: Processes) -> None:
        """A wrong option gets its sentence."""
        refused = processes.run("twist", "udpecho", "--port", "x")
        assert refused.status not in (0, None)
        assert everything(refused).count("--port: ") == 1
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
        """All of IPv4 and all of IPv6 go together on one port; each reply comes from the address of its request, and there is
        no line about opening it to the network.
        """
        server = processes.server("--interface", "0.0.0.0", "--interface", "::")
        port = server.addresses[0][1]
        assert server.addresses == [("0.0.0.0", port), ("::", port)]
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            with client((host, port)) as sock:
                assert echoed(sock, b"hello") == b"hello"
        assert server.stop()["echoed"] == 3
        assert "only this machine" not in server.process.stdout

    @pytest.mark.isolated
    def test_ownDefault(self, processes: Processes) -> None:
        """Without C{--port} it is 1234."""
        try:
            with udpSocket(port=1234):
                pass
        except OSError:
            pytest.skip("port 1234 is taken")
        server = Server(processes.start("twistd", "-n", "udpecho"))
        assert server.addresses[0] == ("127.0.0.1", 1234)
        server.stop()

    @needsRoot
    @pytest.mark.isolated
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
        """The same in the background: the terminal shows it, and the log has the line too."""
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
        # A kernel that has IPv6 makes such a socket though no interface has an address for it.
        number = errno.EADDRNOTAVAIL
        try:
            socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM).close()
        except OSError:
            number = errno.EAFNOSUPPORT
        refused = processes.run("twistd", "-n", "udpecho", "--port", "1234", "--interface", host)
        named = f"[{host}]" if ":" in host else host
        self.refused(refused, f"cannot listen on {named}:1234: {os.strerror(number)}")

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or not os.path.exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        reason="it is unknown which ports are for root",
    )
    def test_forbidden(self, processes: Processes) -> None:
        """A port that is for root gets one line with the reason."""
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 7:
            pytest.skip("everybody may have port 7 here")
        unprivileged = without("net_bind_service")
        refused = processes.run(*unprivileged, *command("twistd"), "-n", "udpecho", "--port", "7")
        self.refused(refused, f"cannot listen on 127.0.0.1:7: {os.strerror(errno.EACCES)}")
        assert "for root" in everything(refused)

    def refused(self, process: Process, sentence: str) -> None:
        """Check that a process has ended with a sentence, once, and nothing worse."""
        output = everything(process)
        assert process.status == 1, process
        assert output.count(sentence) == 1, process
        assert "Traceback" not in output, process


class LimitTests:
    """C{--max-payload}, C{--receive-buffer} and C{--write-timeout}."""

    def test_maxPayload(self, processes: Processes) -> None:
        """Oversized datagrams are dropped, and counted; others are answered."""
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
        """A size that the system grants gets no warning."""
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
        """Others are warned, on each address, of how much less they got and what to do about it; the server
        runs all the same.
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
        """A timeout for the time that the send queue is full does nothing to replies that the system takes at once."""
        server = processes.server("--write-timeout", timeout)
        with client(server.addresses[0]) as sock:
            for _ in range(20):
                sock.send(b"hello")
            for _ in range(20):
                assert sock.recv(100) == b"hello"
        assert server.stop()["echoed"] == 20


class UsageTests:
    """Wrong options; what is wrong, and how it is reported, has its tests in C{test_server_options}."""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--port", "x"], "--port: "),
            (["--interface", "::1", "--interface", "::1"], "--interface: each must be given once, got ::1 twice"),
            (["--nonsense"], "nonsense"),
        ],
    )
    def test_refused(self, processes: Processes, options: list[str], sentence: str) -> None:
        """One sentence, and the status, as C{twistd} has them for its own options; no traceback, and no file."""
        isRefused(processes.run("twistd", "-n", "udpecho", *options), sentence)
        assert os.listdir(processes.directory) == []


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
    """No datagram makes a traceback, and the sums add up."""

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

    @needsRoot
    @pytest.mark.isolated
    def test_fromPortZero(self, processes: Processes) -> None:
        """A datagram whose source is port 0 cannot be answered, and costs that one reply only, if nothing else refuses it."""
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
