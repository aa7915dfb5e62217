"""The system calls that take many datagrams at once, which Python does not wrap: C{recvmmsg(2)} and C{sendmmsg(2)}."""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct
import sys
from array import array
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

from udpecho.addresses import DatagramAddress
from udpecho.net.linux import cmsg, sockopt


class SystemCalls(NamedTuple):
    """The two system calls, as the C library has them: they return -1, and leave the error number to C{lastError}."""

    recvmmsg: Callable[..., int]
    sendmmsg: Callable[..., int]
    lastError: Callable[[], int]


@lru_cache(1)
def systemCalls() -> SystemCalls:
    """
    Find the system calls.

    @raise OSError: if there are none with the layouts that this module knows.
    """
    if not sockopt.available or sys.maxsize < 2**32 or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, "only Linux with 64 bits, little-endian, has them as they are used here")
    library = ctypes.CDLL(None, use_errno=True)
    try:
        receive, send = library.recvmmsg, library.sendmmsg
    except AttributeError:
        raise OSError(errno.ENOSYS, "the C library has no recvmmsg and sendmmsg") from None
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return SystemCalls(receive, send, ctypes.get_errno)


#: How many slots there are.
SLOTS = 64
#: Room for a payload: longer than any datagram, and than any burst that the kernel keeps together.
SLOT_SIZE = 65535

# A little more than a power of two, or the first lines of all slots would share a few places in the processor's cache.
_stride = 65536 + 128
# Where the parts are, with the layouts of Linux on 64 bits: struct mmsghdr, struct iovec, room for a name and for control
# messages; then other headers, for what is sent in another order than it came.
_headerSize = 64
_vectorSize = 16
_nameRoom = 32
_controlRoom = 256
_vectorsAt = SLOTS * _headerSize
_namesAt = _vectorsAt + SLOTS * _vectorSize
_controlsAt = _namesAt + SLOTS * _nameRoom
_othersAt = _controlsAt + SLOTS * _controlRoom
_memorySize = _othersAt + SLOTS * _headerSize
#: C{struct mmsghdr}: name, its room, vector, how many, control messages, their room, flags, length. All padding stays 0, so
#: that the last two can be seen as 64 bits.
_header = struct.Struct("@QIxxxxQQQQQQ")
_vector = struct.Struct("@QQ")
_noInterfaces = memoryview(bytes(4 * SLOTS)).cast("I")


class Fields(NamedTuple):
    """
    What is looked at and written in the plain case, of the first so many slots, and what to write there.

    @ivar lengths: how long the payloads are.
    @ivar iovLengths: how much of the payloads is to be received or sent.
    @ivar wholeVectors: all that there is room for.
    @ivar controlLengths: how long the control messages are.
    @ivar wholeControls: all that there is room for.
    @ivar plainControls: how long they are when there are just the usual ones.
    @ivar hosts4: the hosts of IPv4 names.
    @ivar ports: the ports of the names.
    @ivar interfaces: the interface index in the usual control messages.
    @ivar noInterfaces: none for each.
    @ivar locals4: the local IPv4 address there.
    @ivar destinations4: the destination in the IPv4 header.
    @ivar hopLimits: the hop limit.
    """

    lengths: memoryview
    iovLengths: memoryview
    wholeVectors: memoryview
    controlLengths: memoryview
    wholeControls: memoryview
    plainControls: memoryview
    hosts4: memoryview
    ports: memoryview
    interfaces: memoryview
    noInterfaces: memoryview
    locals4: memoryview
    destinations4: memoryview
    hopLimits: memoryview


class Slots:
    """
    The memory.

    Of what it has besides L{Fields}, hosts and ports are as they are on the wire: the bytes of a number in network order.

    @ivar size: the bytes of the usual control messages.
    @ivar headersAddress: where the headers are.
    @ivar othersAddress: where the other headers are.
    @ivar flags: what C{recvmsg(2)} says of each message.
    @ivar ports: the ports of the names.
    @ivar flows: of IPv4 names the family, the port and the host; of IPv6 names the family, the port and the flow.
    @ivar hosts4: the hosts of IPv4 names.
    @ivar hosts6: the halves of the hosts of IPv6 names.
    @ivar scopes: the scopes of IPv6 names.
    @ivar interfaces: the interface index in the usual control messages.
    @ivar locals4: the local IPv4 address there.
    @ivar locals6: the halves of the local IPv6 address there.
    @ivar groups6: the first byte of it.
    @ivar destinations4: the destination in the IPv4 header.
    @ivar hopLimits: the hop limit.
    @ivar lengths: how long the first control message is, with its header.
    @ivar kinds: its level and its type, as one number.
    @ivar segments: the number in it, if it has one.
    @ivar groFields: the interface, the local IPv4 address, the destination and the hop limit in the usual control messages,
        when that of a GRO batch stands before them.
    """

    def __init__(self, isIPv6: bool, layout: cmsg.ControlLayout, usesControls: bool) -> None:
        """
        @param isIPv6: the family of the names.
        @param layout: of the usual control messages.
        @param usesControls: whether there may be control messages at all.
        """
        self._isIPv6 = isIPv6
        self.size = layout.size
        self._payloads = mmap.mmap(-1, SLOTS * _stride)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Or the first small datagram would take megabytes.
            self._payloads.madvise(mmap.MADV_NOHUGEPAGE)
        memory = mmap.mmap(-1, _memorySize)
        self._memory = memoryview(memory)
        # These hold the memory where it is.
        self._anchors = [ctypes.c_char.from_buffer(self._payloads), ctypes.c_char.from_buffer(memory)]
        payloads, self.headersAddress = map(ctypes.addressof, self._anchors)
        self.othersAddress = self.headersAddress + _othersAt
        for slot in range(SLOTS):
            self._writeHeader(slot * _headerSize, slot, 1, _controlRoom if usesControls else 0)
            _vector.pack_into(memory, _vectorsAt + slot * _vectorSize, payloads + slot * _stride, SLOT_SIZE)
        self._lengths = self._field("Q", 0, 56, _headerSize)
        self.flags = self._field("Q", 0, 48, _headerSize)
        self._controlRooms = self._field("Q", 0, 40, _headerSize)
        self._vectorRooms = self._field("Q", _vectorsAt, 8, _vectorSize)
        self.ports = self._field("H", _namesAt, 2, _nameRoom)
        self.flows = self._field("Q", _namesAt, 0, _nameRoom)
        self.hosts4 = self._field("I", _namesAt, 4, _nameRoom)
        self.hosts6 = [self._field("Q", _namesAt, at, _nameRoom) for at in (8, 16)]
        self.scopes = self._field("I", _namesAt, 24, _nameRoom)
        self.interfaces = self._field("I", _controlsAt, layout.interfaceAt, _controlRoom)
        self.locals4 = self._field("I", _controlsAt, layout.localAt, _controlRoom)
        self.locals6 = [self._field("Q", _controlsAt, layout.localAt + at, _controlRoom) for at in (0, 8)] if isIPv6 else []
        self.groups6 = self._field("B", _controlsAt, layout.localAt, _controlRoom)
        self.destinations4 = self._field("I", _controlsAt, layout.destinationAt, _controlRoom)
        self.hopLimits = self._field("B", _controlsAt, layout.hopLimitAt, _controlRoom)
        self.lengths = self._field("Q", _controlsAt, 0, _controlRoom)
        self.kinds = self._field("Q", _controlsAt, 8, _controlRoom)
        self.segments = self._field("I", _controlsAt, 16, _controlRoom)
        shift = cmsg.SEGMENT_ROOM
        self.groFields = [
            self._field("I", _controlsAt, shift + layout.interfaceAt, _controlRoom),
            self._field("I", _controlsAt, shift + layout.localAt, _controlRoom),
            self._field("I", _controlsAt, shift + layout.destinationAt, _controlRoom),
            self._field("B", _controlsAt, shift + layout.hopLimitAt, _controlRoom),
        ]
        self._wholeVectors = memoryview(array("Q", [SLOT_SIZE] * SLOTS))
        self._wholeControls = memoryview(array("Q", [_controlRoom if usesControls else 0] * SLOTS))
        self._plainControls = memoryview(array("Q", [layout.size] * SLOTS))
        self._fields: list[Fields | None] = [None] * (SLOTS + 1)

    def _field(self, form: Literal["B", "H", "I", "Q"], start: int, offset: int, step: int) -> memoryview:
        """
        One field of each slot.

        @param start: where the part begins in which it is.
        @param offset: where it is from there, in bytes.
        @param step: from one to the next, in bytes.
        """
        width = struct.calcsize(form)
        return self._memory.cast(form)[(start + offset) // width : (start + SLOTS * step) // width : step // width]

    def fields(self, count: int) -> Fields:
        """The fields of the first C{count} slots. They are kept: making slices takes longer than using them."""
        fields = self._fields[count]
        if fields is None:
            fields = self._fields[count] = Fields(
                self._lengths[:count],
                self._vectorRooms[:count],
                self._wholeVectors[:count],
                self._controlRooms[:count],
                self._wholeControls[:count],
                self._plainControls[:count],
                self.hosts4[:count],
                self.ports[:count],
                self.interfaces[:count],
                _noInterfaces[:count],
                self.locals4[:count],
                self.destinations4[:count],
                self.hopLimits[:count],
            )
        return fields

    def payload(self, slot: int, start: int, end: int) -> bytes:
        """Some bytes of a payload."""
        at = slot * _stride
        return self._payloads[at + start : at + end]

    def address(self, slot: int) -> DatagramAddress:
        """Read a name."""
        start = _namesAt + slot * _nameRoom
        name = self._memory[start : start + _nameRoom]
        port = int.from_bytes(name[2:4], "big")
        if not self._isIPv6:
            return DatagramAddress((socket.inet_ntop(socket.AF_INET, name[4:8]), port))
        address = DatagramAddress((socket.inet_ntop(socket.AF_INET6, name[8:24]), port))
        address.flowInfo, address.scopeID = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
        return address

    def controls(self, slot: int, size: int) -> cmsg.Controls:
        """
        Read control messages.

        @param size: their bytes.
        """
        start = _controlsAt + slot * _controlRoom
        return cmsg.readControls(cmsg.unpackControls(bytes(self._memory[start : start + size])))

    def writeControls(self, slot: int, ancillary: cmsg.Ancillary) -> None:
        """Put other control messages in the place of those that came."""
        start, packed = _controlsAt + slot * _controlRoom, cmsg.packControls(ancillary)
        self._memory[start : start + len(packed)] = packed
        self._controlRooms[slot] = len(packed)

    def copyHeader(self, other: int, slot: int) -> None:
        """
        Have another header send what a slot has.

        @param other: which of the other headers.
        """
        at, start = _othersAt + other * _headerSize, slot * _headerSize
        self._memory[at : at + _headerSize] = self._memory[start : start + _headerSize]

    def joinHeader(self, other: int, slots: range, segment: int) -> None:
        """
        Have another header send what several slots have, which have the usual control messages and the same name, as one burst.

        @param other: which of the other headers.
        @param segment: the length of each payload.
        """
        size, first = self.size, slots.start
        control = _controlsAt + first * _controlRoom + size
        cmsg.segmentControl.pack_into(self._memory, control, *cmsg.SEGMENT_CONTROL, segment)
        self._writeHeader(_othersAt + other * _headerSize, first, len(slots), size + cmsg.SEGMENT_ROOM)

    def _writeHeader(self, at: int, slot: int, count: int, controlSize: int) -> None:
        """
        Write a header that has its parts in a slot.

        @param at: where to write it.
        @param count: the payloads of how many slots belong to it.
        """
        base = self.headersAddress
        _header.pack_into(
            self._memory,
            at,
            base + _namesAt + slot * _nameRoom,
            28 if self._isIPv6 else 16,
            base + _vectorsAt + slot * _vectorSize,
            count,
            base + _controlsAt + slot * _controlRoom if controlSize else 0,
            controlSize,
            0,
            0,
        )


#: From one header to the next, in bytes.
HEADER_SIZE = _headerSize
