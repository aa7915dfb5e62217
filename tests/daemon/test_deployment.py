"""Tests of C{docs/deployment}: units, container and sample are what their tools take, and agree with each other and with
udpecho.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.deployment import DEPLOYMENT, KUBERNETES, SERVICES, UNITS, instruction, instructions, run, settings, unit
from tests.support.guards import tool, without
from tests.support.processes import Process, Processes, command
from tests.support.running import udpSocket, unusedPort
from udpecho.daemon import config_file
from udpecho.options import Table
from udpecho.probe import settings as probeSettings
from udpecho.server import settings as serverSettings

#: The options of each daemon, by its name for C{twistd}.
TABLES = {"udpecho": serverSettings.OPTIONS, "udpecho-probe": probeSettings.OPTIONS}


def options(arguments: list[str]) -> dict[str, list[str]]:
    """The long options of a command line for udpecho, which has no others, with their values."""
    found: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            found.setdefault(name, []).extend([value] if equals else [])
        else:
            found[name].append(argument)
    return found


def checkOptions(arguments: list[str], table: Table = serverSettings.OPTIONS) -> None:
    """Check that all options are ones of a daemon, and that their values can be read."""
    for name, values in options(arguments).items():
        setting = table[name]
        for value in values:
            if setting.parse is not None:
                setting.parse(value)


class SampleTests:
    """The samples of configurations."""

    @pytest.mark.parametrize(
        "path",
        [DEPLOYMENT / "udpecho.toml", DEPLOYMENT / "udpecho-probe.toml", KUBERNETES / "base" / "udpecho.toml"],
        ids=["server", "prober", "kubernetes"],
    )
    def test_read(self, path: Path) -> None:
        """They can be read."""
        assert config_file.read(str(path), TABLES[path.stem]).values

    @pytest.mark.parametrize(
        ("name", "comments"),
        [("udpecho", {"interface", "port", "receive-buffer"}), ("udpecho-probe", {"sources", "bind", "tos"})],
    )
    def test_comments(self, name: str, comments: set[str]) -> None:
        """What is commented out in them can be read as well."""
        text = re.sub(r"^#(?=[a-z-]+ = )", "", (DEPLOYMENT / f"{name}.toml").read_text(), flags=re.MULTILINE)
        assert comments < set(config_file.parse(text, TABLES[name]).values)


# systemd


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units in a directory, with a program where they expect theirs."""
    program = tmp_path / "twistd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/udpecho/bin/twistd", str(program)))
    return tmp_path


@cache
def allowedCalls() -> frozenset[str]:
    """The system calls that the units allow, as this systemd has them in its groups."""
    groups: dict[str, set[str]] = {}
    name = ""
    for line in run(tool("systemd-analyze"), "syscall-filter", "--no-pager").splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = set()
        elif line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].add(line.strip())

    def expand(group: str) -> set[str]:
        return {call for item in groups[group] for call in (expand(item) if item.startswith("@") else {item})}

    allowed = expand("@default")
    for value in settings("udpecho.service", "Service", "SystemCallFilter"):
        calls = {call for group in value.lstrip("~").split() for call in expand(group)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return frozenset(allowed)


# Forbids this process and what it executes to have memory that can be run and was written, prctl(2) since Linux 6.3; what
# systemd does for MemoryDenyWriteExecute= where it can.
_noWriteExecute = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
os.execvp(sys.argv[1], sys.argv[1:])
"""


#: Runs a daemon, has it do its work, and stops it.
Work = Callable[[Processes, list[str]], None]


def echoes(processes: Processes, twistd: list[str]) -> None:
    """The server's work: a datagram is echoed."""
    server = processes.server("--interface", "127.0.0.1", twistd=twistd)
    with udpSocket() as sock:
        sock.sendto(b"hello", server.addresses[0])
        assert sock.recv(100) == b"hello"
    end(server.process)


def probes(processes: Processes, twistd: list[str]) -> None:
    """The prober's work: a name is looked up, probes are sent and replies received."""
    with udpSocket() as sock:
        target = f"localhost:{sock.getsockname()[1]}"
        prober = processes.start(*twistd, "udpecho-probe", "--target", target, "--bind", "127.0.0.1", "--interval", "10ms")
        for _ in range(5):
            sock.sendto(*sock.recvfrom(100))
        end(prober)
    assert "answered=" in prober.stdout


def end(process: Process) -> None:
    """Stop a daemon, perhaps under C{strace}, which keeps its own signals to itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]) if "strace" in process.arguments[0] else process.pid, signal.SIGTERM)
    process.finish()
    assert "Traceback" not in process.stdout + process.stderr


daemons = pytest.mark.parametrize("work", [echoes, probes])


class UnitTests:
    """The units."""

    @pytest.mark.parametrize("name", sorted(path.name for path in UNITS.iterdir()))
    def test_verify(self, name: str, installed: Path) -> None:
        """C{systemd-analyze verify} reports nothing about it."""
        output = run(tool("systemd-analyze"), "verify", "--man=no", installed / name)
        assert not [line for line in output.splitlines() if "udpecho" in line], output

    @pytest.mark.parametrize("name", SERVICES)
    def test_security(self, name: str, installed: Path) -> None:
        """C{systemd-analyze security} finds an exposure of 1.5 or less, "OK"."""
        analyze = tool("systemd-analyze")
        if int(run(analyze, "--version").split()[1]) < 250:
            pytest.skip("this systemd-analyze cannot look at files")
        output = run(analyze, "security", "--offline=true", "--no-pager", "--threshold=15", installed / name)
        assert "OK" in output.splitlines()[-1]

    @pytest.mark.parametrize("name", SERVICES)
    def test_commands(self, name: str) -> None:
        """All commands are C{twistd}'s, in the foreground and without a pid file, with options that udpecho has; or the signal
        for a reload.
        """
        lines = [value for key, value in unit(name)["Service"] if key.startswith("Exec")]
        assert lines.pop() == "kill -HUP $MAINPID"
        assert len(lines) == 3
        for line in lines:
            program, *arguments = shlex.split(line)
            assert program == "/opt/udpecho/bin/twistd"
            assert arguments[:2] == ["--nodaemon", "--pidfile="]
            checkOptions(arguments[3:], TABLES[arguments[2]])

    @pytest.mark.parametrize("name", SERVICES)
    def test_checked(self, name: str) -> None:
        """What is checked before the start and before a reload is what is started: the file with all other options."""
        (start,) = settings(name, "Service", "ExecStart")
        (before,) = settings(name, "Service", "ExecStartPre")
        reload, _ = settings(name, "Service", "ExecReload")
        assert before == reload == start.replace(" --config ", " --check-config ")

    @pytest.mark.parametrize("name", SERVICES)
    def test_startLimit(self, name: str) -> None:
        """A service that fails for good meets systemd's limit of starts, however it fails."""
        (interval,) = settings(name, "Unit", "StartLimitIntervalSec")
        (most,) = settings(name, "Unit", "StartLimitBurst")
        wait, start, watchdog, stop = (
            float(settings(name, "Service", key)[0])
            for key in ("RestartSec", "TimeoutStartSec", "WatchdogSec", "TimeoutStopSec")
        )
        assert int(most) * (max(start, watchdog) + stop + wait) < float(interval)

    def test_conflicts(self) -> None:
        """The unit that excludes the others comes after them: what stops is stopped before the other starts."""
        name = "udpecho-privileged-port.service"
        (conflicts,) = settings(name, "Unit", "Conflicts")
        assert set(conflicts.split()) == {"udpecho.socket", "udpecho.service"}
        assert set(conflicts.split()) <= set(" ".join(settings(name, "Unit", "After")).split())

    @pytest.mark.parametrize("name", sorted(path.name for path in UNITS.iterdir()))
    def test_addresses(self, name: str) -> None:
        """Addresses are restricted in the unit that makes the sockets for datagrams, where it has an effect."""
        text = (UNITS / name).read_text()
        makes = bool(re.search("ListenDatagram=| --interface | udpecho-probe ", text))
        assert bool(re.search("^#?IPAddressDeny=any$", text, re.MULTILINE)) == makes

    @pytest.mark.parametrize("name", SERVICES)
    def test_supervised(self, name: str) -> None:
        """systemd waits until it is ready, watches it, and restarts it."""
        for key, value in (("Type", "notify"), ("NotifyAccess", "main"), ("Restart", "on-failure"), ("DynamicUser", "yes")):
            assert settings(name, "Service", key) == [value]
        assert float(settings(name, "Service", "WatchdogSec")[0]) >= 10

    def test_socket(self) -> None:
        """Each family has its own socket on port 7, by the name that the service selects."""
        assert settings("udpecho.socket", "Socket", "ListenDatagram") == ["0.0.0.0:7", "[::]:7"]
        assert settings("udpecho.socket", "Socket", "BindIPv6Only") == ["ipv6-only"]
        (name,) = settings("udpecho.socket", "Socket", "FileDescriptorName")
        (line,) = settings("udpecho.service", "Service", "ExecStart")
        assert options(shlex.split(line)[4:])["socket-activation"] == [name]

    def test_privileges(self) -> None:
        """With passed sockets there is no capability; without, the one for the port."""
        for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
            assert settings("udpecho.service", "Service", key) == settings("udpecho-probe.service", "Service", key) == [""]
            assert settings("udpecho-privileged-port.service", "Service", key) == ["CAP_NET_BIND_SERVICE"]
        (line,) = settings("udpecho-privileged-port.service", "Service", "ExecStart")
        assert options(shlex.split(line)[4:])["port"] == ["7"]

    def test_hardenedAlike(self) -> None:
        """The services differ in their commands and their privileges only."""
        differ = {"ExecStartPre", "ExecStart", "ExecReload", "CapabilityBoundingSet", "AmbientCapabilities", "PrivateUsers"}
        found = [{pair for pair in unit(name)["Service"] if pair[0] not in differ} for name in SERVICES]
        assert len(found) == 3
        assert all(each == found[0] for each in found)

    @daemons
    def test_noWriteExecute(self, work: Work, processes: Processes) -> None:
        """Under C{MemoryDenyWriteExecute=} the daemons work, and the system calls for batches do."""
        python = processes.run(
            sys.executable,
            "-c",
            _noWriteExecute,
            sys.executable,
            "-c",
            "from udpecho.net import selftest; print(selftest.unsupportedReason())",
        )
        if python.status == 77:
            pytest.skip("this kernel cannot forbid it")
        unrestricted = processes.run(
            sys.executable, "-c", "from udpecho.net import selftest; print(selftest.unsupportedReason())"
        )
        assert python.status == 0, python
        assert python.stdout == unrestricted.stdout
        work(processes, [sys.executable, "-c", _noWriteExecute, *command("twistd"), "-n", "--pidfile="])

    @daemons
    def test_systemCalls(self, work: Work, processes: Processes) -> None:
        """No system call is outside of the units' filters, from the start to the stop."""
        strace = tool("strace")
        trace = processes.directory / "trace"
        work(processes, [strace, "-f", "-qq", "-o", str(trace), *command("twistd"), "-n", "--pidfile="])
        called = set(re.findall(r"^[0-9]+ +([a-z0-9_]+)\(", trace.read_text(), re.MULTILINE))
        assert {"recvmsg", "sendmsg", "recvmmsg", "sendmmsg"} & called
        assert called <= allowedCalls()

    @daemons
    def test_families(self, work: Work, processes: Processes) -> None:
        """No socket is of another family than the units allow."""
        strace = tool("strace")
        trace = processes.directory / "trace"
        work(processes, [strace, "-f", "-qq", "-e", "trace=socket,socketpair", "-o", str(trace), *command("twistd"), "-n"])
        families = set(re.findall(r"\((AF_[A-Z0-9_]+)", trace.read_text()))
        # getaddrinfo(3) asks the kernel which families have addresses, and does without the answer.
        assert families - {"AF_NETLINK"} <= set(settings("udpecho.service", "Service", "RestrictAddressFamilies")[0].split())


class ContainerTests:
    """The container file."""

    def test_user(self) -> None:
        """It runs as a number that is not root's, from the last stage, in which nothing is run as root after it."""
        assert re.fullmatch("[1-9][0-9]+:[1-9][0-9]+", instruction("USER"))
        names = [name for name, _ in instructions()]
        assert not {"RUN", "COPY"} & set(names[names.index("USER") :])

    def test_ports(self) -> None:
        """The ports that it exposes are those that the server and its metrics have, and need no privilege."""
        found = options(json.loads(instruction("CMD")))
        metrics = found["metrics"][0].split(":")[1]
        assert instruction("EXPOSE") == f"{found['port'][0]}/udp {metrics}/tcp"
        assert int(found["port"][0]) >= 1024

    def test_options(self) -> None:
        """It gives udpecho options that it has."""
        assert json.loads(instruction("ENTRYPOINT")) == ["twistd", "--nodaemon", "--pidfile=", "udpecho"]
        checkOptions(json.loads(instruction("CMD")))

    @pytest.mark.isolated
    def test_runs(self, processes: Processes) -> None:
        """Its command runs with a read-only root and without a capability, and the health check succeeds; without the server
        the health check fails.
        """
        arguments = json.loads(instruction("CMD"))
        pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        port, metrics = unusedPort(), unusedPort()
        arguments = [argument.replace("1234", str(port)).replace("9107", str(metrics)) for argument in arguments]
        process = processes.start(*self.readOnly(), *command("twistd"), *json.loads(instruction("ENTRYPOINT"))[1:], *arguments)
        process.until("answering on ")
        check = json.loads(re.sub(r"^.* CMD ", "", instruction("HEALTHCHECK")))
        check[-1] = check[-1].replace("1234", str(port)).replace("udpecho", shlex.join(command("udpecho")))
        assert processes.run(*check).status == 0
        # twistd exits by the signal that stopped it.
        assert process.stop().status == -signal.SIGTERM, process
        assert processes.run(*check).status

    def test_healthCheck(self, processes: Processes) -> None:
        """The health check succeeds if the server answers, and fails if it does not."""
        server = processes.server("--interface", "127.0.0.1")
        check = json.loads(re.sub(r"^.* CMD ", "", instruction("HEALTHCHECK")))
        check[-1] = check[-1].replace("1234", str(server.addresses[0][1])).replace("udpecho", shlex.join(command("udpecho")))
        assert processes.run(*check).status == 0
        server.stop()
        assert processes.run(*check).status

    def readOnly(self) -> list[str]:
        """How to run a command where the root directory is read-only and no capability is left."""
        if os.geteuid() != 0:
            pytest.skip("only root has a root directory of its own")
        if subprocess.run([tool("unshare"), "--mount", "mount", "-o", "remount,bind,ro", "/"], capture_output=True).returncode:
            pytest.skip("mounts cannot be changed here")
        script = 'mount -o remount,bind,ro / && cd / && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *without("all"), "--no-new-privs"]


class PageTests:
    """The operator's page."""

    page = (DEPLOYMENT.parent / "deployment.rst").read_text()

    def test_reload(self) -> None:
        """It names every option that a reload applies."""
        _, _, text = self.page.partition("``SIGHUP``")
        text = text.partition("applied while serving")[0]
        reloads = {name for name, setting in serverSettings.OPTIONS.items() if setting.reloads}
        assert set(re.findall(r"``([a-z-]+)``", text)) == reloads

    @pytest.mark.parametrize("name", ["alerts.yml", "probe-alerts.yml"])
    def test_metrics(self, name: str) -> None:
        """It explains every metric of the alerts."""
        names = set(re.findall(r"udpecho_[a-z_]+[a-z]", (DEPLOYMENT / "prometheus" / name).read_text()))
        assert not [name for name in names if name not in self.page]

    def test_problems(self) -> None:
        """The problems that it shows are the real messages."""
        block = textwrap.dedent(self.page.partition(".. code-block:: text\n\n")[2].partition("\n\n")[0])
        text = "\n\nmax-rat = 1\n\nrate = -1"
        with pytest.raises(config_file.ConfigurationError) as caught:
            config_file.parse(text, serverSettings.OPTIONS, path="/etc/udpecho/udpecho.toml")
        assert "\n".join(caught.value.problems) == block
