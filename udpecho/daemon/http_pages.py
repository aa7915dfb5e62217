"""The HTTP pages of a daemon: C{/metrics} for Prometheus, C{/-/healthy} and C{/-/ready} for a supervisor.

No client can make them expensive. A request has no body and must be complete in time. The number of requests in a second is
limited, for the health apart from the rest, and so is the number of metrics pages that are made. The number of connections is
limited too: a new one replaces the oldest that waits for no response.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, error, tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import Resource

from udpecho.addresses import formatAddress
from udpecho.daemon.careful_accept import CarefulAccept
from udpecho.daemon.drop_log import LogThrottle
from udpecho.daemon.metrics_page import RenderedMetrics, acceptsGzip, chosenFormat
from udpecho.daemon.start_errors import CannotServeMetrics
from udpecho.daemon.states import Health, failures
from udpecho.guard.limiter import Ceiling
from udpecho.interfaces import Reactor
from udpecho.net.http_site import LimitedSite
from udpecho.net.monotonic import useMonotonicTime
from udpecho.net.restartable import RestartableService
from udpecho.parsing import parseEndpoint
from udpecho.printing import printable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Imported now: without a descriptor it cannot be.
resource: Any
try:
    import resource
except ImportError:
    resource = None

#: Seconds until a request must be complete, counted from the connection or the last response. More than a minute, so that a
#: connection lasts from one scrape to the next.
REQUEST_TIMEOUT = 75
#: The largest number of connections at a time. They take at most a quarter of the file descriptors.
CONNECTIONS = 256
#: The largest number of requests that are answered in a second, apart from those for the health.
REQUESTS = 100
#: The same for the health, which costs less: simultaneous requests share a check.
HEALTH_REQUESTS = 300

_tooManyRequests = 429
_methods = (b"GET", b"HEAD")
_healthPaths = (b"/-/healthy", b"/-/ready")
_negotiated = (b"Accept", b"Accept-Encoding")
_authority = re.compile(b"^https?://[^/?]*", re.IGNORECASE)

_log = Logger()


class MetricsService(RestartableService):
    """Serves the pages.

    C{privilegedStartService} binds the endpoint, so that C{twistd --uid} can serve a port below 1024; C{startService} does if
    that was not called.
    """

    def __init__(
        self, reactor: Reactor, description: str, registry: CollectorRegistry, health: Health, ready: Health | None = None
    ) -> None:
        """@param reactor: an C{IReactorTime} provider, and what the endpoint needs, as C{IReactorTCP}.
        @param description: the endpoint: see L{parseEndpoint <udpecho.parsing.parseEndpoint>}.
        @param registry: the metrics: see L{udpecho.server.metrics.makeRegistry}.
        @param health: checks whether the daemon works, for C{/-/healthy}, as L{SelfEcho.check
            <udpecho.daemon.health.SelfEcho.check>} does.
        @param ready: checks whether it answers now, for C{/-/ready}; by default C{health}.
        @raise ValueError: if C{description} does not describe an endpoint.
        """
        super().__init__()
        useMonotonicTime(reactor)
        self._reactor = reactor
        self._description = parseEndpoint(description)
        # Made before privileges are gone: a plug-in's code, and a certificate, are read from files.
        self._endpoint: IStreamServerEndpoint | None = None
        with suppress(LookupError):
            self._endpoint = serverFromString(reactor, _forThisSystem(description))
        pages = _Pages(registry, health, ready or health, reactor.seconds)
        self._site = _Site(pages, reactor)
        self._accepting: CarefulAccept | None = None
        self._binding: defer.Deferred[None] | None = None
        self._port: IListeningPort | None = None

    @property
    def address(self) -> IAddress | None:
        """The bound address; C{None} while the pages are not served."""
        return None if self._port is None else self._port.getHost()

    async def _stop(self) -> None:
        binding, self._binding = self._binding, None
        port, self._port = self._port, None
        if binding is not None:
            binding.cancel()
        if self._accepting is not None:
            self._accepting.close()
        closed = defer.succeed(None) if port is None else defer.maybeDeferred(port.stopListening)
        await closed.addErrback(self._notRemoved, port)
        await self._site.abortAll()

    def _notRemoved(self, failure: Failure, port: Any) -> None:
        # Without its privileges a daemon may be unable to remove the file of its UNIX socket, and Twisted does not go on then.
        reason = getattr(failure.value, "strerror", None) or str(failure.value)
        _log.warn("cannot remove the socket {address}: {reason}", address=_addressText(port.getHost()), reason=reason)
        if port.connected:
            tcp.Port.connectionLost(port, connectionDone)

    def _bind(self) -> None:
        if self._binding is not None:
            return
        endpoint = self._endpoint
        if endpoint is None:
            reason = LookupError("systemd has passed no such socket")
            raise CannotServeMetrics(self._description, None, reason)
        if isinstance(endpoint, UNIXServerEndpoint):
            path = os.fsdecode(endpoint._address)
            removeStale(path)
            if os.path.lexists(path):
                raise CannotServeMetrics(self._description, None, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        # Twisted's own endpoints have bound when listen() returns; one of a plug-in may fail later.
        failures: list[Failure] = []
        binding: defer.Deferred[Any] = endpoint.listen(self._site)
        binding.addCallback(self._bound)
        binding.addErrback(lambda failure: failures.append(failure) if self._binding is None else self._failed(failure))
        if not failures:
            self._binding = binding
            return
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
        failures[0].trap(error.CannotListenError, OSError, ValueError)
        # The stock port passes on an OSError if it is bound and cannot listen, or has no address, and a ValueError of its lock.
        failure: Any = failures[0].value
        raise CannotServeMetrics(self._description, None, getattr(failure, "socketError", failure)) from None

    def _bound(self, port: IListeningPort) -> None:
        self._port = port
        self._accepting = CarefulAccept(self._reactor, port)
        self._site.onClosed = self._accepting.refill
        _log.info("metrics on {address}", address=_addressText(port.getHost()))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(defer.CancelledError):
            _log.failure("cannot serve metrics on {description}", failure, description=self._description)


def fileLimit() -> int:
    """How many file descriptors this process may have, as far as the system has such a limit (C{getrlimit(2)})."""
    if resource is None:
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else int(soft)


def _forThisSystem(description: str) -> str:
    """Replace C{tcp6:PORT}, which is both families, by C{tcp:PORT} where the kernel has no IPv6."""
    both = re.fullmatch("tcp6:(?:port=)?([0-9]+)", description)
    if both is not None:
        try:
            socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
        except OSError as e:
            if e.errno == errno.EAFNOSUPPORT:
                _log.warn("the pages are served on IPv4 only: {reason}", reason=e.strerror)
                return f"tcp:{both[1]}"
    return description


def removeStale(path: str) -> None:
    """Remove the socket of a server that was killed, and its lock. Twisted takes a lock for held while any process has the PID
    in it: in a container that is 1, this process.

    @param path: the file of the UNIX socket; the lock is a symbolic link to the PID.
    """
    lock = f"{path}.lock"
    # A name in Linux's abstract namespace has a NUL, and no file: ValueError.
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # A server with a full backlog is not waited for.
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            # Linux refuses a file of any other kind, too.
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
                if os.path.islink(lock):
                    os.unlink(lock)
        except FileNotFoundError:
            if os.readlink(lock) == str(os.getpid()):
                os.unlink(lock)


def _addressText(address: IAddress) -> str:
    if isinstance(address, (IPv4Address, IPv6Address)):
        return formatAddress((address.host, address.port))
    return printable(os.fsdecode(getattr(address, "name", str(address))))


class _Site(LimitedSite):
    """Limits the requests in a second, too."""

    def __init__(self, pages: Resource, reactor: IReactorTime) -> None:
        super().__init__(pages, reactor, REQUEST_TIMEOUT)
        self._limit, self._healthLimit = Ceiling(REQUESTS), Ceiling(HEALTH_REQUESTS)
        self._now = reactor.seconds

    def logPrefix(self) -> str:
        return "metrics"

    def mostConnections(self) -> int:
        return max(1, min(CONNECTIONS, fileLimit() // 4))

    def mayAnswer(self, uri: bytes) -> bool:
        limit = self._healthLimit if _pathOf(uri) in _healthPaths else self._limit
        return not limit.refuse((1,), self._now())


class _Pages(Resource):
    isLeaf = True

    def __init__(self, registry: CollectorRegistry, health: Health, ready: Health, now: Callable[[], float]) -> None:
        super().__init__()
        self._rendered = RenderedMetrics(registry, now)
        self._now = now
        self._failures, self._failureLog = 0, LogThrottle(now(), 0)
        self._pages: Mapping[bytes, Callable[[server.Request], int]] = {
            b"/metrics": self._metrics,
            b"/-/healthy": partial(self._healthy, health),
            b"/-/ready": partial(self._healthy, ready),
        }

    def render(self, request: server.Request) -> int:
        page = self._pages.get(_pathOf(request.uri))
        # CONNECT has no path.
        if page is None and request.method != b"CONNECT":
            return _answer(request, http.NOT_FOUND, "the path must be /metrics, /-/healthy or /-/ready\n")
        if page is None or request.method not in _methods:
            request.setHeader(b"Allow", b", ".join(_methods))
            return _answer(request, http.NOT_ALLOWED, "the method must be GET or HEAD\n")
        return page(request)

    def _metrics(self, request: server.Request) -> int:
        _, _, query = request.uri.partition(b"?")
        accept, encoding = (b",".join(request.requestHeaders.getRawHeaders(name, [])) for name in _negotiated)
        try:
            page = self._rendered.get(query.decode("latin-1"), chosenFormat(accept), acceptsGzip(encoding))
        except Exception:
            return self._failed(request, Failure())
        if page is None:
            return _answer(request, _tooManyRequests, "too many requests for different metrics\n")
        for header in page.headers:
            request.setHeader(*header)
        return _finish(request, page.body)

    def _healthy(self, health: Health, request: server.Request) -> int:
        checking = defer.maybeDeferred(health)
        request.notifyFinish().addErrback(lambda _: checking.cancel())

        def checked(reasons: dict[str, str | None]) -> None:
            healthy = bool(reasons) and not failures(reasons)
            lines = [f"{part}: {reason or 'ok'}\n" for part, reason in reasons.items()] or ["not listening\n"]
            _answer(request, http.OK if healthy else http.SERVICE_UNAVAILABLE, "".join(lines))

        def failed(failure: Failure) -> None:
            if not request._disconnected:
                self._failed(request, failure)

        checking.addCallback(checked).addErrback(failed)
        return server.NOT_DONE_YET

    def _failed(self, request: server.Request, failure: Failure) -> int:
        """Somebody else's code has failed, a collector's for instance. It may do so for each request."""
        self._failures += 1
        growth = self._failureLog.update(self._now(), self._failures)
        if growth is not None:
            path = _pathOf(request.uri).decode()
            _log.failure(
                "cannot make {path} (requests since the last such line: {number})", failure, path=path, number=growth[0]
            )
        return _answer(request, http.INTERNAL_SERVER_ERROR, "the page could not be made: see the log\n")


def _pathOf(uri: bytes) -> bytes:
    """The path of a request target, which may be a whole URI (RFC 9112 section 3.2.2)."""
    return _authority.sub(b"", uri).partition(b"?")[0]


def _answer(request: server.Request, code: int, text: str) -> int:
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    return _finish(request, text.encode(errors="backslashreplace"))


def _finish(request: server.Request, body: bytes) -> int:
    # Of the response to HEAD, Twisted sends the headers only.
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.setHeader(b"Cache-Control", b"no-store")
    request.write(body)
    request.finish()
    return server.NOT_DONE_YET
