"""The echo server: every datagram goes back to where it came from, the same bytes (RFC 862)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import error
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from udpecho.interfaces import (
    GuardLike,
    IBatchGuard,
    IBatchReceiver,
    IDatagramBatch,
    IDatagramLog,
    IDatagramTransport,
    IDropReceiver,
    SendCallback,
)
from udpecho.server.counters import Counters
from udpecho.server.datagram_log import DatagramLog

_log = Logger()


@implementer(IBatchReceiver, IDropReceiver)
class EchoServer(DatagramProtocol):
    """
    Echoes, on a L{DatagramPort <udpecho.net.port.DatagramPort>}, on Twisted's own C{listenUDP}, and on any other
    C{IUDPTransport}.

    What was sent to a broadcast or multicast address is not answered (RFC 1122 section 4.1.3.5 has UDP replies leave from a
    unicast address, and one datagram would draw a reply from every host that hears it); it is counted as C{not_allowed}.

    @ivar counters: what came in and what became of it.
    """

    noisy = False

    def __init__(
        self,
        guard: GuardLike | None = None,
        counters: Counters | None = None,
        maxPayload: int | None = None,
        journal: IDatagramLog | None = None,
    ) -> None:
        """
        @param guard: decides who is answered; without one, everybody is.
        @param counters: the account to keep; by default a new one.
        @param maxPayload: the longest payload to answer, in bytes; longer ones are counted as C{too_large}. By default there
            is no limit but UDP's.
        @param journal: writes down the datagrams; by default a L{DatagramLog} that logs 10 a second.
        """
        if guard is not None and not callable(getattr(guard, "refuse", None)):
            raise TypeError(f"a guard has a method refuse(size, address), and {guard!r} has none")
        self.counters = Counters() if counters is None else counters
        self._guard = guard
        self._batchGuard = guard if IBatchGuard.providedBy(guard) else None
        self._eachForItself = guard is not None and self._batchGuard is None
        self._maxPayload = maxPayload
        self._journal = DatagramLog() if journal is None else journal
        self._send: Callable[[bytes, tuple[str, int], SendCallback], None] = self._write
        self._cutAt: int | None = None

    def makeConnection(self, transport: IUDPTransport) -> None:
        """Learn which transport to answer by."""
        if IDatagramTransport.providedBy(transport):
            self._send, self._cutAt = transport.send, None
        else:
            # The stock port cuts what is longer, without a word.
            self._send, self._cutAt = self._write, getattr(transport, "maxPacketSize", None)
        super().makeConnection(transport)

    def stopProtocol(self) -> None:
        """Say what is still to be said."""
        self._journal.close()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer a datagram."""
        size = len(datagram)
        self.counters.receive(size)
        logged = self._journal.received(size, addr)
        try:
            reason = self._reasonToDrop(size, addr)
        except Exception:
            # A guard that fails lets nobody in.
            self.counters.drop("not_allowed", size)
            raise
        if reason is not None:
            self.counters.drop(reason, size)
            return

        def settled(reason: str | None) -> None:
            if reason is None:
                self.counters.echo(size)
                self._journal.written(size, addr, logged)
            else:
                self.counters.drop(reason, size)

        self._send(datagram, addr, settled)

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        """
        Answer a batch.

        @see: L{IBatchReceiver.datagramsReceived}
        """
        if self._eachForItself or self._journal.wantsLines() or (self._maxPayload is not None and self._hasLongBursts(batch)):
            self._oneByOne(batch)
            return
        self.counters.receiveBatch(batch.entries, batch.size, batch.datagrams)
        self._journal.passed(batch.datagrams, batch.size, 0, 0)
        for entry in batch.nonUnicast():
            batch.drop(entry, "not_allowed")
        if self._maxPayload is not None and batch.size > self._maxPayload:
            for entry, longest in enumerate(batch.longest()):
                if longest > self._maxPayload:
                    batch.drop(entry, "too_large")
        if self._batchGuard is not None:
            try:
                self._batchGuard.refuseEntries(batch)
            except Exception:
                # A guard that fails lets nobody in.
                self.counters.drop("not_allowed", batch.size, batch.datagrams)
                raise
        batch.send(self._settledMany)

    def _hasLongBursts(self, batch: IDatagramBatch) -> bool:
        """Whether a burst may have datagrams that are too long and one, the last, that is not."""
        most = self._maxPayload
        return most is not None and batch.datagrams > batch.entries and max(batch.longest()) > most

    def _oneByOne(self, batch: IDatagramBatch) -> None:
        self.counters.receiveBatch(batch.entries, 0, 0)
        for entry in range(batch.entries):
            address = batch.address(entry)
            for payload in batch.payloads(entry):
                if entry in batch.dropped:
                    self.datagramDropped(batch.dropped[entry], len(payload), address)
                    continue
                try:
                    self.datagramReceived(payload, address)
                except Exception:
                    _log.failure("Unhandled error in datagramReceived of {protocol}", protocol=self)

    def _settledMany(self, reason: str | None, datagrams: int, size: int) -> None:
        if reason is None:
            self.counters.echo(size, datagrams)
            self._journal.passed(0, 0, datagrams, size)
        else:
            self.counters.drop(reason, size, datagrams)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """
        Count what the transport did not hand over.

        @see: L{IDropReceiver.datagramDropped}
        """
        self.counters.receive(size)
        self.counters.drop(reason, size)

    def _reasonToDrop(self, size: int, address: tuple[str, int]) -> str | None:
        if not getattr(address, "unicast", True):
            return "not_allowed"
        if self._cutAt is not None and size >= self._cutAt:
            return "truncated"
        if self._maxPayload is not None and size > self._maxPayload:
            return "too_large"
        return None if self._guard is None else self._guard.refuse(size, address)

    def _write(self, datagram: bytes, address: tuple[str, int], settled: SendCallback) -> None:
        """Send on a transport that raises what the system refuses, and knows no more."""
        assert self.transport is not None
        try:
            self.transport.write(datagram, address)
        except (OSError, error.MessageLengthError):
            settled("send_failed")
        else:
            settled(None)
