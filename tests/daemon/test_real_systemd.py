"""Tests of the units under a real systemd: with the shipped configuration, as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.deployment import DEPLOYMENT, UNITS
from tests.support.machine import Machine
from tests.support.processes import eventually
from tests.support.running import PATIENCE

pytestmark = pytest.mark.slow

SOCKET, PRIVILEGED, PROBER = "udpecho.service", "udpecho-privileged-port.service", "udpecho-probe.service"
services = pytest.mark.parametrize("service", [SOCKET, PRIVILEGED])

# Sends so many numbers to port 7, at a rate, and receives until all have come back or none has for some seconds. Prints which
# came, and how often.
_load = """
import json, select, socket, sys, time
host, rate, number, patience = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
if len(sys.argv) > 5:
    sock.bind((sys.argv[5], 0))
began = last = time.monotonic()
sent, found = 0, []
while sent < number or (len(found) < sent and time.monotonic() < last + patience):
    while sent < min(number, 1 + (time.monotonic() - began) * rate):
        sock.sendto(b"%d" % sent, (host, 7))
        sent, last = sent + 1, time.monotonic()
    while select.select([sock], [], [], 0.001)[0]:
        found.append(int(sock.recv(100)))
        last = time.monotonic()
print(json.dumps([len(set(found)), len(found)]))
"""


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    """A machine with the units and the configuration."""
    with Machine() as machine:
        machine.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine, with the units as they are shipped and none of them started."""
    for path in UNITS.iterdir():
        booted.write(f"/etc/systemd/system/{path.name}", path.read_text())
    for path in DEPLOYMENT.glob("*.toml"):
        booted.write(f"/etc/udpecho/{path.name}", path.read_text())
    booted.run("systemctl", "daemon-reload")
    yield booted
    booted.run("systemctl", "stop", "udpecho.socket", SOCKET, PRIVILEGED, PROBER)
    booted.run("systemctl", "reset-failed")


def answered(machine: Machine, host: str = "127.0.0.1", source: str = "", patience: float = PATIENCE) -> bool:
    """Whether a datagram is answered.

    @param source: the address to send it from.
    @param patience: seconds to wait for it.
    """
    found = json.loads(machine.python(_load, host, "1", "1", str(patience), *filter(None, [source])))
    return bool(found == [1, 1])


def show(machine: Machine, unit: str, *names: str) -> list[str]:
    """Properties of a unit."""
    lines = machine.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return [found[name] for name in names]


def page(machine: Machine, port: int, path: str) -> str:
    """The text of a page."""
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    return machine.python(script, f"http://127.0.0.1:{port}{path}")


def mainPID(machine: Machine, service: str) -> int:
    """The process of a service, 0 for none."""
    return int(show(machine, service, "MainPID")[0])


def started(machine: Machine, service: str) -> int:
    """Start a service.

    @return: its process.
    """
    machine.run("systemctl", "start", *(["udpecho.socket"] if service == SOCKET else []), service)
    assert show(machine, service, "ActiveState", "StatusText") == ["active", "answering on 0.0.0.0:7, [::]:7"]
    return mainPID(machine, service)


def replaced(machine: Machine, service: str, pid: int) -> None:
    """Wait until a service answers in another process."""
    eventually(lambda: mainPID(machine, service) not in (0, pid), "it is not restarted")
    eventually(lambda: show(machine, service, "ActiveState")[0] == "active", "it is not ready")
    assert answered(machine)


@services
class ServiceTests:
    """Each of the services."""

    def test_serves(self, machine: Machine, service: str) -> None:
        """It is ready when it is started, answers on port 7, has its pages, and not a privilege that it does not need."""
        pid = started(machine, service)
        assert answered(machine)
        assert answered(machine, "::1")
        assert page(machine, 9107, "/-/healthy").split("\n")[:2] == ["0.0.0.0:7: ok", "[::]:7: ok"]
        status = machine.shell(f"cat /proc/{pid}/status")
        capabilities = re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\s*(\S+)$", status, re.MULTILINE)
        # CAP_NET_BIND_SERVICE is 10.
        assert {int(found, 16) for found in capabilities} == {0 if service == SOCKET else 1 << 10}
        assert not re.search(r"^Uid:\s+0\b", status, re.MULTILINE)

    def test_reload(self, machine: Machine, service: str) -> None:
        """A reload applies the file. One with errors, or that excludes the options of the unit, fails, and changes nothing."""
        pid = started(machine, service)
        good = (DEPLOYMENT / "udpecho.toml").read_text()
        machine.write("/etc/udpecho/udpecho.toml", good.replace("burst = 1000", "burst = 7"))
        machine.run("systemctl", "reload", service)
        eventually(lambda: "configuration reloaded: burst" in self.log(machine, pid), "it does not reload")
        for wrong in ("nonsense = 1\n", "workers = 2\n"):
            if wrong.startswith("workers") and service != SOCKET:
                continue
            machine.write("/etc/udpecho/udpecho.toml", wrong)
            assert "failed" in machine.run("systemctl", "reload", service, check=False)
            assert answered(machine)
        assert show(machine, service, "ActiveState", "MainPID") == ["active", str(pid)]
        assert "cannot reload" not in self.log(machine, pid)

    def test_killed(self, machine: Machine, service: str) -> None:
        """After C{kill -9} it answers again."""
        pid = started(machine, service)
        machine.run("systemctl", "kill", "--signal=KILL", service)
        replaced(machine, service, pid)
        assert show(machine, service, "NRestarts") == ["1"]

    def test_watchdog(self, machine: Machine, service: str) -> None:
        """A process that is stopped feeds no watchdog: it is replaced."""
        pid = started(machine, service)
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", service)
        for _ in range(4):
            if "Watchdog timeout" in machine.shell(f"journalctl --no-pager --unit {service} _PID=1"):
                break
            machine.shell("sleep 10")
        replaced(machine, service, pid)

    @pytest.mark.parametrize("wrong", ["nonsense = 1", "metrics = 'unix:/nosuch/x'"], ids=["check", "start"])
    def test_permanent(self, machine: Machine, service: str, wrong: str) -> None:
        """A service that cannot start meets systemd's limit, and stays down; so does its socket."""
        machine.write("/etc/udpecho/udpecho.toml", wrong)
        machine.run("systemctl", "start", "--no-block", *(["udpecho.socket"] if service == SOCKET else []), service)
        for _ in range(30):
            if show(machine, service, "ActiveState") == ["failed"]:
                break
            machine.shell("sleep 3")
        assert show(machine, service, "ActiveState") == ["failed"]
        assert "Start request repeated too quickly" in machine.shell(f"journalctl --no-pager --unit {service} _PID=1")
        # A datagram starts it no more.
        assert not answered(machine, patience=5)
        assert show(machine, service, "ActiveState") == ["failed"]
        if service == SOCKET:
            assert show(machine, "udpecho.socket", "ActiveState") == ["failed"]

    def log(self, machine: Machine, pid: int) -> str:
        return machine.run("journalctl", "--no-pager", f"_PID={pid}")


class TogetherTests:
    """The services and the socket together."""

    def test_restartLosesNothing(self, machine: Machine) -> None:
        """Restarts at 500 datagrams a second lose none of them, and double none."""
        pid = started(machine, SOCKET)
        machine.shell(
            "(sleep 1; systemctl restart udpecho.service; sleep 1; systemctl restart udpecho.service) >/dev/null 2>&1 &"
        )
        assert json.loads(machine.python(_load, "127.0.0.1", "500", "5000", "30")) == [5000, 5000]
        assert mainPID(machine, SOCKET) not in (0, pid)

    def test_switch(self, machine: Machine) -> None:
        """Starting one way to serve ends the other, and afterwards that one serves."""
        started(machine, SOCKET)
        for _ in range(2):
            machine.run("systemctl", "start", PRIVILEGED)
            assert answered(machine)
            assert show(machine, "udpecho.socket", "ActiveState") == show(machine, SOCKET, "ActiveState") == ["inactive"]
            machine.run("systemctl", "start", SOCKET)
            assert answered(machine)
            assert show(machine, PRIVILEGED, "ActiveState") == ["inactive"]
            assert show(machine, "udpecho.socket", "ActiveState") == ["active"]

    @pytest.mark.parametrize("unit", ["udpecho.socket", PRIVILEGED])
    def test_addresses(self, machine: Machine, unit: str) -> None:
        """The addresses that are commented out in a unit are those that are answered, once they are not."""
        text = (UNITS / unit).read_text()
        machine.write(f"/etc/systemd/system/{unit}", text.replace("#IPAddress", "IPAddress"))
        machine.run("systemctl", "daemon-reload")
        started(machine, SOCKET if unit == "udpecho.socket" else unit)
        assert answered(machine, source="127.0.0.1")
        assert not answered(machine, source="192.0.2.1", patience=5)

    def test_socketAlone(self, machine: Machine) -> None:
        """The first datagram starts the service, and is answered."""
        machine.run("systemctl", "start", "udpecho.socket")
        assert mainPID(machine, SOCKET) == 0
        assert answered(machine)
        assert mainPID(machine, SOCKET) != 0


class ProberTests:
    """The service of the prober."""

    def test_life(self, machine: Machine) -> None:
        """It probes the server, and has no privilege. A reload changes the targets, or fails and changes nothing; at the stop
        the log has the results.
        """
        started(machine, SOCKET)
        machine.run("systemctl", "start", PROBER)
        pid = mainPID(machine, PROBER)
        assert show(machine, PROBER, "ActiveState", "StatusText") == ["active", "probing 2 targets: 127.0.0.1:7, [::1]:7"]
        up = 'udpecho_probe_up{source="0",target="127.0.0.1:7"} 1.0'
        eventually(lambda: up in page(machine, 9108, "/metrics"), "the server does not answer")
        assert page(machine, 9108, "/-/ready").split() == ["prober:", "ok", "127.0.0.1:7:", "ok", "[::1]:7:", "ok"]
        status = machine.shell(f"cat /proc/{pid}/status")
        assert {int(found, 16) for found in re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\s*(\S+)$", status, re.MULTILINE)} == {0}
        good = (DEPLOYMENT / "udpecho-probe.toml").read_text()
        machine.write("/etc/udpecho/udpecho-probe.toml", good.replace('"[::1]:7"', '"192.0.2.1:7"'))
        machine.run("systemctl", "reload", PROBER)
        new = ["probing 2 targets: 127.0.0.1:7, 192.0.2.1:7"]
        eventually(lambda: show(machine, PROBER, "StatusText") == new, "it does not reload")
        machine.write("/etc/udpecho/udpecho-probe.toml", "nonsense = 1\n")
        assert "failed" in machine.run("systemctl", "reload", PROBER, check=False)
        assert show(machine, PROBER, "ActiveState", "MainPID", "StatusText") == ["active", str(pid), *new]
        machine.run("systemctl", "stop", PROBER)
        log = machine.run("journalctl", "--no-pager", f"_PID={pid}")
        assert re.search(r"stopped probing 127\.0\.0\.1:7 .* answered=[1-9]", log)
        assert "Traceback" not in log

    def test_permanent(self, machine: Machine) -> None:
        """If the endpoint of its pages is not to be had it stays down, and its log says why."""
        text = (DEPLOYMENT / "udpecho-probe.toml").read_text()
        machine.write("/etc/udpecho/udpecho-probe.toml", text.replace("interface=127.0.0.1", "interface=203.0.113.9"))
        machine.run("systemctl", "start", "--no-block", PROBER)
        for _ in range(30):
            if show(machine, PROBER, "ActiveState") == ["failed"]:
                break
            machine.shell("sleep 3")
        assert show(machine, PROBER, "ActiveState") == ["failed"]
        log = machine.shell(f"journalctl --no-pager --unit {PROBER}")
        assert "Start request repeated too quickly" in log
        assert "cannot serve metrics on " in log
        assert "Traceback" not in log

    def test_killed(self, machine: Machine) -> None:
        """It is back after C{kill -9}."""
        started(machine, SOCKET)
        machine.run("systemctl", "start", PROBER)
        pid = mainPID(machine, PROBER)
        machine.run("systemctl", "kill", "--signal=KILL", PROBER)
        eventually(lambda: mainPID(machine, PROBER) not in (0, pid), "it is not restarted")
        eventually(lambda: show(machine, PROBER, "ActiveState") == ["active"], "it is not ready")
