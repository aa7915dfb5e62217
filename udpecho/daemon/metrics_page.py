"""The metrics as a page: in the format that a client accepts, made a limited number of times in a second."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from udpecho.guard.limiter import Ceiling

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

#: How many metrics pages are made in a second. More requests get the last one of their kind, if it is at most so many seconds
#: old; so many kinds (formats, selections of metrics) are kept.
RENDERINGS = 20
PAGE_AGE, _pageKinds = 1.0, 16

# The versions of a media type that a page can have, apart from the oldest format.
_versions = {"application/openmetrics-text": ("", "1.0.0"), "text/plain": ("1.0.0",)}
_escapings = ("allow-utf-8", "underscores", "dots", "values")
_quality = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class MetricsPage(NamedTuple):
    """A page.

    @ivar made: when it was made, in seconds.
    @ivar headers: their names and values.
    """

    made: float
    headers: list[tuple[str, str]]
    body: bytes


class RenderedMetrics:
    """The pages of a registry."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        """@param now: returns the time in seconds."""
        from prometheus_client import make_wsgi_app

        self._application = make_wsgi_app(registry)
        self._now = now
        self._renderings = Ceiling(RENDERINGS)
        self._made: dict[tuple[str, str, bool], MetricsPage] = {}

    def get(self, query: str, accept: str, gzip: bool) -> MetricsPage | None:
        """Make a page, or return the last one of its kind.

        @param query: what is after the question mark: C{name[]=NAME} selects a metric.
        @param accept: see L{chosenFormat}.
        @return: C{None} if too many different pages were asked for.
        @raise Exception: whatever a collector raises.
        """
        now, kind = self._now(), (query, accept, gzip)
        page = self._made.get(kind)
        if not self._renderings.refuse((1,), now):
            page = self._make(now, *kind)
            self._made.pop(kind, None)
            self._made[kind] = page
            if len(self._made) > _pageKinds:
                del self._made[next(iter(self._made))]
        elif page is not None and now - page.made > PAGE_AGE:
            return None
        return page

    def _make(self, now: float, query: str, accept: str, gzip: bool) -> MetricsPage:
        # prometheus_client.twisted calls this same application in a thread of the installed reactor. It deadlocks with a
        # reactor that stops during a scrape, and supports neither UNIX sockets nor HEAD. A page takes about a millisecond, so
        # it is made in the reactor.
        environment = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": query, "HTTP_ACCEPT": accept}
        environment["HTTP_ACCEPT_ENCODING"] = "gzip" if gzip else ""
        started: list[Any] = []
        body = b"".join(self._application(environment, lambda *start: started.extend(start)))
        return MetricsPage(now, started[1], body)


def chosenFormat(accept: bytes) -> str:
    """Choose among the formats that a client accepts, by their quality (RFC 9110 section 12.5.1). C{prometheus_client} takes
    the first, and fails at a version that is not a number.

    @param accept: the C{Accept} header.
    @return: one that C{prometheus_client} understands; empty for the oldest format, also if nothing that is accepted is known.
    """
    best, chosen = 0.0, ""
    for mediaType, parameters, quality in _elements(accept):
        version, escaping = parameters.get("version", ""), parameters.get("escaping")
        isNew = version in _versions.get(mediaType, ())
        if quality > best and (isNew or mediaType in ("text/plain", "text/*", "*/*")):
            best = quality
            offer = [mediaType, *[f"version={version}"] * bool(version), *[f"escaping={escaping}"] * (escaping in _escapings)]
            chosen = ";".join(offer) if isNew else ""
    return chosen


def acceptsGzip(encodings: bytes) -> bool:
    """@param encodings: the C{Accept-Encoding} header."""
    return any(coding == "gzip" and quality > 0 for coding, _, quality in _elements(encodings))


def _elements(header: bytes) -> Iterator[tuple[str, dict[str, str], float]]:
    """The elements of a list, in lower case, with their parameters and quality."""
    for element in header.decode("latin-1").lower().split(","):
        value, *parts = (part.strip(" \t") for part in element.split(";"))
        parameters = dict(part.partition("=")[::2] for part in parts)
        quality = parameters.get("q", "1")
        if _quality.fullmatch(quality):
            yield value, parameters, float(quality)
