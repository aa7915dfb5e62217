"""Tests of L{udpecho.daemon.probe_tap} and L{udpecho.daemon.probe_service}: what C{twistd udpecho-probe} alone has."""

from __future__ import annotations

import errno
import http.client
import re
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from twisted.internet import error
from twisted.python import usage
from twisted.python.failure import Failure

from tests.support.documentation import optionTable
from tests.support.processes import Processes, eventually
from tests.support.running import PATIENCE, udpSocket, unusedPort
from tests.support.source import ROOT
from udpecho.addresses import formatAddress
from udpecho.daemon import probe_service, probe_tap
from udpecho.daemon.config_file import parse
from udpecho.daemon.probe_service import ProbeDaemon
from udpecho.daemon.probe_tap import Options
from udpecho.daemon.states import failures
from udpecho.net.open import listen
from udpecho.net.sockets import checkBindable
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.prober import Prober
from udpecho.probe.schedule import Plan
from udpecho.probe.service import ProbeService
from udpecho.probe.settings import OPTIONS, settingsFrom
from udpecho.probe.target import failureMessage
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork


def parsed(*arguments: str) -> Options:
    """The options of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return options


class OptionTests:
    """The command line, and the file."""

    def test_defaults(self) -> None:
        """Without options the settings are the defaults of the settings objects."""
        assert settingsFrom(parsed("-t", "a:7")) == (Plan(), SocketOptions())

    @pytest.mark.parametrize("owner", [Plan, SocketOptions])
    def test_fields(self, owner: type[Any]) -> None:
        """Each option that sets a field sets one that there is, and none is set twice."""
        known = {field.name for field in fields(owner)} if owner is Plan else set(SocketOptions._fields)
        named = [option.field for option in OPTIONS.values() if option.owner is owner]
        assert set(named) <= known
        assert len(named) == len(set(named))

    def test_values(self) -> None:
        """Values are parsed."""
        options = parsed(
            "--target", "[::1]:7", "-t", "a:1", "-i", "10ms", "--size", "64,80", "-Q", "EF", "-b", "::1", "-W", "2"
        )
        assert options["target"] == ["[::1]:7", "a:1"]
        assert settingsFrom(options) == (Plan(interval=0.01, timeout=2, sizes=(64, 80)), SocketOptions(("::1", 0), 184))

    @pytest.mark.parametrize(("arguments", "interval"), [([], 60), (["--resolve-interval", "5m"], 300)])
    def test_resolveInterval(self, arguments: list[str], interval: float, monkeypatch: pytest.MonkeyPatch) -> None:
        """The service gets the interval of the lookups, by default a minute."""
        made: list[dict[str, Any]] = []

        def service(*_: Any, **options: Any) -> ProbeService:
            made.append(options)
            return ProbeService(*_, **options)

        monkeypatch.setattr(probe_tap, "ProbeService", service)
        probe_tap.makeService(parsed("-t", "a:7", *arguments))
        assert made[0]["resolveInterval"] == interval

    def test_file(self) -> None:
        """All options may be in the file, and have the values that the command line would give them."""
        text = """
            target = ["192.0.2.1:7", "[2001:db8::1]:7"]
            interval = 0.1
            timeout = "500ms"
            size = 100
            sources = 2
            bind = "192.0.2.2:4000"
            tos = "EF"
            resolve-interval = "5m"
            metrics = "tcp:9108"
        """
        found = parse(text, OPTIONS).values
        assert set(found) == {option.name for option in OPTIONS.values() if option.inFile}
        assert found["interval"] == "0.1"
        assert {name for name, option in OPTIONS.items() if option.reloads} == {"target"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "--target: one target or more must be given, as HOST:PORT, got none"),
            (["-t", "a"], "--target: address must be HOST:PORT, as in localhost:1234, got 'a'"),
            (["-t", "a:7", "-t", "b:7", "-t", "a:7"], "--target: each target must be given once, got 'a:7' twice"),
            (["-t", "a:7", "--interval", "0"], "--interval: duration must be 1us to 366 days, as in 0.5s or 500ms, got '0'"),
            (["-t", "a:7", "--size", "0", "--interval", "0.1"], "outstanding probes of 0 bytes must be 1 or fewer"),
            (["-t", "a:7", "--sources", "0"], "--sources: number of sources must be 1 to 1024, got '0'"),
            (
                ["-t", "192.0.2.1:7", "-b", "::1"],
                "--bind: local address must be an IPv4 address to reach 192.0.2.1, got '::1'",
            ),
            (
                ["-t", "a:7", "-t", "[fe80::1%eth0]:7", "-b", "192.0.2.1:7"],
                "--bind: local address must be an IPv6 address to reach fe80::1%eth0, got '192.0.2.1'",
            ),
            (
                ["-t", "a:7", "-t", "b:7", "--sources", "2", "-b", "192.0.2.1:65533"],
                "--bind: local ports must be 1 to 65535, got 65533 to 65536 for all targets and sources",
            ),
        ],
    )
    def test_wrong(self, arguments: list[str], message: str) -> None:
        """A wrong value, or one that excludes another, is a usage error."""
        with pytest.raises(usage.UsageError, match=re.escape(message)):
            parsed(*arguments)

    @pytest.mark.parametrize(
        ("text", "options"),
        [
            ("", []),
            ("target = 'a'", []),
            ("target = ['a:7', 'a:7']", []),
            ("target = '192.0.2.1:7'", ["--bind", "::1"]),
            ("target = ['a:7', 'b:7']\nbind = '192.0.2.1:65535'", []),
            ("target = 'a:7'\nsize = 0\ninterval = 0.1", []),
            ("target = 'a:7'", ["--interval", "0"]),
            ("target = 'a:7'\nrate = 5", []),
        ],
    )
    def test_checked(self, text: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What the start refuses C{--check-config} refuses, with the same words."""
        path = tmp_path / "probe.toml"
        path.write_text(text)
        with pytest.raises(usage.UsageError) as refused:
            parsed("--config", str(path), *options)
        with pytest.raises(SystemExit) as ended:
            parsed("--check-config", str(path), *options)
        reason = str(refused.value)
        assert ended.value.code == 1
        assert capsys.readouterr().out == (reason if reason.startswith(str(path)) else f"{path}: {reason}") + "\n"

    def test_documentation(self) -> None:
        """The table of options in the documentation is the one table."""
        wanted = "\n".join("   " + line for line in optionTable(OPTIONS, "rst"))
        assert wanted in (ROOT / "docs" / "ping.rst").read_text(), f"the table of options in docs/ping.rst must be:\n{wanted}"


class HealthTests:
    """The checks of a L{ProbeDaemon}, on a network in memory and in virtual time."""

    def start(self, *targets: str, **how: Any) -> tuple[MemoryNetwork, ProbeDaemon]:
        network = MemoryNetwork(latency=0.001)
        host: Any = network.host("here", "192.0.2.1")
        host.callWhenRunning = lambda function, *arguments: function(*arguments)
        listen(network.host("there", "192.0.2.2"), 7, EchoServer(), "192.0.2.2")
        daemon = ProbeDaemon(host, ProbeService(host, targets, **how), {})
        daemon.startService()
        network.advance(5)
        return network, daemon

    def states(self, check: Callable[[], Any]) -> dict[str, str | None]:
        """What a check finds."""
        found: list[dict[str, str | None]] = []
        check().addCallback(found.append)
        return found[0]

    def test_silent(self) -> None:
        """A target that does not answer, or refuses, is probed: the prober is healthy and ready."""
        _, daemon = self.start("there:7", "there:9")
        assert self.states(daemon.check) == self.states(daemon.checkReady)
        assert self.states(daemon.check) == {"prober": None, "there:7": None, "there:9": None}
        daemon.stopService()

    def test_unknown(self) -> None:
        """A target that cannot be looked up has its reason on the page. While there is none that is probed, the prober is not
        ready, and yet healthy: a restart would not help.
        """
        network, daemon = self.start("nowhere:7", "there:7")
        states = self.states(daemon.checkReady)
        assert states["prober"] is states["there:7"] is None
        assert str(states["nowhere:7"]).startswith("not probed: no address for 'nowhere'")
        assert not failures(states)
        daemon.probes.configure(["nowhere:7"])
        assert not failures(self.states(daemon.check))
        assert failures(self.states(daemon.checkReady)) == {"prober": "no target is probed"}
        daemon.stopService()
        assert not [call for call in network.clock.getDelayedCalls() if "Echo" not in repr(call)]

    def test_exhausted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While this machine keeps the prober from sending any probe it is not healthy; one that sends some is."""

        def fail(*arguments: Any, **options: Any) -> Prober:
            raise OSError(24, "Too many open files")

        _, daemon = self.start("there:7", open=fail)
        assert not failures(self.states(daemon.check))
        monkeypatch.setattr(probe_service, "_lacks", lambda: "Too many open files")
        assert self.states(daemon.check) == {
            "prober": "cannot send: Too many open files",
            "there:7": "not probed: no file descriptor is left: Too many open files (ulimit -n, LimitNOFILE=)",
        }
        problems: list[Failure] = []
        daemon._requireHealthy().addErrback(problems.append)
        assert [failure.getErrorMessage() for failure in problems] == ["prober: cannot send: Too many open files"]
        daemon.stopService()
        _, daemon = self.start("there:7")
        assert not failures(self.states(daemon.check))
        daemon.stopService()


class CommandTests:
    """C{twistd -n udpecho-probe}."""

    def test_runs(self, processes: Processes) -> None:
        """It probes, exports what came of it, and logs the results at its stop."""
        server = processes.server("--log-datagrams", "0")
        targets = [formatAddress(address) for address in server.addresses]
        options = [option for target in targets for option in ("--target", target)]
        probe = processes.start(
            *("twistd", "-n", "--pidfile=", "udpecho-probe", *options, "--interval", "10ms"),
            *("--metrics", "tcp:0:interface=127.0.0.1"),
        )
        pages = f"http://{probe.until(r'metrics on (.+)$')[1]}"

        def page(path: str) -> str:
            with urlopen(f"{pages}{path}", timeout=PATIENCE) as response:
                return str(response.read().decode())

        name = 'udpecho_probe_outcomes_total{outcome="answered",source="0",target="%s"}'
        wanted = [re.escape(name % target) + r" [1-9]" for target in targets]
        eventually(lambda: all(re.search(pattern, page("/metrics")) for pattern in wanted), "an answer of each target")
        assert page("/-/healthy") == page("/-/ready") == "".join(f"{part}: ok\n" for part in ("prober", *targets))
        probe.stop()
        assert probe.stdout.count("stopped probing") == len(targets)
        assert "Traceback" not in probe.stdout
        server.stop()

    def test_descriptors(self, processes: Processes) -> None:
        """Without file descriptors the prober is not healthy; with some again it is, although it cannot probe its target."""
        resource = limits()
        probe = processes.start(
            *("twistd", "-n", "--pidfile=", "udpecho-probe", "--target", "[fe80::1%nosuch]:7"),
            *("--metrics", "tcp:0:interface=127.0.0.1"),
        )
        port = int(probe.until(r"metrics on .*:(\d+)$")[1])
        probe.until(r"cannot probe \[fe80::1%nosuch\]:7: ")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

        def page(path: str) -> tuple[int, list[str]]:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode().splitlines()

        line = "[fe80::1%nosuch]:7: not probed: this machine has no interface 'nosuch' to reach fe80::1 by"
        assert page("/-/healthy") == (200, ["prober: ok", line])
        assert page("/-/ready") == (503, ["prober: no target is probed", line])
        before = resource.prlimit(probe.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, (0, before[1]))
        assert page("/-/healthy") == (503, [f"prober: cannot send: {failureMessage(OSError(errno.EMFILE, ''))}", line])
        resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, before)
        assert page("/-/healthy") == (200, ["prober: ok", line])
        connection.close()
        probe.stop()

    def test_noDescriptors(self, processes: Processes) -> None:
        """Without a descriptor left, the log says so once, for all targets; with more descriptors, all are probed."""
        resource = limits()
        targets = [f"127.0.0.1:{port}" for port in range(2000, 2008)]
        options = [option for target in targets for option in ("--target", target)]
        probe = processes.start("twistd", "-n", "--pidfile=", "udpecho-probe", *options, "--interval", "2s")
        probe.until("probing 127.0.0.1:2000 ")
        _, most = resource.prlimit(probe.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, (3, most))
        reason = r"cannot probe 127.0.0.1:\d+: no file descriptor is left: Too many open files \(ulimit -n, LimitNOFILE=\)"
        probe.until(reason)
        resource.prlimit(probe.pid, resource.RLIMIT_NOFILE, (most, most))
        for target in targets:
            probe.until(f" probing {target} ")
        probe.stop()
        assert len(re.findall(reason, probe.stdout)) == 1
        assert "Traceback" not in probe.stdout

    def test_targets(self, processes: Processes) -> None:
        """A reload adds targets and removes others; one that stays is probed on from the same socket."""
        path = processes.directory / "probe.toml"
        with udpSocket() as first, udpSocket() as second, udpSocket() as third:
            names = [formatAddress(sock.getsockname()[:2]) for sock in (first, second, third)]
            path.write_text(f"interval = 0.02\ntarget = {names[:2]}\n")
            probe = processes.start("twistd", "-n", "--pidfile=", "udpecho-probe", "--config", "probe.toml")
            source = first.recvfrom(100)[1]
            second.recvfrom(100)
            path.write_text(f"interval = 0.02\ntarget = {[names[2], names[0]]}\n")
            probe.signal(signal.SIGHUP)
            third.recvfrom(100)
            probe.until(f"stopped probing {names[1]} from")
            for _ in range(20):
                assert first.recvfrom(100)[1] == source
            probe.stop()
            assert probe.stdout.count(f"probing {names[0]} at ") == 1
            assert len(re.findall("stopped probing", probe.stdout)) == 3

    def test_ports(self, processes: Processes) -> None:
        """From a fixed port on, each target and source has its own; one that is added gets those of one that was removed."""
        path = processes.directory / "probe.toml"
        start = consecutive(4)
        with udpSocket() as first, udpSocket() as second, udpSocket() as third:
            names = [formatAddress(sock.getsockname()[:2]) for sock in (first, second, third)]
            text = f'interval = 0.02\nsources = 2\nbind = "127.0.0.1:{start}"\n'
            path.write_text(f"{text}target = {names[:2]}\n")
            probe = processes.start("twistd", "-n", "--pidfile=", "udpecho-probe", "--config", "probe.toml")
            assert ports(first) == {start, start + 1}
            assert ports(second) == {start + 2, start + 3}
            path.write_text(f"{text}target = {names[1:]}\n")
            probe.signal(signal.SIGHUP)
            assert ports(third) == {start, start + 1}
            probe.stop()
            assert "cannot" not in probe.stdout

    def test_family(self, processes: Processes) -> None:
        """A name is looked up for addresses that the local one can reach."""
        with udpSocket() as sock:
            port = sock.getsockname()[1]
            probe = processes.start(
                *("twistd", "-n", "--pidfile=", "udpecho-probe", "--bind", "127.0.0.1", "--target", f"localhost:{port}")
            )
            assert sock.recvfrom(100)[1][0] == "127.0.0.1"
            probe.stop()


def limits() -> Any:
    """The module with which other processes are limited."""
    resource = pytest.importorskip("resource", reason="this system has no limits of resources")
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux limits other processes")
    return resource


def ports(sock: socket.socket) -> set[int]:
    """The ports of two sources that send to a socket."""
    found: set[int] = set()
    while len(found) < 2:
        found.add(sock.recvfrom(100)[1][1])
    return found


def consecutive(number: int) -> int:
    """The first of so many UDP ports that are free."""
    while True:
        first = unusedPort()
        with suppress(error.CannotListenError, OverflowError):
            for port in range(first, first + number):
                checkBindable("127.0.0.1", port)
            return first
