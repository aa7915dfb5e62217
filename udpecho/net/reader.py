"""Receive datagrams, and hand them to the protocol one by one."""

from __future__ import annotations

import errno
import sys
from collections import Counter, deque
from collections.abc import Sized
from contextlib import suppress

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDropReceiver
from udpecho.net.endpoints import PortContext
from udpecho.net.failure_log import FailureLog
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.sockets import MAX_DATAGRAM, datagramAddress

#: Windows reports a datagram that is longer than the buffer as an error of reading.
_truncatedOnWindows = errno.EMSGSIZE if sys.platform == "win32" else None

#: How many datagrams to take from a socket that was replaced: they may come as fast as they are read.
MAX_BACKLOG = 4096

_log = Logger()


class Handover:
    """Hands datagrams to a protocol, or drops those that are not for it.

    @cvar survives: what the protocol may raise without that this raises it.
    """

    survives: type[BaseException] = Exception

    def __init__(self, protocol: DatagramProtocol, maxPacketSize: int, dropped: Counter[str]) -> None:
        """@param maxPacketSize: the longest datagram to hand over, in bytes.
        @param dropped: where to count what is dropped, by reason.
        """
        self._protocol = protocol
        self._maxPacketSize = maxPacketSize
        self._dropped = dropped
        self.failures = FailureLog(_log)

    def deliver(self, datagram: bytes, address: DatagramAddress, reason: str | None = None) -> None:
        """Hand a datagram over, if it is not too long and has a hop left for a reply. What the protocol raises is logged.

        @param reason: why it is dropped, if that is known.
        """
        if reason is None:
            reason = self._reasonToDrop(len(datagram), address)
        if reason is not None:
            self.drop(reason, len(datagram), address)
            return
        try:
            self._protocol.datagramReceived(datagram, address)
        except self.survives:
            self.failures.failure("Unhandled error in datagramReceived of {protocol}", protocol=self._protocol)

    def _reasonToDrop(self, size: int, address: DatagramAddress) -> str | None:
        if size > self._maxPacketSize:
            return "truncated"
        # What is sent to a group has one hop by default, and nobody is to answer it.
        return "loop_guard" if address.unicast and address.hopLimit is not None and address.hopLimit < 2 else None

    def drop(self, reason: str, size: int, address: DatagramAddress) -> None:
        """Count a datagram that is not handed over, and notify a protocol that counts too."""
        self._dropped[reason] += 1
        if IDropReceiver.providedBy(self._protocol):
            try:
                self._protocol.datagramDropped(reason, size, address)
            except self.survives:
                self.failures.failure("Unhandled error in datagramDropped of {protocol}", protocol=self._protocol)


class Delivery(Handover):
    """Hands datagrams to a protocol one by one, as long as it wants them and none waits for the send queue.

    @ivar wanted: whether the protocol wants datagrams.
    @ivar backlog: what was received and not handed over, each with the reason if it is dropped.
    """

    # As the stock port: the reactor would close the port, and go on.
    survives = BaseException

    def __init__(self, context: PortContext, waiting: Sized) -> None:
        super().__init__(context.protocol, context.maxPacketSize, context.dropped)
        self._context = context
        self._endpoints = context.endpoints
        self._waiting = waiting
        self._closed = False
        self.wanted = False
        self.backlog: deque[tuple[bytes, DatagramAddress, str | None]] = deque()

    def deliver(self, datagram: bytes, address: DatagramAddress, reason: str | None = None) -> None:
        """Hand a datagram to the protocol, if it is for it."""
        if self._context.renewal is not None:
            self._context.renewal.received()
        peer = self._endpoints.peer
        if peer is not None and (address, address.scopeID) != (peer, peer.scopeID):
            # From another address, queued before the port was connected.
            self._dropped["not_allowed"] += 1
        else:
            super().deliver(datagram, address, reason)

    def _reasonToDrop(self, size: int, address: DatagramAddress) -> str | None:
        return super()._reasonToDrop(size, address) or ("send_failed" if self._closed else None)

    def flush(self) -> None:
        """Hand over the backlog, until the turn is over. When the port is closed, count it at once: nobody gets it."""
        while self.backlog and (self._closed or (self.wanted and not self._waiting)):
            self.deliver(*self.backlog.popleft())
            if not self._closed and self._context.turn.isOver():
                self.flushSoon()
                return

    def flushSoon(self) -> None:
        """Go on with the backlog in the next turn: no event of the reactor comes for what the system has no more."""
        if self.backlog:
            self._context.turn.postpone(self.flush)

    def close(self) -> None:
        """Hand over nothing more. The backlog is dropped, and so is what is added to it."""
        self.wanted, self._closed = False, True
        self._context.turn.forget(self.flush)
        self.flush()


class Reader:
    """A way to receive and to hand over. A batch goes back by C{sendmmsg(2)}, and what is given to C{write} by the L{Sender
    <udpecho.net.sender.Sender>}.
    """

    def __init__(self, context: PortContext, delivery: Delivery) -> None:
        self._context = context
        self._delivery = delivery

    def receive(self) -> bool:
        """Make one system call.

        @return: whether more datagrams may be queued.
        @raise OSError: if there is none.
        """
        raise NotImplementedError

    def handle(self) -> None:
        """Hand over what was received."""
        raise NotImplementedError

    def portConnected(self) -> None:
        """The port becomes connected: add to the backlog what only this reader can receive."""

    def close(self) -> None:
        """The socket is closed."""


class PlainReader(Reader):
    """Receives one datagram with one call."""

    def __init__(self, context: PortContext, delivery: Delivery) -> None:
        super().__init__(context, delivery)
        self._endpoints = context.endpoints
        # One byte more than is wanted: a longer datagram is not truncated without notice.
        self._bufferSize = context.maxPacketSize + 1
        # Nobody else has set an option of a socket that is ours, and connected from the beginning.
        self._hasControls = sockopt.available and (context.adopted or context.endpoints.peer is None)
        self._payloads: list[bytes] = []
        self._address = DatagramAddress(("", 0))

    def receive(self) -> bool:
        """Receive a datagram."""
        try:
            if self._hasControls or self._endpoints.hopLimits:
                self._receiveWithControls()
            else:
                datagram, sender = self._context.socket.recvfrom(self._bufferSize)
                self._payloads, self._address = [datagram], datagramAddress(sender)
                self._address.localHost = self._endpoints.boundHost
        except OSError as e:
            if e.errno != _truncatedOnWindows:
                raise
            # Windows does not report the sender.
            self._payloads, self._address = [bytes(self._bufferSize)], self._endpoints.peer or DatagramAddress(("", 0))
        return True

    def _receiveWithControls(self) -> None:
        endpoints = self._endpoints
        datagram, received, sender = cmsg.receive(self._context.socket, MAX_DATAGRAM)
        controls = cmsg.readControls(received)
        self._address = address = datagramAddress(sender)
        controls.describe(address, endpoints.boundHost, endpoints.pktinfo, endpoints.hopLimits)
        segment = controls.segment
        self._payloads = [datagram[at : at + segment] for at in range(0, len(datagram), segment)] if segment else [datagram]
        if not (controls.expected and address.answerable):
            self._context.restoreOptions()

    def handle(self) -> None:
        """Hand it over."""
        if len(self._payloads) == 1:
            self._delivery.deliver(self._payloads[0], self._address)
            return
        self._addToBacklog()
        self._delivery.flush()

    def _addToBacklog(self) -> None:
        self._delivery.backlog.extend((payload, self._address, None) for payload in self._payloads)

    def receiveSome(self, most: int) -> None:
        """Add to the backlog what is queued, until the turn is over or the backlog has so many datagrams."""
        with suppress(OSError):
            while len(self._delivery.backlog) < most:
                self.receive()
                self._addToBacklog()
                if self._context.turn.isOver():
                    return
