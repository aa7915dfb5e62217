"""The commands where Python or the machine is of another kind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.guards import needsRoot, needsSharing, onlyLinux, tool
from tests.support.processes import Processes
from tests.support.running import PATIENCE, udpSocket
from tests.support.source import ROOT

#: Names the directory of a Linux of 32 bits with C{/opt/udpecho}, a virtual environment for the package and its tests.
VARIABLE = "UDPECHO_I386_ROOT"


@pytest.fixture
def withoutCtypes(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that was built without C{ctypes}: importing it fails in the same way."""
    (tmp_path / "ctypes.py").write_text("raise ModuleNotFoundError(\"No module named '_ctypes'\", name='_ctypes')\n")
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


class WithoutCtypesTests:
    """A Python without C{ctypes}, which is an optional part of it."""

    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=needsSharing)])
    def test_server(self, processes: Processes, withoutCtypes: dict[str, str], workers: str) -> None:
        """The server receives one by one, says why, and answers from the address that was asked."""
        arguments = ("--interface", "0.0.0.0", "--workers", workers)
        server = processes.server(*arguments, environment=withoutCtypes)
        with udpSocket() as sock:
            sock.connect(("127.0.0.1", server.addresses[0][1]))
            for size in range(5):
                sock.send(bytes(size))
            assert [len(sock.recv(100)) for _ in range(5)] == list(range(5))
        log = "\n".join(server.log())
        assert log.count("recvmmsg and sendmmsg (this Python was built without ctypes)") == 1
        counts = server.stop()
        assert (counts["received"], counts["echoed"]) == (5, 5)
        assert "Traceback" not in log

    def test_commands(self, processes: Processes, withoutCtypes: dict[str, str]) -> None:
        """C{send} and C{ping} work, and the round trips are of the clock that there is."""
        server = processes.server()
        peer = f"127.0.0.1:{server.addresses[0][1]}"
        sent = processes.run("udpecho", "send", peer, feed=b"hello", environment=withoutCtypes)
        assert sent.status == 0, sent
        pinged = processes.run("udpecho", "ping", "--count", "3", "-i", "10ms", "--json", peer, environment=withoutCtypes)
        assert pinged.status == 0, pinged
        target = json.loads(pinged.stdout)["targets"][0]
        assert target["timestamp_source"] == "monotonic"
        assert "Traceback" not in sent.stderr + pinged.stderr
        server.stop()


_inside = """
ip link set lo up 2>/dev/null || true
mount --rbind /dev "$1/dev"
mountpoint --quiet "$1/proc" || mount -t proc proc "$1/proc"
mkdir -p "$1/src"
mount --bind "$2" "$1/src"
root=$1
shift 2
exec chroot "$root" env -i LANG=C.UTF-8 HOME=/root PATH=/opt/udpecho/bin:/usr/bin:/bin:/usr/sbin:/sbin PYTHONPATH=/src \
    PYTHONDONTWRITEBYTECODE=1 sh -c 'cd /src && exec "$@"' sh "$@"
"""


@pytest.mark.slow
@onlyLinux
@needsRoot
class Linux32Tests:
    """A Linux of 32 bits, in a directory of this one."""

    def _run(self, *arguments: str, timeout: float = 10 * PATIENCE) -> str:
        root = os.environ.get(VARIABLE)
        if root is None:
            pytest.skip(f"{VARIABLE} names no Linux of 32 bits: docs/contributing.rst explains how to make one")
        entering = [tool("unshare"), "--mount", "--net", "sh", "-e", "-c", _inside, "sh", root, str(ROOT)]
        done = subprocess.run([*entering, *arguments], capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_proofs(self) -> None:
        """Batches, timestamps and timers work with structures of 32 bits."""
        script = (
            "import struct; from udpecho.net.selftest import unsupportedReason as batches;"
            "from udpecho.probe.io.timestamps import noTimestampsReason as stamps; from udpecho.probe.io.timer import watching;"
            "print(struct.calcsize('P'), batches(), stamps(), watching.reason())"
        )
        assert self._run("python", "-c", script).split() == ["4", "None", "None", "None"]

    def test_tests(self) -> None:
        """The tests of all that uses these structures pass, and none is skipped for want of a feature."""
        tests = ["tests/net/linux", "tests/net/test_selftest.py", "tests/net/test_batch.py", "tests/net/test_batch_sender.py"]
        tests += ["tests/net/test_port.py", "tests/probe/io", "tests/probe/test_sockets.py", "tests/probe/test_prober.py"]
        output = self._run(
            *("python", "-m", "pytest", "-n0", "-q", "-rs", "-p", "no:cacheprovider", *tests), timeout=100 * PATIENCE
        )
        assert not [line for line in output.splitlines() if "no batches" in line or "no timestamps" in line], output

    def test_ping(self) -> None:
        """A server answers C{udpecho ping}, which ends, with times of the kernel."""
        script = (
            "from twisted.internet.task import react; from udpecho import EchoServer, listen; import json, subprocess, sys\n"
            "from twisted.internet.utils import getProcessOutput as run\n"
            "def main(reactor):\n"
            "    port = listen(reactor, 0, EchoServer(), '127.0.0.1')\n"
            "    peer = f'127.0.0.1:{port.getHost().port}'\n"
            "    arguments = ['-m', 'udpecho', 'ping', '-c', '3', '-i', '10ms', '--json', peer]\n"
            "    return run(sys.executable, arguments, {'PYTHONPATH': '/src'}).addCallback(lambda text: print(text.decode()))\n"
            "react(main)\n"
        )
        target = json.loads(self._run("python", "-c", script))["targets"][0]
        assert (target["timestamp_source"], target["outcomes"]["answered"]) == ("kernel", 3), target
