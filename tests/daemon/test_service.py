"""Tests of L{udpecho.daemon.service}: real servers with metrics, signals, a configuration, and a stand-in for systemd."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import error
from twisted.python import usage
from twisted.python.failure import Failure

import udpecho
from tests.support.guards import needsSharing, tool
from tests.support.manager import Manager
from tests.support.pages import fetch, unusedTCPPort, values
from tests.support.processes import Process, Processes, Server, command, eventually
from tests.support.running import Run, hasIPv6, udpSocket, unusedPort
from tests.support.server import usageStatus
from udpecho.daemon.command_line import Changes
from udpecho.daemon.probe_tap import Options as ProbeOptions
from udpecho.daemon.server_tap import Options as ServerOptions
from udpecho.daemon.service import Daemon
from udpecho.daemon.states import failures
from udpecho.server.listeners import SilentWorker
from udpecho.server.service import EchoService
from udpecho.testing.memory_network import MemoryNetwork


def echoed(address: tuple[str, int], payload: bytes = b"hello", times: int = 1) -> None:
    """Send a datagram some times, and wait for as many replies."""
    with udpSocket("::1" if ":" in address[0] else "127.0.0.1") as sock:
        for _ in range(times):
            sock.sendto(payload, address)
        for _ in range(times):
            assert sock.recv(65535) == payload


def isAnswered(address: tuple[str, int], payload: bytes = b"hello") -> bool:
    """Send a datagram, and wait for a moment."""
    with udpSocket() as sock:
        sock.settimeout(0.5)
        sock.sendto(payload, address)
        try:
            return sock.recv(65535) == payload
        except TimeoutError:
            return False


def unanswered(address: tuple[str, int], payload: bytes = b"hello", times: int = 1) -> None:
    """Send a datagram some times that the server drops: what it does with them is in its counters and its log."""
    with udpSocket() as sock:
        for _ in range(times):
            sock.sendto(payload, address)


class MetricsTests:
    """C{--metrics}."""

    @pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=needsSharing)], ids=["one", "workers"])
    def test_pages(self, processes: Processes, workers: list[str]) -> None:
        """The page has the counters, of all workers together; the server is healthy and ready."""
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--max-payload", "100", "--metrics", f"tcp:{port}:interface=127.0.0.1"], *workers
        )
        for _ in range(8):
            echoed(server.addresses[0])
        unanswered(server.addresses[0], bytes(101))
        eventually(lambda: values(port)["udpecho_received_datagrams_total"] == 9, "the datagram that is too long")
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

    @pytest.mark.parametrize("command", [["udpecho", "--port", "0"], ["udpecho-probe", "--target", "127.0.0.1:7"]])
    def test_portTaken(self, processes: Processes, command: list[str]) -> None:
        """If the pages cannot be served, neither daemon starts: there is one line and an exit status."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            process = processes.run("twistd", "-n", "--pidfile=", *command, "--metrics", where)
        assert process.status == 1
        output = process.stdout + process.stderr
        reason = os.strerror(errno.EADDRINUSE)
        assert output.count(f"udpecho: cannot serve metrics on {where}: {reason}; choose another --metrics\n") == 1
        assert not re.search("answering on|probing|Traceback", output)

    @pytest.mark.parametrize("where", ["", "tcp", "tcp:http", "udp:9107", "9107"])
    @pytest.mark.parametrize(("options", "more"), [(ServerOptions, []), (ProbeOptions, ["--target", "127.0.0.1:7"])])
    def test_wrong(self, options: type[usage.Options], more: list[str], where: str) -> None:
        """A text that is no endpoint is a usage error of either daemon."""
        with pytest.raises(usage.UsageError, match=r"^--metrics: (endpoint|port) must be .*, got "):
            options().parseOptions([*more, "--metrics", where])

    @pytest.mark.parametrize(("options", "more"), [(ServerOptions, []), (ProbeOptions, ["--target", "127.0.0.1:7"])])
    def test_missing(self, options: type[usage.Options], more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the library, the usage error names what to install."""
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(usage.UsageError, match=r"^--metrics: metrics need prometheus-client: install udpecho\[metrics\]$"):
            options().parseOptions([*more, "--metrics", "tcp:0"])


class SignalTests:
    """Signals, and the log of drops."""

    def test_signals(self, processes: Processes) -> None:
        """C{SIGUSR1} logs the counters. C{SIGHUP} without a configuration is logged and changes nothing. A health check is
        counted and logs no line.
        """
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--log-datagrams", "0", "--metrics", f"tcp:{port}:interface=127.0.0.1"]
        )
        server.process.until("only this machine can reach")
        before = server.log()
        assert fetch(port, "/-/healthy")[0] == 200
        echoed(server.addresses[0])
        server.process.signal(signal.SIGUSR1)
        server.process.until(r"counters: received=2 echoed=2 dropped=0 ")
        server.process.signal(signal.SIGHUP)
        server.process.until("cannot reload: the server was started without --config FILE$")
        echoed(server.addresses[0])
        assert [line.partition(": ")[0] for line in server.log() if line not in before] == ["counters", "cannot reload"]
        server.stop()

    def test_dryRun(self, processes: Processes) -> None:
        """The drops of a dry run are in the log, at the stop as a sum, and in the metrics."""
        port = unusedTCPPort()
        server = processes.server(
            *["--interface", "127.0.0.1", "--allow", "192.0.2.0/24", "--dry-run"],
            *["--metrics", f"tcp:{port}:interface=127.0.0.1"],
        )
        echoed(server.addresses[0], times=3)
        assert values(port)['udpecho_would_drop_datagrams_total{reason="not_allowed"}'] == 3
        server.process.until(r"datagrams-would-drop: reason=not_allowed datagrams=3")
        server.stop()
        assert "dry run: 3 datagrams would have been dropped (not_allowed=3)" in server.log()

    def test_drops(self, processes: Processes) -> None:
        """Drops are logged soon, with their sources."""
        server = processes.server("--interface", "127.0.0.1", "--allow", "192.0.2.0/24")
        unanswered(server.addresses[0], times=3)
        server.process.until(r"datagrams-dropped: reason=not_allowed datagrams=3 in \d s; busiest 127\.0\.0\.1/32 \(3\)$")
        server.stop()

    @needsSharing
    def test_dropsOfWorkers(self, processes: Processes) -> None:
        """The drops of all workers are in one line."""
        server = processes.server("--interface", "127.0.0.1", "--allow", "192.0.2.0/24", "--workers", "2")
        for _ in range(2):
            unanswered(server.addresses[0])
        server.process.until(r"datagrams-dropped: reason=not_allowed datagrams=\d+ in \d+ s")
        assert server.stop()["not_allowed"] >= 1


class ReloadTests:
    """C{--config} and C{SIGHUP}."""

    def start(self, processes: Processes, text: str, *options: str) -> tuple[Server, Path]:
        path = processes.directory / "udpecho.toml"
        path.write_text(text)
        return processes.server(*options, "--config", str(path)), path

    @pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=needsSharing)], ids=["one", "workers"])
    def test_reload(self, processes: Processes, workers: list[str]) -> None:
        """A reload applies what can be applied while serving, and names the rest; a wrong file changes nothing."""
        server, path = self.start(processes, 'interface = "127.0.0.1"\nlog-datagrams = 0\n', *workers)
        (address,) = server.addresses
        echoed(address)
        path.write_text('interface = "127.0.0.1"\nlog-datagrams = 0\nallow = "192.0.2.0/24"\nwrite-timeout = 1\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("configuration reloaded: allow$")
        server.process.until("a restart is needed for write-timeout$")
        # Workers apply it when they have read the message.
        eventually(lambda: not isAnswered(address), "the new policy")
        server.process.until("datagrams-dropped: reason=not_allowed ")
        path.write_text('allow = ["everybody"]\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("the configuration is unchanged: .*udpecho.toml:1: allow: network must be .*, got 'everybody'")
        path.write_text('interface = "127.0.0.1"\nlog-datagrams = "all"\n')
        server.process.signal(signal.SIGHUP)
        server.process.until("configuration reloaded: .*allow.*log-datagrams|configuration reloaded: .*log-datagrams.*allow")
        eventually(lambda: isAnswered(address, b"logged"), "the old policy")
        server.process.until("packet-written: bytes=6 to=")
        server.stop()

    def test_nothingLost(self, processes: Processes) -> None:
        """Under load a reload loses nothing, and does not keep datagrams waiting."""
        text = 'interface = "127.0.0.1"\nlog-datagrams = 0\nreceive-buffer = "4M"\n'
        server, path = self.start(processes, text)
        waits = []
        with udpSocket() as sock:
            sock.connect(server.addresses[0])
            sent = replies = 0
            for rate in range(1, 7):
                path.write_text(f"{text}rate = {rate}\n")
                server.process.signal(signal.SIGHUP)
                longest = 0.0
                for _ in range(500):
                    sock.send(b"%d" % sent)
                    sent += 1
                    while sent - replies > 32 or select.select([sock], [], [], 0)[0]:
                        begin = time.monotonic()
                        sock.recv(100)
                        longest = max(longest, time.monotonic() - begin)
                        replies += 1
                server.process.until(f"(configuration reloaded: rate(.|\n)*){{{rate}}}")
                waits.append(longest)
            while replies < sent:
                sock.recv(100)
                replies += 1
        assert server.stop()["echoed"] == sent
        # The shortest one: a busy machine may keep any of them waiting, a reload that blocks does so each time.
        assert min(waits) < 0.5

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("port = 99999", ":1: port: port must be 0 to 65535, got '99999'"),
            ("prot = 7\n", ":1: prot: .*port"),
            ("port = ", ":1"),
            ("interface = 7", "interface"),
        ],
    )
    def test_wrong(self, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong file is a usage error of one line; C{--check-config} prints the same, and its exit status is 1."""
        path = tmp_path / "udpecho.toml"
        path.write_text(text)
        with pytest.raises(usage.UsageError, match=message) as error:
            ServerOptions().parseOptions(["--config", str(path)])
        with pytest.raises(SystemExit) as ended:
            ServerOptions().parseOptions(["--check-config", str(path)])
        assert ended.value.code == 1
        assert capsys.readouterr().out == f"{error.value}\n"

    def test_started(self, processes: Processes) -> None:
        """With a wrong file nothing is started, and there is no traceback."""
        path = processes.directory / "udpecho.toml"
        path.write_text("port = 99999")
        process = processes.run("twistd", "-n", "--pidfile=", "udpecho", "--config", str(path))
        assert process.status == usageStatus()
        output = process.stdout + process.stderr
        assert output.count(f"{path}:1: port: ") == 1
        assert "Traceback" not in output
        assert "answering" not in output

    def test_checked(self, processes: Processes) -> None:
        """C{--check-config} reports that a file is right."""
        path = processes.directory / "udpecho.toml"
        path.write_text("port = 1234\n")
        process = processes.run("twistd", "-n", "udpecho", "--check-config", str(path))
        assert (process.status, process.stdout) == (0, f"{path}: ok\n")


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Holds an IPv4 socket, and an IPv6 one where the machine has that, as systemd does."""
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
        """It serves on the passed sockets, notifies when it is ready and where, feeds the watchdog, notifies of a reload and
        its end, and of the stop.
        """
        path = processes.directory / "udpecho.toml"
        path.write_text("rate = 5\n")
        process = self.start(manager, processes, "--socket-activation", "all", "--config", str(path))
        addresses = [sock.getsockname()[:2] for _, sock in manager.sockets]
        ready = manager.until("READY=1")
        assert ready["MAINPID"] == str(process.pid)
        assert str(addresses[0][1]) in ready["STATUS"]
        for address in addresses:
            echoed(address)
        for _ in range(2):
            manager.until("WATCHDOG=1")
        process.signal(signal.SIGHUP)
        assert int(manager.until("RELOADING=1")["MONOTONIC_USEC"]) > 0
        manager.until("READY=1")
        process.signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert process.finish().status in (0, -signal.SIGTERM)
        assert not process.stderr

    def test_restartLosesNothing(self, manager: Manager, processes: Processes) -> None:
        """The next server answers the datagrams that arrive after one has stopped."""
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

    def test_name(self, processes: Processes) -> None:
        """It serves on the socket of a name, although a stream socket was passed too; without the name it does not start."""
        with udpSocket() as sock, Manager([("metrics", socket.create_server(("127.0.0.1", 0))), ("echo", sock)]) as manager:
            process = self.start(manager, processes, "--socket-activation", "echo")
            manager.until("READY=1")
            echoed(sock.getsockname())
            process.stop()
            manager.pending()
            refused = self.start(manager, processes, "--socket-activation", "all").finish()
            assert refused.status == 1
            assert refused.stderr.startswith("udpecho: socket 0 (metrics) must be a bound UDP socket, ")
            assert refused.stderr.count("\n") == 1
            assert manager.pending() == []

    @pytest.mark.parametrize(
        "options", [["--port", "7"], ["--interface", "::1"], pytest.param(["--workers", "2"], marks=needsSharing)], ids=" ".join
    )
    def test_wrong(self, options: list[str]) -> None:
        """Options that exclude each other are a usage error."""
        with pytest.raises(usage.UsageError, match=r"^--socket-activation: "):
            ServerOptions().parseOptions(["--socket-activation", "all", *options])

    def test_socketActivate(self, processes: Processes) -> None:
        """systemd's own C{systemd-socket-activate} starts the server at the first datagram, which the server echoes."""
        port = unusedPort()
        activate = [tool("systemd-socket-activate"), "--datagram", f"--listen=127.0.0.1:{port}", "--fdname=echo"]
        environment = [f"--setenv=PYTHONPATH={Path(udpecho.__file__).parents[1]}"]
        twistd = [*command("twistd"), "-n", "--pidfile=", "udpecho", "--socket-activation", "echo"]
        process = processes.start(*activate, *environment, *twistd)
        process.until("Listening on ", "stderr")
        echoed(("127.0.0.1", port))
        assert process.stop().status in (0, -signal.SIGTERM), process


class Silent:
    """A guard that drops everything.

    @ivar reason: the reason, or C{None} to drop nothing.
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def refuse(self, size: int, address: tuple[str, int]) -> str | None:
        return self.reason


class HealthTests:
    """Health and watchdog of a L{Daemon}, on a network in memory and in virtual time."""

    def start(self, guard: Silent, environment: dict[str, str]) -> tuple[MemoryNetwork, Daemon]:
        network = MemoryNetwork()
        host: Any = network.host("here", "192.0.2.1")
        host.callWhenRunning = lambda function, *arguments: function(*arguments)
        daemon = Daemon(host, EchoService(host, 7, ["192.0.2.1"], guard=guard), environment)
        daemon.startService()
        return network, daemon

    @pytest.mark.parametrize(
        ("drop", "result"),
        [
            (None, None),
            # A decision of the guard shows that the server has received the datagram.
            ("not_allowed", "ok (refused by --allow)"),
            ("rate_limited", "ok (rate limited)"),
            ("loop_guard", "ok (refused by the loop guard)"),
            ("too_large", "ok (longer than --max-payload)"),
            ("send_failed", "the server drops the datagram: send_failed"),
        ],
    )
    def test_check(self, drop: str | None, result: str | None) -> None:
        """A server that echoes the datagram, or drops it by decision, is healthy; another one is not."""
        network, daemon = self.start(Silent(drop), {})
        found: list[dict[str, str | None]] = []
        daemon.check().addCallback(found.append)
        network.advance(2)
        assert found == [{"192.0.2.1:7": result}]
        assert bool(failures(found[0])) == (drop == "send_failed")
        daemon.stopService()

    def test_earlierDrops(self) -> None:
        """Only drops during the check are a sign of life."""
        guard = Silent("not_allowed")
        network, daemon = self.start(guard, {})
        daemon.check()
        network.advance(2)
        guard.reason = "send_failed"
        found: list[dict[str, str | None]] = []
        daemon.check().addCallback(found.append)
        network.advance(2)
        assert found == [{"192.0.2.1:7": "the server drops the datagram: send_failed"}]
        daemon.stopService()

    @pytest.mark.parametrize(
        ("serving", "silent", "healthy", "ready"),
        [
            (True, [], {"192.0.2.1:7": None}, {"192.0.2.1:7": None}),
            (False, [], {"192.0.2.1:7": "ok (starting)"}, {"192.0.2.1:7": "starting"}),
            (
                False,
                [SilentWorker(1, "starting", True)],
                {"192.0.2.1:7": "ok (starting)", "worker 1": "ok (starting)"},
                {"192.0.2.1:7": "starting", "worker 1": "starting"},
            ),
            (
                True,
                [SilentWorker(2, "starting", True)],
                {"192.0.2.1:7": None, "worker 2": "ok (starting)"},
                {"192.0.2.1:7": None, "worker 2": "starting"},
            ),
            (
                True,
                [SilentWorker(2, "has not answered for 4 s", False)],
                {"192.0.2.1:7": None, "worker 2": "has not answered for 4 s"},
                {"192.0.2.1:7": None, "worker 2": "has not answered for 4 s"},
            ),
        ],
    )
    def test_states(
        self,
        serving: bool,
        silent: list[SilentWorker],
        healthy: dict[str, str | None],
        ready: dict[str, str | None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What is being started is healthy, and not ready; in all else the two are the same."""
        network, daemon = self.start(Silent(None), {})
        monkeypatch.setattr(daemon.echo, "_isServing", serving)
        monkeypatch.setattr(daemon.echo, "silentWorkers", lambda: silent)
        for check, wanted in ((daemon.check, healthy), (daemon.checkReady, ready)):
            found: list[dict[str, str | None]] = []
            check().addCallback(found.append)
            network.advance(2)
            assert found == [wanted]
            fails = any(reason is not None and not reason.startswith("ok") for reason in wanted.values())
            assert bool(failures(found[0])) == fails
        daemon.stopService()

    def test_notListening(self) -> None:
        """A server that has stopped is not healthy."""
        _, daemon = self.start(Silent(None), {})
        daemon.echo.abort()
        failed: list[Failure] = []
        daemon._requireHealthy().addErrback(failed.append)
        assert [failure.getErrorMessage() for failure in failed] == ["not listening"]
        daemon.stopService()

    def test_watchdog(self) -> None:
        """The watchdog is not fed while the self-echo fails, although the reactor runs. When it succeeds again, that is found
        before the next interval has passed.
        """
        guard = Silent("send_failed")
        with Manager(watchdog=20) as manager:
            network, daemon = self.start(guard, manager.environment)
            network.advance(60)
            assert [next(iter(found)) for found in manager.pending()] == ["READY"]
            guard.reason = None
            network.advance(4)
            assert [next(iter(found)) for found in manager.pending()] == ["WATCHDOG"]
            network.advance(20)
            assert [next(iter(found)) for found in manager.pending()] == ["WATCHDOG", "WATCHDOG"]
            daemon.stopService()


class DaemonTests:
    """L{Daemon} in this process."""

    def test_bindsAllOrNothing(self, runOnce: Run) -> None:
        """If a port or the endpoint of the pages is taken, nothing is bound."""

        async def test(reactor: Any) -> None:
            with udpSocket() as taken:
                echo = EchoService(reactor, taken.getsockname()[1], ["127.0.0.1"])
                daemon = Daemon(reactor, echo, {}, metrics="tcp:0:interface=127.0.0.1")
                with pytest.raises(error.CannotListenError) as caught:
                    daemon.privilegedStartService()
                assert caught.value.socketError.errno == errno.EADDRINUSE
                assert echo.addresses == []
            echo = EchoService(reactor, 0, ["127.0.0.1"])
            with pytest.raises(error.CannotListenError, match="cannot serve metrics on unix:/nosuch/udpecho: No such file"):
                Daemon(reactor, echo, {}, metrics="unix:/nosuch/udpecho").privilegedStartService()
            assert echo.addresses == []

        runOnce(test)

    def test_reload(self, runOnce: Run) -> None:
        """A reload is applied to the guard and to the log."""

        async def test(reactor: Any) -> None:
            echo = EchoService(reactor, 0, ["127.0.0.1"])
            options = ServerOptions()
            options.parseOptions(["--rate", "7", "--log-datagrams", "3"])

            async def read() -> tuple[ServerOptions, Changes]:
                return options, Changes(("rate",), ())

            daemon = Daemon(reactor, echo, {}, reload=read)
            before = signal.getsignal(signal.SIGHUP)
            daemon.startService()
            await echo.whenServing()
            daemon.reload()
            assert daemon._reloading is not None
            await daemon._reloading
            assert echo._listeners.guardStats.policy.rate == 7  # type: ignore[union-attr]
            assert echo._listeners.log._rate == 3  # type: ignore[attr-defined]
            await daemon.stopService()
            assert signal.getsignal(signal.SIGHUP) == before

        runOnce(test)

    def test_startWhileStopping(self, run: Run) -> None:
        """A start during the stop takes place after it: on the same ports, also that of the pages."""
        pages = unusedTCPPort()

        async def test(reactor: Any) -> None:
            echo = EchoService(reactor, unusedPort(), ["127.0.0.1"])
            daemon = Daemon(reactor, echo, {}, metrics=f"tcp:{pages}:interface=127.0.0.1")
            daemon.startService()
            await echo.whenServing()
            (address,) = echo.addresses
            stopping = daemon.stopService()
            daemon.startService()
            await stopping
            await echo.whenServing()
            assert echo.addresses == [address]
            assert await daemon.checkReady() == {str(address): None}
            await daemon.stopService()

        run(test)

    def test_foreignHandler(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A signal whose handler was set by C code, which Python can neither call nor set again, is left alone."""
        before = signal.getsignal(signal.SIGUSR1)
        getsignal = signal.getsignal
        monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else getsignal(number))

        async def test(reactor: Any) -> None:
            daemon = Daemon(reactor, EchoService(reactor, 0, ["127.0.0.1"]), {})
            daemon.startService()
            assert getsignal(signal.SIGUSR1) == before
            await daemon.stopService()

        runOnce(test)
