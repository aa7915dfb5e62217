"""Memory for batches of probes."""

from __future__ import annotations

import ctypes
import mmap
import struct
from array import array
from typing import Literal

from udpecho.net.linux import cmsg

#: How many datagrams one call takes at the most.
SLOTS = 64
#: So many bytes more than a probe has are received, to see that a reply is longer.
_more = 32
#: Of a datagram that did not arrive so much is quoted as tells which one it was.
_quoteRoom = 64

_headerSize = 64
_vectorSize = 16
_controlRoom = 256
#: C{struct mmsghdr}: name, its room, vector, how many, control messages, their room, flags, length.
_header = struct.Struct("@QIxxxxQQQQQQ")
_vector = struct.Struct("@QQ")
#: The control messages of a stamp (C{struct scm_timestamping}, three times), and where in them the two halves of it are.
_stampRoom = 64
_secondsAt, _nanosecondsAt = 16, 24
#: Behind it, in the error queue, C{struct sock_extended_err} with a C{struct sockaddr_in} or C{sockaddr_in6}.
_originAt, _idAt = _stampRoom + 16 + 4, _stampRoom + 16 + 12
_errorRooms = (_stampRoom + 48, _stampRoom + 64)
_second = 1_000_000_000


class Slots:
    """
    Memory for so many headers, with payload and control messages, as C{recvmmsg(2)} and C{sendmmsg(2)} want it.

    @ivar address: where the headers are.
    @ivar payloads: the room of each payload.
    @ivar sizes: the field of the lengths that a call has taken or returned.
    @ivar rooms: the field of the payloads' rooms.
    @ivar controlSizes: the field of what the control messages take.
    """

    def __init__(self, room: int, controls: bool, count: int = SLOTS) -> None:
        """
        @param room: how many bytes of payload each has.
        @param controls: whether to ask for control messages.
        @param count: how many there are.
        """
        self._count = count
        vectorsAt = count * _headerSize
        self._controlsAt = controlsAt = vectorsAt + count * _vectorSize
        payloadsAt = controlsAt + count * _controlRoom
        # A little more than a power of two, or the first lines of all would share a few places in the processor's cache.
        stride = -(-room // 64) * 64 + 64
        self._memory = memory = mmap.mmap(-1, payloadsAt + count * stride)
        self._anchor = ctypes.c_char.from_buffer(memory)
        self.address = base = ctypes.addressof(self._anchor)
        whole = memoryview(memory)
        self.payloads = []
        self._controlsRoom = _controlRoom if controls else 0
        for slot in range(count):
            vector, payload = vectorsAt + slot * _vectorSize, payloadsAt + slot * stride
            control = base + controlsAt + slot * _controlRoom if controls else 0
            _header.pack_into(memory, slot * _headerSize, 0, 0, base + vector, 1, control, self._controlsRoom, 0, 0)
            _vector.pack_into(memory, vector, base + payload, room)
            self.payloads.append(whole[payload : payload + room])

        def field(form: Literal["B", "I", "Q"], start: int, offset: int, step: int) -> memoryview:
            view, width = whole.cast("B").cast(form), struct.calcsize(form)
            return view[(start + offset) // width : (start + count * step) // width : step // width]

        self.controlSizes = field("Q", 0, 40, _headerSize)
        self.sizes = field("I", 0, 56, _headerSize)
        self.rooms = field("Q", vectorsAt, 8, _vectorSize)
        self._seconds = field("Q", controlsAt, _secondsAt, _controlRoom)
        self._nanoseconds = field("Q", controlsAt, _nanosecondsAt, _controlRoom)
        self._origins = field("B", controlsAt, _originAt, _controlRoom)
        self._ids = field("I", controlsAt, _idAt, _controlRoom)
        self._allControls = memoryview(array("Q", [self._controlsRoom] * count))

    def reset(self, count: int) -> None:
        """Make all the room for control messages there is again, after a call that has filled so many slots."""
        self.controlSizes[:count] = self._allControls[:count]

    def times(self, count: int) -> list[int]:
        """The stamps of the first so many, where each has one."""
        halves = zip(self._seconds[:count].tolist(), self._nanoseconds[:count].tolist())
        return [whole * _second + rest for whole, rest in halves]

    def origins(self, count: int) -> list[int]:
        """Who has put the first so many into the error queue, where the control messages of each begin with a stamp."""
        return self._origins[:count].tolist()

    def ids(self, count: int) -> list[int]:
        """The ids of the datagrams that the stamps in the error queue are of."""
        return self._ids[:count].tolist()

    def controls(self, slot: int, size: int) -> cmsg.Ancillary:
        """
        The control messages of one.

        @param size: what they take.
        """
        start = self._controlsAt + slot * _controlRoom
        return cmsg.unpackControls(self._memory[start : start + size])
