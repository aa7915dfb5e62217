"""Tests of L{udpecho.daemon.http_pages} with clients that would rather have it stop."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import Metric
from twisted.internet import defer, error
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from tests.support.pages import Pages, serving, until
from tests.support.running import Recorder, Run, sleep
from udpecho.addresses import DatagramAddress
from udpecho.daemon import http_pages
from udpecho.daemon.health import AGE, SelfEcho
from udpecho.daemon.http_pages import RENDERINGS, REQUEST_TIMEOUT, REQUESTS
from udpecho.net.open import listen


class HostileTests:
    """Hostile clients cost little."""

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 1000, 413),
            (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 413),
            (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 413),
            (b"GET /metrics HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(100)) + b"\r\n", 400),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
        ],
    )
    def test_refused(self, request_: bytes, status: int, runOnce: Run) -> None:
        """A request that is too long, has a body, or is not HTTP is refused, and the connection closed."""

        async def work(pages: Pages) -> None:
            response = await pages.exchange(request_)
            assert [line.split()[1] for line in response.split(b"\r\n") if line.startswith(b"HTTP/")] == [b"%d" % status]

        serving(runOnce, work)

    def test_tooMany(self, runOnce: Run) -> None:
        """The first request over the limit in a second has 429, and its connection is closed."""

        async def work(pages: Pages) -> None:
            response = await pages.exchange(b"HEAD /nowhere HTTP/1.1\r\n\r\n" * (2 * REQUESTS))
            assert response.count(b"HTTP/1.1 404 ") >= REQUESTS
            assert response.count(b"HTTP/1.1 429 ") == 1
            assert response.endswith(b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

        serving(runOnce, work)

    @pytest.mark.parametrize("path", [*("/-/healthy", "/-/ready", "/metrics", "/metrics?name[]=a", "/nowhere")])
    def test_healthIsAnswered(self, path: str, runOnce: Run) -> None:
        """As many requests for a page as are answered in a second, and more, leave the health to those that ask for it."""

        async def work(pages: Pages) -> None:
            requests = REQUESTS if path.startswith("/-/") else 2 * REQUESTS
            await pages.exchange(request(path) * (requests - 1) + request(path, "Connection: close"))
            for health in ("/-/healthy", "/-/ready"):
                status, _, body = await pages.get(health)
                assert (status, body) == (200, b"here: ok\n")

        serving(runOnce, work)

    def test_manyChecks(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Many requests for the health of a server that does not answer do not take all connections while they wait: they get
        the last result.
        """
        monkeypatch.setattr(http_pages, "CONNECTIONS", 20)

        async def check(reactor: Any) -> None:
            silent = Recorder()
            port: Any = listen(reactor, 0, silent)
            address = DatagramAddress(("127.0.0.1", port.getHost().port))
            pages = Pages(reactor, SelfEcho(reactor, lambda: [address], timeout=0.3).check)
            assert (await pages.get("/-/healthy"))[0] == 503
            sent = len(silent.datagrams)
            await sleep(reactor, 1.5 * AGE)
            clients = []
            for _ in range(50):
                clients.append(await pages.client())
                clients[-1].transport.write(request("/-/healthy", "Connection: close"))
            await defer.gatherResults([client.lost for client in clients])
            assert {client.received.partition(b"\r\n")[0] for client in clients} == {b"HTTP/1.1 503 Service Unavailable"}
            # A few more checks, with as many datagrams.
            assert len(silent.datagrams) <= 6 * sent
            await pages.service.stopService()
            await port.stopListening()

        runOnce(check)

    def test_pagesAreKept(self, runOnce: Run) -> None:
        """Many requests for the metrics get the last page of their kind; many kinds are refused. The page is made anew as soon
        as there are fewer.
        """

        async def work(pages: Pages) -> None:
            made: list[None] = []
            pages.registry.register(Counting(made))
            response = await pages.exchange(request("/metrics") * 79 + request("/metrics", "Connection: close"))
            assert response.count(b"HTTP/1.1 200 OK") == 80
            assert RENDERINGS <= len(made) <= 2 * RENDERINGS
            kinds = [request(f"/metrics?name[]={number}") for number in range(REQUESTS)]
            clients = [await pages.client() for _ in kinds]
            for client, kind in zip(clients, kinds, strict=True):
                client.transport.write(kind)
            await until(pages.reactor, lambda: any(b"HTTP/1.1 429 " in client.received for client in clients))
            for client in clients:
                client.transport.abortConnection()
            assert len(made) <= 4 * RENDERINGS

            async def value() -> bytes:
                response = await pages.exchange(request("/metrics", "Connection: close"))
                return response.partition(b"\nudpecho_received_datagrams_total ")[2].partition(b"\n")[0]

            pages.counters.receive(5)
            while await value() != b"1.0":
                await sleep(pages.reactor, 0.05)

        serving(runOnce, work)

    def test_whoWaitsStays(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that waits for its response is not replaced by idle ones, however many these are."""
        monkeypatch.setattr(http_pages, "CONNECTIONS", 10)
        checks: list[defer.Deferred[dict[str, str | None]]] = []

        def health() -> defer.Deferred[dict[str, str | None]]:
            checks.append(defer.Deferred())
            return checks[-1]

        async def work(pages: Pages) -> None:
            waiting = await pages.client()
            waiting.transport.write(request("/-/healthy", "Connection: close"))
            await until(pages.reactor, lambda: bool(checks))
            idle = [await pages.client() for _ in range(50)]
            await until(pages.reactor, lambda: sum(client.lost.called for client in idle) == 41)
            checks[0].callback({"here": None})
            assert (await waiting.lost).endswith(b"here: ok\n")
            for client in idle:
                client.transport.abortConnection()

        serving(runOnce, work, health)

    def test_fewDescriptors(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The connections take at most a quarter of the file descriptors."""
        monkeypatch.setattr(http_pages, "fileLimit", lambda: 40)

        async def work(pages: Pages) -> None:
            idle = [await pages.client() for _ in range(30)]
            await until(pages.reactor, lambda: sum(client.lost.called for client in idle) == 20)
            assert (await pages.get("/-/healthy"))[0] == 200
            for client in idle:
                client.transport.abortConnection()

        serving(runOnce, work)

    def test_tooManyConnections(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection over the limit is served: it replaces the oldest."""
        CONNECTIONS = 20
        monkeypatch.setattr(http_pages, "CONNECTIONS", CONNECTIONS)

        async def work(pages: Pages) -> None:
            idle = [await pages.client() for _ in range(CONNECTIONS + 5)]
            status, _, _ = await pages.get("/-/healthy")
            assert status == 200
            for client in idle[:5]:
                await client.lost
            assert len(pages.service._site._open) <= CONNECTIONS
            assert [client.lost.called for client in idle[-CONNECTIONS + 1 :]] == [False] * (CONNECTIONS - 1)
            for client in idle[-CONNECTIONS + 1 :]:
                client.transport.abortConnection()

        serving(runOnce, work)

    def test_slow(self) -> None:
        """A request that arrives byte by byte must be complete in time; an idle connection is closed too."""
        clock = Clock()
        site = http_pages._Site(Resource(), clock)
        transports = []
        for request in (b"GET /metrics HTTP/1.1\r\nHeader: " + b"x" * 1000, b""):
            transport = Transport()
            transports.append((transport, request))
            channel = site.buildProtocol(None)
            channel.makeConnection(transport)
            transport.channel = channel
        for second in range(REQUEST_TIMEOUT - 1):
            clock.advance(1)
            for transport, request in transports:
                transport.channel.dataReceived(request[second : second + 1])
        assert [transport.aborting for transport, _ in transports] == [False, False]
        clock.advance(1)
        assert [transport.aborting for transport, _ in transports] == [True, True]
        for transport, _ in transports:
            transport.channel.connectionLost(Failure(error.ConnectionAborted()))
        assert not clock.getDelayedCalls()
        assert not site._open


def request(path: str, *headers: str) -> bytes:
    """A request for a page."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


class Counting:
    """A collector of nothing, which notes when it is asked."""

    def __init__(self, made: list[None]) -> None:
        self.made = made

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        self.made.append(None)
        return []


class Transport(StringTransport):
    """A connection that can be aborted.

    @ivar aborting: whether it was.
    @ivar channel: its protocol.
    """

    aborting = False
    channel: Any = None

    def abortConnection(self) -> None:
        self.aborting = True
