"""Receive batches, and hand them to the protocol whole or one by one."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.logger import Logger

from udpecho.addresses import isLinkLocal
from udpecho.interfaces import BatchSendCallback, IBatchReceiver
from udpecho.net import features, reply_controls
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.endpoints import PortContext
from udpecho.net.linux import sockopt
from udpecho.net.linux.adopted import resetOptions, resetSending
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.reader import Delivery, Found, Reader
from udpecho.net.selftest import unsupportedReason
from udpecho.net.sender import Sender
from udpecho.net.sockets import MAX_DATAGRAM, hasBoth
from udpecho.net.splitting_reader import SplittingReader

#: What the shortest datagram takes of the receive buffer at the least, in bytes (C{struct sk_buff} and C{skb_shared_info} in
#: Linux take some more).
_minBuffered = 512

_log = Logger()


class BatchReader(Reader):
    """Receives batches, and hands them over whole, or those that the protocol splits one by one."""

    def __init__(self, context: PortContext, batch: MessageBatch, delivery: Delivery) -> None:
        super().__init__(context, delivery)
        self.batch = batch
        self._handled: list[MessageBatch] = []
        self._socket = context.socket

    def _receive(self) -> Found:
        """Receive a batch. If it could have been larger, the reactor calls again when there is more."""
        if self.batch in self._handled:
            # A program runs the reactor inside of a callback.
            self.batch = self.batch.another()
        batch = self.batch
        found = Found.MORE if batch.receive(self._socket.fileno()) >= batch.requested else Found.EMPTY
        if batch.irregular:
            self._context.restoreOptions()
        return found

    def _drop(self, batch: MessageBatch) -> None:
        """Drop the entries that are not for the protocol."""
        maxPacketSize = self._context.maxPacketSize
        if batch.size >= maxPacketSize:
            for entry, longest in enumerate(batch.longest()):
                if longest > maxPacketSize:
                    batch.drop(entry, "truncated")
            for entry in batch.truncated():
                batch.drop(entry, "truncated")
        expired = batch.hopLimitExpired()
        for entry in set(expired).difference(batch.nonUnicast()) if expired else ():
            batch.drop(entry, "loop_guard")

    def _addToBacklog(self, batch: MessageBatch) -> None:
        """Have the datagrams handed over one by one."""
        backlog, dropped, taken = self._delivery.backlog, batch.dropped, batch.taken
        for entry in range(batch.entries):
            if entry not in taken:
                address, reason = batch.address(entry), dropped.get(entry)
                backlog.extend([(payload, address, reason) for payload in batch.payloads(entry)])

    def close(self) -> None:
        """Nothing of the last batch can be sent any more."""
        for batch in (self.batch, *self._handled):
            batch.close()

    def portConnected(self) -> None:
        """Add what is queued to the backlog."""
        # The protocol may be handling the last one.
        following = self.batch.another()
        self.close()
        # What is queued already may be GRO batches; but datagrams may come as fast as they are read.
        space = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        with suppress(OSError):
            while space > 0:
                space -= following.receive(self._socket.fileno()) * _minBuffered + following.size
                self._drop(following)
                self._addToBacklog(following)

    def read(self) -> Found:
        """Receive a batch, and hand it over, with the entries dropped that are not for the protocol."""
        found = self._receive()
        batch = self.batch
        self._drop(batch)
        for entry in batch.unanswerable() if batch.irregular else ():
            batch.drop(entry, "unanswerable")
        dropped = dict(batch.dropped)
        protocol: Any = self._context.protocol
        self._handled.append(batch)
        try:
            protocol.datagramsReceived(batch)
        except self._delivery.survives:
            self._delivery.failures.failure("Unhandled error in datagramsReceived of {protocol}", protocol=protocol)
        self._handled.remove(batch)
        batch.finish()
        if batch.isSplit:
            self._addToBacklog(batch)
            self._delivery.flush()
        elif dropped:
            counts = batch.counts()
            for entry, reason in dropped.items():
                self._context.dropped[reason] += counts[entry]
        return found


def openBatchReader(context: PortContext, delivery: Delivery, sender: Sender) -> Reader | None:
    """Have the kernel report with each datagram what a reply needs, and receive in batches where that works.

    @return: C{None} to receive one by one.
    """
    sock, endpoints, options, bound = context.socket, context.endpoints, context.options, context.endpoints.boundHost
    # A link-local IPv4 address is no bind to an interface.
    severalHosts = bound is None or sockopt.isNonUnicast(bound) or (":" not in bound and isLinkLocal(bound))
    counts = options.countsHops(context.protocol)
    if not sockopt.available:
        for feature, wants in ((features.PKTINFO, severalHosts), (features.HOP_LIMIT, counts)):
            if wants:
                features.missed(feature)
        return None
    sockopt.disablePathMTUDiscovery(sock)
    # An adopted socket may have more enabled than is wanted.
    hopLimits = endpoints.hopLimits = reply_controls.reportHopLimits(sock, counts)
    whole = IBatchReceiver.providedBy(context.protocol)
    wanted = options.batches and not (whole and bound is None and hasBoth(sock))
    reason = unsupportedReason() if wanted else None
    if reason is not None:
        features.missed(features.BATCHES, reason)
    pktinfo = endpoints.pktinfo = reply_controls.reportDestinations(sock, severalHosts)

    def restore() -> None:
        # What a reply needs stays what it was: without it there is none.
        resetOptions(sock)
        sockopt.enableRecvHopLimit(sock, hopLimits)
        sockopt.enablePktinfo(sock, pktinfo)

    context.restore = restore if context.adopted else None
    if not wanted or reason is not None:
        return None
    if not whole:
        return SplittingReader(context, delivery, sender)
    # With a lower limit, the last datagram of a GRO batch may be short enough and the others not.
    offload = options.offload and context.maxPacketSize >= MAX_DATAGRAM
    canSegment = offload and reply_controls.areTaken(sock.family, features.GSO)
    if offload and not canSegment:
        features.missed(features.GSO)
    gro = canSegment and sockopt.enableGRO(sock)
    isIPv6, segments = endpoints.family == socket.AF_INET6, SegmentLimits() if gro else None
    batchOptions = BatchOptions(isIPv6, bound, pktinfo, hopLimits, segments)
    beforeSending = partial(resetSending, sock) if context.adopted else None
    batchSender, calls = BatchSender(batchOptions, sender.sendPart, context.dropped, beforeSending), context.calls

    def send(batch: MessageBatch, callback: BatchSendCallback) -> None:
        batchSender.send(batch, partial(calls.add, callback))
        calls.run()

    return BatchReader(context, MessageBatch(batchOptions, send), delivery)
