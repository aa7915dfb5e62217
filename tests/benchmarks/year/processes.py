"""The processes of the rehearsal: how each is started, asked and stopped."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import chaos
from tests.benchmarks.chaos import Page
from tests.benchmarks.running import PATIENCE, Broken
from tests.benchmarks.workshop import Workshop
from tests.benchmarks.year.world import NAME, PORT, SERVER, World
from tests.support.namespaces import Host

WORKERS = 2
#: Where the pages of the processes are, and where the proxy listens.
SERVER_PAGES, PROBE_PAGES, APPLICATION_PAGES, PROXY_PORT = 9107, 9108, 9109, 9000
#: What is asked continuously: by its name, by one address of each family.
TARGETS = (f"{NAME}:{PORT}", f"{SERVER[0]}:{PORT}", f"[{SERVER[2]}]:{PORT}")
#: Seconds in which a process must work, on a machine that does other things too.
_startTimeout = 60.0
#: Seconds that a page may take.
_pageTimeout = 3.0
#: Seconds without a keep-alive after which systemd would end the server.
_watchdog = 4.0


class Has(NamedTuple):
    """What a process has, without its children.

    @ivar seconds: processor time until now.
    @ivar descriptors: how many files and sockets it has open.
    @ivar resident: VmRSS, in bytes.
    """

    seconds: float
    descriptors: int
    resident: int


class Process:
    """One of the processes.

    @ivar name: what it is called.
    @ivar starts: how often it was started.
    @ivar output: where its standard output and error go.
    """

    name: str
    #: What it says when it works.
    ready: str
    #: The port of its pages.
    pages: int
    #: How many descriptors it may have more at one time than at another.
    spread = 3

    def __init__(self, host: Host, workshop: Workshop, world: World) -> None:
        self.host = host
        self.world = world
        self.starts = 0
        self._workshop = workshop
        self.output = world.disk.directory / f"{self.name}.out"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """How to run it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What its environment has in addition."""
        return {}

    def start(self) -> None:
        """Start it, and wait until it works.

        @raise Broken: if it does not.
        """
        self.starts += 1
        read = self.logged()
        with open(self.output, "ab") as output, self.host.entered():
            self._process = subprocess.Popen(
                self.command(),
                cwd=self._workshop.directory,
                env={**self._workshop.environment, **self.world.clock.environment, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _startTimeout
        while self.ready not in self.text(read):
            if time.monotonic() > deadline or self._process.poll() is not None:
                last = self.text(read).strip().splitlines()[-3:]
                raise Broken("\n    ".join([f"{self.name} does not say {self.ready!r}", *last]))
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process identifier."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where it logs to."""
        return self.output

    def logged(self) -> int:
        """How much it has logged, in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def text(self, start: int = 0) -> str:
        """What it has logged from a place on; if it has begun a new file since, all of that."""
        logged = self.log.read_bytes() if self.log.exists() else b""
        return (logged[start:] if len(logged) >= start else logged).decode(errors="replace")

    def history(self) -> str:
        """All that it has ever logged."""
        files = self.log.parent.glob(f"{self.log.name}*")
        return "".join(file.read_text(errors="replace") for file in files)

    def tree(self) -> list[int]:
        """It and its children."""
        with suppress(OSError):
            return [self.pid, *map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())]
        return [self.pid]

    def has(self) -> Has:
        """Look at it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        seen = chaos.Process.look(self.pid)
        return Has((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), seen.descriptors, seen.resident)

    def hasEnded(self) -> bool:
        """Whether it is there no more."""
        return self._process is None or self._process.poll() is not None

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Have it end.

        @raise Broken: if it does not, or with another exit status than 0 and that of the signal.
        """
        assert self._process is not None
        self._process.send_signal(number)
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"{self.name} does not stop") from None
        if status not in (0, -number, 128 + number):
            raise Broken(f"{self.name} has ended with status {status}")

    def kill(self) -> None:
        """End it and its children at once."""
        if self._process is not None:
            for pid in self.tree():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def limitDescriptors(self) -> None:
        """Let it open no descriptor; those that it has stay open."""
        numbers = {int(number) for number in os.listdir(f"/proc/{self.pid}/fd")}
        _, most = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        # A new descriptor has the lowest number that is free, which must be below the limit.
        free = next(number for number in itertools.count() if number not in numbers)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (free, most))

    def freeDescriptors(self) -> None:
        """Let it open as many as at its start."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (min(1024, most), most))

    def get(self, path: str) -> tuple[int, str]:
        """Read one of its pages.

        @return: the status, and the text.
        @raise OSError: if there is no answer.
        """
        with self.host.entered():
            connection = http.client.HTTPConnection("127.0.0.1", self.pages, timeout=_pageTimeout)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            except http.client.HTTPException as e:
                raise OSError(f"{type(e).__name__}: {e}") from None
            finally:
                connection.close()

    def metrics(self) -> Page:
        """@raise OSError: if there is no answer."""
        return Page.parse(self.get("/metrics")[1])


class Daemon(Process):
    """One with a configuration file, metrics and a watchdog."""

    #: The configuration, as it usually is, and as it may be for a time.
    usual: str
    other: str

    def __init__(self, host: Host, workshop: Workshop, world: World) -> None:
        super().__init__(host, workshop, world)
        self.file = workshop.directory / f"{self.name}.toml"
        self.configure(self.usual)
        self._keepAlives = 0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(workshop.directory / f"{self.name}.notify"))
        self._notify.setblocking(False)

    def twistd(self, plugin: str, *options: str, log: str = "-") -> Sequence[str]:
        """How to run it."""
        pages = f"tcp:{self.pages}:interface=127.0.0.1"
        return self._workshop.twistd(f"--logfile={log}", plugin, "--config", str(self.file), "--metrics", pages, *options)

    def environment(self) -> dict[str, str]:
        """See L{Process.environment}."""
        return {"NOTIFY_SOCKET": str(self._notify.getsockname()), "WATCHDOG_USEC": str(round(_watchdog * 1e6))}

    def configure(self, text: str | None) -> None:
        """Change its configuration file, or remove it. It reads it at the next SIGHUP."""
        if text is None:
            self.file.unlink()
        else:
            written = self.file.with_suffix(".new")
            written.write_text(text)
            written.replace(self.file)

    def readKeepAlives(self) -> int:
        """@return: how often it has fed its watchdog."""
        with suppress(BlockingIOError):
            while True:
                self._keepAlives += b"WATCHDOG=1" in self._notify.recv(4096)
        return self._keepAlives


class Server(Daemon):
    """C{twistd udpecho}, with workers. It writes its log itself.

    @ivar missed: how many datagrams came while it was not there.
    """

    name, ready, pages = "server", "answering on", SERVER_PAGES
    usual = "log-datagrams = 0\nrate = 100000\nburst = 100000\n"
    other = "log-datagrams = 0\nrate = 5000\nburst = 5000\nmax-payload = 1400\n"

    def __init__(self, workshop: Workshop, world: World) -> None:
        super().__init__(world.server, workshop, world)
        self.missed = 0

    @property
    def log(self) -> Path:
        """See L{Process.log}."""
        return self.output.with_suffix(".log")

    def command(self) -> Sequence[str]:
        """See L{Process.command}."""
        addresses = [word for address in SERVER for word in ("--interface", address)]
        own = ["--port", str(PORT), "--workers", str(WORKERS)]
        return self.twistd("udpecho", *addresses, *own, log=str(self.log))

    def workers(self) -> list[int]:
        """The processes that answer."""
        return self.tree()[1:]

    def health(self) -> tuple[int, dict[str, str]]:
        """@return: the status of its page, and what that has of each address, by the address.
        @raise OSError: if there is no answer.
        """
        status, text = self.get("/-/healthy")
        lines = re.findall(rf"^\[?(\S+?)\]?:{PORT}: (.*)$", text, re.MULTILINE)
        return status, dict(lines)


class Probe(Daemon):
    """C{twistd udpecho-probe}. It logs to its standard output."""

    name, ready, pages = "probe", "probing", PROBE_PAGES
    usual = f'interval = "200ms"\ntarget = {json.dumps(TARGETS)}\n'
    #: With one target more.
    other = f'interval = "200ms"\ntarget = {json.dumps([f"{SERVER[1]}:{PORT}", *TARGETS])}\n'

    def __init__(self, workshop: Workshop, world: World) -> None:
        super().__init__(world.client, workshop, world)

    def command(self) -> Sequence[str]:
        """See L{Process.command}."""
        return self.twistd("udpecho-probe")


class Proxy(Process):
    """C{udpecho proxy}, to the server's name."""

    name, ready = "proxy", "passing datagrams"
    # A socket for each client, until that has been idle for a time.
    spread = 40

    def __init__(self, workshop: Workshop, world: World) -> None:
        super().__init__(world.client, workshop, world)

    def command(self) -> Sequence[str]:
        """See L{Process.command}."""
        return [sys.executable, "-m", "udpecho", "proxy", f"127.0.0.1:{PROXY_PORT}", f"{NAME}:{PORT}", "--idle-timeout", "20s"]


class Application(Process):
    """L{tests.benchmarks.year.application}."""

    name, ready, pages = "application", "asking", APPLICATION_PAGES

    def __init__(self, workshop: Workshop, world: World) -> None:
        super().__init__(world.client, workshop, world)

    def command(self) -> Sequence[str]:
        """See L{Process.command}."""
        return [sys.executable, "-m", "tests.benchmarks.year.application", str(self.pages), *TARGETS]

    def sums(self) -> dict[str, Any]:
        """@return: the sums of each client, by its target: see L{tests.benchmarks.year.application.Asker.sums}.
        @raise OSError: if there is no answer.
        """
        found: dict[str, Any] = json.loads(self.get("/")[1])
        return found
