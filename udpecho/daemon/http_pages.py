"""
The pages of a server over HTTP: C{/metrics} for Prometheus, C{/-/healthy} and C{/-/ready} for who watches over it.

It is made to cost little, whoever asks: a request has no body and must be complete in time, there are only so many in a second,
and of the connections, which are few, the oldest makes room for a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, resource, server

from udpecho.addresses import formatAddress
from udpecho.guard.limiter import Ceiling, Elapsed
from udpecho.parsing import parseEndpoint

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: Asks a server whether it answers: see L{SelfEcho.check <udpecho.daemon.health.SelfEcho.check>}.
Health = Callable[[], "defer.Deferred[dict[str, str | None]]"]

#: Seconds in which a request must have come, from when the connection was made or the last answer given; more than a minute,
#: so that a connection lasts from one scrape to the next.
REQUEST_TIMEOUT = 75
#: How many connections there are at a time.
CONNECTIONS = 64
#: How many requests are answered in a second.
REQUESTS = 100

_methods = (b"GET", b"HEAD")
_text = b"text/plain; charset=utf-8"

_log = Logger()


class MetricsService(Service):
    """
    Serves the pages.

    The endpoint is bound in C{privilegedStartService}, so that C{twistd --uid} can serve a low port, or else in
    C{startService}. When C{stopService} is over no connection is open.
    """

    def __init__(self, reactor: IReactorTime, description: str, registry: CollectorRegistry, health: Health) -> None:
        """
        @param reactor: a reactor with all that the endpoint needs.
        @param description: the endpoint: see L{parseEndpoint <udpecho.parsing.parseEndpoint>}.
        @param registry: what to show: see L{udpecho.server.metrics.makeRegistry}.
        @param health: asks the server whether it answers.

        @raise ValueError: if C{description} is not of an endpoint.
        """
        self._reactor = reactor
        self._description = parseEndpoint(description)
        self._site = _Site(_Pages(registry, health), reactor)
        self._binding: defer.Deferred[None] | None = None
        self._port: IListeningPort | None = None

    @property
    def address(self) -> IAddress | None:
        """Where the pages are; C{None} while they are not served."""
        return None if self._port is None else self._port.getHost()

    def privilegedStartService(self) -> None:
        """
        Bind the endpoint.

        @raise error.CannotListenError: if the system refuses it.
        """
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """
        Serve. The endpoint is bound first, if C{privilegedStartService} has not been called.

        @raise error.CannotListenError: if the system refuses it.
        """
        self._bind()
        super().startService()

    def stopService(self) -> defer.Deferred[None]:
        """
        Stop to serve, and cut all connections. May be called often.

        @return: fires when all are closed.
        """
        super().stopService()
        binding, self._binding = self._binding, None
        port, self._port = self._port, None
        if binding is not None:
            binding.cancel()
        closed = defer.succeed(None) if port is None else defer.maybeDeferred(port.stopListening)
        return closed.addCallback(lambda _: self._site.cutAll())

    def _bind(self) -> None:
        if self._binding is not None:
            return
        refused: list[Failure] = []
        binding = serverFromString(self._reactor, self._description).listen(self._site)
        binding.addCallback(self._bound)
        binding.addErrback(lambda reason: refused.append(reason) if self._binding is None else self._failed(reason))
        if refused:
            port, self._port = self._port, None
            if port is not None:
                port.stopListening()
            if isinstance(refused[0].value, OSError):
                # What the stock port lets out as it is: bound, it could not listen, or not say where.
                raise error.CannotListenError(self._description, None, refused[0].value) from None
            refused[0].raiseException()
        self._binding = binding

    def _bound(self, port: IListeningPort) -> None:
        self._port = port
        _log.info("metrics on {address}", address=_where(port.getHost()))

    def _failed(self, reason: Failure) -> None:
        if not reason.check(defer.CancelledError):
            _log.failure("cannot serve metrics on {description}", reason, description=self._description)


def _where(address: IAddress) -> str:
    if isinstance(address, (IPv4Address, IPv6Address)):
        return formatAddress((address.host, address.port))
    return str(getattr(address, "name", address))


class _Channel(http.HTTPChannel):
    """A connection, which must bring a request in time: not every byte buys it more."""

    maxHeaders = 64
    totalHeadersSize = 8192
    factory: _Site
    transport: Any

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.closed(self)

    def resetTimeout(self) -> None:
        """Go on as before."""

    def timeoutConnection(self) -> None:
        self.cut()

    def allHeadersReceived(self) -> None:
        if self.length != 0:
            self._refuse(b"413 Content Too Large")
        elif not self.factory.mayAnswer():
            self._refuse(b"429 Too Many Requests")
        else:
            super().allHeadersReceived()

    def cut(self) -> None:
        """Close it now."""
        self.transport.abortConnection()

    def _refuse(self, status: bytes) -> None:
        # One byte that is missing, so that Twisted does not take the request for a complete one.
        self.length = 1
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        if self._handlingRequest:
            super().rawDataReceived(data)


class _Site(server.Site):
    """Knows its connections."""

    noisy = False

    def __init__(self, pages: resource.Resource, reactor: IReactorTime) -> None:
        super().__init__(pages, timeout=REQUEST_TIMEOUT, reactor=reactor)
        # HTTP/1 alone: that is what Prometheus speaks.
        self.protocol = _Channel  # type: ignore[assignment]
        self._open: dict[_Channel, None] = {}
        self._cut: set[_Channel] = set()
        self._waiting: list[defer.Deferred[None]] = []
        self._ceiling = Ceiling(REQUESTS)
        self._now = Elapsed(reactor.seconds).now

    def logPrefix(self) -> str:
        return "metrics"

    def startFactory(self) -> None:
        """Open no log of requests."""

    def stopFactory(self) -> None:
        """Close none."""

    def log(self, request: http.Request) -> None:
        """Log no request."""

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def mayAnswer(self) -> bool:
        """Whether one more request is not too many."""
        return not self._ceiling.refuse((1,), self._now())

    def opened(self, channel: _Channel) -> None:
        """A connection was made. If it is one too many, the oldest goes."""
        if len(self._open) >= CONNECTIONS:
            self._cutOldest()
        self._open[channel] = None

    def closed(self, channel: _Channel) -> None:
        """A connection is no more."""
        self._open.pop(channel, None)
        self._cut.discard(channel)
        if not self._open and not self._cut:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def cutAll(self) -> defer.Deferred[None]:
        """
        Close all connections.

        @return: fires when they are closed.
        """
        while self._open:
            self._cutOldest()
        if not self._cut:
            return defer.succeed(None)
        done: defer.Deferred[None] = defer.Deferred()
        self._waiting.append(done)
        return done

    def _cutOldest(self) -> None:
        oldest = next(iter(self._open))
        del self._open[oldest]
        self._cut.add(oldest)
        oldest.cut()


class _Pages(resource.Resource):
    """All pages by their paths."""

    isLeaf = True

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        super().__init__()
        from prometheus_client import make_wsgi_app

        self._application = make_wsgi_app(registry)
        self._health = health
        self._pages: Mapping[bytes, Callable[[server.Request], int]] = {
            b"/metrics": self._metrics,
            b"/-/healthy": self._healthy,
            b"/-/ready": self._healthy,
        }

    def render(self, request: server.Request) -> int:
        page = self._pages.get(request.path)
        if page is None:
            return _answer(request, http.NOT_FOUND, "not found: there are /metrics, /-/healthy and /-/ready\n")
        if request.method not in _methods:
            request.setHeader(b"Allow", b", ".join(_methods))
            return _answer(request, http.NOT_ALLOWED, "only GET and HEAD\n")
        return page(request)

    def _metrics(self, request: server.Request) -> int:
        """
        Answer with the library's page.

        C{prometheus_client.twisted} is this same application, called in a thread of the installed reactor. There, a scrape that
        is under way when the reactor stops waits for the reactor, which waits for the thread, for ever; and neither a UNIX
        socket nor C{HEAD} will do. A page takes about a millisecond, so it is written here.
        """
        _, _, query = request.uri.partition(b"?")
        environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": query.decode("latin-1")}
        for name in ("Accept", "Accept-Encoding"):
            value = request.getHeader(name)
            if value is not None:
                environment[f"HTTP_{name.upper().replace('-', '_')}"] = value

        def start(status: str, headers: list[tuple[str, str]]) -> None:
            request.setResponseCode(int(status.split()[0]))
            for header in headers:
                request.setHeader(*header)

        return _finish(request, b"".join(self._application(environment, start)))

    def _healthy(self, request: server.Request) -> int:
        checking = self._health()
        gone = request.notifyFinish()
        gone.addErrback(lambda _: checking.cancel())

        def found(reasons: dict[str, str | None]) -> None:
            healthy = bool(reasons) and not any(reasons.values())
            lines = [f"{address}: {reason or 'ok'}\n" for address, reason in reasons.items()] or ["not listening\n"]
            _answer(request, http.OK if healthy else http.SERVICE_UNAVAILABLE, "".join(lines))

        def failed(reason: Failure) -> None:
            if not reason.check(defer.CancelledError):
                request.processingFailed(reason)

        checking.addCallback(found).addErrback(failed)
        return server.NOT_DONE_YET


def _answer(request: server.Request, code: int, text: str) -> int:
    """Answer with a text."""
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", _text)
    return _finish(request, text.encode())


def _finish(request: server.Request, body: bytes) -> int:
    """Answer; to C{HEAD} with the body's length alone."""
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.setHeader(b"Cache-Control", b"no-store")
    request.write(body)
    request.finish()
    return server.NOT_DONE_YET
