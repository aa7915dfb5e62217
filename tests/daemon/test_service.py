"""Tests of L{udpecho.daemon.service}: real servers with metrics, signals, a configuration file, and a stand-in for systemd."""

from __future__ import annotations

import errno
import re
import select
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import error

from tests.support.manager import Manager
from tests.support.processes import Process, Processes, Server, eventually
from tests.support.running import Run, hasIPv6, udpSocket
from udpecho.daemon.service import Daemon, Reloaded
from udpecho.guard.policy import GuardPolicy
from udpecho.net import reuseport
from udpecho.server.service import EchoService

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
canShare = pytest.mark.skipif(not reuseport.canShare, reason="processes cannot share a port here")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in a directory of the test's own."""
    with Processes(tmp_path) as started:
        yield started


def unusedTCPPort() -> int:
    """A TCP port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def echoed(address: tuple[str, int], payload: bytes = b"hello", times: int = 1) -> int:
    """
    Send a datagram some times.

    @return: how often it came back.
    """
    with udpSocket("::1" if ":" in address[0] else "127.0.0.1") as sock:
        sock.settimeout(0.5)
        for _ in range(times):
            sock.sendto(payload, address)
        found = 0
        try:
            while found < times:
                assert sock.recv(65535) == payload
                found += 1
        except TimeoutError:
            pass
        return found


def fetch(port: int, path: str) -> tuple[int, str]:
    """@return: the status and the text of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def values(port: int) -> dict[str, float]:
    """The metrics, by name and labels."""
    status, text = fetch(port, "/metrics")
    assert status == 200
    return {name: float(value) for name, value in re.findall(r"^(udpecho_\S+) (\S+)$", text, re.MULTILINE)}


class MetricsTests:
    """C{--metrics}."""

    @pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=canShare)], ids=["one", "workers"])
    def test_pages(self, processes: Processes, workers: list[str]) -> None:
        """The page has what was received, echoed and dropped, of all workers together; the server is healthy and ready."""
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--max-payload", "100", "--metrics", f"tcp:{port}:interface=127.0.0.1"], *workers
        )
        for _ in range(8):
            assert echoed(server.addresses[0]) == 1
        assert echoed(server.addresses[0], bytes(101)) == 0
        found = values(port)
        assert found["udpecho_received_datagrams_total"] == 9
        assert found["udpecho_received_bytes_total"] == 8 * 5 + 101
        assert found["udpecho_echoed_datagrams_total"] == 8
        assert found['udpecho_dropped_datagrams_total{reason="too_large"}'] == 1
        assert found['udpecho_dropped_datagrams_total{reason="rate_limited"}'] == 0
        assert found["udpecho_batch_entries_count"] == 9
        assert found["udpecho_workers"] == (2 if workers else 1)
        assert found["udpecho_limiter_fill_ratio"] == 0
        assert fetch(port, "/-/healthy")[0] == fetch(port, "/-/ready")[0] == 200
        sums = server.stop()
        assert sums["received"] > 9

    def test_portTaken(self, processes: Processes) -> None:
        """If the page cannot be served nothing is, and one line says why."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            process = processes.run("twistd", "-n", "udpecho", "--port", "0", "--metrics", where)
        assert process.status == 1
        said = process.stdout + process.stderr
        assert said.count(f"udpecho: cannot serve metrics on {where}: ") == 1
        assert "answering on" not in said
        assert "Traceback" not in said

    def test_nowhere(self, processes: Processes) -> None:
        """A path in a directory that is not there is said in one line too."""
        process = processes.run("twistd", "-n", "udpecho", "--port", "0", "--metrics", "unix:/nosuch/udpecho")
        said = process.stdout + process.stderr
        assert process.status == 1
        assert "udpecho: cannot serve metrics on unix:/nosuch/udpecho: No such file or directory" in said
        assert "Traceback" not in said

    @pytest.mark.parametrize("where", ["", "tcp", "tcp:http", "udp:9107", "9107"])
    def test_wrong(self, processes: Processes, where: str) -> None:
        """What is no endpoint is said in one line."""
        process = processes.run("twistd", "-n", "udpecho", "--metrics", where)
        said = process.stdout + process.stderr
        assert "--metrics: " in said
        assert "Traceback" not in said

    def test_healthyUnderItsLimits(self, processes: Processes) -> None:
        """A server whose guard drops the self-echo is well: it has looked at it."""
        port = unusedTCPPort()
        processes.server(
            *["--interface", "127.0.0.1", "--allow", "192.0.2.0/24", "--metrics", f"tcp:{port}:interface=127.0.0.1"]
        )
        assert fetch(port, "/-/healthy")[0] == 200


class SignalTests:
    """What signals do."""

    def test_sums(self, processes: Processes) -> None:
        """C{SIGUSR1} logs the sums."""
        server = processes.server("--interface", "127.0.0.1")
        assert echoed(server.addresses[0]) == 1
        server.process.signal(signal.SIGUSR1)
        server.process.until(r"counters: received=1 echoed=1 dropped=0 .*")
        server.stop()

    def test_dryRun(self, processes: Processes) -> None:
        """What a dry run would have dropped is in the log, at the stop in sum, and among the metrics."""
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--allow", "192.0.2.0/24", "--dry-run"],
            *["--metrics", f"tcp:{port}:interface=127.0.0.1"],
        )
        assert echoed(server.addresses[0], times=3) == 3
        assert values(port)['udpecho_would_drop_datagrams_total{reason="not_allowed"}'] == 3
        server.process.until(r"datagrams-would-drop: reason=not_allowed datagrams=3")
        server.stop()
        assert "a dry run: 3 would have been dropped (not_allowed=3)" in server.log()

    def test_quiet(self, processes: Processes) -> None:
        """A check of its health has no line in the log."""
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--log-datagrams", "0", "--metrics", f"tcp:{port}:interface=127.0.0.1"]
        )
        server.process.until("only this machine can reach")
        before = server.log()
        assert fetch(port, "/-/healthy")[0] == 200
        server.process.signal(signal.SIGUSR1)
        server.process.until("counters: received=1 ")
        assert [line for line in server.log() if line not in before and not line.startswith("counters: ")] == []

    def test_drops(self, processes: Processes) -> None:
        """Drops are logged soon, with where they came from, and at the stop what was not told yet."""
        server = processes.server("--interface", "127.0.0.1", "--allow", "192.0.2.0/24")
        assert echoed(server.addresses[0], times=3) == 0
        server.process.until(r"datagrams-dropped: reason=not_allowed datagrams=3 in \d s; busiest 127\.0\.0\.1/32 \(3\)$")
        server.stop()

    @canShare
    def test_dropsOfWorkers(self, processes: Processes) -> None:
        """The drops of all workers are in one line."""
        server = processes.server("--interface", "127.0.0.1", "--allow", "192.0.2.0/24", "--workers", "2")
        for _ in range(2):
            assert echoed(server.addresses[0]) == 0
        server.process.until(r"datagrams-dropped: reason=not_allowed datagrams=\d+ in \d+ s")
        assert server.stop()["not_allowed"] >= 1


class ReloadTests:
    """C{--config} and C{SIGHUP}."""

    def start(self, processes: Processes, text: str, *options: str) -> tuple[Server, Path]:
        path = processes.directory / "udpecho.toml"
        path.write_text(text)
        return processes.server(*options, "--config", str(path)), path

    @pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=canShare)], ids=["one", "workers"])
    def test_reload(self, processes: Processes, workers: list[str]) -> None:
        """
        The file is read again while datagrams are answered: what can be applied is, the rest is named, and one that cannot be
        used changes nothing.
        """
        server, path = self.start(processes, 'interface = "127.0.0.1"\nlog-datagrams = 0\n', *workers)
        (address,) = server.addresses
        assert echoed(address) == 1
        path.write_text('interface = "127.0.0.1"\nlog-datagrams = 0\nallow = "192.0.2.0/24"\nwrite-timeout = 1\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("the configuration is read again: allow$")
        server.process.until("a restart is needed for write-timeout$")
        eventually(lambda: echoed(address) == 0 or None, "the new policy")
        path.write_text('allow = ["everybody"]\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("the configuration stays as it is: .*udpecho.toml:1: allow: network must be .*, got 'everybody'")
        path.write_text('interface = "127.0.0.1"\nlog-datagrams = "all"\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("the configuration is read again: .*allow")
        eventually(lambda: echoed(address, b"logged") or None, "the old policy")
        server.process.until("packet-written: bytes=6 to=")
        server.stop()

    def test_nothingLost(self, processes: Processes) -> None:
        """Under load a reload loses nothing."""
        server, path = self.start(processes, 'interface = "127.0.0.1"\nlog-datagrams = 0\nreceive-buffer = "4M"\n')
        (address,) = server.addresses
        with udpSocket() as sock:
            sock.connect(address)
            sent = came = 0
            for number in range(3000):
                if number % 500 == 100:
                    path.write_text(f'interface = "127.0.0.1"\nlog-datagrams = 0\nreceive-buffer = "4M"\nrate = {number}\n')
                    server.process.signal(signal.SIGHUP)
                sock.send(b"%d" % number)
                sent += 1
                while sent - came > 32 or (select.select([sock], [], [], 0)[0]):
                    sock.recv(100)
                    came += 1
            while came < sent:
                sock.recv(100)
                came += 1
        assert server.stop()["echoed"] == sent
        assert any("read again: rate" in line for line in server.log())

    def test_withoutFile(self, processes: Processes) -> None:
        """Without a file C{SIGHUP} is told of, and changes nothing."""
        server = processes.server("--interface", "127.0.0.1")
        server.process.signal(signal.SIGHUP)
        server.process.until("there is no configuration to read again: --config FILE names one$")
        assert echoed(server.addresses[0]) == 1
        server.stop()

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("port = 99999", ":1: port: port must be 0 to 65535, got '99999'"),
            ("prot = 7\n", ":1: prot: .*port"),
            ("port = ", ":1"),
            ("interface = 7", "interface"),
        ],
    )
    def test_wrong(self, processes: Processes, text: str, complaint: str) -> None:
        """A wrong file is told of in one line, and nothing is started; C{--check-config} tells the same."""
        path = processes.directory / "udpecho.toml"
        path.write_text(text)
        started = processes.run("twistd", "-n", "udpecho", "--config", str(path))
        checked = processes.run("twistd", "-n", "udpecho", "--check-config", str(path))
        assert checked.status == 1
        for process in (started, checked):
            said = process.stdout + process.stderr
            assert re.search(complaint, said)
            assert "Traceback" not in said
            assert "answering" not in said

    def test_checked(self, processes: Processes) -> None:
        """C{--check-config} says that a file is right."""
        path = processes.directory / "udpecho.toml"
        path.write_text("port = 1234\n")
        process = processes.run("twistd", "-n", "udpecho", "--check-config", str(path))
        assert (process.status, process.stdout) == (0, f"{path}: ok\n")


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A manager that holds an IPv4 socket, and an IPv6 one where the machine has that."""
    sockets: list[tuple[str, socket.socket]] = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if host == "127.0.0.1" or hasIPv6():
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
            sock.bind((host, 0))
            sockets.append((f"echo-{len(sockets)}", sock))
    with Manager(sockets, watchdog=0.4) as found:
        yield found


class SystemdTests:
    """A server as a service of systemd."""

    def start(self, manager: Manager, processes: Processes, *options: str) -> Process:
        return manager.start(processes, "twistd", "-n", "--pidfile=", "udpecho", "--log-datagrams", "0", *options)

    def test_life(self, manager: Manager, processes: Processes) -> None:
        """
        It serves on the sockets that it was given, says when it is ready and where, feeds the watchdog, and says when it stops.
        """
        process = self.start(manager, processes, "--socket-activation", "all")
        addresses = [sock.getsockname()[:2] for _, sock in manager.sockets]
        ready = manager.until("READY=1")
        assert ready["MAINPID"] == str(process.pid)
        assert str(addresses[0][1]) in ready["STATUS"]
        for address in addresses:
            assert echoed(address) == 1
        for _ in range(2):
            manager.until("WATCHDOG=1")
        process.signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert process.finish().status in (0, -signal.SIGTERM)
        assert not process.stderr

    def test_hangs(self, manager: Manager, processes: Processes) -> None:
        """A server that does not answer itself does not feed the watchdog."""
        process = self.start(manager, processes, "--socket-activation", "0")
        manager.until("WATCHDOG=1")
        process.signal(signal.SIGSTOP)
        manager.pending()
        assert not select.select([manager._notified], [], [], 0.5)[0]
        process.signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")

    def test_restartLosesNothing(self, manager: Manager, processes: Processes) -> None:
        """What comes while one server has stopped and the next has yet to start is answered by that."""
        (_, sock), *_ = manager.sockets
        with udpSocket() as client:
            client.connect(sock.getsockname())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
            sent = 0
            for _ in range(3):
                process = self.start(manager, processes, "--socket-activation", "all")
                manager.until("READY=1")
                for moment in range(3):
                    for _ in range(100):
                        client.send(b"%d" % sent)
                        sent += 1
                    if moment == 0:
                        process.signal(signal.SIGTERM)
                process.finish()
                for _ in range(100):
                    client.send(b"%d" % sent)
                    sent += 1
            process = self.start(manager, processes, "--socket-activation", "all")
            assert sorted(int(client.recv(100)) for _ in range(sent)) == list(range(sent))
            process.stop()

    def test_reload(self, manager: Manager, processes: Processes) -> None:
        """A reload is told of, and its end."""
        path = processes.directory / "udpecho.toml"
        path.write_text("rate = 5\n")
        process = self.start(manager, processes, "--socket-activation", "all", "--config", str(path))
        manager.until("READY=1")
        process.signal(signal.SIGHUP)
        assert int(manager.until("RELOADING=1")["MONOTONIC_USEC"]) > 0
        manager.until("READY=1")

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--socket-activation", "nobody"], "nobody"),
            (["--socket-activation", "all", "--port", "7"], "leave --port and --interface out"),
            (["--socket-activation", "all", "--interface", "::1"], "leave --port and --interface out"),
            pytest.param(["--socket-activation", "all", "--workers", "2"], "leave --workers out", marks=canShare),
        ],
    )
    def test_wrong(self, manager: Manager, processes: Processes, options: list[str], complaint: str) -> None:
        """What does not go together is said, and nothing is served."""
        process = self.start(manager, processes, *options).finish()
        assert process.status == 1
        assert complaint in process.stdout + process.stderr
        assert "Traceback" not in process.stdout + process.stderr

    def test_withoutManager(self, processes: Processes) -> None:
        """Without sockets that were passed there is one line that says so."""
        process = processes.run("twistd", "-n", "udpecho", "--socket-activation", "all")
        assert process.status == 1
        assert process.stderr.startswith("udpecho: ")
        assert process.stderr.count("\n") == 1


class DaemonTests:
    """L{Daemon} in this process."""

    def test_bindsAllOrNothing(self, runOnce: Run) -> None:
        """If a port is taken nothing is left bound."""

        async def test(reactor: Any) -> None:
            with udpSocket() as taken:
                echo = EchoService(reactor, taken.getsockname()[1], ["127.0.0.1"])
                daemon = Daemon(reactor, echo, {}, metrics="tcp:0:interface=127.0.0.1")
                with pytest.raises(error.CannotListenError) as caught:
                    daemon.privilegedStartService()
                assert caught.value.socketError.errno == errno.EADDRINUSE
                assert echo.addresses == []

        runOnce(test)

    def test_reload(self, runOnce: Run) -> None:
        """What is read again is applied to the guard and to the log."""

        async def test(reactor: Any) -> None:
            echo = EchoService(reactor, 0, ["127.0.0.1"])
            policy = GuardPolicy(rate=7)
            daemon = Daemon(reactor, echo, {}, reload=lambda: Reloaded(policy, 3, ("rate",), ()))
            before = signal.getsignal(signal.SIGHUP)
            daemon.startService()
            await echo.whenServing()
            daemon.reload()
            assert echo._guard.policy == policy  # type: ignore[attr-defined]
            assert echo._journals[0]._rate == 3
            await daemon.stopService()
            assert signal.getsignal(signal.SIGHUP) == before

        runOnce(test)
