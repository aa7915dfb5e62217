"""Receive batches on connected sockets, many of them in the same memory: each alone would take megabytes."""

from __future__ import annotations

import socket
from functools import partial

from udpecho.interfaces import BatchSendCallback, IBatchReceiver
from udpecho.net.batch import BatchOptions, MessageBatch
from udpecho.net.batch_reader import BatchReader
from udpecho.net.batch_sender import BatchSender, SendOne
from udpecho.net.endpoints import PortContext
from udpecho.net.linux import sockopt
from udpecho.net.peer_memory import PeerMemory
from udpecho.net.reader import Delivery, Found
from udpecho.net.selftest import unsupportedReason
from udpecho.net.sender import Sender


class PeerReader(BatchReader):
    """Receives batches of a connected port."""

    def __init__(
        self, context: PortContext, delivery: Delivery, memory: PeerMemory, options: BatchOptions, sender: BatchSender
    ) -> None:
        super().__init__(context, memory.lend(options, sender), delivery)
        self._memory = memory
        self._handled = memory.handled
        self._options = options
        self._sender = sender
        self._peerName = b""

    def _receive(self) -> Found:
        self.batch = batch = self._memory.lend(self._options, self._sender)
        # It may have been replaced.
        received = batch.receive(self._context.socket.fileno())
        if self._context.renewal is not None:
            self._context.renewal.received()
        return Found.MORE if received >= batch.requested else Found.EMPTY

    def _drop(self, batch: MessageBatch) -> None:
        super()._drop(batch)
        names = batch.slots.name
        for entry in range(batch.entries):
            if names(entry) != self._peerName:
                # From another address, queued before the port was connected; or the first datagram.
                address, peer = batch.address(entry), self._context.endpoints.peer
                if peer is None or (address, address.scopeID) != (peer, peer.scopeID):
                    batch.drop(entry, "not_allowed")
                else:
                    self._peerName = names(entry)

    def close(self) -> None:
        """Nothing of the last batch can be sent any more, if it is this port's still."""
        if self.batch.descriptor == self._context.socket.fileno():
            self.batch.close()


def openPeerReader(context: PortContext, delivery: Delivery, sender: Sender) -> PeerReader | None:
    """Receive batches on a socket that is connected and nobody else's, where that is wanted and works.

    @return: C{None} to receive one by one.
    """
    memory, endpoints = context.options.memory, context.endpoints
    if memory is None or context.adopted or not (sockopt.available and IBatchReceiver.providedBy(context.protocol)):
        return None
    if unsupportedReason() is not None:
        return None
    options = BatchOptions(endpoints.family == socket.AF_INET6, endpoints.boundHost, hopLimits=endpoints.hopLimits)
    return PeerReader(context, delivery, memory, options, _Sender(options, sender.sendPart, context))


class _Sender(BatchSender):
    """Sends batches back, and calls the callbacks of applications as a port does."""

    def __init__(self, options: BatchOptions, sendOne: SendOne, context: PortContext) -> None:
        super().__init__(options, sendOne, context.dropped)
        self._calls = context.calls

    def send(self, batch: MessageBatch, callback: BatchSendCallback) -> None:
        """@see: L{BatchSender.send}"""
        super().send(batch, partial(self._calls.add, callback))
        self._calls.run()
