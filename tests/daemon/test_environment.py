"""Tests of L{udpecho.daemon.environment}."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from udpecho.daemon.environment import readPassed, removePassed

SOCKETS = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:a"}
OTHERS = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}


@pytest.fixture
def initial(tmp_path: Path) -> Path:
    """The environment that the process was started with: with sockets, and all else."""
    path = tmp_path / "environ"
    variables = {"HOME": "/", **SOCKETS, **OTHERS, "bytes": "\udcff="}
    path.write_bytes(b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items()))
    return path


class PassedTests:
    """L{readPassed} and L{removePassed}."""

    def test_read(self) -> None:
        """The variables are read, and stay for others until they are removed; no other variable is touched."""
        environment = {"HOME": "/", **SOCKETS, **OTHERS}
        assert readPassed(environment) == {**SOCKETS, **OTHERS}
        assert environment == {"HOME": "/", **SOCKETS, **OTHERS}
        removePassed(environment)
        assert environment == {"HOME": "/"}
        removePassed(environment)

    @pytest.mark.parametrize("left", [{}, {"LISTEN_FDNAMES": "a:a"}, {"NOTIFY_SOCKET": "@y"}], ids=str)
    def test_taken(self, left: dict[str, str], initial: Path) -> None:
        """Sockets that somebody else has taken out of the environment are found in the one of the start; nothing else is."""
        assert readPassed(left, str(initial)) == {**left, **SOCKETS}

    def test_present(self, initial: Path) -> None:
        """What is in the environment counts, whatever was there at the start."""
        environment = {"LISTEN_PID": "12", "LISTEN_FDS": "1"}
        assert readPassed(environment, str(initial)) == environment

    def test_forked(self, initial: Path) -> None:
        """Sockets that were passed to another process are not ours."""
        text = initial.read_bytes().replace(SOCKETS["LISTEN_PID"].encode(), str(os.getppid()).encode())
        initial.write_bytes(text)
        assert readPassed({}, str(initial)) == {}

    def test_noFile(self, tmp_path: Path) -> None:
        """Where the system does not show the environment of the start, only the present one counts."""
        assert readPassed({}, str(tmp_path / "nosuch")) == {}
        assert readPassed(dict(SOCKETS), str(tmp_path / "nosuch")) == SOCKETS
