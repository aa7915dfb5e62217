"""C{recvmmsg(2)} and C{sendmmsg(2)}, which Python does not wrap, and the memory that they work on."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from udpecho.net.linux import cmsg, library, sockopt

#: How many datagrams, or GRO batches, one call takes at the most.
SLOTS = 64
_nameSize = 32
#: C{struct sockaddr_in}: C{sin_family}, C{sin_port}, C{sin_addr}. C{sockaddr_in6} has the flow and the scope, too.
_sockaddr4 = struct.Struct("=H2s4s8x")
_sockaddr6 = struct.Struct("=H2s4s16sI")
#: C{struct mmsghdr}, see L{Slots}, and the offsets of the members that are fields. A C{msghdr} is aligned like a pointer. Of a
#: C{size_t} only the lowest 32 bits are used, so that all lengths have one width, and one can be copied to the other.
_header = struct.Struct("@PIPNPNi0PI0P")
_lowest = cmsg.lowest(4, struct.calcsize("@N"))
_controlLengthAt = struct.calcsize("@PIPNP") + _lowest
_flagsAt = struct.calcsize("@PIPNPN")
_lengthAt = struct.calcsize("@PIPNPNi0P")
#: Bytes from one C{struct mmsghdr} to the next.
HEADER_SIZE = _header.size
#: C{struct iovec}: address, length.
_iov = struct.Struct("@PN")
_iovLengthAt = struct.calcsize("@P") + _lowest
#: Where the control messages of a slot begin behind its name, in bytes: their data begin at a multiple of 8.
CONTROLS_AT = _nameSize + -cmsg.DATA_AT % 8
#: Bytes from one name to the next.
_rowSize = _nameSize + cmsg.CONTROL_SIZE + 8
#: The types of the arguments of C{recvmmsg}.
_receiving = "iPIiP"


class SystemCalls(NamedTuple):
    """The two system calls, as the C library has them: they return -1, and leave the error number to C{lastError}."""

    recvmmsg: Callable[..., int]
    sendmmsg: Callable[..., int]
    lastError: Callable[[], int]

    def failure(self) -> OSError:
        """The last error."""
        number = self.lastError()
        return OSError(number, os.strerror(number))


@lru_cache(1)
def systemCalls() -> SystemCalls:
    """Find the system calls.

    @raise OSError: if there are none.
    """
    if not sockopt.available:
        raise OSError(errno.ENOSYS, "only Linux has them as they are used here")
    return SystemCalls(library.find("recvmmsg", _receiving), library.find("sendmmsg", "iPIi"), library.lastError)


def packName(name: tuple[Any, ...]) -> bytes:
    """Write a socket address of Python's C{socket} module as the system has it (C{sockaddr_in}, C{sockaddr_in6})."""
    host, port, *more = name
    if ":" not in host:
        return _sockaddr4.pack(socket.AF_INET, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, host))
    flow, scope = more or (0, 0)
    address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return _sockaddr6.pack(socket.AF_INET6, port.to_bytes(2, "big"), flow.to_bytes(4, "big"), address, scope)


class Slots:
    """Memory for a batch. Each slot has a header, an I/O vector, a name, control messages and a payload. The header::

        struct mmsghdr {                 // offset: with 64 bits, with 32
            struct msghdr {
                void *msg_name;          //  0   0
                socklen_t msg_namelen;   //  8   4
                struct iovec *msg_iov;   // 16   8
                size_t msg_iovlen;       // 24  12
                void *msg_control;       // 32  16
                size_t msg_controllen;   // 40  20
                int msg_flags;           // 48  24
            } msg_hdr;
            unsigned int msg_len;        // 56  28
        };

    A I{field} is a memoryview of one member of all slots.

    @ivar lengths: the field C{msg_len}: how many bytes a call has received or sent.
    @ivar flags: the field C{msg_flags}.
    @ivar controlLengths: the field C{msg_controllen}.
    @ivar iovLengths: the field C{iov_len}: how many bytes of the payload to receive or send.
    @ivar controlSpace: what C{msg_controllen} must be before a call that receives.
    """

    def __init__(
        self, payloadSize: int, count: int = SLOTS, nameLength: int = 0, controls: bool = True, spares: int = 0
    ) -> None:
        """@param payloadSize: the bytes of each payload.
        @param nameLength: the bytes of C{struct sockaddr_in} or C{sockaddr_in6}; 0 for a connected socket.
        @param controls: whether there are control messages.
        @param spares: how many more headers there are, to send other combinations of the slots with.
        """
        self._count = count
        self._nameLength = nameLength
        self.controlSpace = cmsg.CONTROL_SIZE if controls else 0
        self._iovsAt = count * HEADER_SIZE
        # The name of a slot and its control messages stand together: one copy takes both.
        self._namesAt = self._iovsAt + -(-count * _iov.size // 8) * 8
        self._controlsAt = self._namesAt + CONTROLS_AT
        self._sparesAt = self._namesAt + count * _rowSize
        self._memory = mmap.mmap(-1, self._sparesAt + spares * HEADER_SIZE)
        # A little more than a power of two, or the first lines of all payloads would share a few sets of the processor's cache.
        self._stride = stride = -(-payloadSize // 128) * 128 + 128
        self._payloads = mmap.mmap(-1, count * stride)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            # Or the first small datagram would take megabytes. A kernel without huge pages refuses it.
            with suppress(OSError):
                self._payloads.madvise(mmap.MADV_NOHUGEPAGE)
        self._anchors, addresses = zip(*map(library.anchor, (self._memory, self._payloads)))
        self.headersAddress, payloadsAddress = addresses
        self.sparesAddress = self.headersAddress + self._sparesAt
        whole = memoryview(self._payloads)
        self.payloads = [whole[slot * stride : slot * stride + payloadSize] for slot in range(count)]
        for slot in range(count):
            self.writeHeader(slot * HEADER_SIZE, slot, 1, self.controlSpace)
            _iov.pack_into(self._memory, self._iovsAt + slot * _iov.size, payloadsAddress + slot * stride, payloadSize)
        self.lengths = self._field("I", 0, _lengthAt, HEADER_SIZE)
        self.flags = self._field("I", 0, _flagsAt, HEADER_SIZE)
        self.controlLengths = self._field("I", 0, _controlLengthAt, HEADER_SIZE)
        self.iovLengths = self._field("I", self._iovsAt, _iovLengthAt, _iov.size)
        self._rows = memoryview(self._memory)[self._namesAt : self._sparesAt]
        self._rowStarts = [self._namesAt + slot * _rowSize for slot in range(count)]
        self._payloadStarts = [slot * stride for slot in range(count)]
        self._allControlLengths = memoryview(array("I", [self.controlSpace] * count))

    def _field(self, form: Literal["B", "H", "I", "Q"], start: int, offset: int, step: int) -> memoryview:
        width = struct.calcsize(form)
        view = memoryview(self._memory).cast("B").cast(form)
        first = (start + offset) // width
        return view[first : first + self._count * step // width : step // width]

    def nameField(self, form: Literal["B", "H", "I", "Q"], offset: int) -> memoryview:
        """A member of all names, at an offset in bytes."""
        return self._field(form, self._namesAt, offset, _rowSize)

    def controlField(self, form: Literal["B", "H", "I", "Q"], offset: int) -> memoryview:
        """A member of the control messages of all slots, at an offset in bytes."""
        return self._field(form, self._controlsAt, offset, _rowSize)

    def receiving(self, descriptor: int) -> tuple[Any, ...]:
        """The arguments of a C{recvmmsg} that fills the slots with what a socket has."""
        return library.prepared(_receiving, descriptor, self.headersAddress, self._count, sockopt.MSG_DONTWAIT, None)

    def rows(self, count: int, size: int) -> list[bytes]:
        """Copy the names of the first slots, each with C{size} bytes of control messages, which begin at L{CONTROLS_AT}."""
        form = f"{CONTROLS_AT + size}s{_rowSize - CONTROLS_AT - size}x"
        return [row for (row,) in struct.iter_unpack(form, self._rows[: count * _rowSize])]

    def row(self, slot: int, size: int) -> bytes:
        """One of L{rows}."""
        at = self._rowStarts[slot]
        return self._memory[at : at + CONTROLS_AT + size]

    def datagrams(self, sizes: list[int]) -> list[bytes]:
        """Copy the first payloads, which have these sizes."""
        payloads = self._payloads
        return [payloads[at : at + size] for at, size in zip(self._payloadStarts, sizes)]

    def writePayloads(self, datagrams: list[bytes]) -> None:
        """Have the first slots send these."""
        payloads, lengths = self._payloads, list(map(len, datagrams))
        for at, size, datagram in zip(self._payloadStarts, lengths, datagrams):
            payloads[at : at + size] = datagram
        self.iovLengths[: len(lengths)] = memoryview(array("I", lengths))

    def writeRow(self, slot: int, row: bytes) -> None:
        """Write what L{row} reads, and have the slot send it."""
        at = self._rowStarts[slot]
        self._memory[at : at + len(row)] = row
        self.controlLengths[slot] = len(row) - CONTROLS_AT

    def resetControls(self, count: int) -> None:
        """Offer all the space for control messages again, after a call that has filled so many slots."""
        self.controlLengths[:count] = self._allControlLengths[:count]

    def payload(self, slot: int, start: int, end: int) -> bytes:
        """Copy a part of a payload."""
        at = slot * self._stride
        return self._payloads[at + start : at + end]

    def name(self, slot: int) -> bytes:
        """Copy a name."""
        at = self._namesAt + slot * _rowSize
        return self._memory[at : at + _nameSize]

    def controls(self, slot: int, size: int) -> cmsg.ReceivedControls:
        """Read C{size} bytes of control messages."""
        at = self._controlsAt + slot * _rowSize
        return cmsg.unpackControls(self._memory[at : at + size]), self.flags[slot]

    def writeControls(self, slot: int, packed: bytes, offset: int = 0) -> None:
        """Write control messages, C{offset} bytes behind where those of the slot begin."""
        at = self._controlsAt + slot * _rowSize + offset
        self._memory[at : at + len(packed)] = packed

    def copyHeader(self, spare: int, slot: int) -> None:
        """Have a spare header send what a slot has."""
        at, start = self._sparesAt + spare * HEADER_SIZE, slot * HEADER_SIZE
        self._memory[at : at + HEADER_SIZE] = self._memory[start : start + HEADER_SIZE]

    def joinHeader(self, spare: int, slots: range, controlLength: int) -> None:
        """Have a spare header send the payloads of several slots as one, with name and control messages of the first."""
        self.writeHeader(self._sparesAt + spare * HEADER_SIZE, slots.start, len(slots), controlLength)

    def writeHeader(self, at: int, slot: int, count: int, controlLength: int) -> None:
        """Write a header that has the name and control messages of C{slot}, and C{count} payloads from there on."""
        base = self.headersAddress
        _header.pack_into(
            self._memory,
            at,
            base + self._namesAt + slot * _rowSize if self._nameLength else 0,
            self._nameLength,
            base + self._iovsAt + slot * _iov.size,
            count,
            base + self._controlsAt + slot * _rowSize if controlLength else 0,
            controlLength,
            0,
            0,
        )
