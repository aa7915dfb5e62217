"""The daemons after C{twistd} has taken privileges or the root directory away: nothing that they need is out of reach."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guards import needsRoot, needsSharing, tool
from tests.support.late_imports import found, watch
from tests.support.processes import Process, Processes, Server, command, eventually, sums
from tests.support.running import PATIENCE, REACTORS, udpSocket
from tests.support.server import everything
from tests.support.source import ROOT, imports, loadedBy, outsideFunctions, sources

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")

_nobody = ["--uid", "65534", "--gid", "65534"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can read."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def jail(place: Path) -> Path:
    """A new root directory, with what C{twistd} itself needs there."""
    root = place / "jail"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("somebody:x:65534:65534:somebody:/:/bin/false\n")
    return root


def page(address: str, path: str, method: str = "GET", **headers: str) -> int:
    """@return: the status of a page."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", headers=names, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as e:
        with e:
            return e.code


def metricsAddress(process: Process) -> str:
    """Where the pages are."""
    return process.until(r"metrics on ([0-9.]+:[0-9]+)$")[1]


def openEachPage(address: str) -> None:
    """Request what there is to request."""
    assert [page(address, path) for path in ("/metrics", "/-/healthy", "/-/ready", "/nothing")] == [200, 200, 200, 404]
    assert page(address, "/metrics", "HEAD") == 200
    assert page(address, "/metrics", "POST") == 405
    for accept in ("application/openmetrics-text; version=1.0.0", "text/plain; version=1.0.0; escaping=allow-utf-8"):
        assert page(address, "/metrics?name[]=udpecho_workers", Accept=accept, Accept_Encoding="gzip") == 200
    host, port = address.split(":")
    for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n"):
        with socket.create_connection((host, int(port)), PATIENCE) as sock:
            sock.sendall(request)
            assert sock.recv(1000).startswith(b"HTTP/1.1 4")


def echo(server: Server, times: int = 20) -> None:
    """Send datagrams of several flows, and wait for the replies."""
    for _ in range(times):
        with udpSocket() as sock:
            sock.sendto(b"hello", server.addresses[0])
            assert sock.recv(100) == b"hello"


def workers(server: Server) -> list[int]:
    """The worker processes."""
    return [int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()]


def importedInFunctions() -> set[str]:
    """What functions of the package import, but for its commands and its test kit."""
    found = set()
    for path in sources():
        if path.relative_to(ROOT).parts[1] not in ("cli", "testing", "__init__.py"):
            tree = ast.parse(path.read_text())
            atOnce = {name for statement in outsideFunctions(tree) for name in imports(statement, "udpecho")}
            found |= set(imports(tree, "udpecho")) - atOnce
    return found


def ways(place: Path, jail: Path) -> dict[str, list[str]]:
    """The ways to lose something, by a name."""
    return {"uid": _nobody, "chroot": ["--chroot", str(jail)], "both": [*_nobody, "--chroot", str(jail)]}


@needsRoot
class LateTests:
    """Nothing is imported, opened or loaded late."""

    @pytest.mark.parametrize("way", ["uid", "chroot", "both"])
    def test_server(self, processes: Processes, place: Path, jail: Path, way: str) -> None:
        """The server: its pages, its signals, reloads that succeed and fail, and its stop."""
        configuration = (jail if way != "uid" else place) / "udpecho.toml"
        configuration.write_text("rate = 5\n")
        options = ["--interface", "127.0.0.1", "--metrics", "tcp:0:interface=127.0.0.1", "--config", str(configuration)]
        twistd = ["twistd", "-n", "--pidfile=", *ways(place, jail)[way]]
        server = processes.server(*options, twistd=twistd, environment=watch(place))
        process = server.process
        echo(server)
        openEachPage(metricsAddress(process))
        process.signal(signal.SIGUSR1)
        process.until("counters: received=")
        process.signal(signal.SIGHUP)
        process.until("configuration reloaded: no changes$")
        configuration.write_text("rate = 6\nport = 1\nallow = ['10.0.0.0/8']\n")
        process.signal(signal.SIGHUP)
        process.until("configuration reloaded: allow, rate$")
        for text, message in (("rat = 6", "did you mean rate"), ("rate = ", "must be TOML")):
            configuration.write_text(text)
            process.signal(signal.SIGHUP)
            process.until(f"cannot reload, .*{message}")
        with udpSocket() as sock:
            sock.sendto(b"hello", server.addresses[0])
            process.until("datagrams-dropped: reason=not_allowed")
        server.stop()
        inside = "/udpecho.toml" if way != "uid" else str(configuration)
        assert set(found(place)) == {f"open {inside}"}

    @pytest.mark.parametrize("way", ["uid", "both"])
    def test_prober(self, processes: Processes, place: Path, jail: Path, way: str) -> None:
        """The prober, with names that are found and names that are not, and its pages."""
        names = ("127.0.0.1:9", "localhost:9", "no-such.invalid:9", "b\xfccher.invalid:9")
        (jail / "etc/hosts").write_text("127.0.0.1 localhost\n")
        process = processes.start(
            *["twistd", "-n", "--pidfile=", *ways(place, jail)[way], "udpecho-probe", "--interval", "20ms"],
            *["--metrics", "tcp:0:interface=127.0.0.1", *(word for name in names for word in ("--target", name))],
            environment=watch(place),
        )
        process.until("probing localhost:9 at ")
        process.until("cannot probe no-such.invalid:9: no address for 'no-such.invalid'")
        process.until("cannot probe b.*cher.invalid:9: no address for ")
        openEachPage(metricsAddress(process))
        process.stop()
        assert "Traceback" not in everything(process)
        assert "stopped probing" in process.stdout
        assert found(place) == []

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "b\xfccher.invalid"])
    def test_client(self, processes: Processes, place: Path, host: str) -> None:
        """The client, for each kind of name."""
        process = processes.run(
            *["twistd", "-n", "--pidfile=", *_nobody, "udpecho-client", "--host", host, "--port", "9", "--timeout", "0.1"],
            environment=watch(place),
            feed=b"hello",
        )
        assert re.search("no address for|refused the datagram|no reply", process.stdout), process
        assert "Traceback" not in everything(process)
        assert found(place) == []

    @needsSharing
    @pytest.mark.parametrize("reactor", list(REACTORS))
    def test_workers(self, processes: Processes, place: Path, jail: Path, reactor: str) -> None:
        """Workers, those that replace them too, answer where no other Python could be started."""
        twistd = ["twistd", "-n", "--pidfile=", "--reactor", reactor, *ways(place, jail)["both"]]
        server = processes.server("--interface", "127.0.0.1", "--workers", "2", twistd=twistd, environment=watch(place))
        echo(server)
        first = workers(server)
        assert len(first) == 2
        for number in (signal.SIGKILL, signal.SIGTERM):
            ended = workers(server)[0]
            os.kill(ended, number)
            eventually(lambda ended=ended: ended not in workers(server) and len(workers(server)) == 2, "another worker")  # type: ignore[misc]
            echo(server)
        server.process.signal(signal.SIGHUP)
        echo(server)
        left = workers(server)
        # What the killed worker was working on may be in no count.
        assert server.stop()["received"] >= 60
        assert not [pid for pid in left if os.path.exists(f"/proc/{pid}")]
        assert "before it was ready" not in server.process.stdout
        late = re.findall("late: (.*)", server.process.stdout)
        # namedAny() asks for the class of the event loop as a module first.
        assert not [line for line in late if "EventLoop" not in line]


class ImportTests:
    """The imports in functions, which come late."""

    @pytest.mark.parametrize(
        ("command", "unused"),
        [
            ("udpecho --metrics tcp:0 --workers 2", ["udpecho.probe."]),
            ("udpecho-probe --metrics tcp:0 --target localhost:7", ["udpecho.server.worker", "udpecho.daemon.health"]),
        ],
    )
    def test_preloaded(self, command: str, unused: list[str]) -> None:
        """When a daemon that will lose privileges is made, all that functions of the package import has been imported, but for
        what is of another daemon.
        """
        statement = (
            "from twisted.scripts.twistd import ServerOptions; from twisted.internet import reactor; config = ServerOptions();"
            f" config.parseOptions({['-n', '--gid', '65534', *command.split()]!r});"
            " config.loadedPlugins[config.subCommand].makeService(config.subOptions)"
        )
        loaded = loadedBy(statement)
        missing = [name for name in importedInFunctions() if not {name, name.rpartition(".")[0]} & loaded]
        assert not [name for name in missing if not name.startswith(tuple(unused))]


@needsRoot
class UnreadableTests:
    """Modules that the user of C{--uid} cannot read, as in a home of mode 0700."""

    def test_goesOn(self, processes: Processes, place: Path) -> None:
        """Pages and signals go on."""
        locked = place / "locked"
        locked.mkdir()
        package = Path(__file__).parents[2] / "udpecho"
        shutil.copytree(package, locked / "udpecho", ignore=shutil.ignore_patterns("__pycache__"))
        locked.chmod(0o700)
        server = processes.server(
            *["--interface", "127.0.0.1", "--metrics", "tcp:0:interface=127.0.0.1"],
            twistd=["twistd", "-n", "--pidfile=", *_nobody],
            environment={"PYTHONPATH": str(locked)},
        )
        openEachPage(metricsAddress(server.process))
        server.process.signal(signal.SIGUSR1)
        server.process.until("counters: received=")
        server.stop()


@needsRoot
class StopTests:
    """The stop of a server whose UNIX socket is in a directory of root."""

    def test_cannotRemove(self, processes: Processes, place: Path) -> None:
        """What is queued is answered, the sums are logged, and a warning names the file; the next server removes it."""
        endpoint = f"unix:{place}/metrics"
        for twistd in (["twistd", "-n", "--pidfile=", *_nobody], ["twistd", "-n", "--pidfile="]):
            server = processes.server("--interface", "127.0.0.1", "--metrics", endpoint, twistd=twistd)
            with udpSocket() as sock:
                server.process.signal(signal.SIGSTOP)
                for number in range(20):
                    sock.sendto(b"%d" % number, server.addresses[0])
                server.process.signal(signal.SIGTERM)
                server.process.signal(signal.SIGCONT)
                for number in range(20):
                    assert sock.recv(100) == b"%d" % number
            server.process.finish()
            assert sums(server.process.stdout)["echoed"] == 20
            assert "Traceback" not in everything(server.process)
            warned = "cannot remove the socket " in server.process.stdout
            assert warned == (place / "metrics").exists() == ("--uid" in twistd)


@needsRoot
class ChrootTests:
    """C{--chroot}."""

    def test_withoutUser(self, processes: Processes, jail: Path) -> None:
        """twistd looks the user up in the new root: one line says so."""
        (jail / "etc/passwd").unlink()
        process = processes.run("twistd", "-n", *_nobody, "--chroot", str(jail), "udpecho", "--port", "0")
        line = f"--chroot must have /etc/passwd with the user of --uid, 65534, got {jail} without it\n"
        assert everything(process).count(line) == 1
        assert (process.status, "Traceback" in everything(process)) == (1, False)

    def test_inBackground(self, processes: Processes, jail: Path) -> None:
        """A daemon in the background opens /dev/null."""
        process = processes.run("twistd", "--chroot", str(jail), "udpecho", "--port", "0")
        assert everything(process).count(f"--chroot must have /dev/null for a daemon in the background, got {jail}") == 1
        assert (process.status, "Traceback" in everything(process)) == (1, False)

    def test_configurationOutside(self, processes: Processes, place: Path, jail: Path) -> None:
        """A file that the new root does not have is read at the start, and a warning says what a reload needs."""
        (place / "udpecho.toml").write_text("rate = 5\n")
        server = processes.server(
            "--config", str(place / "udpecho.toml"), twistd=["twistd", "-n", "--pidfile=", "--chroot", str(jail)]
        )
        assert f"SIGHUP cannot read {place}/udpecho.toml again: {jail} must have it, too" in server.log()
        (jail / place.relative_to("/")).mkdir(parents=True)
        shutil.copy(place / "udpecho.toml", jail / place.relative_to("/"))
        server.process.signal(signal.SIGHUP)
        server.process.until("configuration reloaded: no changes$")
        server.stop()

    @pytest.mark.skipif(not os.path.exists("/etc/nsswitch.conf"), reason="this C library has no nsswitch.conf")
    def test_resolver(self, processes: Processes, place: Path, jail: Path) -> None:
        """How names are looked up is read outside: without C{nsswitch.conf} the hosts file comes after DNS, if at all."""
        calls = place / "calls"
        (jail / "etc/hosts").write_text("127.0.0.1 somewhere.invalid\n")
        process = processes.start(
            *[tool("strace"), "-f", "-e", "trace=open,openat,chroot", "-o", str(calls), *command("twistd"), "-n", "--pidfile="],
            *["--chroot", str(jail), "udpecho-probe", "--target", "somewhere.invalid:9", "--interval", "20ms"],
        )
        process.until("probing somewhere.invalid:9 at 127.0.0.1:9 ")
        os.kill(int(calls.read_text().split()[0]), signal.SIGTERM)
        process.finish()
        outside, _, inside = calls.read_text().partition("chroot(")
        assert "/etc/hosts" in inside
        assert ("nsswitch.conf" in outside, "nsswitch.conf" in inside) == (True, False)

    def test_pagesAndSystemd(self, processes: Processes, place: Path, jail: Path) -> None:
        """A UNIX socket in the new root is named as it is outside; systemd's socket is outside."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(place / "notify"))
            manager.settimeout(PATIENCE)
            (jail / "run").mkdir()
            server = processes.server(
                *["--metrics", f"unix:{jail}/run/metrics"],
                twistd=["twistd", "-n", "--pidfile=", "--chroot", str(jail)],
                environment={"NOTIFY_SOCKET": str(place / "notify")},
            )
            assert manager.recv(5000).startswith(b"READY=1\n")
            assert (jail / "run/metrics").is_socket()
            server.stop()
            assert manager.recv(5000) == b"STOPPING=1"
            assert list((jail / "run").iterdir()) == []
