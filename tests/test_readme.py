"""Tests of C{README.md}: everything that it shows is done as it is printed."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.guards import needsIPv6, needsRoot, tool
from tests.support.processes import Process, Processes, Server, command, eventually, logged, sums
from tests.support.running import hasIPv6, udpSocket, unusedPort
from tests.support.source import LONG, ROOT, run
from udpecho.cli import console
from udpecho.daemon import client_tap, server_tap

README = (ROOT / "README.md").read_text()
#: The port that the README has everywhere; the tests put another in its place where they can.
PORT = "1234"


@dataclass
class Block:
    """A fenced block of the README.

    @ivar language: what is written behind the fence.
    @ivar text: what is in it.
    @ivar line: the number of its first line.
    """

    language: str
    text: str
    line: int

    @property
    def name(self) -> str:
        """The file name in the first line of a block of Python."""
        match = re.match(r"# (\S+)\n", self.text)
        return match[1] if match else f"line {self.line}"


def findBlocks(text: str) -> list[Block]:
    """Take the fenced blocks out of a Markdown file."""
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text.count("\n", 0, match.start()) + 2) for match in fences]


BLOCKS = findBlocks(README)
PYTHON = {block.name: block.text for block in BLOCKS if block.language == "python"}
SHELL = [block.text.rstrip("\n") for block in BLOCKS if block.language == "sh"]
(SESSION,) = (block.text for block in BLOCKS if block.language == "console")


def after(name: str) -> str:
    """The block of text behind that of a program: what the program prints."""
    names = [block.name if block.language == "python" else "" for block in BLOCKS]
    block = BLOCKS[names.index(name) + 1]
    assert block.language == "text"
    return block.text


def shape(text: str) -> str:
    """What the prober prints, without the times that it measured; which clock it has depends on the system."""
    return re.sub(r"(?<=rtt by ).*", "", re.sub(r"[\d.]+(?=[/ ]|ms)(?!/\w*[a-z])(?! bytes| probes| received)", "#", text))


def echoes(address: tuple[str, int]) -> None:
    """Look that a datagram to an address comes back, from there. A server that does this has its signal handlers, too."""
    with udpSocket("::1" if ":" in address[0] else "127.0.0.1") as sock:
        sock.sendto(b"\0hello\n\0", address)
        datagram, peer = sock.recvfrom(100)
        assert datagram == b"\0hello\n\0"
        assert peer[:2] == tuple(address)


class BlockTests:
    """What kinds of blocks there are."""

    def test_allFound(self) -> None:
        """Each fence is the beginning or the end of a block that the tests know what to do with."""
        assert len(re.findall(r"^ *[`~]{3}", README, re.MULTILINE)) == 2 * len(BLOCKS)
        assert {block.language for block in BLOCKS} == {"console", "python", "sh", "text"}
        outside = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"^(\t|    )", outside, re.MULTILINE), "nobody looks at an indented block"

    def test_allExecuted(self) -> None:
        """Each block of Python is in one of the tests below."""
        tests = {"echo.tac", "once.py", "many.py", "probe.py", "test_with_pytest.py", "test_faults.py", "test_with_trial.py"}
        assert set(PYTHON) == tests
        assert len(PYTHON) == sum(block.language == "python" for block in BLOCKS)

    def test_allShellTried(self) -> None:
        """Each block of shell is in one of the tests below."""
        assert len(SHELL) == 5
        assert SHELL[0].endswith("twistd -n udpecho --port 1234")
        assert SHELL[1].endswith("-m pytest")
        assert "--interface" in SHELL[2]
        assert "--uid" in SHELL[3]
        # With less to do in tests.test_benchmarks.
        assert SHELL[4] == ".venv/bin/python -m tests.benchmarks"

    def test_commandsFirst(self) -> None:
        """The two commands are on the first screen, each one line, with an environment of its own."""
        for block in BLOCKS[:2]:
            assert block.language == "sh"
            assert block.text.count("\n") == 1
            assert block.text.startswith("python3 -m venv .venv && .venv/bin/pip install ")
            assert block.line < 24

    def test_links(self) -> None:
        """Links work on a package index too, where there are no files: they are whole addresses, and their pages exist."""
        links = re.findall(r"\]\(([^)]+)\)", README)
        assert not [link for link in links if not link.startswith("https://")]
        pages = [re.sub(r"^https://udpecho\.readthedocs\.io/en/latest/(.*)\.html$", r"docs/\1.rst", link) for link in links]
        files = [page.removeprefix("https://github.com/udpecho/udpecho/blob/main/") for page in pages]
        assert "docs/index.rst" in files
        assert [file for file in files if not (ROOT / file).is_file()] == ["https://twisted.org/"]


class SessionTests:
    """What a newcomer sees."""

    def test_session(self, processes: Processes) -> None:
        """The session shows what is really written, on standard output and standard error."""
        port = str(processes.server().addresses[0][1])
        commands = re.findall(r"^\$ (.*)$", SESSION, re.MULTILINE)
        assert commands
        written = ""
        for line in commands:
            here = line.replace(".venv/bin/udpecho", '"$@"').replace(PORT, port)
            assert here != line
            done = processes.run(tool("bash"), "-c", here, "bash", *command("udpecho"))
            assert not done.stderr
            written += f"$ {line}\n{done.stdout}"
        assert written.replace(f":{port}", f":{PORT}") == SESSION

    def test_log(self, processes: Processes) -> None:
        """The log lines are those of a server with that option, when that happens."""
        match = re.search(r"^What it logs, here with `([^`]+)`.*?^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
        assert match
        server = processes.server(*match[1].split())
        with udpSocket() as sock:
            # While it sleeps they queue up, so that they come at once.
            server.process.signal(signal.SIGSTOP)
            for _ in range(4):
                sock.sendto(b"hello", server.addresses[0])
            server.process.signal(signal.SIGCONT)
            for _ in range(4):
                assert sock.recv(100) == b"hello"
            ours = f":{sock.getsockname()[1]}"
        server.process.until("datagrams-not-logged")
        server.stop()
        shown = match[2] if hasIPv6() else match[2].replace(f", [::1]:{PORT}", "")
        real = [line.replace(f":{server.addresses[0][1]}", f":{PORT}").replace(ours, ":40312") for line in server.log()]
        about = ("answering", "packet-", "datagrams-", "stopped")
        assert [line for line in real if line.startswith(about)] == shown.splitlines()

    def test_ping(self, processes: Processes) -> None:
        """The prober prints what is shown, but for the numbers."""
        (shown,) = (block.text for block in BLOCKS if block.text.startswith("$ udpecho ping "))
        ((_, port),) = processes.server("--interface", "127.0.0.1").addresses
        line, _, printed = shown.partition("\n")
        done = processes.run(*line.removeprefix("$ ").replace(PORT, str(port)).split())
        assert (done.status, done.stderr) == (0, "")
        assert shape(done.stdout.replace(f":{port}", f":{PORT}")) == shape(printed)

    @needsIPv6
    def test_network(self, processes: Processes) -> None:
        """The command that serves the network listens on all addresses, and does not log that it serves this machine only."""
        arguments = SHELL[2].split()
        assert arguments[0] == ".venv/bin/twistd"
        assert PORT in arguments
        server = Server(processes.start("twistd", *["0" if word == PORT else word for word in arguments[1:]]))
        assert [host for host, _ in server.addresses] == ["0.0.0.0", "::"]
        for host in ("127.0.0.1", "::1"):
            echoes((host, server.addresses[0][1]))
        server.stop()
        assert "only this machine" not in server.process.stdout

    @needsRoot
    @pytest.mark.isolated
    def test_portSeven(self, processes: Processes) -> None:
        """The command for port 7 binds it as root and answers as somebody else."""
        sudo, twistd, *arguments = SHELL[3].split()
        assert (sudo, twistd) == ("sudo", ".venv/bin/twistd")
        skipIfTaken(7)
        try:
            user = pwd.getpwnam(arguments[arguments.index("--uid") + 1])
        except KeyError as e:
            pytest.skip(str(e))
        # The other user cannot write here, and need not: but root's file of its process identifier would be left.
        server = Server(processes.start("twistd", "--pidfile=", *arguments))
        assert [port for _, port in server.addresses] == [7] * len(server.addresses)
        assert os.stat(f"/proc/{server.process.pid}").st_uid == user.pw_uid
        echoes(("127.0.0.1", 7))
        assert server.stop()["echoed"] == 1

    def test_background(self, processes: Processes) -> None:
        """Without C{-n} it goes to the background, logs to C{twistd.log}, and the shown C{kill} stops it."""
        match = re.search(r"``(kill .*?) ``", README)
        assert match
        pidFile = processes.daemon("twistd.pid")
        port = unusedPort()
        started = processes.run("twistd", "udpecho", "--port", str(port), "--interface", "127.0.0.1", stderr=subprocess.DEVNULL)
        assert started.status == 0
        eventually(pidFile.exists, "twistd.pid")
        log = processes.directory / "twistd.log"
        eventually(lambda: "answering on" in log.read_text(), "the start in twistd.log")
        echoes(("127.0.0.1", port))
        assert processes.run(tool("bash"), "-c", match[1]).status == 0
        eventually(lambda: "Server Shut Down" in log.read_text(), "the end in twistd.log")
        eventually(lambda: not pidFile.exists(), "the end of twistd.pid")


class PythonTests:
    """The blocks of Python."""

    def _write(self, processes: Processes, name: str, port: int | None = None) -> str:
        """Write an example to its file.

        @param port: what to put in the place of the README's port, which the example must have.
        """
        text = PYTHON[name]
        if port is not None:
            assert text.count(PORT) == 1
            text = text.replace(PORT, str(port))
        (processes.directory / name).write_text(text)
        return name

    def test_tac(self, processes: Processes) -> None:
        """The application runs as shown under C{twistd}, echoes, and stops."""
        match = re.search(r"run by `twistd (-\w+) echo\.tac`", README)
        assert match
        server = Server(processes.start("twistd", match[1], self._write(processes, "echo.tac", 0)))
        for address in server.addresses:
            echoes(address)
        assert server.stop()["echoed"] == len(server.addresses)

    @pytest.mark.parametrize("name", ["once.py", "many.py", "probe.py"])
    def test_program(self, name: str, processes: Processes) -> None:
        """A program prints what the README shows."""
        ((_, port),) = processes.server("--interface", "127.0.0.1").addresses
        done = processes.run(sys.executable, "-W", "error", self._write(processes, name, port))
        assert done.stdout == after(name), done
        assert not done.stderr
        assert done.status == 0

    def test_programWithoutServer(self, processes: Processes) -> None:
        """Where nothing listens the first program prints that."""
        port = unusedPort()
        done = processes.run(sys.executable, self._write(processes, "once.py", port))
        assert done.stdout == f"no echo: 127.0.0.1:{port} refused the datagram: nothing listens on that port\n", done
        assert done.status == 0

    @pytest.mark.parametrize("reactor", ["default", "asyncio"])
    @pytest.mark.parametrize(("name", "number"), [("test_with_pytest.py", 1), ("test_faults.py", 2)])
    def test_pytest(self, name: str, number: int, reactor: str, processes: Processes) -> None:
        """The tests for pytest pass, with no warning."""
        self._write(processes, name)
        options = ("-W", "error", "-p", "no:cacheprovider", f"--reactor={reactor}")
        done = processes.run(sys.executable, "-m", "pytest", *options, name)
        assert re.search(rf"^=+ {number} passed in ", done.stdout, re.MULTILINE), done
        assert done.status == 0

    def test_proxy(self, processes: Processes) -> None:
        """The command line of the proxy, named in the text, passes datagrams on, and prints what became of them."""
        match = re.search(r"`(udpecho proxy 127\.0\.0\.1:9000 127\.0\.0\.1:1234 [^`]*)`", README)
        assert match
        ((_, port),) = processes.server("--interface", "127.0.0.1").addresses
        arguments = match[1].replace(PORT, str(port)).replace(":9000", ":0").split()
        proxy = processes.start(*arguments)
        listening = proxy.until(r"passing datagrams from (\S+):(\d+) to", "stderr")
        with udpSocket() as sock:
            for _ in range(20):
                sock.sendto(b"hello", (listening[1], int(listening[2])))
            assert sock.recv(100) == b"hello"
        proxy.signal(signal.SIGINT)
        proxy.finish()
        assert proxy.status == 130
        assert re.match(r"up: datagrams=20 delayed=\d+( lost=\d+)?$", proxy.stdout.splitlines()[0]), proxy

    def test_trial(self, processes: Processes) -> None:
        """The test for trial passes, and trial finds nothing left in the reactor."""
        name = self._write(processes, "test_with_trial.py")
        done = processes.run(sys.executable, "-m", "twisted.trial", name.removesuffix(".py"))
        assert "PASSED (successes=1)" in done.stdout, done
        assert done.status == 0

    @needsIPv6
    def test_interfaces(self, processes: Processes) -> None:
        """The call that serves the network, named in the text, does."""
        match = re.search(r'`EchoService\((reactor, 1234, \["0\.0\.0\.0", "::"\])\)` serves the network', README)
        assert match
        name = self._write(processes, "echo.tac")
        text = PYTHON[name].replace(f"reactor, {PORT}", match[1].replace(PORT, "0"))
        (processes.directory / name).write_text(text)
        server = Server(processes.start("twistd", "-ny", name))
        assert [host for host, _ in server.addresses] == ["0.0.0.0", "::"]
        echoes(("127.0.0.1", server.addresses[0][1]))
        server.stop()


class TableTests:
    """The options and the exit statuses."""

    def _rows(self, heading: str) -> dict[str, str]:
        """The options in a section's table, with their defaults."""
        _, found, section = README.partition(f"\n## {heading}\n")
        assert found
        return dict(re.findall(r"^\| `--([a-z-]+)[^`]*` \| (.*?) ?\|", section.partition("\n## ")[0], re.MULTILINE))

    def test_server(self) -> None:
        """The table has every option of C{twistd udpecho}, and its default."""
        rows = self._rows("The server")
        parameters: Any = server_tap.Options.optParameters
        defaults = {option[0]: option[2] for option in parameters}
        flags = {option[0] for option in cast(Any, server_tap.Options.optFlags)}
        several = ("interface", "allow", "trust", "socket-activation")
        assert set(rows) == {*defaults, *flags, *several}
        assert {name: default for name, default in defaults.items() if default is not None}.items() <= rows.items()
        for name in several:
            assert f"[default: {rows[name]}]" in (getattr(server_tap.Options, f"opt_{name.replace('-', '_')}").__doc__ or "")
        # What has no default is described as the option itself does.
        helped = {option[0]: str(option[3]) for option in parameters if option[2] is None}
        assert not [name for name, text in helped.items() if f"[default: {rows[name]}]" not in text]

    def test_client(self) -> None:
        """The table has every option of C{udpecho send} and of C{twistd udpecho-client}, but for the peer's address there."""
        rows = self._rows("The client")
        options: Any = client_tap.Options
        named = {option[0] for option in [*options.optParameters, *options.optFlags]}
        assert set(rows) == named - {"host", "port"}
        assert rows["timeout"] == {option[0]: option[2] for option in options.optParameters}["timeout"]

    def test_send(self, processes: Processes) -> None:
        """C{udpecho send --help} knows the same options."""
        helped = processes.run("udpecho", "send", "--help").stdout
        assert set(re.findall(r"(?<!\w)--([a-z-]+)", helped)) == {*self._rows("The client"), "help"}

    def test_statuses(self, processes: Processes) -> None:
        """The exit statuses are those in the command's help."""
        rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
        assert rows
        helped = " ".join(processes.run("udpecho", "send", "--help").stdout.split())
        assert f"Exit status: {', '.join(f'{status} {meaning}' for status, meaning in rows)}." in helped
        known = (
            console.ANSWERED,
            console.UNANSWERED,
            console.WRONG_INPUT,
            console.UNREACHABLE,
            console.SIGNALLED + signal.SIGINT,
            console.READER_GONE,
        )
        assert [int(status) for status, _ in rows] == list(known)


# The two commands, in an empty clone


def skipIfTaken(port: int) -> None:
    """Skip a test if its port is in use or forbidden."""
    for host in ("127.0.0.1", "::1") if hasIPv6() else ("127.0.0.1",):
        try:
            with udpSocket(host, port):
                pass
        except OSError as e:
            pytest.skip(f"port {port}, which the README has, cannot be had here: {e.strerror}")


def clone(destination: Path) -> Path:
    """Copy what a clone would have, as it is in the working tree now."""
    git = tool("git")
    if not (ROOT / ".git").exists():
        pytest.skip("only a clone knows which files belong to it")
    listing = run([git, "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in listing.split("\0"):
        if name and (ROOT / name).is_file():
            target = destination / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return destination


def bareEnvironment(home: Path) -> list[str]:
    """How to run a shell command where nothing is set up: a short C{PATH}, a new home, and nothing else but how this machine
    reaches the network.
    """
    python = Path(sys.base_prefix) / "bin" / "python3"
    if not python.exists():
        pytest.skip(f"the Python of these tests is not called {python}")
    network = [
        f"{name}={value}"
        for name, value in os.environ.items()
        if re.fullmatch(r"PIP_.*|.*_CA_BUNDLE|SSL_CERT_.*|.*_proxy", name, re.I)
    ]
    path = os.pathsep.join([str(python.parent), "/usr/bin", "/bin"])
    return [tool("env"), "-i", f"PATH={path}", f"HOME={home}", *network, tool("bash"), "-c"]


@contextmanager
def group(arguments: list[str], directory: Path) -> Iterator[Process]:
    """A process, and at the end the end of all that it started."""
    process = Process(arguments, directory)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


@pytest.mark.slow
class CommandTests:
    """The two commands as they are printed."""

    def test_commands(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In an empty clone the first installs and runs a server that echoes; then, in the same clone, the second installs what
        the tests need and runs them. C{twistd} lists the plugins once after each.
        """
        skipIfTaken(int(PORT))
        (tmp_path / "home").mkdir()
        shell = bareEnvironment(tmp_path / "home")
        directory = clone(tmp_path / "clone")
        before = {path.name for path in directory.iterdir()}
        # They install things.
        monkeypatch.setattr("tests.support.processes.PATIENCE", LONG)

        with group([*shell, SHELL[0]], directory) as process:
            server = Server(process)
            assert {port for _, port in server.addresses} == {int(PORT)}
            for address in server.addresses:
                echoes(address)
            os.killpg(process.pid, signal.SIGTERM)
            process.finish()
        assert logged(process.stdout)[-1] == "Server Shut Down."
        assert sums(process.stdout)["echoed"] == len(server.addresses)
        self._listsOnce(shell, directory)

        # Not all tests, since this is one of them.
        with group([*shell, f"{SHELL[1]} -m 'not slow' tests/test_packaging.py"], directory) as process:
            process.finish()
        assert process.status == 0, process
        assert re.search(r"^=+ \d+ passed\b.* in ", process.stdout, re.MULTILINE), process
        self._listsOnce(shell, directory)
        ignored = {".venv", ".pytest_cache", "build", "udpecho.egg-info"}
        assert {path.name for path in directory.iterdir()} - before <= ignored

    def _listsOnce(self, shell: list[str], directory: Path) -> None:
        listed = run([*shell, ".venv/bin/twistd --help"], directory)
        for name in ("udpecho", "udpecho-client"):
            assert len(re.findall(rf"^    {name} ", listed, re.MULTILINE)) == 1, listed
