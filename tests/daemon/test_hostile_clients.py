"""Tests of L{udpecho.daemon.http_pages} with clients that would rather have it stop."""

from __future__ import annotations

import re
from typing import Any

import pytest
from prometheus_client import Metric
from twisted.internet import defer, error
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource

from tests.conftest import CaughtErrors
from tests.support.pages import Pages, serving, until
from tests.support.running import Recorder, Run, sleep
from udpecho.addresses import DatagramAddress
from udpecho.daemon import http_pages
from udpecho.daemon.health import AGE, SelfEcho
from udpecho.daemon.http_pages import REQUEST_TIMEOUT, REQUESTS
from udpecho.daemon.metrics_page import RENDERINGS
from udpecho.net.open import listen


class HostileTests:
    """Hostile clients cost little."""

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 1000, 413),
            (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 413),
            (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 413),
            (b"GET /metrics HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(100)) + b"\r\n", 431),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET /metrics HTTP/1.1\r\nHeader: " + b"x" * 20000 + b"\r\n\r\n", 431),
            (b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n", 400),
            (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"nonsense\r\n\r\n", 400),
        ],
    )
    def test_refused(self, request_: bytes, status: int, runOnce: Run) -> None:
        """A request that is too long, has a body, or is not HTTP is refused, and the connection closed."""

        async def work(pages: Pages) -> None:
            response = await pages.exchange(request_)
            assert [line.split()[1] for line in response.split(b"\r\n") if line.startswith(b"HTTP/")] == [b"%d" % status]

        serving(runOnce, work)

    def test_halfClosed(self, runOnce: Run) -> None:
        """A client that has closed its direction after its requests, as C{nc -N} does, gets all responses."""
        checks: list[defer.Deferred[dict[str, str | None]]] = []

        def health() -> defer.Deferred[dict[str, str | None]]:
            checks.append(defer.Deferred())
            return checks[-1]

        async def work(pages: Pages) -> None:
            client = await pages.client()
            client.transport.write(request("/-/healthy") + request("/nowhere") + request("/-/ready"))
            client.transport.loseWriteConnection()
            await until(pages.reactor, lambda: len(checks) == 1)
            await sleep(pages.reactor, 0.05)
            checks[0].callback({"here": None})
            await until(pages.reactor, lambda: len(checks) == 2)
            checks[1].callback({"here": None})
            assert re.findall(rb"HTTP/1.1 ([0-9]+)", await client.lost) == [b"200", b"404", b"200"]

        serving(runOnce, work, health)

    def test_failingCollector(self, runOnce: Run, caught: CaughtErrors) -> None:
        """A collector that raises gives 500, and one log line, whatever the number of requests."""

        async def work(pages: Pages) -> None:
            pages.registry.register(Counting([], ZeroDivisionError("a secret")))
            response = await pages.exchange(request("/metrics") * 9 + request("/metrics", "Connection: close"))
            assert response.count(b"HTTP/1.1 500 ") == 10
            assert b"a secret" not in response
            assert len(caught.flush(ZeroDivisionError)) == 1

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

    def test_unreadResponses(self) -> None:
        """While a client does not read, its requests are not read; when it has read everything, they are, and none is lost."""
        channel, transport = connected(http_pages._Site(Page(b"x" * 1000), Clock()))
        again = b"GET / HTTP/1.1\r\n\r\n"
        channel.dataReceived(again * 10)
        answered = transport.value().count(b"HTTP/1.1 200 OK")
        assert 0 < answered < 10
        assert transport.producerState == "paused"
        transport.read()
        while transport.producerState == "paused":
            answered += transport.value().count(b"HTTP/1.1 200 OK")
            transport.read()
        assert answered + transport.value().count(b"HTTP/1.1 200 OK") == 10
        channel.connectionLost(Failure(error.ConnectionAborted()))

    def test_unreadEnd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection whose last response is not read is replaced as an idle one is, and aborted when the time is over."""
        monkeypatch.setattr(http_pages, "CONNECTIONS", 3)
        clock = Clock()
        site = http_pages._Site(Page(b"x"), clock)
        connections = [connected(site) for _ in range(3)]
        for channel, transport in connections[:2]:
            channel.dataReceived(request("/", "Connection: close"))
            assert transport.disconnecting
        connections.append(connected(site))
        clock.advance(REQUEST_TIMEOUT - 1)
        assert [transport.aborting for _, transport in connections] == [True, False, False, False]
        clock.advance(1)
        assert [transport.aborting for _, transport in connections] == [True] * 4
        for channel, _ in connections:
            channel.connectionLost(Failure(error.ConnectionAborted()))
        assert not clock.getDelayedCalls()


def connected(site: http_pages._Site) -> tuple[Any, Transport]:
    """A connection to pages in memory, and its transport."""
    channel, transport = site.buildProtocol(None), Transport()
    assert channel is not None
    channel.makeConnection(transport)
    transport.channel = channel
    return channel, transport


class Page(Resource):
    """The same page at each path."""

    isLeaf = True

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def render(self, request: http.Request) -> bytes:
        return self.body


def request(path: str, *headers: str) -> bytes:
    """A request for a page."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


class Counting:
    """A collector of nothing, which notes when it is asked, and may raise an exception."""

    def __init__(self, made: list[None], error: Exception | None = None) -> None:
        self.made = made
        self.error = error

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        self.made.append(None)
        if self.error is not None:
            raise self.error
        return []


class Transport(StringTransport):
    """A connection that can be aborted, and that has room for little until it is read.

    @ivar aborting: whether it was.
    @ivar channel: its protocol.
    """

    aborting = False
    channel: Any = None
    room = 3000
    producer: Any

    def abortConnection(self) -> None:
        self.aborting = True

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > self.room and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def read(self) -> None:
        """The client reads everything."""
        self.clear()
        self.producer.resumeProducing()
