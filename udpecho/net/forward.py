"""Send received batches on, through other ports, without looking at each datagram."""

from __future__ import annotations

import struct
from itertools import groupby
from weakref import WeakKeyDictionary

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDatagramBatch
from udpecho.net.batch import MessageBatch
from udpecho.net.linux import cmsg
from udpecho.net.linux.mmsg import Slots, packName
from udpecho.net.linux.onward import Onward
from udpecho.net.port import DatagramPort

_hopLimitSpace = cmsg.space(struct.calcsize("i"))


class Way:
    """How to send to an address: a C{struct sockaddr}, empty for a connected socket, and control messages."""

    __slots__ = ("controls", "name")

    def __init__(self, port: DatagramPort, address: DatagramAddress) -> None:
        """@raise error.InvalidAddressError: if the port cannot send to the address."""
        destination, ancillary = port._endpoints.destination(address)[:2]
        self.name = b"" if destination is None else packName(destination)
        self.controls = cmsg.packControls(ancillary)


class Run:
    """Entries of a batch that follow each other and came in the same way.

    @ivar first: the first of them.
    @ivar end: the one after the last.
    @ivar origin: where they came from and where to, as the system reports it; equal for what is equal but for the hop limit.
    @ivar hopLimit: what is left of their hop limit, C{None} if the system does not report it.
    """

    __slots__ = ("end", "first", "hopLimit", "origin")

    def __init__(self, first: int, end: int, origin: bytes, hopLimit: int | None) -> None:
        self.first = first
        self.end = end
        self.origin = origin
        self.hopLimit = hopLimit

    def part(self, first: int, end: int) -> Run:
        """Some of them."""
        return Run(first, end, self.origin, self.hopLimit)


class Forwarder:
    """Sends batches on."""

    def __init__(self) -> None:
        self._onward: WeakKeyDictionary[Slots, Onward] = WeakKeyDictionary()

    def runs(self, batch: IDatagramBatch) -> list[Run]:
        """The runs of a batch that has nothing but single datagrams in the usual form, to be handed over; else none."""
        if not isinstance(batch, MessageBatch) or batch.dropped or batch.irregular or batch.segmentSizes or batch.nonUnicast():
            return []
        fields = batch.fields
        if fields is None:
            return []
        # What was received is what to send.
        fields.iovLengths[:] = fields.lengths
        slots, count = batch.slots, batch.entries
        limits: list[int] | list[None] = slots.usual.hopLimits[:count].tolist() if batch.hopLimits else [None] * count
        # The local address, if it is reported, stands before the hop limit.
        localSize = slots.size - _hopLimitSpace if batch.hopLimits else slots.size
        origins = [slots.name(entry) for entry in range(count)]
        if localSize:
            origins = [origin + slots.packedControls(entry, localSize) for entry, origin in enumerate(origins)]
        if count == 1:
            return [Run(0, 1, origins[0], limits[0])]
        runs, first = [], 0
        for (origin, hopLimit), same in groupby(zip(origins, limits)):
            end = first + len(list(same))
            runs.append(Run(first, end, origin, hopLimit))
            first = end
        return runs

    def send(self, batch: IDatagramBatch, run: Run, port: DatagramPort, way: Way) -> int:
        """Send a run on.

        @return: how many the system has taken; the others are as if they had not been sent. 0 if others wait for the port.
        """
        assert isinstance(batch, MessageBatch)
        sender, context = port._sender, port._context
        if sender.waiting or context.adopted or (context.renewal is not None and context.renewal.beforeSending()):
            return 0
        # It may have been closed by an observer of the log, which has a line about a new socket.
        if not port.connected:
            return 0
        onward = self._onward.get(batch.slots)
        if onward is None:
            onward = self._onward[batch.slots] = Onward(batch.slots, batch.calls)
        return onward.send(port.socket.fileno(), run.first, run.end - run.first, way.name, way.controls)
