"""A connection to the HTTP pages.

It is Twisted's, with an answer to whatever that cannot read, and with limits where that has none. Of Twisted's own limits,
C{twisted.protocols.policies}, it uses C{TimeoutMixin}. C{LimitTotalConnectionsFactory} refuses the newest connection: idle ones
would keep out all others.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

_otherVersion = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]")


@implementer(IHalfCloseableProtocol)
class Channel(http.HTTPChannel):
    """A connection on which a request must be complete, and its response read, in time.

    @ivar factory: is called with C{connectionOpened} and C{connectionClosed}, and decides with C{mayAnswer} which request is
        answered. Its C{maxBody} is the longest body that a request may have, in bytes.
    @ivar closed: fires when the connection is closed.
    """

    maxHeaders = 64
    totalHeadersSize = MAX_LENGTH = 8192
    factory: Any
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.closed: defer.Deferred[None] = defer.Deferred()
        self._line = b""
        self._ended = False
        self._readsBody = False

    @property
    def isWaiting(self) -> bool:
        """Whether the client waits for a response that is not made yet."""
        return bool(self._handlingRequest and self.requests)

    def connectionMade(self) -> None:
        """Begin."""
        super().connectionMade()
        self.factory.connectionOpened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        super().connectionLost(reason)
        self.factory.connectionClosed(self)
        self.closed.callback(None)

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read: C{nc -N} does."""
        self._ended = True
        self._closeIfDone()

    def writeConnectionLost(self) -> None:
        """Not called: only the client closes one direction."""

    def requestDone(self, request: http.Request) -> None:
        """A response is made."""
        self._readsBody = False
        super().requestDone(request)
        self._closeIfDone()

    def loseConnection(self) -> None:
        """Close the connection when the client has read everything, or the time is over."""
        if not self.transport.disconnecting:
            super().loseConnection()
            self.setTimeout(self.factory.timeOut)

    def resetTimeout(self) -> None:
        """Called for data: it does not extend the timeout."""

    def timeoutConnection(self) -> None:
        """The time is over."""
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not read: read no more requests. Twisted's channel does, and keeps the responses."""
        super().pauseProducing()
        self.paused = True
        self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read everything."""
        super().resumeProducing()
        self.paused = False
        self.dataReceived(b"")
        self._closeIfDone()

    def dataReceived(self, data: bytes) -> None:
        """Read what can be read."""
        # TLS passes on what comes after the end.
        if not self.transport.disconnecting:
            try:
                super().dataReceived(data)
            except Exception:
                # A number with too many digits, for one.
                self._respondToBadRequestAndDisconnect()

    def lineReceived(self, line: bytes) -> None:
        """Read a line of the request's head."""
        self._line = line
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is too long."""
        self._receivedHeaderSize += len(line)
        self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:
        """Read a header.

        @return: whether the request goes on.
        """
        name, _, value = line.lower().partition(b":")
        if name == b"transfer-encoding" and value.strip(b" \t") not in (b"chunked", b"identity"):
            self._refuse(b"501 Not Implemented")
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The head is complete; a body is no longer than the pages take."""
        if self.length is None or self.length > self.factory.maxBody:
            self._refuse(b"413 Content Too Large")
        elif not self.factory.mayAnswer(self._path):
            self._refuse(b"429 Too Many Requests")
        else:
            self._readsBody = self.length > 0
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Keep what comes during a request, and nothing that comes after a refusal."""
        if self._handlingRequest or (self._readsBody and not self.transport.disconnecting):
            super().rawDataReceived(data)

    def _closeIfDone(self) -> None:
        if self._ended and not (self.isWaiting or self._busyReceiving or self.paused):
            self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        isLong = self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders
        if isLong:
            # Twisted has this attribute as soon as it has read the first line.
            self._refuse(b"431 Request Header Fields Too Large" if hasattr(self, "_path") else b"414 URI Too Long")
        elif not hasattr(self, "_path") and _otherVersion.fullmatch(self._line):
            self._refuse(b"505 HTTP Version Not Supported")
        else:
            self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        if not self.transport.disconnecting:
            # One missing byte, so that Twisted does not consider the request complete.
            self.length = 1
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.loseConnection()
