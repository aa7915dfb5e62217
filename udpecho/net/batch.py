"""A received batch: many datagrams with one C{recvmmsg(2)}, in fixed slots.

What is done to a batch is done to one field of all its headers at once, where all entries have the usual control messages.
"""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import BatchSendCallback, IDatagramBatch, dropReason
from udpecho.net.linux import cmsg, sockopt
from udpecho.net.linux.gso import SegmentLimits
from udpecho.net.linux.mmsg import SLOTS, Slots, SystemCalls, systemCalls

#: Bytes of a payload: longer than any datagram, and than any GRO batch.
SLOT_SIZE = 65535
#: If GRO batches come as long as those before, a batch has about so many datagrams at the most.
_maxDatagrams = 512

_noInterfaces = memoryview(bytes(4 * SLOTS)).cast("I")
_noControls = cmsg.Controls()
#: The beginning of a link-local IPv4 address (RFC 3927).
_LINK_LOCAL4 = b"\xa9\xfe"


class BatchOptions(NamedTuple):
    """What is set on a socket.

    @ivar isIPv6: whether its family is IPv6; it has no IPv4 datagrams then.
    @ivar boundHost: the local address that all datagrams are sent to, C{None} if that differs.
    @ivar destinations: whether the kernel reports the local address of each datagram, and its interface.
    @ivar hopLimits: whether the kernel reports the hop limit of each datagram; a reply has one less.
    @ivar segments: which GSO batches the kernel sends; C{None} without GRO, when none is to be sent.
    """

    isIPv6: bool
    boundHost: str | None = None
    destinations: bool = False
    hopLimits: bool = False
    segments: SegmentLimits | None = None


class ControlFields(NamedTuple):
    """Members of the usual control messages; C{destinations4} is the destination of the IPv4 header, C{prefixes6} has the
    first two bytes of the local IPv6 address, and C{kinds} the level and type of each message, with what they must be.
    """

    interfaces: memoryview
    locals4: memoryview
    destinations4: memoryview
    hopLimits: memoryview
    prefixes6: tuple[memoryview, memoryview]
    kinds: tuple[tuple[memoryview, memoryview], ...]


class Fields(NamedTuple):
    """Views of the slots that a batch uses, for entries with the usual control messages. Four have what to write to others:
    C{allIovLengths} and C{allControlLengths} the whole length of each slot, C{usualControlLengths} the length of just the usual
    control messages, C{noInterfaces} interface 0. The rest are those of L{BatchSlots} and L{ControlFields}.
    """

    lengths: memoryview
    iovLengths: memoryview
    allIovLengths: memoryview
    controlLengths: memoryview
    allControlLengths: memoryview
    usualControlLengths: memoryview
    hosts4: memoryview
    ports: memoryview
    interfaces: memoryview
    noInterfaces: memoryview
    locals4: memoryview
    destinations4: memoryview
    hopLimits: memoryview
    kinds: tuple[tuple[memoryview, memoryview], ...]

    def areUsual(self) -> bool:
        """Whether all entries have just the usual control messages. Others may be as long."""
        if self.controlLengths != self.usualControlLengths:
            return False
        # The common case of each batch: a generator takes longer than what it looks at.
        for found, usual in self.kinds:  # noqa: SIM110
            if found != usual:
                return False
        return True


class BatchSlots(Slots):
    """The slots of an unconnected socket: L{Slots} with names, and with the usual control messages, which were enabled. Hosts
    and ports are as they are on the wire: the bytes of a number in network order.

    @ivar size: the bytes of the usual control messages.
    @ivar flows: of IPv4 names the family, the port and the host; of IPv6 names the family, the port and the flow.
    @ivar hosts6: the halves of the hosts of IPv6 names.
    @ivar gro: the usual control messages, where that of a GRO batch stands before them.
    @ivar locals6: the halves of the local IPv6 address in the usual control messages.
    @ivar cmsgKinds: the level and the type of the first control message, as one number.
    @ivar segmentSizes: the C{int} in it, of C{UDP_GRO}; C{sentSegmentSizes} is that of C{UDP_SEGMENT}, which is shorter.
    """

    def __init__(self, isIPv6: bool, layout: cmsg.ControlLayout) -> None:
        super().__init__(SLOT_SIZE, nameLength=28 if isIPv6 else 16, spares=SLOTS)
        self._isIPv6 = isIPv6
        self.size = layout.size
        self.ports = self.nameField("H", 2)
        self.flows = self.nameField("Q", 0)
        self.hosts4 = self.nameField("I", 4)
        self.hosts6 = [self.nameField("Q", at) for at in (8, 16)]
        self.scopes = self.nameField("I", 24)
        self.usual, self.gro = (
            ControlFields(
                self.controlField("I", shift + layout.interfaceAt),
                self.controlField("I", shift + layout.localAt),
                self.controlField("I", shift + layout.destinationAt),
                self.controlField("B", shift + layout.hopLimitAt),
                (self.controlField("B", shift + layout.localAt), self.controlField("B", shift + layout.localAt + 1)),
                tuple((self.controlField("Q", shift + at), _constants("Q", kind)) for at, kind in layout.kinds),
            )
            for shift in (0, cmsg.SEGMENT_SPACE)
        )
        self.locals6 = [self.controlField("Q", layout.localAt + at) for at in (0, 8)] if isIPv6 else []
        self.cmsgLengths = self.controlField("I", cmsg.LENGTH_AT)
        self.cmsgKinds = self.controlField("Q", cmsg.KIND_AT)
        self.segmentSizes = self.controlField("I", cmsg.DATA_AT)
        self.sentSegmentSizes = self.controlField("H", cmsg.DATA_AT)
        self._allIovLengths = _constants("I", SLOT_SIZE)
        self._usualControlLengths = _constants("I", layout.size)
        self._fields: list[Fields | None] = [None] * (SLOTS + 1)

    def fields(self, count: int) -> Fields:
        """The fields of the first C{count} slots. They are kept: making slices takes longer than using them."""
        fields = self._fields[count]
        if fields is None:
            usual = self.usual
            fields = self._fields[count] = Fields(
                self.lengths[:count],
                self.iovLengths[:count],
                self._allIovLengths[:count],
                self.controlLengths[:count],
                self._allControlLengths[:count],
                self._usualControlLengths[:count],
                self.hosts4[:count],
                self.ports[:count],
                usual.interfaces[:count],
                _noInterfaces[:count],
                usual.locals4[:count],
                usual.destinations4[:count],
                usual.hopLimits[:count],
                tuple((found[:count], kinds[:count]) for found, kinds in usual.kinds),
            )
        return fields

    def address(self, slot: int) -> DatagramAddress:
        """Read a name."""
        name = self.name(slot)
        port = int.from_bytes(name[2:4], "big")
        if not self._isIPv6:
            return DatagramAddress((socket.inet_ntop(socket.AF_INET, name[4:8]), port))
        address = DatagramAddress((socket.inet_ntop(socket.AF_INET6, name[8:24]), port))
        address.flowInfo, address.scopeID = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
        return address


@implementer(IDatagramBatch)
class MessageBatch:
    """The slots of one socket, and what the last receive call put there.

    @ivar requested: how many entries the last receive call would have taken: as many as there are slots, or, with GRO, fewer,
        so that a batch has not many times as many datagrams: it would keep timers waiting.
    @ivar taken: the entries that the protocol has taken out of the batch.
    @ivar isSplit: whether the protocol wants the datagrams one by one instead.
    @ivar fields: what the entries have; C{None} if there is no entry.
    @ivar descriptor: the socket's; -1 when it is closed.
    @ivar segmentSizes: for each GRO batch the bytes of its datagrams but the last.
    @ivar irregular: the control messages of each entry that does not have just the expected ones.
    @ivar prepared: whether the control messages are already those of the replies.
    """

    def __init__(
        self,
        options: BatchOptions,
        send: Callable[[MessageBatch, BatchSendCallback], None],
        calls: SystemCalls | None = None,
    ) -> None:
        """@param send: sends a batch back.
        @raise OSError: if this system has no calls for batches.
        """
        self.entries = 0
        self.datagrams = 0
        self.size = 0
        self.isIPv6 = options.isIPv6
        self.hopLimits = options.hopLimits
        self.dropped: dict[int, str] = {}
        self.taken: set[int] = set()
        self.isSplit = self._isDone = False
        self.calls = systemCalls() if calls is None else calls
        self._options = options
        self._send = send
        self.requested = self._nextRequested = SLOTS
        self.descriptor = -1
        self._sizes: list[int] = []
        self.segmentSizes: dict[int, int] = {}
        self.irregular: dict[int, cmsg.Controls] = {}
        self.prepared = False
        layout = cmsg.controlLayout(options.isIPv6, options.destinations, options.hopLimits)
        self.slots = BatchSlots(options.isIPv6, layout)
        self.fields: Fields | None = None

    def receive(self, descriptor: int) -> int:
        """Receive a batch, in place of the one before.

        @return: how many entries it has; fewer than L{requested} if no more were there.
        @raise OSError: if there is none.
        """
        fields = self.fields
        if fields is not None:
            fields.iovLengths[:] = fields.allIovLengths
            fields.controlLengths[:] = fields.allControlLengths
            self.fields = None
            self.entries = self.datagrams = self.size = 0
        self.requested = self._nextRequested
        count = self.calls.recvmmsg(descriptor, self.slots.headersAddress, self.requested, sockopt.MSG_DONTWAIT, None)
        if count < 0:
            raise self.calls.failure()
        self.descriptor = descriptor
        self.prepared = False
        self.fields = fields = self.slots.fields(count)
        self._sizes = sizes = fields.lengths.tolist()
        self.entries = self.datagrams = count
        self.size = sum(sizes)
        if self.dropped:
            self.dropped = {}
        if self.taken:
            self.taken = set()
        self.isSplit = self._isDone = False
        if self.segmentSizes:
            self.segmentSizes = {}
        if self.irregular:
            self.irregular = {}
        if not fields.areUsual():
            self._readUnusual(fields)
            self._nextRequested = max(1, min(SLOTS, _maxDatagrams * count // self.datagrams))
        elif self._nextRequested != SLOTS:
            self._nextRequested = SLOTS
        return count

    def _readUnusual(self, fields: Fields) -> None:
        """Read the control messages of the entries that do not have just the usual ones."""
        slots, usual = self.slots, self.slots.size
        kinds, lengths, segmentSizes = slots.cmsgKinds, slots.cmsgLengths, slots.segmentSizes
        for entry, size in enumerate(fields.controlLengths.tolist()):
            segmented = size == usual + cmsg.SEGMENT_SPACE and kinds[entry] == cmsg.GRO_KIND
            if segmented and lengths[entry] == cmsg.GRO_LENGTH and segmentSizes[entry] and _hasKinds(slots.gro, entry):
                self.segmentSizes[entry] = segmentSizes[entry]
            elif size == usual and _hasKinds(slots.usual, entry):
                continue
            else:
                self.irregular[entry] = cmsg.readControls(slots.controls(entry, size))
            self.datagrams += self.count(entry) - 1

    def another(self) -> MessageBatch:
        """Make a batch for the same socket, with slots of its own."""
        return MessageBatch(self._options, self._send, self.calls)

    def close(self) -> None:
        """Nothing of this batch can be sent any more."""
        self.descriptor = -1

    def sizes(self) -> list[int]:
        """@see: L{IDatagramBatch.sizes}"""
        return self._sizes

    def counts(self) -> list[int]:
        """@see: L{IDatagramBatch.counts}"""
        counts = [1] * self.entries
        if self.datagrams != self.entries:
            for entry in (*self.segmentSizes, *self.irregular):
                counts[entry] = self.count(entry)
        return counts

    def longest(self) -> list[int]:
        """@see: L{IDatagramBatch.longest}"""
        if self.datagrams == self.entries:
            return self._sizes
        return [min(size, self.segmentSize(entry) or size) for entry, size in enumerate(self._sizes)]

    def segmentSize(self, entry: int) -> int:
        """The bytes of each datagram of an entry but the last; 0 for a single datagram."""
        return self.segmentSizes.get(entry, 0) or (self.irregular[entry].segment if entry in self.irregular else 0)

    def count(self, entry: int) -> int:
        """How many datagrams an entry is."""
        segment = self.segmentSize(entry)
        return -(-self._sizes[entry] // segment) if segment else 1

    def hosts(self) -> list[int]:
        """@see: L{IDatagramBatch.hosts}"""
        count, fields = self.entries, self.fields
        if fields is None:
            return []
        if not self.isIPv6:
            return list(struct.unpack(f">{count}I", fields.hosts4.tobytes()))
        halves = [struct.unpack(f">{count}Q", half[:count].tobytes()) for half in self.slots.hosts6]
        return [(high << 64) | low for high, low in zip(*halves, strict=True)]

    def ports(self) -> list[int]:
        """@see: L{IDatagramBatch.ports}"""
        return [] if self.fields is None else list(struct.unpack(f">{self.entries}H", self.fields.ports.tobytes()))

    def scopes(self) -> list[int]:
        """@see: L{IDatagramBatch.scopes}"""
        return self.slots.scopes[: self.entries].tolist() if self.isIPv6 else [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        """@see: L{IDatagramBatch.address}"""
        address, options = self.slots.address(entry), self._options
        self._controls(entry).describe(address, options.boundHost, options.destinations, options.hopLimits)
        return address

    def _controls(self, entry: int) -> cmsg.Controls:
        controls = self.irregular.get(entry)
        if controls is None:
            segment = self.segmentSizes.get(entry, 0)
            size = self.slots.size + (cmsg.SEGMENT_SPACE if segment else 0)
            if not size:
                return _noControls
            controls = cmsg.readControls(self.slots.controls(entry, size))
            if segment:
                controls = controls._replace(segment=segment)
            if self.prepared and controls.hopLimit is not None:
                controls = controls._replace(hopLimit=controls.hopLimit + 1)
        return controls

    def payloads(self, entry: int) -> list[bytes]:
        """@see: L{IDatagramBatch.payloads}"""
        size, segment, payload = self._sizes[entry], self.segmentSize(entry), self.slots.payload
        if not segment:
            return [payload(entry, 0, size)]
        return [payload(entry, at, min(at + segment, size)) for at in range(0, size, segment)]

    def nonUnicast(self) -> Sequence[int]:
        """@see: L{IDatagramBatch.nonUnicast}"""
        fields, count = self.fields, self.entries
        if not self._options.destinations or fields is None:
            return ()
        if not self.irregular and not self.segmentSizes:
            if self.isIPv6:
                if b"\xff" not in self.slots.usual.prefixes6[0][:count].tobytes():
                    return ()
            elif fields.locals4 == fields.destinations4:
                return ()
        return [entry for entry in range(count) if not self._controls(entry).unicast]

    def unanswerable(self) -> Sequence[int]:
        """The entries of which the kernel has not reported what a reply needs."""
        needs = self._options.destinations, self._options.hopLimits
        return [entry for entry, controls in self.irregular.items() if not controls.isKnown(*needs)]

    def onLink(self) -> Sequence[int]:
        """The entries whose reply must leave by the interface that they came by (L{cmsg.replyInterface}), if they have just the
        usual control messages, or those of a GRO batch. The name of a link-local IPv6 source has its interface.
        """
        fields, slots, count = self.fields, self.slots, self.entries
        if fields is None:
            return ()
        if not self.isIPv6:
            hosts = fields.hosts4.tobytes()
            if _LINK_LOCAL4 not in hosts:
                return ()
            return [entry for entry in range(count) if hosts.startswith(_LINK_LOCAL4, 4 * entry)]
        if not self.segmentSizes and b"\xfe" not in slots.usual.prefixes6[0][:count].tobytes():
            return ()
        firsts, seconds = zip(*((slots.gro if entry in self.segmentSizes else slots.usual).prefixes6 for entry in range(count)))
        return [entry for entry in range(count) if firsts[entry][entry] == 0xFE and seconds[entry][entry] & 0xC0 == 0x80]

    def truncated(self) -> Sequence[int]:
        """The entries that were longer than their slot."""
        if self.size < SLOT_SIZE:
            return ()
        flags = self.slots.flags[: self.entries].tolist()
        return [entry for entry, flag in enumerate(flags) if flag & sockopt.MSG_TRUNC]

    def hopLimitExpired(self) -> Sequence[int]:
        """The entries whose hop limit leaves none for a reply."""
        if not self.hopLimits or self.fields is None:
            return ()
        if not self.irregular:
            if not self.segmentSizes and min(self.fields.hopLimits.tobytes()) > 1:
                return ()
            usual, gro = self.slots.usual.hopLimits, self.slots.gro.hopLimits
            return [entry for entry in range(self.entries) if (gro if entry in self.segmentSizes else usual)[entry] < 2]
        limits = (self._controls(entry).hopLimit for entry in range(self.entries))
        return [entry for entry, limit in enumerate(limits) if limit is not None and limit < 2]

    def drop(self, entry: int, reason: str) -> None:
        """@see: L{IDatagramBatch.drop}"""
        self.dropped.setdefault(self._untaken(entry), dropReason(reason))

    def take(self, entry: int) -> list[bytes]:
        """@see: L{IDatagramBatch.take}"""
        if self._isDone:
            raise RuntimeError("a batch must not be sent or split when an entry is taken")
        if entry in self.dropped:
            raise ValueError(f"entry must not be dropped to be taken, got {entry!r}")
        self.taken.add(self._untaken(entry))
        return self.payloads(entry)

    def _untaken(self, entry: int) -> int:
        if entry not in range(self.entries) or entry in self.taken:
            raise ValueError(f"entry must be one of {self.entries} that was not taken, got {entry!r}")
        return int(entry)

    def split(self) -> None:
        """@see: L{IDatagramBatch.split}"""
        self._end()
        self.isSplit = True

    def send(self, callback: BatchSendCallback) -> None:
        """@see: L{IDatagramBatch.send}"""
        self._end()
        self._send(self, callback)

    def _end(self) -> None:
        if self._isDone:
            raise RuntimeError("a batch must be sent or split once, and before datagramsReceived returns")
        self._isDone = True

    def finish(self) -> None:
        """It can be sent no more: the next one comes into the same memory."""
        self._isDone = True


def _constants(form: Literal["I", "Q"], number: int) -> memoryview:
    return memoryview(array(form, [number] * SLOTS))


def _hasKinds(fields: ControlFields, entry: int) -> bool:
    return all(found[entry] == kinds[entry] for found, kinds in fields.kinds)
