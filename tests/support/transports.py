"""Transports and resolvers in memory, for what needs no socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import defer
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IUDPTransport,
)
from twisted.internet.task import Clock
from zope.interface import implementer

from udpecho.interfaces import IDatagramTransport


@implementer(IUDPTransport)
class StockTransport:
    """Raises what the system refuses, as Twisted's own port does.

    @ivar written: C{(datagram, address)} pairs.
    @ivar failure: what the next writes raise, if anything.
    """

    def __init__(self) -> None:
        self.written: list[tuple[bytes, tuple[str, int] | None]] = []
        self.failure: Exception | None = None
        self.stopped = 0

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        if self.failure is not None:
            raise self.failure
        self.written.append((packet, addr))

    def connect(self, host: str, port: int) -> None:
        pass

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "192.0.2.1", 4321)

    def stopListening(self) -> defer.Deferred[None] | None:
        self.stopped += 1
        return None

    def setBroadcastAllowed(self, enabled: bool) -> None:
        raise NotImplementedError

    def getBroadcastAllowed(self) -> bool:
        return False


@implementer(IDatagramTransport)
class PatientTransport(StockTransport):
    """Keeps each datagram until the test calls back with its outcome.

    @ivar sent: C{(datagram, address, callback)} triples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[bytes, tuple[str, int] | None, Callable[[str | None], None]]] = []
        self.aborted = 0

    def send(self, datagram: bytes, address: tuple[str, int] | None, callback: Callable[[str | None], None]) -> int:
        self.sent.append((datagram, address, callback))
        return 0

    def abort(self) -> None:
        self.aborted += 1


@implementer(IHostResolution)
class Resolution:
    """A resolution that goes on until the test ends it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class Resolver:
    """Answers from a table; a name that is not in it is never answered.

    @ivar names: the names to resolve.
    """

    def __init__(self, table: dict[str, Sequence[Any]]) -> None:
        self.table = table
        self.names: list[str] = []
        self.receivers: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.names.append(hostName)
        self.receivers.append(resolutionReceiver)
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if hostName in self.table:
            for address in self.table[hostName]:
                if addressTypes is None or type(address) in addressTypes:
                    resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IReactorPluggableNameResolver)
class ResolvingClock(Clock):
    """A clock with a resolver."""

    def __init__(self, table: dict[str, Sequence[Any]]) -> None:
        super().__init__()
        self.nameResolver = Resolver(table)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError
