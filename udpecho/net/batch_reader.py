"""Receive batches, and hand them to the protocol whole or one by one."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from twisted.logger import Logger

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IBatchReceiver, SendCallback
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.endpoints import Endpoints
from udpecho.net.linux import sockopt
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.options import PortOptions
from udpecho.net.reader import Delivery
from udpecho.net.selftest import unsupportedReason
from udpecho.net.sockets import hasBoth

#: What the shortest datagram takes of the receive buffer at the least, in bytes (C{struct sk_buff} and C{skb_shared_info} in
#: Linux take some more).
_minBuffered = 512

_log = Logger()


@lru_cache
def _logUnsupported(reason: str) -> None:
    """Log it once."""
    _log.info("datagrams are received one by one: {reason}", reason=reason)


def openBatch(
    sock: socket.socket,
    endpoints: Endpoints,
    options: PortOptions,
    gro: bool,
    sendOne: Callable[[bytes, DatagramAddress, SendCallback], object],
    dropped: Counter[str],
) -> MessageBatch | None:
    """
    Have the kernel report with each datagram what a reply needs, and receive in batches where that works.

    @param gro: whether the protocol can take GRO batches.
    @param sendOne: see L{BatchSender}.
    @param dropped: where to count what the system refuses to send.

    @return: C{None} to receive one by one.
    """
    # Whoever has bound an adopted socket may have enabled more than is wanted.
    hopLimits = sockopt.enableRecvHopLimit(sock, options.decrementHopLimit)
    wanted = options.batches and not (endpoints.boundHost is None and hasBoth(sock))
    reason = unsupportedReason() if wanted else None
    if reason is not None:
        _logUnsupported(reason)
    if not wanted or reason is not None:
        sockopt.enableGRO(sock, False)
        endpoints.pktinfo = sockopt.enablePktinfo(sock)
        return None
    severalHosts = endpoints.boundHost is None or sockopt.isNonUnicast(endpoints.boundHost)
    endpoints.pktinfo = sockopt.enablePktinfo(sock, severalHosts)
    segments = SegmentLimits() if sockopt.enableGRO(sock, gro and options.offload) else None
    isIPv6 = endpoints.family == socket.AF_INET6
    batchOptions = BatchOptions(isIPv6, endpoints.boundHost, endpoints.pktinfo, hopLimits, segments)
    return MessageBatch(batchOptions, BatchSender(batchOptions, sendOne, dropped).send)


class SplittingReader:
    """
    Receives batches, for a protocol that takes datagrams one by one.

    @ivar batch: the last batch.
    """

    def __init__(self, sock: socket.socket, batch: MessageBatch, delivery: Delivery, maxDatagrams: int) -> None:
        """
        @param sock: the socket.
        @param batch: receives.
        @param delivery: hands the datagrams over.
        @param maxDatagrams: see L{Reader <udpecho.net.reader.Reader>}.
        """
        self.batch = batch
        self.maxDatagrams = maxDatagrams
        self.datagrams = self.size = 0
        self._socket = sock
        self._delivery = delivery

    def receive(self) -> bool:
        """Receive a batch. If it could have been larger, the reactor says when there is more."""
        batch = self.batch
        entries = batch.receive(self._socket.fileno())
        self.datagrams, self.size = batch.datagrams, batch.size
        return entries >= batch.asked

    def handle(self) -> None:
        """Hand it over, as far as the protocol wants it."""
        self._split(self.batch)
        self._delivery.flush()

    def _split(self, batch: MessageBatch) -> None:
        """Add a batch's datagrams to the backlog."""
        truncated = batch.truncated()
        for entry in range(batch.entries):
            address = batch.address(entry)
            if entry in truncated:
                self._delivery.drop("truncated", batch.sizes()[entry], address)
            else:
                self._delivery.backlog.extend((payload, address) for payload in batch.payloads(entry))

    def close(self) -> None:
        """The socket is closed: nothing of the last batch can be sent any more."""
        self.batch.close()

    def leave(self) -> None:
        """End with batches: add what is queued to the backlog."""
        sockopt.enableGRO(self._socket, False)
        # The protocol may be handling the last one.
        following = self.batch.another()
        self.batch.close()
        # What is queued already may be GRO batches; but datagrams may come as fast as they are read.
        space = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        with suppress(OSError):
            while space > 0:
                space -= following.receive(self._socket.fileno()) * _minBuffered + following.size
                self._split(following)


class BatchReader(SplittingReader):
    """Receives batches, for a protocol that takes them whole."""

    def __init__(
        self,
        sock: socket.socket,
        batch: MessageBatch,
        delivery: Delivery,
        maxDatagrams: int,
        receiver: IBatchReceiver,
        maxPacketSize: int,
        dropped: Counter[str],
    ) -> None:
        """
        @param receiver: the protocol.
        @param maxPacketSize: the longest datagram that the protocol is to answer, in bytes.
        @param dropped: where to count what it is not to answer, by reason.
        """
        super().__init__(sock, batch, delivery, maxDatagrams)
        self._receiver = receiver
        self._maxPacketSize = maxPacketSize
        self._dropped = dropped

    def handle(self) -> None:
        """Hand it over, with the entries dropped that are not for the protocol."""
        batch = self.batch
        if batch.size >= self._maxPacketSize:
            for entry, longest in enumerate(batch.longest()):
                if longest > self._maxPacketSize:
                    batch.drop(entry, "truncated")
            for entry in batch.truncated():
                batch.drop(entry, "truncated")
        if batch.hopLimits:
            for entry in batch.hopLimitExpired():
                batch.drop(entry, "loop_guard")
        if batch.dropped:
            counts = batch.counts()
            for entry, reason in batch.dropped.items():
                self._dropped[reason] += counts[entry]
        try:
            self._receiver.datagramsReceived(batch)
        except Exception:
            _log.failure("Unhandled error in datagramsReceived of {protocol}", protocol=self._receiver)
