"""A machine with a real systemd: a container of C{systemd-nspawn(1)} with its own network, in which the checkout is /src."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.guards import tool
from tests.support.processes import eventually
from tests.support.running import PATIENCE
from tests.support.source import ROOT

#: Names the directory of a Linux with systemd and with C{/opt/udpecho}, a virtual environment with udpecho's dependencies.
VARIABLE = "UDPECHO_SYSTEMD_ROOT"

# nspawn keeps its own files in /run, which must not be on a disk; nobody else has to see them.
_privateRun = 'mount -t tmpfs tmpfs /run && mkdir /run/systemd && exec "$@"'


class Machine:
    """Boots when it is entered, and is gone at the end. All that it writes is in memory."""

    def __init__(self) -> None:
        """Skip the test if this machine cannot run another."""
        root = os.environ.get(VARIABLE)
        if root is None:
            pytest.skip(f"{VARIABLE} names no Linux to boot: docs/contributing.rst explains how to make one")
        if os.geteuid() != 0:
            pytest.skip("only root may boot a machine")
        self._arguments = [
            *(tool("unshare"), "--mount", "sh", "-c", _privateRun, "sh"),
            *(tool("systemd-nspawn"), "--quiet", "--register=no", "--keep-unit", "--boot", "--volatile=overlay"),
            # What IPAddressDeny= needs.
            *("--capability=all", "--system-call-filter=bpf"),
            *("--private-network", "--console=pipe", f"--directory={root}", f"--bind-ro={ROOT}:/src"),
            f"--machine=udpecho-{os.getpid()}",
        ]

    def __enter__(self) -> Machine:
        self._nspawn = subprocess.Popen(
            self._arguments,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            self._leader = eventually(self._findLeader, "no first process")
            eventually(lambda: "running" in self.run("systemctl", "is-system-running", check=False), "it does not boot")
            self.shell("echo /src > $(echo /opt/udpecho/lib/python3*/site-packages)/src.pth")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        # The end of its first process is the end of all that run in it.
        for pid in (getattr(self, "_leader", None), self._nspawn.pid):
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._nspawn.communicate(timeout=PATIENCE)

    def _findLeader(self) -> int | None:
        if self._nspawn.poll() is not None:
            assert self._nspawn.stdout is not None
            raise AssertionError(f"systemd-nspawn: {self._nspawn.stdout.read().decode()}")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return next((int(pid) for pid in children if _program(pid) == "systemd"), None)

    def run(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        """Run a command in it, as root.

        @return: its standard output and standard error.
        """
        return self._enter(["--mount", "--uts", "--ipc", "--net", "--pid"], arguments, check, text)

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script in it, as root."""
        return self.run("sh", "-c", script, check=check)

    def python(self, script: str, *arguments: str) -> str:
        """Run a script of this Python in its network."""
        return self._enter(["--net"], [sys.executable, "-c", script, *arguments], True, None)

    def write(self, path: str, text: str) -> None:
        """Write a file in it."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path, text=text)

    def _enter(self, namespaces: Sequence[str], arguments: Sequence[str], check: bool, text: str | None) -> str:
        done = subprocess.run(
            [tool("nsenter"), "--target", str(self._leader), *namespaces, *arguments],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT)},
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL if text is None else None,
            text=True,
            timeout=10 * PATIENCE,
        )
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}"
        return done.stdout


def _program(pid: str) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        # It is over.
        return ""
