"""A socket that another one has replaced."""

from __future__ import annotations

import socket
from collections.abc import Callable
from copy import copy

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall
from udpecho.net.endpoints import PortContext
from udpecho.net.reader import MAX_BACKLOG, Delivery, PlainReader

#: Seconds for which replies may be on their way to it: as long as a call of the client lasts by default.
KEPT = 5.0


@implementer(IReadDescriptor)
class FormerSocket:
    """Receives for a while what was sent to a connected port's former socket."""

    def __init__(
        self, reactor: Reactor, context: PortContext, delivery: Delivery, closed: Callable[[FormerSocket], object]
    ) -> None:
        """@param context: the port's, while its socket is the one that is replaced.
        @param closed: called when that one is closed.
        """
        self._reactor = reactor
        self._socket: socket.socket = context.socket
        self._delivery = delivery
        self._reader = PlainReader(copy(context), delivery)
        self._turn = context.turn
        self._closed = closed
        self.fileno = self._socket.fileno
        reactor.addReader(self)
        self._end = SingleCall(reactor, self.close)
        self._end.schedule(KEPT)

    def doRead(self) -> None:
        """Hand over what is there."""
        self._turn.run(self._read)

    def _read(self) -> None:
        before = len(self._delivery.backlog)
        self._reader.receiveSome(MAX_BACKLOG)
        if not before < len(self._delivery.backlog) < MAX_BACKLOG:
            # An error, which is about the former address; or more than anybody waits for.
            self.close()
        self._delivery.flush()

    def connectionLost(self, reason: Failure) -> None:
        """On poll and epoll an error looks like this."""
        self.close()

    def logPrefix(self) -> str:
        """The name in the log."""
        return "FormerSocket"

    def close(self) -> None:
        """Close it. May be called twice."""
        if self.fileno() < 0:
            return
        self._end.cancel()
        self._turn.forget(self._read)
        self._reactor.removeReader(self)
        self._socket.close()
        self._closed(self)
