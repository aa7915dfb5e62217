"""The server on machines without IPv6, and with addresses that are not usable yet."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guards import needsCompiler, needsSharing, onlyLinux
from tests.support.namespaces import Host, hasIPv6
from tests.support.processes import Process, Processes, eventually
from tests.support.running import PATIENCE, udpSocket
from tests.support.server import everything

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")

_pages = 9107
#: Answers C{EAFNOSUPPORT}, as C{socket(2)} does where the kernel has no IPv6.
_withoutIPv6 = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol) {
    static int (*next)(int, int, int);
    if (domain == AF_INET6) { errno = EAFNOSUPPORT; return -1; }
    if (!next) next = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");
    return next(domain, type, protocol);
}
"""


@contextmanager
def machine() -> Iterator[Host]:
    """A machine of its own, which has IPv6."""
    if not hasIPv6():
        pytest.skip("no IPv6 here")
    host = Host("families")
    try:
        host.ip("link set lo up")
        yield host
    finally:
        host.delete()


def page(host: Host, path: str) -> tuple[int, str]:
    """@return: the status and the text of a page of a server on that machine."""

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{_pages}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()

    return host.call(get)


def answers(host: Host, address: str, port: int = 1234) -> bool:
    """Whether a server on that machine answers there."""
    with host.entered(), udpSocket(address) as sock:
        sock.sendto(b"hello", (address, port))
        return sock.recv(100) == b"hello"


@pytest.mark.namespaces
class DisabledTests:
    """C{net.ipv6.conf.all.disable_ipv6=1}: the kernel takes a bind to C{::}, and no interface has an address."""

    def test_health(self, processes: Processes) -> None:
        """A server on both wildcard addresses answers IPv4, and is healthy; when IPv6 comes, that is checked too."""
        with machine() as host:
            host.configure("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
            with host.entered():
                server = processes.server(
                    *["--interface", "0.0.0.0", "--interface", "::", "--metrics", f"tcp:{_pages}:interface=127.0.0.1"],
                    port=1234,
                )
            assert answers(host, "127.0.0.1")
            note = "[::]:1234: ok (not checked: this machine has no ::1)"
            for path in ("/-/healthy", "/-/ready"):
                assert page(host, path) == (200, f"0.0.0.0:1234: ok\n{note}\n")
            host.configure("net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.lo.disable_ipv6=0")
            eventually(
                lambda: page(host, "/-/healthy") == (200, "0.0.0.0:1234: ok\n[::]:1234: ok\n"), "the IPv6 address is checked"
            )
            assert answers(host, "::1")
            server.stop()

    @pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=needsSharing)], ids=["one", "workers"])
    def test_byDefault(self, processes: Processes, workers: list[str]) -> None:
        """The default is the loopback address that the machine has, of either family."""
        with machine() as host:
            host.configure("net.ipv6.conf.all.disable_ipv6=1")
            with host.entered():
                server = processes.server(*workers)
            assert [name for name, _ in server.addresses] == ["127.0.0.1"]
            assert "only the other addresses are served, not ::1: Cannot assign requested address" in server.log()
            server.stop()
            host.configure("net.ipv6.conf.all.disable_ipv6=0")
            host.ip("address delete 127.0.0.1/8 dev lo")
            with host.entered():
                server = processes.server(*workers)
            assert [name for name, _ in server.addresses] == ["::1"]
            server.stop()


@onlyLinux
@needsCompiler
class MissingTests:
    """A kernel without IPv6."""

    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        """What makes one of this kernel."""
        library = tmp_path.with_name(f"{tmp_path.name}.so")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-", "-ldl"], input=_withoutIPv6.encode(), check=True
        )
        return {"LD_PRELOAD": str(library)}

    @pytest.mark.parametrize(
        ("options", "missing"),
        [
            ([], "::1"),
            (["--interface", "0.0.0.0", "--interface", "::"], "::"),
            (["--interface", "::", "--interface", "0.0.0.0"], "::"),
            pytest.param(["--interface", "::", "--interface", "127.0.0.1", "--workers", "2"], "::", marks=needsSharing),
        ],
    )
    def test_servesIPv4(self, processes: Processes, environment: dict[str, str], options: list[str], missing: str) -> None:
        """IPv4 is served, and a warning names what is not."""
        server = processes.server(*options, environment=environment)
        assert len(server.addresses) == 1
        with udpSocket() as sock:
            sock.sendto(b"hello", ("127.0.0.1", server.addresses[0][1]))
            assert sock.recv(100) == b"hello"
        line = f"only the other addresses are served, not {missing}: Address family not supported by protocol"
        assert server.log().count(line) == 1
        server.stop()

    @pytest.mark.parametrize("lacks", [False, True], ids=["both", "IPv4"])
    def test_pages(self, processes: Processes, environment: dict[str, str], lacks: bool) -> None:
        """Pages at C{tcp6:PORT} are on both families, as the shipped configurations want them, or on IPv4 with a warning."""
        server = processes.server("--metrics", "tcp6:0", environment=environment if lacks else None)
        port = server.process.until(r"metrics on \S+:([0-9]+)$")[1]
        for host in ("127.0.0.1", *([] if lacks or not hasIPv6() else ["[::1]"])):
            with urllib.request.urlopen(f"http://{host}:{port}/-/healthy", timeout=PATIENCE) as response:
                assert response.status == 200
        assert ("the pages are served on IPv4 only: Address family not supported by protocol" in server.log()) == lacks
        server.stop()

    def test_onlyIPv6(self, processes: Processes, environment: dict[str, str]) -> None:
        """Without another address it cannot start."""
        process = processes.run("twistd", "-n", "udpecho", "--port", "1234", "--interface", "::", environment=environment)
        assert process.status == 1
        assert "udpecho: cannot listen on [::]:1234: Address family not supported by protocol" in process.stdout
        assert "Traceback" not in everything(process)


@pytest.mark.namespaces
class TentativeTests:
    """An address that the kernel does not let anybody bind yet: it looks whether another machine has it (RFC 4862, 5.4)."""

    def start(self, processes: Processes, host: Host, transmits: int, *options: str) -> Process:
        """Start a server on an address that is tentative for so many seconds."""
        host.ip("link add eth0 type veth peer name eth1", "link set eth1 up", "link set eth0 up")
        host.configure(
            "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.all.accept_dad=1", f"net.ipv6.conf.eth0.dad_transmits={transmits}"
        )
        return self.startAgain(processes, host, *options)

    def startAgain(self, processes: Processes, host: Host, *options: str) -> Process:
        host.ip("address add fd00::5/64 dev eth0")
        assert "tentative" in host.ip("address show dev eth0")
        with host.entered():
            return processes.start("twistd", "-n", "udpecho", "--port", "1234", *options)

    def startWaiting(self, processes: Processes, host: Host, line: str, *options: str) -> Process:
        """Start a server that waits for its address, and says so by a line. On a busy machine a start may take longer than the
        kernel's detection, and is tried again.
        """
        process = self.start(processes, host, 5, *options)
        for _ in range(4):
            if "answering" not in process.until(f"{line}|answering on")[0]:
                break
            process.stop()
            host.ip("address delete fd00::5/64 dev eth0")
            process = self.startAgain(processes, host, *options)
        process.until(line)
        return process

    def test_waits(self, processes: Processes) -> None:
        """The server waits, and says for what; the pages wait too."""
        with machine() as host:
            options = ["--interface", "fd00::5", "--metrics", r"tcp6:9107:interface=fd00\:\:5"]
            line = r"waiting for fd00::5: the address is tentative \(duplicate address detection has not finished\)$"
            process = self.startWaiting(processes, host, line, *options)
            process.until(r"metrics on \[fd00::5\]:9107$")
            process.until(r"answering on \[fd00::5\]:1234$")
            process.stop()
            assert "Traceback" not in everything(process)

    def test_waitsForPages(self, processes: Processes) -> None:
        """It waits also where only the pages need the address."""
        with machine() as host:
            options = ["--interface", "127.0.0.1", "--metrics", r"tcp6:port=9107:interface=fd00\:0\:\:5:backlog=9"]
            process = self.startWaiting(processes, host, "waiting for fd00:0::5: ", *options)
            process.until(r"metrics on \[fd00::5\]:9107$")
            process.stop()

    @pytest.mark.slow
    def test_tooLong(self, processes: Processes) -> None:
        """After ten seconds it ends with a line that names the reason."""
        with machine() as host:
            process = self.start(processes, host, 1000, "--interface", "fd00::5").finish()
            assert process.status == 1
            line = (
                "udpecho: cannot listen on [fd00::5]:1234: the address is tentative"
                " (duplicate address detection has not finished)\n"
            )
            assert process.stdout.count(line) == 1
            assert "Traceback" not in everything(process)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, processes: Processes, number: int) -> None:
        """A signal ends the waiting at once."""
        with machine() as host:
            process = self.start(processes, host, 1000, "--interface", "fd00::5")
            process.until("waiting for fd00::5: ")
            process.signal(number)
            process.finish()
            assert "cannot listen" not in process.stdout
            assert "answering" not in process.stdout
            assert "Traceback" not in everything(process)

    def test_duplicate(self, processes: Processes) -> None:
        """An address that another machine has too is not waited for."""
        with machine() as host, machine() as other:
            host.ip(f"link add eth0 type veth peer name eth0 netns {other.name}")
            host.configure("net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.all.accept_dad=1")
            other.ip("link set eth0 up")
            host.ip("link set eth0 up")
            other.take("fd00::5/64")
            host.ip("address add fd00::5/64 dev eth0")
            eventually(lambda: "dadfailed" in host.ip("address show dev eth0"), "the detection")
            with host.entered():
                process = processes.run("twistd", "-n", "udpecho", "--port", "1234", "--interface", "fd00::5")
            assert process.status == 1
            assert process.stdout.count("[fd00::5]:1234: the address is used by another machine too (") == 1
            assert "waiting" not in process.stdout
