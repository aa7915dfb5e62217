"""A TCP socket of a host in memory, as Twisted's transports use one: all that they do with a socket is done here."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any, Protocol

from udpecho.testing.memory_addresses import unmapped
from udpecho.testing.memory_segments import Endpoint, Exchange, Segment, SegmentHost

_abort = struct.pack("ii", 1, 0)


class StreamHost(SegmentHost, Protocol):
    """What a socket needs of its host."""

    def bindStream(self, stream: MemoryStream, local: Endpoint) -> None:
        """Give a socket its address.

        @raise OSError: as C{bind(2)} does.
        """

    def connectStream(self, stream: MemoryStream) -> None:
        """Bring a socket the segments between its two addresses."""

    def sourceFor(self, destination: str) -> str:
        """The address that the routing table would choose to send from."""

    def reachable(self, destination: str) -> bool:
        """Whether there is a route to an address."""


class MemoryStream(Exchange):
    """A TCP socket. Each method does as that of C{socket.socket} in non-blocking mode."""

    host: StreamHost

    def __init__(self, host: StreamHost, family: int) -> None:
        super().__init__(host)
        self.family = family
        self.listener: MemoryStream | None = None
        self.backlog: list[MemoryStream] | None = None
        self._longestBacklog = 0
        self._options: dict[tuple[int, int], Any] = {}

    # What Twisted's transports call

    def fileno(self) -> int:
        """There is no descriptor."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Remember an option. That of lingering for 0 seconds makes C{close} a reset."""
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int) -> Any:
        """The error of the connection, or an option that was set, else 0."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self.failure
        return self._options.get((level, option), 0)

    def bind(self, address: tuple[Any, ...]) -> None:
        """Take a local address."""
        self.host.bindStream(self, (address[0] or "0.0.0.0", address[1]))

    def listen(self, backlog: int) -> None:
        """Accept connections, of which so many may wait."""
        self.backlog, self._longestBacklog = [], max(1, backlog)

    def accept(self) -> tuple[MemoryStream, tuple[Any, ...]]:
        """Take a connection that has been made."""
        if not self.backlog:
            raise _error(errno.EAGAIN)
        accepted = self.backlog.pop(0)
        return accepted, accepted.getpeername()

    def getsockname(self) -> tuple[Any, ...]:
        """The local address."""
        return self._name(self.local)

    def getpeername(self) -> tuple[Any, ...]:
        """The peer's address."""
        if not self.remote[0]:
            raise _error(errno.ENOTCONN)
        return self._name(self.remote)

    def connect_ex(self, address: tuple[Any, ...]) -> int:
        """Begin to connect, or look how far that is."""
        if self.remote[0]:
            return errno.EISCONN if self.isConnected else errno.EALREADY
        target = unmapped(address[0])
        if not self.host.reachable(target):
            return errno.ENETUNREACH
        source = self.local[0]
        if source in ("", "0.0.0.0", "::"):
            source = self.host.sourceFor(target)
        self.host.bindStream(self, (source, self.local[1]))
        self.remote = (target, address[1])
        self.host.connectStream(self)
        self.open()
        return errno.EINPROGRESS

    def send(self, data: bytes | memoryview) -> int:
        """Send as much as there is space for."""
        if not self.isConnected or self._isFinished:
            raise _error(errno.EPIPE)
        taken = bytes(data[: self.space])
        if data and not taken:
            raise _error(errno.EAGAIN)
        self.write(taken)
        return len(taken)

    def recv(self, size: int) -> bytes:
        """Take what has arrived."""
        data = bytes(self.received[:size])
        if data:
            del self.received[:size]
            self.acknowledge()
        elif not self.ended:
            raise _error(self.failure or errno.EAGAIN)
        return data

    def shutdown(self, how: int) -> None:
        """Send nothing more."""
        if not self.isConnected:
            raise _error(errno.ENOTCONN)
        if how != socket.SHUT_RD:
            self.finish()

    def close(self) -> None:
        """Close it, with a reset if the option says so."""
        if self.isClosed:
            return
        self.isClosed = True
        for waiting in self.backlog or ():
            waiting.abort()
        if self._options.get((socket.SOL_SOCKET, socket.SO_LINGER)) == _abort:
            self.abort()
        elif self.isConnected:
            self.finish()
            self.leave()
        else:
            self.fail(errno.EBADF)

    # For the host

    @property
    def isReadable(self) -> bool:
        """Whether C{recv} or C{accept} has something, be it an error or the end."""
        return bool(self.received or self.ended or self.failure or self.backlog)

    @property
    def isWritable(self) -> bool:
        """Whether C{send} takes something, or the attempt to connect is over."""
        return bool(self.failure or self.space)

    def invite(self, request: Segment) -> None:
        """Somebody asks for a connection. If too many wait to be accepted, they have to ask again."""
        if self.backlog is None or len(self.backlog) >= self._longestBacklog:
            return
        made = MemoryStream(self.host, self.family)
        made.local, made.remote, made.listener = request.destination, request.source, self
        self.host.connectStream(made)
        made.open(request)

    def made(self) -> None:
        """The connection is made: it waits to be accepted if it is a listener's."""
        if self.listener is None:
            return
        if self.listener.isClosed or self.listener.backlog is None:
            self.abort()
        else:
            self.listener.backlog.append(self)
            self.host.streamChanged(self.listener)

    def _name(self, endpoint: Endpoint) -> tuple[Any, ...]:
        host, port = endpoint
        if self.family == socket.AF_INET:
            return host, port
        return (host if ":" in host else f"::ffff:{host}"), port, 0, 0


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
