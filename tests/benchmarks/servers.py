"""The servers that are measured: ours in its variants, and its peers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.workshop import HERE, Missing, Workshop

LOOPBACK = "127.0.0.1"

Command = Callable[[Workshop, int], Sequence[str]]


@dataclass(frozen=True)
class Server:
    """One server.

    @ivar name: what it is called on the command line and in tables.
    @ivar command: how to run it on a port; raises L{Missing} where that cannot be.
    @ivar asked: the address that the load asks.
    @ivar loads: the loads that it can bear, by name; C{None} for all.
    @ivar why: why not all.
    @ivar processors: how many it would use.
    @ivar keepsOutput: whether its standard output goes to a file; a line for each datagram would fill the disk.
    """

    name: str
    command: Command
    asked: str = LOOPBACK
    loads: tuple[str, ...] | None = None
    why: str = ""
    processors: int = 1
    keepsOutput: bool = True

    def bears(self, load: str) -> bool:
        """Whether it can bear a load."""
        return self.loads is None or load in self.loads


def _ours(host: str, *options: str) -> Command:
    return lambda workshop, port: workshop.udpecho(host, port, *options)


def _python(script: str, *arguments: str, needs: str | None = None) -> Command:
    def command(workshop: Workshop, port: int) -> Sequence[str]:
        if needs is not None and importlib.util.find_spec(needs) is None:
            raise Missing(f"{needs} is not installed beside this Python")
        return [sys.executable, str(HERE / "peers" / script), LOOPBACK, str(port), *arguments]

    return command


def _c(source: str) -> Command:
    return lambda workshop, port: [workshop.compile(f"peers/{source}"), LOOPBACK, str(port)]


def _go(*arguments: str) -> Command:
    return lambda workshop, port: [workshop.buildGo("peers/seed.go"), LOOPBACK, str(port), *arguments]


def _node(workshop: Workshop, port: int) -> Sequence[str]:
    return [workshop.tool("node"), str(HERE / "peers" / "dgram.js"), LOOPBACK, str(port)]


def _socat(workshop: Workshop, port: int) -> Sequence[str]:
    return [workshop.tool("socat"), "-T", "5", f"UDP4-LISTEN:{port},bind={LOOPBACK},reuseaddr,fork", "PIPE"]


_quiet = ("--log-datagrams", "0")
_unguarded = ("--no-loop-guard", "--rate", "0")
#: The load is no trusted source, and never over its limit.
_limited = ("--trust", "192.0.2.0/24", "--rate", "1000000000", "--burst", "1000000000")

#: All of them. A variant of ours is a line here; where its option does not exist, it is named and skipped.
SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server("ours", _ours(LOOPBACK, *_quiet)),
        # Asked at an address that the kernel would not answer from by itself; the load hears no other.
        Server("ours-wildcard", _ours("0.0.0.0", *_quiet), asked="127.0.0.2"),
        Server("ours-guard-off", _ours(LOOPBACK, *_quiet, *_unguarded)),
        Server("ours-limiter", _ours(LOOPBACK, *_quiet, *_limited)),
        Server("ours-logging", _ours(LOOPBACK)),
        Server("ours-no-offload", _ours(LOOPBACK, *_quiet, "--no-offload")),
        Server("ours-workers-2", _ours(LOOPBACK, *_quiet, "--workers", "2"), processors=2),
        Server("stock", _python("stock.py")),
        Server("asyncio", _python("loop.py", "asyncio")),
        Server("uvloop", _python("loop.py", "uvloop", needs="uvloop")),
        Server("c-recvfrom", _c("recvfrom.c")),
        Server("c-recvmmsg", _c("recvmmsg.c")),
        Server("c-offload", _c("offload.c")),
        Server("go", _go("quiet")),
        Server("go-logging", _go(), keepsOutput=False),
        Server("node", _node),
        Server("socat", _socat, loads=("single",), why="its pipe joins datagrams that wait in it"),
    )
}
