"""Tests of the health of real servers that are ill: an address that does not answer, a worker that hangs."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guards import needsSharing, tool
from tests.support.pages import fetch, unusedTCPPort, values
from tests.support.processes import Processes, Server, children, eventually, isRunning
from tests.support.running import PATIENCE, udpSocket, unusedPort

#: As one process, and as several.
_workers = pytest.mark.parametrize(
    "workers", [[], pytest.param(["--workers", "2"], marks=needsSharing)], ids=["one", "workers"]
)
#: Nothing is logged per datagram, and what is longer than 100 bytes is dropped.
_options = ["--log-datagrams", "0", "--max-payload", "100"]


def start(processes: Processes, *options: str, port: int = 0) -> tuple[Server, int]:
    """Start a server with pages, and return it with their port."""
    pages = unusedTCPPort()
    return processes.server(*_options, "--metrics", f"tcp:{pages}:interface=127.0.0.1", *options, port=port), pages


def lines(server: Server, *results: str) -> str:
    """A page with a result for each address."""
    return "".join(f"{host}:{port}: {result}\n" for (host, port), result in zip(server.addresses, results, strict=True))


@contextmanager
def sending(payload: bytes, source: tuple[str, int], address: tuple[str, int]) -> Iterator[None]:
    """Meanwhile, send a datagram again and again."""
    ending = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(source)

        def send() -> None:
            while not ending.wait(0.02):
                sock.sendto(payload, address)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def block(address: tuple[str, int]) -> None:
    """Have the firewall drop what comes for an address."""
    host, port = address
    chain = "inet udpecho input"
    rules = (
        "add table inet udpecho\n"
        f"add chain {chain} {{ type filter hook input priority 0; }}\n"
        f"add rule {chain} ip daddr {host} udp dport {port} drop\n"
    )
    done = subprocess.run([tool("nft"), "-f", "-"], input=rules, text=True, capture_output=True, timeout=PATIENCE)
    if done.returncode:
        pytest.skip(f"the firewall does not work here: {done.stderr}")


@pytest.mark.isolated
class AddressTests:
    """The health is that of each address."""

    @_workers
    @pytest.mark.parametrize(
        ("payload", "source"),
        # They are dropped as not_allowed, loop_guard and too_large.
        [(b"12345678", ("127.0.0.3", 0)), (b"12345678", ("127.0.0.1", 7)), (bytes(101), ("127.0.0.1", 0))],
        ids=["not_allowed", "loop_guard", "too_large"],
    )
    def test_dropsOfOthers(self, processes: Processes, workers: list[str], payload: bytes, source: tuple[str, int]) -> None:
        """While others' datagrams are dropped at one address, the other one, which gets nothing, is not healthy."""
        allow = ["--allow", "127.0.0.1", "--allow", "127.0.0.2"]
        server, pages = start(processes, *both(), *allow, *workers, port=unusedPort())
        alive, dead = server.addresses
        assert fetch(pages, "/-/healthy") == fetch(pages, "/-/ready") == (200, lines(server, "ok", "ok"))
        block(dead)
        with sending(payload, source, alive):
            eventually(lambda: sum(value for name, value in values(pages).items() if "dropped_datagrams" in name), "a drop")
            wanted = 503, lines(server, "ok", f"no reply from {dead[0]}:{dead[1]} within 1 s")
            # A result is valid for a moment.
            eventually(lambda: fetch(pages, "/-/healthy") == wanted, "the address does not answer")
            for path in ("/-/healthy", "/-/ready"):
                assert fetch(pages, path) == wanted
        server.stop()

    @_workers
    def test_refused(self, processes: Processes, workers: list[str]) -> None:
        """An address that refuses the self-echo by policy is healthy, and the page says why; one that gets nothing is not."""
        server, pages = start(processes, *both(), "--allow", "192.0.2.0/24", *workers, port=unusedPort())
        refused = "ok (refused by --allow)"
        for path in ("/-/healthy", "/-/ready"):
            assert fetch(pages, path) == (200, lines(server, refused, refused))
        dead = server.addresses[1]
        block(dead)
        wanted = 503, lines(server, refused, f"no reply from {dead[0]}:{dead[1]} within 1 s")
        with sending(b"12345678", ("127.0.0.1", 0), server.addresses[0]):
            eventually(lambda: fetch(pages, "/-/healthy") == wanted, "one address does not answer")
        server.stop()

    def test_lostAddress(self, processes: Processes) -> None:
        """An address that the machine has lost is not healthy, and no datagram for it goes to whoever has it now."""
        address("add")
        server, pages = start(processes, "--interface", "127.0.0.1", "--interface", "192.0.2.1", port=unusedPort())
        assert fetch(pages, "/-/healthy")[0] == 200
        address("del")
        wanted = 503, lines(server, "ok", "this machine does not have 192.0.2.1")
        eventually(lambda: fetch(pages, "/-/healthy") == wanted, "the address is lost")
        address("add")
        eventually(lambda: fetch(pages, "/-/healthy")[0] == 200, "the address works again")
        server.stop()


def both() -> list[str]:
    """The options to listen on two addresses; skip the test where the second is not to be had."""
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed here")
    return ["--interface", "127.0.0.1", "--interface", "127.0.0.2"]


def address(action: str) -> None:
    """Give this machine another address, or take it."""
    command = [tool("ip"), "address", action, "192.0.2.1/32", "dev", "lo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        pytest.skip(f"addresses cannot be changed here: {done.stderr}")


class PolicyTests:
    """A self-echo that is dropped by decision."""

    @pytest.mark.parametrize("size", [0, 4])
    def test_short(self, processes: Processes, size: int) -> None:
        """A server that answers short datagrams only is checked with such ones."""
        options = ["--interface", "127.0.0.1", "--max-payload", str(size)]
        for more, result in (([], "ok"), (["--allow", "192.0.2.0/24"], "ok (refused by --allow)")):
            server, pages = start(processes, *options, *more)
            assert fetch(pages, "/-/healthy") == (200, lines(server, result))
            server.stop()

    @_workers
    def test_rateLimited(self, processes: Processes, workers: list[str]) -> None:
        """Where others have used up what all together may send, the self-echo is refused, and the server healthy."""
        server, pages = start(processes, "--interface", "127.0.0.1", "--max-rate", "1", *workers)
        with sending(b"12345678", ("127.0.0.1", 0), server.addresses[0]):

            def limited() -> bool:
                status, text = fetch(pages, "/-/healthy")
                assert status == 200
                return text == lines(server, "ok (rate limited)")

            eventually(limited, "the limit")
        server.stop()


@needsSharing
@pytest.mark.slow
class HungWorkerTests:
    """A worker that hangs."""

    def hang(self, pid: int, how: str) -> None:
        """Have a worker hang."""
        os.kill(pid, signal.SIGSTOP if how == "stopped" else signal.SIGUSR2)

    @pytest.mark.parametrize("how", ["stopped", "busy"])
    def test_replaced(self, processes: Processes, how: str) -> None:
        """It is noticed: the pages count those that answer, and name it. Then it is killed and replaced, and all is well."""
        (processes.directory / "sitecustomize.py").write_text(
            textwrap.dedent(
                """
                import signal, sys

                def spin(*_):
                    while True:
                        pass

                signal.signal(signal.SIGUSR2, spin)
                """
            )
        )
        pages = unusedTCPPort()
        path = os.pathsep.join([str(processes.directory), *map(str, Path(__file__).parents[2:3])])
        server = processes.server(
            *[*_options, "--interface", "127.0.0.1", "--metrics", f"tcp:{pages}:interface=127.0.0.1", "--workers", "2"],
            environment={"PYTHONPATH": path},
        )
        before = children(server.process.pid)
        assert len(before) == 2
        self.hang(before[0], how)
        eventually(lambda: values(pages)["udpecho_workers"] == 1, "the count of those that answer")
        for path in ("/-/ready", "/-/healthy"):
            status, text = fetch(pages, path)
            assert status == 503
            assert re.search(r"^worker [12]: has not answered for [0-9]+ s$", text, re.MULTILINE)
        server.process.until("worker [12] has not answered for 6 s, and is killed$")
        server.process.until("worker [12] was killed by SIGKILL.*; another takes its place at once$")
        eventually(lambda: values(pages)["udpecho_workers"] == 2, "another in its place")
        eventually(lambda: fetch(pages, "/-/ready")[0] == 200, "it answers")
        assert before[1] in children(server.process.pid)
        assert not isRunning(before[0])
        server.stop()

    def test_allStopped(self, processes: Processes) -> None:
        """When the whole server is stopped for a time and goes on, no worker is replaced."""
        server, pages = start(processes, "--interface", "127.0.0.1", "--workers", "2")
        before = children(server.process.pid)
        everybody = [server.process.pid, *before]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        # The time in which a worker that hangs is killed.
        threading.Event().wait(8)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: fetch(pages, "/-/ready")[0] == 200, "it goes on")
        # Two looks later.
        threading.Event().wait(2)
        assert children(server.process.pid) == before
        server.stop()
        assert "has not answered" not in server.process.stdout


def descriptors(pid: int) -> list[int]:
    """The descriptors that a process has, and not just for a moment."""
    last: list[str] = []

    def look() -> list[str] | None:
        nonlocal last
        before, last = last, sorted(os.listdir(f"/proc/{pid}/fd"))
        return last if last == before else None

    return list(map(int, eventually(look, "it opens and closes files")))


class Connection:
    """A connection to the pages that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.get("/metrics")

    def get(self, path: str) -> tuple[int, str]:
        """Request a page, and return its status and its text."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def close(self) -> None:
        self._connection.close()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux changes the limits of another process")
class DescriptorTests:
    """A server that runs out of file descriptors."""

    def test_exhausted(self, processes: Processes) -> None:
        """The pages say so, and the log does, once; the server echoes meanwhile. When there are some again, all is well."""
        server, pages = start(processes, "--interface", "127.0.0.1")
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        with contextlib.closing(Connection(pages)) as connection, udpSocket() as sock:
            assert connection.get("/-/healthy")[0] == 200
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
            waiting = [socket.create_connection(("127.0.0.1", pages)) for _ in range(20)]
            server.process.until("this process has no file descriptor left: ")
            for path in ("/-/healthy", "/-/ready"):
                wanted = 503, lines(server, "not checked: this process has no file descriptor left")
                eventually(lambda path=path, wanted=wanted: connection.get(path) == wanted, "it is not checked")  # type: ignore[misc]
            assert connection.get("/metrics")[0] == 200
            sock.sendto(b"hello", server.addresses[0])
            assert sock.recv(100) == b"hello"
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            for one in waiting:
                one.close()
            eventually(lambda: fetch(pages, "/-/healthy")[0] == 200, "it works again")
        server.process.until("there are file descriptors again: the pages are served$")
        assert [line.partition(": ")[0] for line in server.log() if "descriptor" in line] == [
            "this process has no file descriptor left",
            "there are file descriptors again",
        ]
        server.stop()

    def test_last(self, processes: Processes) -> None:
        """With the last descriptor a new client gets to know what is wrong."""
        server, pages = start(processes, "--interface", "127.0.0.1")
        pid = server.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = descriptors(pid)
        # What is free below the limit is taken by others, but for the one in reserve.
        free = max(used) + 1 - len(used)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(used) + 1, most))
        with contextlib.ExitStack() as stack:
            for _ in range(free):
                stack.enter_context(contextlib.closing(Connection(pages)))
            wanted = 503, lines(server, "not checked: this process has no file descriptor left")
            eventually(lambda: fetch(pages, "/-/healthy") == wanted, "it is not checked")
        server.stop()
