"""A probe socket over any datagram transport."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.errors import EchoError, unreachable
from udpecho.interfaces import IDatagramTransport, IUndeliveredReceiver
from udpecho.probe.io.socket import Arrivals, IProbeReceiver, IProbeSocket, Taken, Undelivered


@implementer(IProbeSocket, IUndeliveredReceiver)
class TransportSocket(DatagramProtocol):
    """One datagram after the other through an ordinary connected transport, without timestamps: in memory, and where the system
    has nothing better.
    """

    noisy = False
    stamped = False
    most = 1

    def __init__(self, receiver: IProbeReceiver, peer: DatagramAddress) -> None:
        self._receiver = receiver
        self._peer = str(peer)
        self._slots: dict[int, bytearray] = {}
        self._current = bytearray()
        self._closed = False
        self._source = DatagramAddress(("", 0))

    @property
    def source(self) -> DatagramAddress:
        """@see: L{IProbeSocket.source}"""
        transport: Any = self.transport
        if transport is not None and not self._closed:
            host = transport.getHost()
            self._source = DatagramAddress((host.host.partition("%")[0], host.port))
        return self._source

    def fileno(self) -> int:
        """@see: L{IProbeSocket.fileno}"""
        return -1

    def slot(self, index: int, size: int) -> bytearray:
        """@see: L{IProbeSocket.slot}"""
        if len(self._current) != size:
            self._current = bytearray(size)
        return self._current

    def send(self, count: int) -> Taken:
        """@see: L{IProbeSocket.send}"""
        if self._closed:
            return Taken(0, errno.EBADF)
        transport: Any = self.transport
        datagram = bytes(self._current)
        outcomes: list[str | None] = []
        number = 0
        try:
            if IDatagramTransport.providedBy(transport):
                number = transport.send(datagram, None, outcomes.append)
            else:
                transport.write(datagram, None)
        except error.MessageLengthError:
            return Taken(0, errno.EMSGSIZE)
        except OSError as e:
            return Taken(0, e.errno or errno.EIO)
        # A probe that waits for the send queue counts as sent: no outcome is known yet.
        return Taken(0, number or errno.EIO) if outcomes and outcomes[0] is not None else Taken(1)

    def receive(self) -> Arrivals:
        """@see: L{IProbeSocket.receive}"""
        return Arrivals((), ())

    def readErrors(self) -> tuple[list[tuple[int, int]], list[Undelivered]]:
        """@see: L{IProbeSocket.readErrors}"""
        return [], []

    def drops(self) -> int | None:
        """@see: L{IProbeSocket.drops}"""
        kernelDrops: Callable[[], int | None] | None = getattr(self.transport, "getKernelDrops", None)
        return None if kernelDrops is None or self._closed else kernelDrops()

    def close(self) -> None:
        """@see: L{IProbeSocket.close}"""
        transport: Any = self.transport
        if not self._closed:
            self._closed = True
            if IDatagramTransport.providedBy(transport):
                transport.abort()
            else:
                transport.stopListening()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Hand a datagram over."""
        self._receiver.datagramsArrived(Arrivals((datagram,), (0,)))

    def connectionRefused(self) -> None:
        """Hand a refusal over, for a transport that has no more than that."""
        self.datagramUndelivered(unreachable(errno.ECONNREFUSED, self._peer), b"")

    def datagramUndelivered(self, reason: EchoError, quoted: bytes) -> None:
        """@see: L{IUndeliveredReceiver.datagramUndelivered}"""
        self._receiver.probeUndelivered(Undelivered(reason, quoted))
