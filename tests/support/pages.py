"""The HTTP pages of a daemon, as a client sees them."""

from __future__ import annotations

import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed here")

from prometheus_client import CollectorRegistry

from tests.support.running import Run, sleep
from udpecho.daemon import states
from udpecho.daemon.http_pages import MetricsService
from udpecho.server.counters import Counters
from udpecho.server.metrics import EchoCollector

ENDPOINT = "tcp:0:interface=127.0.0.1"


class Client(Protocol):
    """Keeps the received data.

    @ivar received: all of it.
    @ivar lost: fires when the connection is closed, with all of it.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: defer.Deferred[bytes] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.received)


class Pages:
    """The pages on a reactor.

    @ivar counters: the counters on the page.
    @ivar registry: the metrics on the page.
    @ivar service: the service.
    """

    def __init__(self, reactor: Any, health: states.Health | None = None, description: str = ENDPOINT) -> None:
        self.reactor = reactor
        self.counters = Counters()
        # Without the metrics of the process, which differ from one request to the next.
        self.registry = registry = CollectorRegistry(auto_describe=True)
        registry.register(EchoCollector(self.counters))
        self.service = MetricsService(reactor, description, registry, health or (lambda: defer.succeed({"here": None})))
        self.service.startService()

    async def client(self) -> Any:
        """Connect a client."""
        address: Any = self.service.address
        if hasattr(address, "port"):
            endpoint: Any = TCP4ClientEndpoint(self.reactor, address.host, address.port)
        else:
            endpoint = UNIXClientEndpoint(self.reactor, os.fsdecode(address.name))
        return await connectProtocol(endpoint, Client())

    async def exchange(self, request: bytes) -> bytes:
        """Connect, write, and wait until the server has closed the connection.

        @return: all that it wrote.
        """
        client = await self.client()
        client.transport.write(request)
        response: bytes = await client.lost
        return response

    async def get(self, path: str, method: str = "GET", *headers: str) -> tuple[int, dict[str, str], bytes]:
        """Request a page.

        @return: status, headers with names in lower case, and body.
        """
        lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers, "", ""]
        return parsed(await self.exchange("\r\n".join(lines).encode()))


def parsed(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """@return: status, headers and body of a response."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        chunks = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            chunks, body = chunks + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = chunks
    return int(status.split()[1]), headers, body


async def until(reactor: Any, condition: Callable[[], bool]) -> None:
    """Run the reactor until a condition holds; the timeout of the run ends it."""
    while not condition():
        await sleep(reactor, 0.005)


def serving(
    run: Run,
    work: Callable[[Pages], Coroutine[Any, Any, None]],
    health: states.Health | None = None,
    description: str = ENDPOINT,
) -> None:
    """Run a coroutine function with the pages, and stop these."""

    async def serve(reactor: Any) -> None:
        pages = Pages(reactor, health, description)
        try:
            await work(pages)
        finally:
            await pages.service.stopService()

    run(serve)


def unusedTCPPort() -> int:
    """A TCP port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(port: int, path: str) -> tuple[int, str]:
    """@return: the status and the text of a page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def values(port: int) -> dict[str, float]:
    """The metrics, by name and labels."""
    status, text = fetch(port, "/metrics")
    assert status == 200
    return {name: float(value) for name, value in re.findall(r"^(udpecho_\S+) (\S+)$", text, re.MULTILINE)}
