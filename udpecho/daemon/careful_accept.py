"""Accept connections only while there are file descriptors. Without one, Twisted's own port logs several lines for each
connection, and where the limit was lowered while it ran, it tries again without a pause.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.logger import Logger

from udpecho.interfaces import Reactor
from udpecho.net.delayed_calls import SingleCall

#: How many connections one turn of the reactor accepts.
_atOnce = 16
#: Seconds until the next attempt.
_pause = 0.1
#: The least time between two warnings, in seconds.
_warningInterval = 30.0

_log = Logger()


class CarefulAccept:
    """Sits before C{doRead} of a listening port, and keeps a descriptor in reserve. When no other is left, the port accepts one
    connection with it, so that somebody can ask what is wrong.
    """

    def __init__(self, reactor: Reactor, port: Any) -> None:
        """@param reactor: an C{IReactorTime} provider.
        @param port: a listening port; one that is not Twisted's own for streams is left as it is.
        """
        self._reactor = reactor
        self._port = port
        self._reserve: socket.socket | None = None
        self._warned: float | None = None
        self._exhausted = False
        self._resuming = SingleCall(reactor, self._resume)
        self._accept: Any = None
        if isinstance(port, tcp.Port):
            # The reactor calls what it finds here.
            self._accept, port.doRead = port.doRead, self._doRead  # type: ignore[method-assign]
            self._reserve = self._open()

    def close(self) -> None:
        """The port is not read any more."""
        self._accept = None
        self._resuming.cancel()
        self._release()

    def refill(self) -> None:
        """A connection was closed: its descriptor may take the place of the reserve."""
        if self._reserve is None and self._accept is not None:
            self._reserve = self._open()

    def _doRead(self) -> None:
        port = self._port
        # There may be no descriptor for a second one.
        port.numberAccepts = 1
        self.refill()
        if not self._isOneLeft():
            self._useLast()
            return
        if self._exhausted:
            self._exhausted = False
            _log.info("there are file descriptors again: the pages are served")
        for _ in range(_atOnce):
            accepted = port.sessionno
            self._accept()
            if port.sessionno == accepted or not self._isOneLeft():
                return

    def _useLast(self) -> None:
        self._warn()
        self._release()
        if self._isOneLeft():
            self._accept()
        else:
            self._port.stopReading()
            self._resuming.schedule(_pause)

    def _isOneLeft(self) -> bool:
        spare = self._open()
        if spare is not None:
            spare.close()
        return spare is not None

    def _resume(self) -> None:
        if self._port.connected:
            self._port.startReading()

    def _open(self) -> socket.socket | None:
        """Open what C{accept(2)} would, if the system lets it."""
        try:
            return socket.socket(self._port.addressFamily)
        except OSError:
            return None

    def _release(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.close()

    def _warn(self) -> None:
        now = self._reactor.seconds()
        if self._warned is None or now - self._warned >= _warningInterval:
            self._warned = now
            self._exhausted = True
            _log.warn(
                "this process has no file descriptor left: the pages are served to one client at a time, or to none;"
                " raise its limit (ulimit -n, or LimitNOFILE= in systemd's unit)"
            )
