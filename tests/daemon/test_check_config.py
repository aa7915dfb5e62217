"""Tests of C{--check-config}: it refuses what the start refuses, with the same words, and accepts what the start accepts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.guards import needsSharing
from tests.support.processes import Processes
from udpecho.daemon.server_tap import Options

pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="nothing reads TOML here")

#: What no start accepts, whatever the state of the machine: a file, and the options of the command line.
WRONG = [
    ("port = 99999", []),
    ("nonsense = 1", []),
    ("port = ", []),
    ('config = "x"', []),
    ("rate = 5", ["--rate", "x"]),
    ("", ["--nonsense"]),
    ("", ["stray"]),
    ('interface = ["::1", "::1"]', []),
    ('interface = ["0.0.0.0", "127.0.0.1"]', []),
    ('interface = "fe80::1"', []),
    ('interface = "fe80::1%"', []),
    ('interface = "::1%lo"', []),
    ('interface = "::ffff:127.0.0.1"', []),
    ('socket-activation = ["echo", "echo"]', []),
    ('socket-activation = ["all", "echo"]', []),
    ('socket-activation = "a:b"', []),
    ("", ["--socket-activation", ""]),
    ('socket-activation = "echo"\nport = 7', []),
    ('socket-activation = "echo"\ninterface = "::1"', []),
    ("port = 7", ["--socket-activation", "echo"]),
    ("", ["--socket-activation", "echo", "-p", "7"]),
    ('interface = "::"', ["--socket", "echo"]),
    ('socket-activation = "echo"', ["--interface", "::1"]),
    pytest.param('workers = 2\nsocket-activation = "echo"', [], marks=needsSharing),
    pytest.param("workers = 2", ["--socket-activation", "echo"], marks=needsSharing),
    pytest.param('socket-activation = "echo"', ["--workers", "2"], marks=needsSharing),
    ('metrics = "nowhere"', []),
    ('metrics = "tcp:0:backlog=9999999999"', []),
    ('metrics = "haproxy:tcp:70000"', []),
    ("metrics = 'tcp:0:interface=fe80\\:\\:1'", []),
    (f'metrics = "unix:/tmp/{"x" * 103}"', []),
    ('metrics = "ssl:0:privateKey=/nosuch"', []),
    ('metrics = "systemd:domain=INET"', []),
]
RIGHT = [
    ("port = 7", []),
    ("", ["--port", "7"]),
    ("port = 99", ["--port=7", "--interface", "::"]),
    ("workers = 2", ["--workers", "1", "--socket-activation", "echo"]),
    ('socket-activation = ["echo", "0"]', []),
    ('interface = ["fe80::1%eth0", "0.0.0.0", "::1"]', []),
    ("", ["--socket-activation", "echo", "--metrics", "systemd:domain=INET6:name=metrics"]),
    ('metrics = "unix:/run/udpecho/metrics:mode=660"', []),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "udpecho.toml"


class CheckConfigTests:
    """C{--check-config}."""

    def checked(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
        """Read a command line with it.

        @return: the exit status, and what was printed.
        """
        with pytest.raises(SystemExit) as ended:
            Options().parseOptions(list(arguments))
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    @pytest.mark.parametrize(("text", "options"), WRONG)
    def test_wrong(
        self, text: str, options: list[str], path: Path, processes: Processes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What the start refuses the check refuses: with one line, the same, and the same exit status."""
        path.write_text(text)
        started = processes.run("twistd", "-n", "--pidfile=", "udpecho", "--config", str(path), *options)
        assert started.status == 1
        assert "Traceback" not in started.stdout + started.stderr
        assert "answering on" not in started.stdout
        reason = started.stdout.splitlines()[-1].partition(" -n: ")[2]
        if "--nonsense" in options or "stray" in options:
            # The command line itself is wrong, which has nothing to do with the file.
            checked = processes.run("twistd", "-n", "--pidfile=", "udpecho", "--check-config", str(path), *options)
            assert (checked.status, reason in checked.stdout) == (1, True)
            return
        prefix = "" if reason.startswith(str(path)) else f"{path}: "
        assert self.checked(capsys, "--check-config", str(path), *options) == (1, f"{prefix}{reason}\n")
        assert self.checked(capsys, *options, f"--check={path}")[0] == 1

    @pytest.mark.parametrize("options", [["-n", "--uid", "65534"], []], ids=["uid", "background"])
    def test_root(self, options: list[str], path: Path, processes: Processes) -> None:
        """So is a root directory without what C{twistd} needs there."""
        path.write_text("port = 7")
        twistd = ["twistd", *options, "--pidfile=", "--chroot", str(path.parent), "udpecho"]
        started = processes.run(*twistd, "--config", str(path))
        checked = processes.run(*twistd, "--check-config", str(path))
        reason = started.stderr.removeprefix("udpecho: ")
        assert reason.startswith("--chroot must have ")
        assert (started.status, checked.status, checked.stdout) == (1, 1, f"{path}: {reason}")

    @pytest.mark.parametrize(("text", "options"), RIGHT)
    def test_right(self, text: str, options: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What only the state of the machine can refuse is right: addresses, ports and passed sockets are the start's."""
        if "metrics" in text + "".join(options):
            pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")
        path.write_text(text)
        assert self.checked(capsys, *options, "--check-config", str(path)) == (0, f"{path}: ok\n")
        Options().parseOptions([*options, "--config", str(path)])

    @pytest.mark.parametrize("make", ["missing", "directory", "fifo", "large", "bytes"])
    def test_unreadable(self, make: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A file that cannot be read is refused."""
        if make == "directory":
            path.mkdir()
        elif make == "fifo":
            if not hasattr(os, "mkfifo"):
                pytest.skip("this system has no named pipes")
            os.mkfifo(path)
        elif make == "large":
            path.write_bytes(b"#" * (2**20 + 1))
        elif make == "bytes":
            path.write_bytes(b"\xff")
        status, lines = self.checked(capsys, "--check-config", str(path))
        assert status == 1
        assert lines.startswith(str(path))
        assert lines.count("\n") == 1

    def test_empty(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A file must be named."""
        assert self.checked(capsys, "--check-config=")[0] == 1

    def test_insteadOfConfig(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With both it is its own file that is checked."""
        path.write_text("port = 7")
        for options in (["--config", "/no/such/file"], []):
            assert self.checked(capsys, "--check-config", str(path), *options) == (0, f"{path}: ok\n")

    def test_all(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """All problems of the file are printed."""
        path.write_text("port = -1\nx = 1")
        status, lines = self.checked(capsys, "--check-config", str(path), "--socket-activation", "echo")
        assert status == 1
        assert [line.partition(": ")[0] for line in lines.splitlines()] == [f"{path}:1", f"{path}:2"]
