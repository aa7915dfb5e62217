"""Receive many datagrams with one C{recvmmsg(2)}, and hand them to the protocol one by one.

For each datagram of a flood there is a copy of its payload, a look-up of its source by the bytes that the system has written,
and the call of the protocol. All else is for a whole batch, or for the first datagram from somewhere.
"""

from __future__ import annotations

import socket
import sys
from itertools import repeat
from typing import Any

from udpecho.net.batch import SLOT_SIZE
from udpecho.net.endpoints import PortContext
from udpecho.net.linux import cmsg
from udpecho.net.linux.mmsg import CONTROLS_AT, SLOTS, Slots, systemCalls
from udpecho.net.reader import ALONE, Delivery, Found, PlainReader, Reader
from udpecho.net.reply_batch import ReplyBatch
from udpecho.net.sender import Sender

#: From so many datagrams on, what the protocol writes is collected.
_minCollected = 4

_nothing = cmsg.Controls()


class SplittingReader(Reader):
    """Receives batches, as long as several datagrams are queued, and single datagrams as long as they come alone.

    @ivar calls: the system calls.
    """

    def __init__(self, context: PortContext, delivery: Delivery, sender: Sender) -> None:
        """@param sender: sends what the protocol writes.
        @raise OSError: if this system has no calls for batches."""
        super().__init__(context, delivery)
        endpoints = context.endpoints
        self._endpoints = endpoints
        self._sources = endpoints.sources
        self._sender = sender
        self._plain = PlainReader(context, delivery)
        self._isIPv6 = endpoints.family == socket.AF_INET6
        self._hasControls = context.adopted or endpoints.pktinfo or endpoints.hopLimits
        self.calls = systemCalls()
        self._slots = Slots(SLOT_SIZE, nameLength=28 if self._isIPv6 else 16, controls=self._hasControls)
        # The family, the port and the address of IPv4 are 8 bytes: one number is all that there is to look up then.
        self._keys = None if self._isIPv6 or self._hasControls else self._slots.nameField("Q", 0)
        self._arguments = self._slots.receiving(context.socket.fileno())
        if not context.adopted and context.options.maxWaiting >= SLOTS:
            sender.collectsReplies(self._makeReplies)

    def read(self) -> Found:
        """Receive a batch, or a single datagram."""
        if ALONE <= self._alone < 2 * ALONE:
            self._alone += 1
            self._plain.readOne()
            return Found.UNKNOWN
        count = self.calls.recvmmsg(*self._arguments)
        if count < 0:
            raise self.calls.failure()
        self._alone = min(self._alone, ALONE - 1) + 1 if count == 1 else 0
        self._add(count)
        if count < _minCollected:
            self._delivery.flush()
        else:
            self._sender.beginBatch()
            try:
                self._delivery.flush()
            finally:
                self._sender.endBatch()
        return Found.MORE if count == SLOTS else Found.EMPTY

    def _add(self, count: int) -> None:
        """Add what was received to the backlog."""
        slots, sizes = self._slots, self._slots.lengths[:count].tolist()
        controlSizes = [0] * count
        if self._hasControls:
            controlSizes = slots.controlLengths[:count].tolist()
            slots.resetControls(count)
        datagrams = slots.datagrams(sizes)
        keys: list[Any]
        if self._keys is not None:
            keys = self._keys[:count].tolist()
        elif controlSizes.count(controlSizes[0]) == count:
            keys = slots.rows(count, controlSizes[0])
        else:
            keys = list(map(slots.row, range(count), controlSizes))
        if max(sizes) <= self._context.maxPacketSize:
            usual = self._sources.usual
            try:
                addresses = [usual[key] for key in keys]
            except KeyError:
                pass
            else:
                self._delivery.backlog.extend(zip(datagrams, addresses, repeat(None)))
                return
        self._addEach(datagrams, controlSizes, keys)

    def _addEach(self, datagrams: list[bytes], controlSizes: list[int], keys: list[Any]) -> None:
        """Look at each datagram."""
        backlog, sources, most = self._delivery.backlog, self._sources, self._context.maxPacketSize
        for slot, (datagram, controlSize, key) in enumerate(zip(datagrams, controlSizes, keys)):
            address = sources.usual.get(key)
            if address is not None:
                backlog.append((datagram, address, "truncated" if len(datagram) > most else None))
                continue
            row = self._slots.row(slot, controlSize)
            ancillary = cmsg.unpackControls(row[CONTROLS_AT:]), self._slots.flags[slot] if self._hasControls else 0
            controls = cmsg.readControls(ancillary) if controlSize else _nothing
            arrival, segment = self._endpoints.arrival(controls), controls.segment
            isKnown = controls.expected and arrival.answerable
            if not isKnown:
                self._context.restoreOptions()
            isUsual = isKnown and arrival.reason is None and not segment
            address = sources.handOver(key, self._name(row), arrival, isUsual)
            for at in range(0, len(datagram), segment) if segment else (0,):
                payload = datagram[at : at + segment] if segment else datagram
                backlog.append((payload, address, "truncated" if len(payload) > most else arrival.reason))

    def _makeReplies(self) -> ReplyBatch:
        return ReplyBatch(self.calls, self._context.socket, self._isIPv6)

    def _name(self, row: bytes) -> tuple[Any, ...]:
        """Read a socket address, as Python's C{socket} module has it."""
        port = int.from_bytes(row[2:4], "big")
        if not self._isIPv6:
            return socket.inet_ntop(socket.AF_INET, row[4:8]), port
        flow, scope = int.from_bytes(row[4:8], "big"), int.from_bytes(row[24:28], sys.byteorder)
        return socket.inet_ntop(socket.AF_INET6, row[8:24]), port, flow, scope

    def close(self) -> None:
        """The socket is closed."""
        self._arguments = self._slots.receiving(-1)
