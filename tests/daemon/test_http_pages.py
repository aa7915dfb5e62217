"""Tests of L{udpecho.daemon.http_pages}, by a client that writes its HTTP itself, well-behaved or not."""

from __future__ import annotations

import errno
import gc
import gzip
import os
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.conftest import CaughtErrors
from tests.support.pages import ENDPOINT, Pages, serving, until
from tests.support.running import Recorder, Run, sleep
from udpecho.addresses import DatagramAddress
from udpecho.daemon.health import SelfEcho
from udpecho.daemon.http_pages import MetricsService
from udpecho.daemon.start_errors import CannotServeMetrics
from udpecho.net.open import listen
from udpecho.parsing import parseEndpoint
from udpecho.server.counters import Counters
from udpecho.server.metrics import makeRegistry
from udpecho.server.service import EchoService


class ParseEndpointTests:
    """L{parseEndpoint}."""

    @pytest.mark.parametrize(
        "text",
        [
            *("tcp:9107:interface=127.0.0.1", "tcp:9107", "tcp:port=0", "tcp6:9107:interface=\\:\\:1", "unix:/run/m.sock"),
            *("haproxy:tcp:9107", "systemd:domain=INET:index=99", "systemd:INET6:name=metrics"),
        ],
    )
    def test_good(self, text: str) -> None:
        """A description of an endpoint is returned as it is."""
        assert parseEndpoint(text) == text

    @pytest.mark.parametrize(
        "text",
        [
            *("", "9107", ":9107", "127.0.0.1:9107", "tcp", "tcp:", "tcp:http", "tcp:99999", "tcp:-1", "tcp:port=70000"),
            *(
                "tcp:9107:127.0.0.1:5:6",
                "tcp:9107:interfaces=127.0.0.1",
                "nonsense:9107",
                "tcp:9107\\",
                "unix:",
                "unix:/a:mode=9",
            ),
            *(
                "tcp6:9107:interface=::1",
                "tcp6:x",
                "ssl:9107:privateKey=/nonexistent",
                "stdio:",
                "systemd:domain=INET",
                "haproxy:tcp:99999",
            ),
            *("tcp:9107:backlog=x", "tcp:9107:interface=127.0.0.1:interface"),
        ],
    )
    def test_bad(self, text: str) -> None:
        """A text that is no endpoint has a message of one line."""
        with pytest.raises(ValueError, match=r"(endpoint|port) must be .*, got '[^']*'$") as caught:
            parseEndpoint(text)
        with pytest.raises(ValueError, match=re.escape(str(caught.value))):
            MetricsService(Clock(), text, makeRegistry(Counters()), lambda: defer.succeed({}))


class PageTests:
    """What is served."""

    def test_metrics(self, run: Run) -> None:
        """C{/metrics} has the current values of the registry, in Prometheus' format."""

        async def work(pages: Pages) -> None:
            for received in (0, 1):
                status, headers, body = await pages.get("/metrics")
                assert status == 200
                assert headers["content-type"].startswith("text/plain; version=")
                values = {
                    sample.name: sample.value
                    for family in text_string_to_metric_families(body.decode())
                    for sample in family.samples
                }
                assert values["udpecho_received_datagrams_total"] == received
                pages.counters.receive(5)

        serving(run, work)

    def test_library(self, runOnce: Run) -> None:
        """The page has what the library's own has: OpenMetrics, compression, selected metrics."""

        async def work(pages: Pages) -> None:
            _, headers, body = await pages.get("/metrics", "GET", "Accept: application/openmetrics-text; version=1.0.0")
            assert headers["content-type"].startswith("application/openmetrics-text")
            assert body.endswith(b"# EOF\n")
            _, headers, body = await pages.get("/metrics", "GET", "Accept-Encoding: gzip")
            assert headers["content-encoding"] == "gzip"
            assert b"udpecho_build_info" in gzip.decompress(body)
            _, _, body = await pages.get("/metrics?name[]=udpecho_received_bytes_total")
            assert {line.split()[0] for line in body.decode().splitlines() if line[0] != "#"} == {
                "udpecho_received_bytes_total"
            }

        serving(runOnce, work)

    @pytest.mark.parametrize(
        ("reasons", "status", "text"),
        [
            ({"127.0.0.1:7": None, "[::1]:7": None}, 200, "127.0.0.1:7: ok\n[::1]:7: ok\n"),
            ({"127.0.0.1:7": None, "[::1]:7": "no reply"}, 503, "127.0.0.1:7: ok\n[::1]:7: no reply\n"),
            ({}, 503, "not listening\n"),
        ],
    )
    @pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
    def test_health(self, path: str, reasons: dict[str, str | None], status: int, text: str, runOnce: Run) -> None:
        """C{/-/healthy} and C{/-/ready} have a line for each address; the status is 200 if all of them work, else 503."""

        async def work(pages: Pages) -> None:
            found, headers, body = await pages.get(path)
            assert (found, body.decode()) == (status, text)
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert headers["cache-control"] == "no-store"

        serving(runOnce, work, lambda: defer.succeed(reasons))

    def test_selfEcho(self, run: Run) -> None:
        """With a real server, simultaneous requests share one self-echo; a server that has stopped is not healthy."""

        async def check(reactor: Any) -> None:
            echo = EchoService(reactor, 0, ["127.0.0.1"])
            echo.startService()
            pages = Pages(reactor, SelfEcho(reactor, lambda: echo.addresses).check)
            requests = [defer.Deferred.fromCoroutine(pages.get("/-/healthy")) for _ in range(20)]
            assert {status for status, _, _ in await defer.gatherResults(requests)} == {200}
            assert 1 <= echo.counters.echoed <= 3
            await echo.stopService()
            await sleep(reactor, 0.2)
            status, _, body = await pages.get("/-/healthy")
            assert (status, body) == (503, b"not listening\n")
            await pages.service.stopService()

        run(check)

    def test_healthFails(self, runOnce: Run, caught: CaughtErrors) -> None:
        """If the check itself fails, that is logged, and the response is 500 without the reason."""

        async def work(pages: Pages) -> None:
            status, _, body = await pages.get("/-/healthy")
            assert status == 500
            assert b"a secret" not in body
            assert len(caught.flush(ZeroDivisionError)) == 1

        serving(runOnce, work, lambda: defer.fail(ZeroDivisionError("a secret")))

    @pytest.mark.parametrize(
        "path",
        ["/", "/metric", "/metrics/", "/metrics/x", "/-", "/-/", "/-/healthy/", "//metrics", "/%6detrics", "/favicon.ico"],
    )
    def test_nothingElse(self, path: str, runOnce: Run) -> None:
        """Any other path is not found."""

        async def work(pages: Pages) -> None:
            for method in ("GET", "HEAD", "POST"):
                status, _, body = await pages.get(path, method)
                assert status == 404
                assert (b"/metrics" in body) == (method != "HEAD")

        serving(runOnce, work)

    @pytest.mark.parametrize("path", ["/metrics", "/-/healthy"])
    def test_head(self, path: str, runOnce: Run) -> None:
        """C{HEAD} has the status and the headers of C{GET}, and no body."""

        async def work(pages: Pages) -> None:
            status, headers, body = await pages.get(path, "HEAD")
            statusOfGet, headersOfGet, bodyOfGet = await pages.get(path)
            assert (status, body) == (statusOfGet, b"") == (200, b"")
            assert headers.pop("date")
            assert headersOfGet.pop("date")
            assert headers == headersOfGet
            assert int(headers["content-length"]) == len(bodyOfGet) > 0

        serving(runOnce, work)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
    def test_otherMethods(self, method: str, runOnce: Run) -> None:
        """Other methods are not allowed."""

        async def work(pages: Pages) -> None:
            for path in ("/metrics", "/-/healthy"):
                status, headers, _ = await pages.get(path, method)
                assert (status, headers["allow"]) == (405, "GET, HEAD")

        serving(runOnce, work)

    def test_connectionStays(self, runOnce: Run) -> None:
        """One connection carries several requests, also when they arrive at once."""

        async def work(pages: Pages) -> None:
            again, last = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n", b"GET /-/ready HTTP/1.1\r\nConnection: close\r\n\r\n"
            response = await pages.exchange(again + again + last)
            assert response.count(b"HTTP/1.1 200 OK") == 3
            assert response.endswith(b"here: ok\n")

        serving(runOnce, work)


class ServiceTests:
    """L{MetricsService} starts and stops."""

    def test_privileged(self, run: Run) -> None:
        """The privileged start binds the endpoint, once, and logs its address."""

        async def check(reactor: Any) -> None:
            service = MetricsService(reactor, ENDPOINT, makeRegistry(Counters()), lambda: defer.succeed({}))
            assert service.address is None
            with capturedLogs() as events:
                service.privilegedStartService()
                address: Any = service.address
                service.startService()
            assert service.address == address
            assert f"metrics on 127.0.0.1:{address.port}" in [formatEvent(event) for event in events]
            assert service.running
            await service.stopService()
            assert service.address is None
            assert not service.running

        run(check)

    # Older versions of Twisted leave the socket that they could not bind to the garbage collector.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_taken(self, runOnce: Run) -> None:
        """An address in use is an error at once, and leaves nothing open; later the service can be started."""

        async def check(reactor: Any) -> None:
            pages = Pages(reactor)
            address: Any = pages.service.address
            description = f"tcp:{address.port}:interface=127.0.0.1"
            other = MetricsService(reactor, description, makeRegistry(Counters()), lambda: defer.succeed({}))
            for start in (other.privilegedStartService, other.startService):
                with pytest.raises(CannotServeMetrics) as caught:
                    start()
                assert str(caught.value) == f"cannot serve metrics on {description}: {os.strerror(errno.EADDRINUSE)}"
            # The traceback has it, too.
            del caught
            gc.collect()
            await other.stopService()
            await pages.service.stopService()
            other.startService()
            assert other.address == address
            await other.stopService()

        runOnce(check)

    def test_again(self, runOnce: Run) -> None:
        """It may be stopped twice, stopped before it was started, and started again."""

        async def check(reactor: Any) -> None:
            service = MetricsService(reactor, ENDPOINT, makeRegistry(Counters()), lambda: defer.succeed({}))
            await service.stopService()
            for _ in range(2):
                service.startService()
                await defer.gatherResults([service.stopService(), service.stopService()])

        runOnce(check)

    def test_stop(self, run: Run) -> None:
        """The stop closes connections that are idle, slow, wait for a check, or do not read; when it has
        finished none is open.
        """
        checks: list[defer.Deferred[dict[str, str | None]]] = []
        cancelled: list[defer.Deferred[dict[str, str | None]]] = []

        def health() -> defer.Deferred[dict[str, str | None]]:
            checks.append(defer.Deferred(cancelled.append))
            return checks[-1]

        async def work(pages: Pages) -> None:
            requests = (b"", b"GET /met", b"GET /-/healthy HTTP/1.1\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n" * 50)
            clients = [await pages.client() for _ in requests]
            clients[-1].transport.pauseProducing()
            for client, request in zip(clients, requests):
                client.transport.write(request)
            await until(pages.reactor, lambda: bool(checks))
            await pages.service.stopService()
            assert not pages.service._site._open
            clients[-1].transport.abortConnection()
            for client in clients:
                await client.lost
            assert cancelled == checks

        serving(run, work, health)

    def test_stopDuringSelfEcho(self, runOnce: Run) -> None:
        """A self-echo that has not finished at the stop leaves nothing open."""

        async def check(reactor: Any) -> None:
            silent = Recorder()
            port: Any = listen(reactor, 0, silent)
            address = DatagramAddress(("127.0.0.1", port.getHost().port))
            pages = Pages(reactor, SelfEcho(reactor, lambda: [address]).check)
            client = await pages.client()
            client.transport.write(b"GET /-/healthy HTTP/1.1\r\n\r\n")
            await silent.count(1)
            await pages.service.stopService()
            await client.lost
            await port.stopListening()
            # The timeout of the test itself.
            assert len(reactor.getDelayedCalls()) == 1

        runOnce(check)
