"""The echo server: every datagram goes back to where it came from, the same bytes (RFC 862)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    dropReason,
)
from udpecho.net.failure_log import FailureLog
from udpecho.server.counters import Counters
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.drop_watch import DropWatch

#: How many lines the log may want without getting the whole batch one by one.
_mostLines = 64

_log = Logger()


def checkGuard(guard: object) -> None:
    """@raise TypeError: if C{guard} is none."""
    if not callable(getattr(guard, "refuse", None)):
        raise TypeError(f"guard must have a method refuse(size, address), got {guard!r}")


@implementer(IBatchReceiver, IDropReceiver)
class EchoServer(DatagramProtocol):
    """Echoes, on a L{DatagramPort <udpecho.net.port.DatagramPort>}, and on any other C{IUDPTransport}, such as Twisted's own.

    A datagram, alone (L{datagramReceived}) or in a batch (L{datagramsReceived}), is counted and logged. Then the limit and the
    guard decide whether it is dropped. Else it is sent back, and a callback counts the outcome. Batches are handled whole:
    only a guard with limits works for each source, and the log for each line. For a log that wants all lines, and for a guard
    that knows no batches, the transport splits them.

    What was sent to a broadcast or multicast address is dropped as C{not_allowed}: RFC 1122 section 4.1.3.5 has UDP replies
    leave from a unicast address, and every host that receives the datagram would reply.

    @ivar counters: what came in, and what became of it.
    """

    noisy = False

    def __init__(
        self,
        guard: GuardLike | None = None,
        counters: Counters | None = None,
        maxPayload: int | None = None,
        log: IDatagramLog | None = None,
        watch: DropWatch | None = None,
    ) -> None:
        """@param guard: decides who is answered; without one, everybody is.
        @param counters: the counters to use; by default new ones.
        @param maxPayload: the longest payload to answer, in bytes; others are dropped as C{too_large}. C{None} is no limit.
        @param log: logs the datagrams; by default a L{DatagramLog} that logs 10 a second.
        @param watch: looks for a self-echo among what is dropped.
        """
        if guard is not None:
            checkGuard(guard)
        self.counters = Counters() if counters is None else counters
        self._guard = guard
        self._batchGuard = guard if IBatchGuard.providedBy(guard) else None
        self._guardsEach = guard is not None and self._batchGuard is None
        self._maxPayload = maxPayload
        self._log = DatagramLog() if log is None else log
        self._watch = DropWatch() if watch is None else watch
        self._send: Callable[[bytes, tuple[str, int], SendCallback], object] = self._write
        self._truncatedFrom: int | None = None
        self._failures = FailureLog(_log)

    def makeConnection(self, transport: IUDPTransport) -> None:
        """Choose how to send on this transport."""
        if IDatagramTransport.providedBy(transport):
            self._send, self._truncatedFrom = transport.send, None
        else:
            # Twisted's own port truncates silently.
            self._send, self._truncatedFrom = self._write, getattr(transport, "maxPacketSize", None)
        super().makeConnection(transport)

    def stopProtocol(self) -> None:
        """Log the sum of what was not logged yet."""
        self._attempt(self._log.close)

    # What others have written

    def _attempt(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function. Each datagram has its outcome whatever it raises, which is logged.

        @return: its result, or C{None}.
        """
        try:
            return function(*arguments)
        except BaseException:
            self._failures.failure("Unhandled error in {function}", function=function)
            return None

    def _known(self, reason: object, instead: str = "not_allowed") -> str:
        """@return: the reason, or another one in place of an unknown one."""
        return self._attempt(dropReason, reason) or instead

    # One datagram

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer a datagram."""
        size = len(datagram)
        self.counters.receive(size)
        logged = self._attempt(self._log.received, size, addr)
        try:
            reason = self._reasonToDrop(size, addr)
        except BaseException:
            # A guard that fails admits nobody.
            self.counters.drop("not_allowed", size)
            raise
        if reason is not None:
            self.counters.drop(reason, size)
            self._attempt(self._watch.lookAt, datagram, addr, reason)
        else:
            self._answer(datagram, addr, logged)

    def _answer(self, datagram: bytes, address: tuple[str, int], logged: bool) -> None:
        size, isDone = len(datagram), False

        def sent(reason: str | None) -> None:
            nonlocal isDone
            if isDone:
                return
            isDone = True
            if reason is None:
                self.counters.echo(size)
                self._attempt(self._log.written, size, address, logged)
            else:
                self.counters.drop(self._known(reason, "send_failed"), size)

        try:
            self._send(datagram, address, sent)
        except BaseException:
            self._failures.failure("Unhandled error in {transport}", transport=self.transport)
            sent("send_failed")

    def _reasonToDrop(self, size: int, address: tuple[str, int]) -> str | None:
        if not getattr(address, "unicast", True):
            return "not_allowed"
        if self._truncatedFrom is not None and size >= self._truncatedFrom:
            return "truncated"
        if self._maxPayload is not None and size > self._maxPayload:
            return "too_large"
        reason = None if self._guard is None else self._guard.refuse(size, address)
        return None if reason is None else self._known(reason)

    def _write(self, datagram: bytes, address: tuple[str, int], callback: SendCallback) -> None:
        """Send on a transport that raises what the system rejects."""
        assert self.transport is not None
        try:
            self.transport.write(datagram, address)
        except (OSError, error.MessageLengthError):
            callback("send_failed")
        else:
            callback(None)

    def datagramDropped(self, reason: str, size: int, address: tuple[str, int]) -> None:
        """Count a datagram that the transport dropped."""
        self.counters.receive(size)
        self.counters.drop(self._known(reason), size)

    # A batch

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        """Answer a batch."""
        most, lines = self._maxPayload, self._attempt(self._log.wantsLines)
        lines = lines if isinstance(lines, int) else 0
        mixed = most is not None and _hasMixedEntry(batch, most)
        if self._guardsEach or mixed or lines is True or lines > _mostLines:
            self.counters.receiveBatch(batch.entries, 0, 0)
            if batch.dropped:
                self._attempt(self._watch.lookThrough, batch)
            batch.split()
            return
        self.counters.receiveBatch(batch.entries, batch.size, batch.datagrams)
        for entry in batch.nonUnicast():
            batch.drop(entry, "not_allowed")
        if most is not None and batch.size > most:
            for entry, longest in enumerate(batch.longest()):
                if longest > most:
                    batch.drop(entry, "too_large")
        if self._batchGuard is not None:
            try:
                self._batchGuard.refuseEntries(batch)
            except BaseException:
                # A guard that fails admits nobody.
                self._failures.failure("Unhandled error in {guard}", guard=self._guard)
                for entry in range(batch.entries):
                    batch.drop(entry, "not_allowed")
        if batch.dropped:
            self._attempt(self._watch.lookThrough, batch)
        datagrams = size = 0
        try:
            if lines:
                datagrams, size = self._logFirst(batch, lines)
            self._attempt(self._log.addUnlogged, batch.datagrams - datagrams, batch.size - size, 0, 0)
            batch.send(self._batchSent)
        except RuntimeError:
            # A guard has sent the batch itself.
            self._failures.failure("Unhandled error in {guard}", guard=self._guard)
            self.counters.drop("send_failed", batch.size - size, batch.datagrams - datagrams)

    def _logFirst(self, batch: IDatagramBatch, lines: int) -> tuple[int, int]:
        """Log the first datagrams of a batch. To know the outcome of each, send them one by one.

        @return: how many these are, in whole entries, and their payload in bytes.
        """
        datagrams = size = 0
        for entry in range(batch.entries):
            if datagrams >= lines:
                break
            address, isDropped = batch.address(entry), entry in batch.dropped
            for payload in batch.payloads(entry) if isDropped else batch.take(entry):
                datagrams += 1
                size += len(payload)
                logged = self._attempt(self._log.received, len(payload), address)
                if not isDropped:
                    self._answer(payload, address, logged)
        return datagrams, size

    def _batchSent(self, reason: str | None, datagrams: int, size: int) -> None:
        if reason is None:
            self.counters.echo(size, datagrams)
            self._attempt(self._log.addUnlogged, 0, 0, datagrams, size)
        else:
            self.counters.drop(reason, size, datagrams)


def _hasMixedEntry(batch: IDatagramBatch, most: int) -> bool:
    """Whether an entry may have segments that are too long, and a shorter last one that is not."""
    return batch.datagrams > batch.entries and max(batch.longest()) > most
