"""Real processes: started, watched, signalled, and none left behind."""

from __future__ import annotations

import os
import re
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import udpecho
from tests.support.guards import tool as tool
from tests.support.guards import without as without
from tests.support.running import PATIENCE

_T = TypeVar("_T")

#: How each command is run where its script is missing, by what its script would do.
_mains = {
    "udpecho": "from udpecho.cli.main import main; sys.exit(main())",
    "twistd": "from twisted.scripts.twistd import run; sys.exit(run())",
    "twist": "from twisted.application.twist._twist import Twist; sys.exit(Twist.main())",
}

#: Seconds between two polls for what has no event.
_pollInterval = 0.01


class Late(AssertionError):
    """Something did not happen in time."""


def command(name: str) -> list[str]:
    """How to run C{udpecho}, C{twistd} or C{twist}: by the script next to this Python, or without it."""
    script = Path(sys.executable).with_name(name)
    if os.access(script, os.X_OK):
        return [str(script)]
    return [sys.executable, "-c", f"import sys; sys.argv[0] = {name!r}; {_mains[name]}"]


def eventually(look: Callable[[], _T | None], what: str) -> _T:
    """Poll for what has no event.

    @param look: returns something true when it has come.
    @param what: its name, for the error message.
    @return: what C{look} returned.
    @raise Late: if it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as nothing:
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() >= deadline:
                raise Late(f"{what}: not within {PATIENCE} s")
            nothing.select(_pollInterval)


def children(pid: int) -> list[int]:
    """The processes that a process has started, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def isRunning(pid: int) -> bool:
    """Whether there is such a process, and it is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:4]
    except OSError:
        return not os.path.isdir("/proc/self")


def catches(pid: int, *numbers: int) -> bool:
    """Whether a process has handlers for these signals; true where the system has no C{/proc}."""
    status = Path(f"/proc/{pid}/status")
    if not os.path.exists("/proc/self/status"):
        return True
    match = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return match is not None and all(int(match[1], 16) >> (number - 1) & 1 for number in numbers)


@contextmanager
def defaultSignals() -> Iterator[None]:
    """Start processes with the default actions of the signals that end a session.

    C{&} in a script has C{SIGINT} and C{SIGQUIT} ignored by all descendants (POSIX, Shell Command Language, 2.11), C{nohup}
    C{SIGHUP}.
    """
    numbers = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT") if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        # A handler does not outlive exec(). Until then this one does what was done before: nothing.
        signal.signal(number, lambda number, frame: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


class Process:
    """A running command, with all that it writes.

    @ivar pid: its process identifier.
    @ivar status: the exit status once it is over: of a process that was killed by a signal, minus the signal's number.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        feed: bytes | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        environment: dict[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """@param arguments: the command line.
        @param directory: where to run it.
        @param feed: what to write to its standard input, a pipe that is closed then.
        @param stdin: what else its standard input is: C{subprocess.PIPE} for a pipe to L{write} to, a descriptor, by default
            C{/dev/null}.
        @param stdout: its standard output, by default watched.
        @param stderr: its standard error, by default watched.
        @param environment: what to add to the environment.
        @param descriptors: what it inherits in addition to the three.
        """
        # The processes run the same udpecho as the tests.
        roots = [str(Path(udpecho.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if not {"--uid", "--chroot"}.isdisjoint(arguments):
            # Another user cannot write down what was covered.
            inherited.pop("COVERAGE_PROCESS_START", None)
        if feed is not None:
            stdin = subprocess.PIPE
        self.arguments = list(arguments)
        with defaultSignals():
            self._popen = subprocess.Popen(
                self.arguments,
                cwd=directory,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                env={**inherited, "PYTHONPATH": os.pathsep.join(filter(None, roots)), **(environment or {})},
                # An interrupt at the terminal is for the tests; they pass on what they want to.
                start_new_session=True,
                pass_fds=descriptors,
            )
        self.pid = self._popen.pid
        self.status: int | None = None
        self._written = {"stdout": bytearray(), "stderr": bytearray()}
        self._selector = selectors.DefaultSelector()
        self._feed = memoryview(feed or b"")
        if feed is not None:
            assert self._popen.stdin is not None
            os.set_blocking(self._popen.stdin.fileno(), False)
            self._selector.register(self._popen.stdin, selectors.EVENT_WRITE, "stdin")
            self._feedMore(self._popen.stdin)
        for name, pipe in (("stdout", self._popen.stdout), ("stderr", self._popen.stderr)):
            if pipe is not None:
                self._selector.register(pipe, selectors.EVENT_READ, name)

    @property
    def stdout(self) -> str:
        """What has been read of its standard output."""
        return self._written["stdout"].decode()

    @property
    def stderr(self) -> str:
        """What has been read of its standard error."""
        return self._written["stderr"].decode()

    def __repr__(self) -> str:
        return (
            f"{' '.join(self.arguments)}\nexit status: {self.status}\n"
            f"standard output:\n{self.stdout}\nstandard error:\n{self.stderr}\n"
        )

    def write(self, data: bytes) -> None:
        """Write to its standard input, which stays open.

        @raise Late: if it does not take it.
        """
        assert self._popen.stdin is not None
        descriptor = self._popen.stdin.fileno()
        os.set_blocking(descriptor, False)
        deadline = time.monotonic() + PATIENCE
        while data:
            if not select.select([], [descriptor], [], max(0, deadline - time.monotonic()))[1]:
                raise Late(f"does not read: {self!r}")
            data = data[os.write(descriptor, data) :]

    def closeInput(self) -> None:
        """End its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def until(self, pattern: str, stream: str = "stdout") -> re.Match[str]:
        """Wait until it has written something.

        @param pattern: a regular expression; C{^} and C{$} are the ends of a line.
        @param stream: C{stdout} or C{stderr}.
        @return: the first match in all that it has written.
        @raise Late: if nothing matches in time, or ever.
        """
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + PATIENCE
        while True:
            written = self._written[stream]
            match = wanted.search(written[: written.rfind(b"\n") + 1].decode())
            if match:
                return match
            if not self._reading() or not self._pump(deadline):
                raise Late(f"no {pattern!r} on {stream} of\n{self!r}")

    def finish(self) -> Process:
        """Wait until it is over.

        @return: this process, with all that it has written and its C{status}.
        @raise Late: if it goes on.
        """
        deadline = time.monotonic() + PATIENCE
        while self._reading():
            if not self._pump(deadline):
                raise Late(f"goes on: {self!r}")
        try:
            self.status = self._popen.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Late(f"goes on: {self!r}") from None
        self.kill()
        return self

    def stop(self) -> Process:
        """Ask it to end, with C{SIGTERM}, and wait until it has.

        @return: this process.
        """
        self.signal(signal.SIGTERM)
        return self.finish()

    def kill(self) -> None:
        """Kill it if it runs, and close its pipes."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        self._selector.close()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()

    def _reading(self) -> bool:
        return any(key.data != "stdin" for key in self._selector.get_map().values())

    def _pump(self, deadline: float) -> bool:
        """Wait until it writes, or reads what it is fed.

        @return: whether there was something before the deadline.
        """
        ready = self._selector.select(max(0, deadline - time.monotonic()))
        for key, _ in ready:
            pipe: Any = key.fileobj
            if key.data == "stdin":
                self._feedMore(pipe)
                continue
            data = os.read(key.fd, 65536)
            self._written[key.data] += data
            if not data:
                self._selector.unregister(pipe)
        return bool(ready)

    def _feedMore(self, pipe: IO[bytes]) -> None:
        try:
            self._feed = self._feed[os.write(pipe.fileno(), self._feed) :]
        except BrokenPipeError:
            self._feed = self._feed[:0]
        if not self._feed:
            self._selector.unregister(pipe)
            pipe.close()


class Server:
    """C{twistd -n udpecho}, or the same in another way, that has logged where it answers.

    @ivar process: its process.
    @ivar addresses: where it answers, C{(host, port)} pairs.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        ready = process.until(r'answering on ([^{"\n]+)$|"addresses": "([^"]+)"')
        written = re.findall(r"(?:\[([^\]]+)\]|([^\s,\[\]]+)):([0-9]+)", ready[1] or ready[2])
        self.addresses = [(ipv6 or ipv4, int(port)) for ipv6, ipv4, port in written]

    def log(self) -> list[str]:
        """What it has logged so far, without times and origins."""
        return logged(self.process.stdout)

    def stop(self) -> dict[str, int]:
        """Stop it by C{SIGTERM}, and check that it ended well.

        @return: the sums of its last line, by name, with those of the reasons to drop.
        """
        self.process.stop()
        assert "Traceback" not in self.process.stdout, self.process
        assert not self.process.stderr, self.process
        return sums(self.process.stdout)


def logged(text: str) -> list[str]:
    """The lines of a log without times and origins."""
    return re.findall(r"^[-0-9T:+]+ \[[^\]]*\] (.*)$", text, re.MULTILINE)


def sums(text: str) -> dict[str, int]:
    """Read the one line of sums in the log of a server that has stopped, and check that they add up."""
    lines = re.findall(r"stopped: (.*)$", text, re.MULTILINE)
    assert len(lines) == 1, text
    found = {name: int(number) for name, number in re.findall(r"([a-z_-]+)=([0-9]+)", lines[0])}
    named = {"received", "echoed", "dropped", "received-bytes", "echoed-bytes", "dropped-bytes"}
    assert named <= found.keys(), text
    assert found["received"] == found["echoed"] + found["dropped"], text
    assert found["received-bytes"] == found["echoed-bytes"] + found["dropped-bytes"], text
    assert found["dropped"] == sum(number for name, number in found.items() if name not in named), text
    return found


class Processes:
    """Starts processes in a directory; as a context manager, kills at its end those that are left.

    @ivar directory: where they run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Process] = []
        self._daemons: list[Path] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        for process in self._started:
            process.kill()
        for pidFile in self._daemons:
            if pidFile.exists():
                with suppress(ProcessLookupError, ValueError):
                    os.kill(int(pidFile.read_text()), signal.SIGKILL)

    def start(self, *arguments: str, **how: Any) -> Process:
        """Start a command.

        @param arguments: its name and its arguments; C{udpecho}, C{twistd} and C{twist} are those next to this Python.
        @param how: more for L{Process}.
        """
        name, *rest = arguments
        process = Process([*(command(name) if name in _mains else [name]), *rest], self.directory, **how)
        self._started.append(process)
        return process

    def run(self, *arguments: str, **how: Any) -> Process:
        """Start a command and wait until it is over."""
        return self.start(*arguments, **how).finish()

    def server(self, *options: str, twistd: Sequence[str] = ("twistd", "-n"), port: int = 0, **how: Any) -> Server:
        """Start the echo server and wait until it answers.

        @param options: those of C{udpecho}.
        @param twistd: what runs it, with its options.
        @param port: the port, any free one by default.
        """
        return Server(self.start(*twistd, "udpecho", "--port", str(port), *options, **how))

    def daemon(self, pidFile: str) -> Path:
        """A file for the process identifier of a daemon, which is killed at the end if it is still there."""
        path = self.directory / pidFile
        self._daemons.append(path)
        return path
