"""
Many datagrams with one system call: C{recvmmsg(2)} into fixed slots, C{sendmmsg(2)} from the same ones.

No Python runs for the single datagram: what is done to a batch is done to one field of all its headers at once, by slices of
memory with a step.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from udpecho.addresses import DatagramAddress
from udpecho.interfaces import BatchSettled, IDatagramBatch, Settled
from udpecho.sockets import linux
from udpecho.sockets.segments import MAX_SEGMENTS, REFUSALS, SegmentLimits, countSegments

#: How many entries a batch has at the most.
SLOTS = 64
#: Room for the payload of an entry: longer than any datagram, and than any burst that the kernel keeps together.
SLOT_SIZE = 65535

# A little more than a power of two, or the first lines of all slots would share a few places in the processor's cache.
_stride = 65536 + 128
# Where the parts are, with the layouts of Linux on 64 bits: struct mmsghdr, struct iovec, room for a name and for control
# messages; then the headers of what is left of a batch when some of it is dropped.
_headerSize = 64
_vectorSize = 16
_nameRoom = 32
_controlRoom = 128
_vectorsAt = SLOTS * _headerSize
_namesAt = _vectorsAt + SLOTS * _vectorSize
_controlsAt = _namesAt + SLOTS * _nameRoom
_outgoingAt = _controlsAt + SLOTS * _controlRoom
_memorySize = _outgoingAt + SLOTS * _headerSize
#: What one send can carry, with room for the headers.
_mostJoined = 65535 - 48
#: From so many on it is worth while to look for datagrams that can go as one.
_fewest = 4
#: C{struct mmsghdr}: name, its room, vector, how many, control messages, their room, flags, length. All padding stays 0, so
#: that the last two can be seen as 64 bits.
_header = struct.Struct("@QIxxxxQQQQQQ")
_vector = struct.Struct("@QQ")

_receivedLess = bytes(max(0, number - 1) for number in range(256))
_tryAgain = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
_dontWait = socket.MSG_DONTWAIT if linux.available else 0

_log = Logger()


class SystemCalls(NamedTuple):
    """
    The two system calls, as the C library has them: they return -1, and leave the error number to C{lastError}.
    """

    recvmmsg: Callable[..., int]
    sendmmsg: Callable[..., int]
    lastError: Callable[[], int]


@lru_cache(1)
def systemCalls() -> SystemCalls:
    """
    Find the system calls.

    @raise OSError: if there are none with the layouts that this module knows.
    """
    if not linux.available or sys.maxsize < 2**32 or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, "only Linux with 64 bits, little-endian, has them as they are used here")
    library = ctypes.CDLL(None, use_errno=True)
    try:
        receive, send = library.recvmmsg, library.sendmmsg
    except AttributeError:
        raise OSError(errno.ENOSYS, "the C library has no recvmmsg and sendmmsg") from None
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return SystemCalls(receive, send, ctypes.get_errno)


class BatchOptions(NamedTuple):
    """
    What a batch has to do with.

    @ivar isIPv6: whether the socket's family is IPv6; it has no IPv4 datagrams then.
    @ivar boundHost: the local address that all datagrams are sent to, C{None} if that differs.
    @ivar destinations: whether the kernel tells the local address of each datagram.
    @ivar hopLimits: whether the kernel tells the hop limit of each datagram; a reply has one less.
    @ivar segments: what is known of sending bursts as one; C{None} if the kernel keeps none together.
    """

    isIPv6: bool
    boundHost: str | None = None
    destinations: bool = False
    hopLimits: bool = False
    segments: SegmentLimits | None = None


class _Fields(NamedTuple):
    """
    What the plain case looks at and writes, of so many headers.
    """

    lengths: memoryview
    vectorRooms: memoryview
    wholeVectors: memoryview
    controlRooms: memoryview
    wholeControls: memoryview
    plainControls: memoryview


@implementer(IDatagramBatch)
class MessageBatch:
    """
    The slots of one socket, and what the last receive call put there.

    @ivar dropped: the reason for each entry that is not to be sent back.
    @ivar calls: the system calls.
    """

    def __init__(
        self,
        options: BatchOptions,
        sendOne: Callable[[bytes, DatagramAddress, Settled], object],
        failures: Counter[str],
        calls: SystemCalls | None = None,
    ) -> None:
        """
        @param sendOne: sends a single datagram, or keeps it until the send queue has room, and tells what became of it.
        @param failures: where to count what the system refuses, beside telling.
        @param calls: the system calls.

        @raise OSError: if this system has none.
        """
        self.entries = 0
        self.datagrams = 0
        self.size = 0
        self.isIPv6 = options.isIPv6
        self.dropped: dict[int, str] = {}
        self._options = options
        self._sendOne = sendOne
        self._failures = failures
        self.calls = systemCalls() if calls is None else calls
        self._descriptor = -1
        self._sizes: list[int] = []
        self._odd: dict[int, linux.Controls] = {}
        self._fields: list[_Fields | None] = [None] * (SLOTS + 1)
        self._used: _Fields | None = None
        self._prepared = False
        self._layout = linux.ControlLayout(options.isIPv6, options.destinations, options.hopLimits)
        self._usesControls = options.destinations or options.hopLimits or options.segments is not None
        self._allocate()

    def _allocate(self) -> None:
        """
        Lay the slots out, once.
        """
        self._payloads = mmap.mmap(-1, SLOTS * _stride)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Or the first small datagram would take megabytes.
            self._payloads.madvise(mmap.MADV_NOHUGEPAGE)
        self._memory = memory = mmap.mmap(-1, _memorySize)
        # These hold the memory where it is.
        self._anchors = [ctypes.c_char.from_buffer(self._payloads), ctypes.c_char.from_buffer(memory)]
        payloads, base = map(ctypes.addressof, self._anchors)
        self._headersAddress, self._outgoingAddress = base, base + _outgoingAt
        self._nameSize = nameSize = 28 if self.isIPv6 else 16
        for slot in range(SLOTS):
            vector = _vectorsAt + slot * _vectorSize
            control = _controlsAt + slot * _controlRoom
            name = base + _namesAt + slot * _nameRoom
            controls = (base + control, _controlRoom) if self._usesControls else (0, 0)
            _header.pack_into(memory, slot * _headerSize, name, nameSize, base + vector, 1, *controls, 0, 0)
            _vector.pack_into(memory, vector, payloads + slot * _stride, SLOT_SIZE)

        self._bytes = memoryview(memory)

        def field(form: Literal["B", "H", "I", "Q"], start: int, offset: int, step: int) -> memoryview:
            view, width = memoryview(memory).cast("B").cast(form), struct.calcsize(form)
            return view[(start + offset) // width : (start + SLOTS * step) // width : step // width]

        self._controlRooms = field("Q", 0, 40, _headerSize)
        self._flags = field("Q", 0, 48, _headerSize)
        self._lengths = field("Q", 0, 56, _headerSize)
        self._vectorRooms = field("Q", _vectorsAt, 8, _vectorSize)
        self._ports = field("H", _namesAt, 2, _nameRoom)
        # Of IPv6 the family, the port and the flow, of IPv4 the host too.
        self._flows = field("Q", _namesAt, 0, _nameRoom)
        self._hosts4 = field("I", _namesAt, 4, _nameRoom)
        self._hosts6 = field("Q", _namesAt, 8, _nameRoom), field("Q", _namesAt, 16, _nameRoom)
        self._scopes = field("I", _namesAt, 24, _nameRoom)
        layout = self._layout
        self._interfaces = field("I", _controlsAt, layout.interfaceAt, _controlRoom)
        self._locals4 = field("I", _controlsAt, layout.localAt, _controlRoom)
        self._destinations4 = field("I", _controlsAt, layout.destinationAt, _controlRoom)
        self._groups6 = field("B", _controlsAt, layout.localAt, _controlRoom)
        self._locals6 = [field("Q", _controlsAt, layout.localAt + half, _controlRoom) for half in (0, 8)] if self.isIPv6 else []
        self._hopLimits = field("B", _controlsAt, layout.hopLimitAt, _controlRoom)
        self._none = memoryview(array("I", bytes(4 * SLOTS)))
        self._wholeVectors = memoryview(array("Q", [SLOT_SIZE] * SLOTS))
        self._wholeControls = memoryview(array("Q", [_controlRoom if self._usesControls else 0] * SLOTS))
        self._plainControls = memoryview(array("Q", [layout.size] * SLOTS))

    # Receiving

    def receive(self, descriptor: int) -> int:
        """
        Take a batch from a socket; what was in the slots is gone.

        @return: how many entries it has; fewer than L{SLOTS} if no more were there.

        @raise OSError: if there is none.
        """
        used = self._used
        if used is not None:
            used.vectorRooms[:] = used.wholeVectors
            used.controlRooms[:] = used.wholeControls
            self._used = None
            self.entries = self.datagrams = self.size = 0
        count = self.calls.recvmmsg(descriptor, self._headersAddress, SLOTS, _dontWait, None)
        if count < 0:
            number = self.calls.lastError()
            raise OSError(number, os.strerror(number))
        self._descriptor = descriptor
        self._prepared = False
        self._used = used = self._fields[count] or self._fieldsOf(count)
        self._sizes = sizes = used.lengths.tolist()
        self.entries = self.datagrams = count
        self.size = sum(sizes)
        if self.dropped:
            self.dropped = {}
        if self._odd:
            self._odd = {}
        if used.controlRooms != used.plainControls:
            self._readOdd()
        return count

    def _fieldsOf(self, count: int) -> _Fields:
        """
        The fields of so many entries; making slices takes longer than using them.
        """
        self._fields[count] = fields = _Fields(
            self._lengths[:count],
            self._vectorRooms[:count],
            self._wholeVectors[:count],
            self._controlRooms[:count],
            self._wholeControls[:count],
            self._plainControls[:count],
        )
        return fields

    def _readOdd(self) -> None:
        """
        Read the control messages of the entries that do not have just the usual ones: they are bursts.
        """
        plain = self._layout.size
        for entry, room in enumerate(self._controlRooms[: self.entries].tolist()):
            if room != plain:
                start = _controlsAt + entry * _controlRoom
                self._odd[entry] = controls = linux.readControls(linux.unpackControls(self._memory[start : start + room]))
                if controls.segment:
                    self.datagrams += countSegments(self._sizes[entry], controls.segment) - 1

    def close(self) -> None:
        """
        The socket is closed: nothing of this batch can be sent any more.
        """
        self._descriptor = -1

    # Looking

    def sizes(self) -> list[int]:
        """
        @see: L{IDatagramBatch.sizes}
        """
        return self._sizes

    def counts(self) -> list[int]:
        """
        @see: L{IDatagramBatch.counts}
        """
        counts = [1] * self.entries
        if self.datagrams != self.entries:
            for entry in self._odd:
                counts[entry] = self._count(entry)
        return counts

    def longest(self) -> list[int]:
        """
        @see: L{IDatagramBatch.longest}
        """
        longest = self._sizes
        if self.datagrams != self.entries:
            longest = longest[:]
            for entry, controls in self._odd.items():
                longest[entry] = min(longest[entry], controls.segment or longest[entry])
        return longest

    def _count(self, entry: int) -> int:
        controls = self._odd.get(entry)
        return countSegments(self._sizes[entry], controls.segment) if controls is not None and controls.segment else 1

    def hosts(self) -> list[int]:
        """
        @see: L{IDatagramBatch.hosts}
        """
        count = self.entries
        if not self.isIPv6:
            return list(struct.unpack(f">{count}I", self._hosts4[:count].tobytes()))
        halves = [struct.unpack(f">{count}Q", half[:count].tobytes()) for half in self._hosts6]
        return [(high << 64) | low for high, low in zip(*halves, strict=True)]

    def ports(self) -> list[int]:
        """
        @see: L{IDatagramBatch.ports}
        """
        return list(struct.unpack(f">{self.entries}H", self._ports[: self.entries].tobytes()))

    def scopes(self) -> list[int]:
        """
        @see: L{IDatagramBatch.scopes}
        """
        return self._scopes[: self.entries].tolist() if self.isIPv6 else [0] * self.entries

    def address(self, entry: int) -> DatagramAddress:
        """
        @see: L{IDatagramBatch.address}
        """
        start = _namesAt + entry * _nameRoom
        name = self._memory[start : start + _nameRoom]
        port = int.from_bytes(name[2:4], "big")
        if self.isIPv6:
            address = DatagramAddress((socket.inet_ntop(socket.AF_INET6, name[8:24]), port))
            address.flowInfo, address.scopeID = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
        else:
            address = DatagramAddress((socket.inet_ntop(socket.AF_INET, name[4:8]), port))
        controls = self._controls(entry)
        address.localHost = controls.local or self._options.boundHost
        address.unicast = controls.unicast
        address.hopLimit = controls.hopLimit
        return address

    def _controls(self, entry: int) -> linux.Controls:
        controls = self._odd.get(entry)
        if controls is None:
            start = _controlsAt + entry * _controlRoom
            controls = linux.readControls(linux.unpackControls(self._memory[start : start + self._layout.size]))
            if self._prepared and controls.hopLimit is not None:
                controls = controls._replace(hopLimit=controls.hopLimit + 1)
        return controls

    def payloads(self, entry: int) -> list[bytes]:
        """
        @see: L{IDatagramBatch.payloads}
        """
        start, size = entry * _stride, self._sizes[entry]
        controls = self._odd.get(entry)
        if controls is None or not controls.segment:
            return [self._payloads[start : start + size]]
        end = start + size
        return [self._payloads[at : min(at + controls.segment, end)] for at in range(start, end, controls.segment)]

    def groups(self) -> Sequence[int]:
        """
        @see: L{IDatagramBatch.groups}
        """
        if not self._options.destinations:
            return ()
        count = self.entries
        if not self._odd:
            if self.isIPv6:
                if b"\xff" not in self._groups6[:count].tobytes():
                    return ()
            elif self._locals4[:count] == self._destinations4[:count]:
                return ()
        return [entry for entry in range(count) if not self._controls(entry).unicast]

    def cut(self) -> Sequence[int]:
        """
        The entries that were longer than their slot.
        """
        if self.size < SLOT_SIZE:
            return ()
        flags = self._flags[: self.entries].tolist()
        return [entry for entry, flag in enumerate(flags) if flag & socket.MSG_TRUNC]

    def spent(self) -> Sequence[int]:
        """
        The entries whose hop limit leaves none for a reply.
        """
        if not self._options.hopLimits:
            return ()
        limits = self._hopLimits[: self.entries].tobytes()
        if not self._odd and b"\x01" not in limits and b"\x00" not in limits:
            return ()
        return [entry for entry in range(self.entries) if (self._controls(entry).hopLimit or 2) < 2]

    # Sending

    def drop(self, entry: int, reason: str) -> None:
        """
        @see: L{IDatagramBatch.drop}
        """
        self.dropped.setdefault(entry, reason)

    def send(self, settled: BatchSettled) -> None:
        """
        @see: L{IDatagramBatch.send}
        """
        self._prepare()
        if self.dropped or self._odd:
            self._sendSome(settled)
            return
        count = self.entries
        if count >= _fewest and self._options.segments is not None:
            groups = self._groups(self._options.segments)
            if len(groups) <= count // 2:
                self._sendGroups(groups, settled)
                return
        sent = self.calls.sendmmsg(self._descriptor, self._headersAddress, count, _dontWait)
        if sent == count:
            settled(None, count, self.size)
        else:
            self._sendRest([range(entry, entry + 1) for entry in range(count)], self._headersAddress, sent, settled)

    def _prepare(self) -> None:
        """
        Make the headers say what goes out instead of what came in.
        """
        count, options = self.entries, self._options
        if self._used is not None:
            self._used.vectorRooms[:] = self._used.lengths
        if options.destinations:
            # The routing table chooses the interface.
            self._interfaces[:count] = self._none[:count]
        if options.hopLimits:
            self._hopLimits[:count] = self._hopLimits[:count].tobytes().translate(_receivedLess)
        for entry, controls in self._odd.items():
            hopLimit = None if controls.hopLimit is None else controls.hopLimit - 1
            written = linux.packControls(linux.replyControls(self.isIPv6, controls.local, hopLimit, controls.segment))
            start = _controlsAt + entry * _controlRoom
            self._memory[start : start + len(written)] = written
            self._controlRooms[entry] = len(written)
        self._prepared = True

    def _sendSome(self, settled: BatchSettled) -> None:
        """
        Send what is not dropped of a batch.
        """
        limits = self._options.segments
        groups: list[range] = []
        apart: list[int] = []
        counts = self.counts()
        for entry in range(self.entries):
            if entry in self.dropped:
                continue
            segment = self._segment(entry)
            if segment and limits is not None and not limits.allow(segment, counts[entry]):
                apart.append(entry)
            else:
                groups.append(range(entry, entry + 1))
        # Told before anything can wait.
        for reason in set(self.dropped.values()):
            self._settle([entry for entry, why in self.dropped.items() if why == reason], reason, settled)
        if groups:
            self._sendGroups(groups, settled)
        for entry in apart:
            self._sendApart(entry, settled)

    def _segment(self, entry: int) -> int:
        controls = self._odd.get(entry)
        return 0 if controls is None else controls.segment

    def _groups(self, limits: SegmentLimits) -> list[range]:
        """
        Find datagrams of one flow and one length that stand beside each other, which can go back as one burst even if they did
        not come as one.

        @return: all entries, in order.
        """
        count, options = self.entries, self._options
        names = [self._hosts6[0], self._hosts6[1], self._scopes] if self.isIPv6 else []
        columns: list[Sequence[int]] = [self._sizes, *(field[:count].tolist() for field in (self._flows, *names))]
        if options.destinations:
            columns += [field[:count].tolist() for field in (self._locals6 if self.isIPv6 else [self._locals4])]
        if options.hopLimits:
            columns.append(self._hopLimits[:count].tobytes())
        groups: list[range] = []
        start = 0
        for (size, *_), same in groupby(zip(*columns, strict=True)):
            end = start + len(list(same))
            step = min(MAX_SEGMENTS, _mostJoined // size) if size and limits.allow(size, end - start) else 1
            groups += [range(at, min(at + step, end)) for at in range(start, end, max(1, step))]
            start = end
        return groups

    def _sendGroups(self, groups: Sequence[range], settled: BatchSettled) -> None:
        """
        Send each group as one.
        """
        headers = self._bytes
        for index, group in enumerate(groups):
            first, at = group.start, _outgoingAt + index * _headerSize
            if len(group) == 1:
                headers[at : at + _headerSize] = headers[first * _headerSize : (first + 1) * _headerSize]
            else:
                self._join(group, at)
        sent = self.calls.sendmmsg(self._descriptor, self._outgoingAddress, len(groups), _dontWait)
        if sent == len(groups) == self.entries:
            settled(None, self.datagrams, self.size)
        else:
            self._sendRest(groups, self._outgoingAddress, sent, settled)

    def _join(self, group: range, at: int) -> None:
        """
        Write the header that sends plain entries, which are alike, as one burst.

        @param at: where in memory.
        """
        first, base, plain = group.start, self._headersAddress, self._layout.size
        control = _controlsAt + first * _controlRoom
        linux.segmentControl.pack_into(self._memory, control + plain, *linux.SEGMENT_CONTROL, self._sizes[first])
        _header.pack_into(
            self._memory,
            at,
            base + _namesAt + first * _nameRoom,
            self._nameSize,
            base + _vectorsAt + first * _vectorSize,
            len(group),
            base + control,
            plain + linux.SEGMENT_ROOM,
            0,
            0,
        )

    def _sendRest(self, groups: Sequence[range], address: int, sent: int, settled: BatchSettled) -> None:
        """
        Go on after a call that has perhaps not sent everything.

        @param groups: what each header sends.
        @param address: of the headers.
        @param sent: what the call returned.
        """
        first = 0
        while True:
            if sent > 0:
                self._settle([entry for group in groups[first : first + sent] for entry in group], None, settled)
                first += sent
            elif sent == 0 or (number := self.calls.lastError()) in _tryAgain:
                for group in groups[first:]:
                    for entry in group:
                        self._sendApart(entry, settled)
                return
            elif number != errno.EINTR:
                self._refused(groups[first], number, settled)
                first += 1
            if first == len(groups):
                return
            # A short count does not say why: the call that begins there does.
            sent = self.calls.sendmmsg(self._descriptor, address + first * _headerSize, len(groups) - first, _dontWait)

    def _refused(self, group: range, number: int, settled: BatchSettled) -> None:
        """
        The system does not send a group.
        """
        first, limits = group.start, self._options.segments
        segment, count = (self._sizes[first], len(group)) if len(group) > 1 else (self._segment(first), self._count(first))
        if limits is None or count == 1 or not segment or (len(group) == 1 and number not in REFUSALS):
            self._failures["send_failed"] += count
            self._settle(group, "send_failed", settled)
            return
        taken = [self._sendApart(entry, settled) for entry in group]
        if any(taken) and number in REFUSALS:
            # It is the burst that was refused, and not what is in it.
            cause = limits.refused(number, segment, count)
            _log.info("a burst is sent one by one, and so are others like it: {cause}", cause=cause)

    def _sendApart(self, entry: int, settled: BatchSettled) -> bool:
        """
        Send the datagrams of an entry one by one.

        @return: whether the system took one of them.
        """
        address = self.address(entry)
        taken = False

        for payload in self.payloads(entry):
            size = len(payload)

            def settledOne(reason: str | None, size: int = size) -> None:
                nonlocal taken
                taken = taken or reason is None
                settled(reason, 1, size)

            self._sendOne(payload, address, settledOne)
        return taken

    def _settle(self, entries: Sequence[int], reason: str | None, settled: BatchSettled) -> None:
        count = sum(map(self._count, entries)) if self._odd else len(entries)
        settled(reason, count, sum(map(self._sizes.__getitem__, entries)))


@lru_cache(1)
def whyNot() -> str | None:
    """
    Prove the layouts on this machine: send a few datagrams through a pair of sockets, and back.

    @return: C{None} if batches work here, else why not.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            for sock in (near, far):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            near.connect(far.getsockname())
            return _try(near, far)
    except OSError as e:
        return e.strerror or str(e)


def _try(near: socket.socket, far: socket.socket) -> str | None:
    """
    @return: what is wrong.

    @raise OSError: if something cannot be done at all.
    """
    payloads = [b"", b"\0" * 3, bytes(range(256)) * 5, b"last"]
    fates: Counter[tuple[str | None, int, int]] = Counter()
    options = BatchOptions(False, None, linux.askForDestination(far), linux.askForHopLimits(far))
    batch = MessageBatch(options, lambda payload, address, settled: settled("send_failed"), Counter())
    for payload in payloads:
        near.send(payload)
    if batch.receive(far.fileno()) != len(payloads) or batch.sizes() != list(map(len, payloads)):
        return "a batch has not the lengths of what was sent"
    if [batch.payloads(entry) for entry in range(len(payloads))] != [[payload] for payload in payloads]:
        return "a batch has not the bytes that were sent"
    host, port = near.getsockname()
    address: DatagramAddress = batch.address(1)
    if tuple(address) != (host, port) or batch.ports() != [port] * len(payloads) or batch.groups() or batch.spent():
        return "a batch has not the addresses of what was sent"
    if (options.destinations and address.localHost != host) or (options.hopLimits and not address.hopLimit):
        return "a batch has not the control messages of what was sent"
    batch.drop(1, "not_allowed")
    batch.send(lambda reason, datagrams, size: fates.update([(reason, datagrams, size)]))
    del payloads[1]
    if fates != Counter([("not_allowed", 1, 3), (None, 3, sum(map(len, payloads)))]):
        return "a batch cannot be sent"
    if [near.recv(SLOT_SIZE) for _ in payloads] != payloads:
        return "what was sent by the batch is not what comes"
    return None


__all__ = ["SLOTS", "SLOT_SIZE", "BatchOptions", "MessageBatch", "SystemCalls", "systemCalls", "whyNot"]
