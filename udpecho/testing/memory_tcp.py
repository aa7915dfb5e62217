"""TCP of a host in memory: Twisted's own transports, on sockets that are none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import error, tcp
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableDescriptor,
    IReactorSSL,
    IReactorTCP,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements, implementer

from udpecho.testing.memory_addresses import EPHEMERAL, WILDCARDS, canonical, overlap, unmapped
from udpecho.testing.memory_core import MemoryCore, Runner
from udpecho.testing.memory_segments import Endpoint, Exchange, Segment
from udpecho.testing.memory_stream import MemoryStream

#: How far the first numbers of two connections are from each other: no stream has as many bytes.
_distance = 2**48

_log = Logger()


class TCPNetwork(Runner, Protocol):
    """What TCP needs of its network."""

    def reachable(self, source: Any, address: str) -> bool:
        """Whether there is a route from a host to an address."""

    def carrySegment(self, source: Any, segment: Segment) -> None:
        """Bring a segment to its destination, where C{arriveSegment} is called; or lose it."""

    def segmentSize(self, source: Any, address: str) -> int:
        """The longest payload of a segment that gets from a host to an address, in bytes."""


class _Port(tcp.Port):
    reactor: Any

    def createInternetSocket(self) -> Any:
        return MemoryStream(self.reactor, self.addressFamily)


class _Client(tcp.Client):
    connector: Any

    def createInternetSocket(self) -> Any:
        return MemoryStream(self.connector.reactor, self.addressFamily)


class _Connector(tcp.Connector):
    def _makeTransport(self) -> _Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


@implementer(IReactorTCP)
class MemoryTCP(MemoryCore):
    """A reactor with TCP. Its sockets are L{MemoryStream}; others it cannot watch."""

    isUp: bool

    def __init__(self, network: TCPNetwork) -> None:
        self.network: TCPNetwork = network
        self._readers: dict[MemoryStream, Any] = {}
        self._writers: dict[MemoryStream, Any] = {}
        self._bound: dict[int, dict[MemoryStream, None]] = {}
        self._connections: dict[tuple[Endpoint, Endpoint], MemoryStream] = {}
        self._changed: dict[MemoryStream, None] = {}
        self._nextStream = self._firstNumber = 0
        super().__init__(network)

    # IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> tcp.Port:
        """@see: C{IReactorTCP}"""
        listening = _Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> tcp.Connector:
        """@see: C{IReactorTCP}"""
        connector = _Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # With pyOpenSSL, as Twisted's other reactors
    listenSSL: Any = PosixReactorBase.listenSSL
    connectSSL: Any = PosixReactorBase.connectSSL

    def disconnectAll(self) -> None:
        """Close all that is open, as the end of a program does."""
        super().disconnectAll()
        for stream in self._streams():
            stream.close()

    def vanishStreams(self) -> None:
        """Forget all connections without a word, as a host does that loses its power: it resets what of them arrives later."""
        self.removeAll()
        for stream in self._streams():
            stream.fail(errno.ENETDOWN)

    # What transports need of IReactorFDSet, which a host does not provide: it has no descriptors

    def addReader(self, reader: IReadDescriptor) -> None:
        """Call C{doRead} when a socket is readable.

        @raise ValueError: if it is no socket in memory.
        """
        self._watch(self._readers, reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Call C{doWrite} when a socket is writable.

        @raise ValueError: if it is no socket in memory.
        """
        self._watch(self._writers, writer)

    def _watch(self, watched: dict[MemoryStream, Any], descriptor: Any) -> None:
        stream = getattr(descriptor, "socket", None)
        if not isinstance(stream, MemoryStream):
            raise ValueError(f"descriptor must be of a socket of this network in memory, got {stream or descriptor!r}")
        watched[stream] = descriptor
        self.streamChanged(stream)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Do so no more."""
        self._readers.pop(getattr(reader, "socket", None), None)  # type: ignore[arg-type]

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Do so no more."""
        self._writers.pop(getattr(writer, "socket", None), None)  # type: ignore[arg-type]

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """Watch nothing more, and return what was watched."""
        watched = list({**self._readers, **self._writers}.values())
        self._readers.clear()
        self._writers.clear()
        return watched

    def getReaders(self) -> list[IReadDescriptor]:
        """What is watched for reading."""
        return list(self._readers.values())

    def getWriters(self) -> list[IWriteDescriptor]:
        """What is watched for writing."""
        return list(self._writers.values())

    def _look(self) -> None:
        """Call what is ready, as a turn of a reactor does."""
        changed, self._changed = self._changed, {}
        for stream in changed if self.running else ():
            for watched, condition, method in (
                (self._readers, "isReadable", "doRead"),
                (self._writers, "isWritable", "doWrite"),
            ):
                if stream in watched and getattr(stream, condition):
                    self._serve(watched[stream], method)
            if (stream in self._readers and stream.isReadable) or (stream in self._writers and stream.isWritable):
                self.streamChanged(stream)

    def _serve(self, descriptor: Any, method: str) -> None:
        try:
            why = getattr(descriptor, method)()
        except Exception as e:
            _log.failure("Unhandled error in {descriptor}", descriptor=descriptor)
            why = e
        if why is None:
            return
        self.removeReader(descriptor)
        if method == "doRead" and isinstance(why, error.ConnectionDone) and IHalfCloseableDescriptor.providedBy(descriptor):
            descriptor.readConnectionLost(Failure(why))
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(why))

    # For the network

    def arriveSegment(self, segment: Segment) -> None:
        """A segment arrives at this host."""
        stream = self._connections.get((segment.destination, segment.source))
        if stream is not None:
            stream.arrive(segment)
            return
        opens = segment.isSyn and segment.acknowledged is None
        listener = self._listenerAt(segment.destination) if opens else None
        if listener is not None:
            listener.invite(segment)
        elif not segment.isReset:
            self.sendSegment(segment.reset())

    def _listenerAt(self, local: Endpoint) -> MemoryStream | None:
        """The socket that listens on an address, or on all of its family; those of IPv6 on all of both."""
        host, port = local
        listeners = {each.local[0]: each for each in self._bound.get(port, ()) if each.backlog is not None}
        return listeners.get(host) or ("." in host and listeners.get("0.0.0.0")) or listeners.get("::")

    # For sockets: see StreamHost in memory_stream

    def owns(self, address: str) -> bool:
        """Whether an IP address is the host's."""
        raise NotImplementedError

    def firstNumber(self) -> int:
        """The first number of a new connection, far from those of others."""
        self._firstNumber += _distance
        return self._firstNumber

    def segmentLater(self, delay: float, what: Callable[[], object]) -> IDelayedCall:
        """Call something of this host's system later, which no program sees."""
        return self.network.clock.schedule(None, delay, what, (), {})

    def segmentSize(self, destination: str) -> int:
        """The longest payload of a segment to an address, in bytes."""
        return self.network.segmentSize(self, destination)

    def sendSegment(self, segment: Segment) -> None:
        """Send a segment, which may be lost."""
        if self.owns(segment.source[0]):
            self.network.carrySegment(self, segment)

    def bindStream(self, stream: MemoryStream, local: Endpoint) -> None:
        """Give a socket its address.

        @raise OSError: as C{bind(2)} does.
        """
        host, port = unmapped(canonical(local[0])), local[1]
        if not self.isUp:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        if not 0 <= port <= 65535:
            raise OverflowError("bind(): port must be 0-65535.")
        if host not in WILDCARDS and not self.owns(host):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if not port:
            free = (EPHEMERAL[(self._nextStream + step) % len(EPHEMERAL)] for step in range(len(EPHEMERAL)))
            port = next((number for number in free if number not in self._bound), 0)
            self._nextStream = port + 1 - EPHEMERAL[0]
        # Accepted sockets share the number of their listener (SO_REUSEADDR).
        others = (other for other in self._bound.get(port, ()) if other is not stream and other.listener is None)
        if not port or any(overlap(host, other.local[0]) for other in others):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        stream.local = (host, port)
        self._bound.setdefault(port, {})[stream] = None

    def connectStream(self, stream: MemoryStream) -> None:
        """Bring a socket the segments between its two addresses."""
        self._bound.setdefault(stream.local[1], {})[stream] = None
        self._connections[stream.local, stream.remote] = stream

    def streamOver(self, stream: Exchange) -> None:
        """A connection needs its addresses no more."""
        bound = self._bound.get(stream.local[1], {})
        bound.pop(stream, None)  # type: ignore[call-overload]
        if not bound:
            self._bound.pop(stream.local[1], None)
        if self._connections.get((stream.local, stream.remote)) is stream:
            del self._connections[stream.local, stream.remote]

    def streamChanged(self, stream: Exchange) -> None:
        """A connection may be readable or writable now."""
        if isinstance(stream, MemoryStream) and (stream in self._readers or stream in self._writers):
            if not self._changed:
                self.network.clock.fly(0, self, self._look)
            self._changed[stream] = None

    def _streams(self) -> list[MemoryStream]:
        return [stream for streams in self._bound.values() for stream in streams]


if IReactorSSL.implementedBy(PosixReactorBase):
    classImplements(MemoryTCP, IReactorSSL)
