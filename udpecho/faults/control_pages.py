"""The HTTP API of proxies, in the shape of Toxiproxy's (its README, "HTTP API"), so that its client libraries can be used.

Whoever reaches it can have datagrams sent anywhere. So it is served on request only, and web pages cannot use it: a browser
that shows one sends C{Origin}, or a C{Host} that is a name, or no JSON, and the C{User-Agent} of a browser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from ipaddress import ip_address
from math import isfinite
from typing import Any
from urllib.parse import unquote

from twisted.internet import defer
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import Resource

from udpecho._version import __version__
from udpecho.faults.control import ControlError, NamedProxy, ProxyTable
from udpecho.interfaces import Reactor
from udpecho.net.http_site import LimitedSite

#: Seconds until a request must be complete, counted from the connection or the last response.
REQUEST_TIMEOUT = 75
#: The largest number of connections at a time.
CONNECTIONS = 32
#: The longest body of a request, in bytes.
MAX_BODY = 65536

_log = Logger()

#: What a request is answered with: the status, and what becomes JSON.
_Answer = tuple[int, Any]
_Page = Callable[..., Coroutine[Any, Any, _Answer]]


class ControlSite(LimitedSite):
    """The connections."""

    maxBody = MAX_BODY

    def mostConnections(self) -> int:
        """@see: L{LimitedSite.mostConnections}"""
        return CONNECTIONS

    def logPrefix(self) -> str:
        """What the reactor's log lines begin with."""
        return "control"


class Control:
    """Serves the API."""

    def __init__(self, reactor: Reactor, table: ProxyTable) -> None:
        """@param reactor: what the endpoint needs, as C{IReactorTCP}."""
        self._reactor = reactor
        self._site = ControlSite(_Pages(table), reactor, REQUEST_TIMEOUT)
        self._port: IListeningPort | None = None

    async def start(self, description: str) -> Any:
        """Listen on an endpoint, as in C{tcp:8474:interface=127.0.0.1}.

        @return: the address.
        @raise error.CannotListenError: if the system refuses it.
        """
        self._port = await serverFromString(self._reactor, description).listen(self._site)
        return self._port.getHost()

    async def stop(self) -> None:
        """Stop, and close all connections."""
        port, self._port = self._port, None
        if port is not None:
            await defer.maybeDeferred(port.stopListening)
        await self._site.abortAll()


class _Pages(Resource):
    isLeaf = True

    def __init__(self, table: ProxyTable) -> None:
        super().__init__()
        self._table = table
        self._changes = defer.DeferredLock()
        self._pages: dict[tuple[str, ...], dict[bytes, _Page]] = {
            ("version",): {b"GET": self._version},
            ("reset",): {b"POST": self._reset},
            ("populate",): {b"POST": self._populate},
            ("proxies",): {b"GET": self._list, b"POST": self._create},
            ("proxies", "*"): {b"GET": self._show, b"POST": self._update, b"PATCH": self._update, b"DELETE": self._delete},
            ("proxies", "*", "toxics"): {b"GET": self._toxics, b"POST": self._addToxic},
            ("proxies", "*", "toxics", "*"): {
                b"GET": self._showToxic,
                b"POST": self._updateToxic,
                b"PATCH": self._updateToxic,
                b"DELETE": self._removeToxic,
            },
        }

    def render(self, request: server.Request) -> int:
        answering = defer.Deferred.fromCoroutine(self._answer(request))
        answering.addErrback(_failed)
        answering.addCallback(lambda answer: _write(request, *answer))
        return server.NOT_DONE_YET

    async def _answer(self, request: server.Request) -> _Answer:
        _refuseBrowsers(request)
        path = tuple(unquote(part) for part in request.path.decode("latin-1").strip("/").split("/"))
        pattern = tuple("*" if at % 2 else part for at, part in enumerate(path))
        methods = self._pages.get(pattern)
        if methods is None:
            raise ControlError(404, f"path must be one of the API, as /proxies, got {'/' + '/'.join(path)!r}")
        page = methods.get(request.method)
        if page is None:
            names = ", ".join(method.decode() for method in methods)
            request.setHeader("Allow", names)
            raise ControlError(405, f"method must be {names}, got {request.method.decode('latin-1')!r}")
        body: list[Any] = []
        if request.method in (b"POST", b"PATCH") and path != ("reset",):
            body.append(_body(request, list if path == ("populate",) else dict))
        if request.method == b"GET":
            return await self._call(page, path, body)
        # One after the other: while one waits for a lookup, another might change the same.
        await self._changes.acquire()
        try:
            return await self._call(page, path, body)
        finally:
            self._changes.release()

    async def _call(self, page: _Page, path: tuple[str, ...], body: list[Any]) -> _Answer:
        proxy = [self._proxy(path[1])] if len(path) > 1 else []
        try:
            return await page(*proxy, *path[3:], *body)
        except (ValueError, TypeError, OverflowError) as e:
            raise ControlError(400, str(e)) from None

    def _proxy(self, name: str) -> NamedProxy:
        named = self._table.proxies.get(name)
        if named is None:
            raise ControlError(404, f"proxy not found: {name}")
        return named

    async def _version(self) -> _Answer:
        return 200, {"version": __version__}

    async def _reset(self) -> _Answer:
        self._table.reset()
        return 204, None

    async def _populate(self, listed: list[Any]) -> _Answer:
        made = []
        for fields in listed:
            if not isinstance(fields, dict):
                raise ControlError(400, f"each proxy must be an object, got {fields!r}")
            made.append(await self._table.create(fields, replaces=True))
        return 201, {"proxies": [named.asDictionary() for named in made]}

    async def _list(self) -> _Answer:
        return 200, {name: named.asDictionary() for name, named in self._table.proxies.items()}

    async def _create(self, fields: Mapping[str, Any]) -> _Answer:
        return 201, (await self._table.create(fields)).asDictionary()

    async def _show(self, named: NamedProxy) -> _Answer:
        return 200, named.asDictionary()

    async def _update(self, named: NamedProxy, fields: Mapping[str, Any]) -> _Answer:
        await self._table.update(named, fields)
        return 200, named.asDictionary()

    async def _delete(self, named: NamedProxy) -> _Answer:
        self._table.remove(named.name)
        return 204, None

    async def _toxics(self, named: NamedProxy) -> _Answer:
        return 200, [toxic.asDictionary() for toxic in named.toxics.values()]

    async def _addToxic(self, named: NamedProxy, fields: Mapping[str, Any]) -> _Answer:
        return 200, named.addToxic(fields).asDictionary()

    async def _showToxic(self, named: NamedProxy, name: str) -> _Answer:
        _requireToxic(named, name)
        return 200, named.toxics[name].asDictionary()

    async def _updateToxic(self, named: NamedProxy, name: str, fields: Mapping[str, Any]) -> _Answer:
        _requireToxic(named, name)
        toxic = named.toxics[name]
        toxic.change(fields.get("toxicity", toxic.toxicity), fields.get("attributes") or {})
        return 200, toxic.asDictionary()

    async def _removeToxic(self, named: NamedProxy, name: str) -> _Answer:
        _requireToxic(named, name)
        named.removeToxic(name)
        return 204, None


def _requireToxic(named: NamedProxy, name: str) -> None:
    if name not in named.toxics:
        raise ControlError(404, f"toxic not found: {name}")


def _refuseBrowsers(request: server.Request) -> None:
    """@raise ControlError: if a web page may have made the request."""
    if request.getHeader("Origin") is not None or request.getHeader("Sec-Fetch-Site") is not None:
        raise ControlError(403, "request must not be a web page's, got an Origin or Sec-Fetch-Site header")
    # Old browsers send neither, but all of them send this. Toxiproxy looks at it, too.
    agent = request.getHeader("User-Agent") or ""
    if agent.startswith("Mozilla/"):
        raise ControlError(403, f"User-Agent must not be a browser's, got {agent!r}")
    # A name could be anybody's, who has it lead here (DNS rebinding).
    host = request.getHeader("Host") or "localhost"
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name != "localhost":
        try:
            ip_address(name)
        except ValueError:
            raise ControlError(403, f"Host must be localhost or an IP address, got {host!r}") from None


def _body(request: server.Request, kind: type) -> Any:
    """Read the body.

    @raise ControlError: if it is no JSON of that kind.
    """
    mediaType = (request.getHeader("Content-Type") or "").partition(";")[0].strip().lower()
    if mediaType != "application/json":
        raise ControlError(415, f"Content-Type must be application/json, got {mediaType!r} (curl: --json, or -H)")
    try:
        assert request.content is not None
        body = json.loads(request.content.read(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as e:
        raise ControlError(400, f"bad request body: {e}") from None
    if not isinstance(body, kind):
        raise ControlError(400, f"bad request body: must be an {'array' if kind is list else 'object'}")
    return body


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"number must be finite, got {text}")
    return value


def _failed(failure: Failure) -> _Answer:
    reason = failure.value
    if isinstance(reason, ControlError):
        return reason.status, {"error": str(reason), "status": reason.status}
    _log.failure("cannot answer a request", failure)
    return 500, {"error": "the request has failed: see the log", "status": 500}


def _write(request: server.Request, status: int, content: Any) -> None:
    body = b"" if status == http.NO_CONTENT else json.dumps(content).encode() + b"\n"
    request.setResponseCode(status)
    if body:
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Content-Length", b"%d" % len(body))
    request.setHeader("Cache-Control", "no-store")
    # The client may be gone.
    with suppress(RuntimeError):
        request.write(body)
        request.finish()
