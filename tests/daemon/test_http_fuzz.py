"""Whatever a client of the HTTP pages sends: it is answered, there is nothing in the log, and the next client is served."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs

from tests.support.pages import fetch
from tests.support.processes import Processes
from tests.support.running import PATIENCE
from udpecho.daemon.http_pages import _Pages, _Site
from udpecho.daemon.metrics_page import acceptsGzip, chosenFormat
from udpecho.server.counters import Counters
from udpecho.server.metrics import EchoCollector

GOOD = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"
#: All that a client may cause. 503 is the health's, of a server that does not work.
STATUSES = {100, 200, 400, 404, 405, 413, 414, 429, 431, 501, 505}

_octets = st.binary(max_size=12)
_words = st.sampled_from(
    [
        *(b"", b" ", b"\t", b"\0", b"\r", b"\n", b"\xff", b"\xc3\xa9", b";", b",", b"=", b"0", b"-1", b"+5", b"1e9", b"\xb2"),
        *(b"9" * 5000, b"x" * 9000, b"gzip", b"gzip;q=0", b"gzip;q=\xff", b"identity;q=0, *;q=0", b"chunked", b"gzip, chunked"),
        *(
            b"application/openmetrics-text; version=x.y",
            b"application/openmetrics-text;version=1.0.0;escaping=dots",
            b"*/*;q=nan",
        ),
        *(b"text/plain;version=" + b"9" * 5000, b"100-continue", b"close", b"keep-alive, Upgrade", b"h2c", b"bytes=0-1,-,5-"),
        *(b"Sat, 29 Oct 1994 19:43:31 GMT", b'W/"x", *', b"multipart/form-data; boundary", b"a=b;;=;c", b" folded\r\n more"),
    ]
)
_names = st.sampled_from(
    [
        *(b"Host", b"Accept", b"Accept-Encoding", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Range"),
        *(
            b"If-Modified-Since",
            b"If-None-Match",
            b"Cookie",
            b"Content-Type",
            b"Upgrade",
            b"Content-Length ",
            b"",
            b"\xff",
            b" ",
        ),
    ]
)
_headers = st.one_of(st.builds(b"%b: %b\r\n".__mod__, st.tuples(_names, st.one_of(_words, _octets))), _octets, _words)
_targets = st.one_of(
    st.sampled_from(
        [
            *(
                b"/metrics",
                b"/-/healthy",
                b"/-/ready",
                b"/metrics?name[]=%ff&%&=;name[]",
                b"/",
                b"*",
                b"here:80",
                b"//",
                b"?",
                b"%",
            ),
            *(
                b"http://here/metrics",
                b"HTTP://[::1",
                b"/metrics#x",
                b"/\xb0\xff",
                b"/" + b"x" * 9000,
                b"/me\0",
                b"/..;/metrics",
            ),
        ]
    ),
    _octets,
)
_methods = st.one_of(
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get", b"*", b"M" * 9000]), _octets
)
_versions = st.one_of(
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"", b"HTTP/1.1 x"]), _octets
)
_requests = st.builds(
    lambda line, headers, end: b" ".join(line) + b"\r\n" + b"".join(headers) + end,
    st.tuples(_methods, _targets, _versions),
    st.lists(_headers, max_size=4) | st.just([b"H: x\r\n"] * 70),
    st.sampled_from([b"\r\n", b"\r\n", b"\n\n", b"", b"\r\n\r\nSM\r\n\r\n", b"\r\n5\r\nhello\r\n0\r\n\r\n"]),
)
_streams = st.lists(
    st.one_of(
        _requests,
        _requests,
        st.just(GOOD),
        _octets,
        st.just(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))),
    ),
    max_size=5,
).map(b"".join)


class Connection(StringTransport):
    """A connection that passes on what comes after its end, as TLS does.

    @ivar aborted: whether it was aborted.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True


def makeSite(clock: Clock) -> _Site:
    """The pages of a server that works, in memory."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(EchoCollector(Counters()))

    def health() -> defer.Deferred[dict[str, str | None]]:
        return defer.succeed({"h\udcffre": None})

    return _Site(_Pages(registry, health, health, clock.seconds), clock)


def connected(site: _Site) -> tuple[Any, Connection]:
    """A connection to it, and its transport."""
    channel, transport = site.buildProtocol(None), Connection()
    assert channel is not None
    channel.makeConnection(transport)
    return channel, transport


def statuses(responses: bytes) -> list[int]:
    """The statuses of responses, whose bodies have none."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", responses, re.MULTILINE)]


class MemoryTests:
    """In memory, many and fast."""

    @given(_streams, st.integers(1, 50) | st.none())
    @example(b"GET /metrics HTTP/1.1\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n", None)
    @example(b"GET /metrics HTTP/1.1\r\nnothing\r\nHost: here\r\n\r\n", 1)
    @example(b"GET /metrics HTTP/1.1\r\nAccept: \xff\r\n\r\n", None)
    @example(b"GET /metrics HTTP/1.1\r\nAccept-Encoding: \xff\r\n\r\n", None)
    @example(b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=x.y\r\n\r\n", None)
    @settings(max_examples=200)
    def test_anyStream(self, stream: bytes, size: int | None) -> None:
        """Any bytes, in pieces of any size."""
        clock = Clock()
        site = makeSite(clock)
        channel, transport = connected(site)
        with capturedLogs() as events:
            for start in range(0, len(stream), size or len(stream) or 1):
                channel.dataReceived(stream[start : start + (size or len(stream))])
            assert set(statuses(transport.value())) <= STATUSES
            # What is not complete is not waited for without an end.
            clock.advance(100)
            assert transport.disconnecting
            other, answer = connected(site)
            other.dataReceived(GOOD)
            assert statuses(answer.value()) == [200]
        assert [event for event in events if event["log_level"] >= LogLevel.info] == []

    @given(st.lists(_requests, min_size=1, max_size=3))
    def test_piecesMakeNoDifference(self, requests: list[bytes]) -> None:
        """How the bytes arrive makes no difference."""
        stream, answers = b"".join(requests), []
        for size in (1, 7, len(stream)):
            channel, transport = connected(makeSite(Clock()))
            for start in range(0, len(stream), size):
                channel.dataReceived(stream[start : start + size])
            answers.append(statuses(transport.value()))
        assert answers == [answers[0]] * 3


class SocketTests:
    """Over TCP, with a daemon."""

    def test_anyStream(self, processes: Processes) -> None:
        """Any bytes: the client gets complete responses, until the connection ends; the log has nothing about them."""
        server = processes.server("--interface", "127.0.0.1", "--metrics", "tcp:0:interface=127.0.0.1")
        port = int(server.process.until(r"metrics on 127\.0\.0\.1:([0-9]+)")[1])
        before = len(server.log())

        @given(_streams, st.booleans())
        @settings(max_examples=60)
        def check(stream: bytes, isHalfClosed: bool) -> None:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(stream)
                client.sendall(GOOD.replace(b"Host", b"Connection: close\r\nHost") if not isHalfClosed else b"")
                if isHalfClosed:
                    client.shutdown(socket.SHUT_WR)
                else:
                    client.settimeout(0.05)
                responses = b""
                try:
                    while received := client.recv(65536):
                        responses += received
                except (ConnectionResetError, TimeoutError):
                    # The rest of a refused request is not read; what is incomplete is waited for.
                    pass
            assert set(statuses(responses)) <= STATUSES

        check()
        assert fetch(port, "/-/healthy")[0] in (200, 429)
        assert server.log()[before:] == []
        server.stop()


class NegotiationTests:
    """L{chosenFormat} and L{acceptsGzip}."""

    @pytest.mark.parametrize(
        ("accept", "chosen"),
        [
            *((b"", ""), (b"*/*", ""), (b"text/html", ""), (b"\xff", ""), (b"text/plain;version=0.0.4", "")),
            (b"application/openmetrics-text", "application/openmetrics-text"),
            (b"Application/OpenMetrics-Text; Version=1.0.0", "application/openmetrics-text;version=1.0.0"),
            *(
                (b"application/openmetrics-text;version=" + version, "")
                for version in (b"x", b"0.0.1", b"99.0", b"1.0.0.0", b"\xb2")
            ),
            *((b"application/openmetrics-text;q=" + quality, "") for quality in (b"0", b"0.000", b"nan", b"2", b"-1", b"")),
            (b"text/plain, application/openmetrics-text;q=0.5", ""),
            (b"text/plain;q=0.5, application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=1.0.0"),
            # Prometheus 3.
            (
                b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;"
                b"version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
            ),
            (b"text/plain;version=1.0.0;escaping=x", "text/plain;version=1.0.0"),
        ],
    )
    def test_format(self, accept: bytes, chosen: str) -> None:
        """The accepted format with the highest quality, if it is known."""
        assert chosenFormat(accept) == chosen

    def test_isServed(self) -> None:
        """The page has that format: what is not known, a wrong version for one, is answered as plain text."""
        for accept, contentType in (
            (b"application/openmetrics-text", CONTENT_TYPE_LATEST),
            (b"application/openmetrics-text;version=7", "text/plain; version=0.0.4; charset=utf-8"),
        ):
            channel, transport = connected(makeSite(Clock()))
            channel.dataReceived(GOOD.replace(b"Host", b"Accept: %b\r\nHost" % accept))
            assert f"\r\nContent-Type: {contentType}\r\n".encode() in transport.value()

    @pytest.mark.parametrize(
        ("encodings", "accepted"),
        [
            (b"", False),
            (b"br, GZIP", True),
            (b"gzip;q=0", False),
            (b"gzip;q=0.001", True),
            (b"\xff, gzip", True),
            (b"gzipped", False),
        ],
    )
    def test_gzip(self, encodings: bytes, accepted: bool) -> None:
        """C{gzip}, unless its quality is 0."""
        assert acceptsGzip(encodings) == accepted
