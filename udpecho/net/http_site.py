"""What HTTP pages have in common: a limited number of connections, and no log of requests."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime
from twisted.web import http, server
from twisted.web.resource import Resource

from udpecho.net.http_channel import Channel


class LimitedSite(server.Site):
    """Keeps a list of its connections, the oldest first.

    @cvar maxBody: the longest body that a request may have, in bytes.
    @ivar onClosed: called when a connection is closed.
    """

    noisy = False
    maxBody = 0

    def __init__(self, pages: Resource, reactor: IReactorTime, timeout: float) -> None:
        """@param timeout: seconds until a request must be complete, counted from the connection or the last response."""
        super().__init__(pages, timeout=timeout, reactor=reactor)
        # No HTTP/2: nobody needs it.
        self.protocol = Channel  # type: ignore[assignment]
        self._open: dict[Channel, None] = {}
        self._aborting: set[Channel] = set()
        self.onClosed: Callable[[], object] = lambda: None

    def mostConnections(self) -> int:
        """How many connections there may be."""
        raise NotImplementedError

    def mayAnswer(self, uri: bytes) -> bool:
        """Whether a request is answered, and not refused because there were too many."""
        return True

    # There is no log of requests.

    def startFactory(self) -> None:
        """Nothing is to be started."""

    def stopFactory(self) -> None:
        """Nothing is to be stopped."""

    def log(self, request: http.Request) -> None:
        """Nothing is logged."""

    def acceptableProtocols(self) -> list[bytes]:
        """The only protocol."""
        return [b"http/1.1"]

    def connectionOpened(self, channel: Channel) -> None:
        """A connection is open; the oldest ones are closed if there are too many."""
        while len(self._open) >= self.mostConnections():
            self._abortOldest()
        self._open[channel] = None

    def connectionClosed(self, channel: Channel) -> None:
        """A connection is closed."""
        self._open.pop(channel, None)
        self._aborting.discard(channel)
        self.onClosed()

    def abortAll(self) -> defer.Deferred[None]:
        """@return: fires when all connections are aborted and closed."""
        while self._open:
            self._abortOldest()
        return defer.gatherResults([channel.closed for channel in self._aborting]).addCallback(lambda _: None)

    def _abortOldest(self) -> None:
        """Abort the oldest connection, of those that wait for no response if there are any."""
        waitsForNothing = (channel for channel in self._open if not channel.isWaiting)
        oldest = next(waitsForNothing, None) or next(iter(self._open))
        del self._open[oldest]
        self._aborting.add(oldest)
        oldest.transport.abortConnection()
