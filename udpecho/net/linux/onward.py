"""Send received payloads on, from the memory in which they came, by one C{sendmmsg(2)}."""

from __future__ import annotations

import mmap

from udpecho.net.linux import library, sockopt
from udpecho.net.linux.mmsg import HEADER_SIZE, SLOTS, Slots, SystemCalls, packHeader

_nameAt = SLOTS * HEADER_SIZE
_controlsAt = _nameAt + 32


class Onward:
    """Headers of their own for the payloads of some slots, all to one destination and with the same control messages."""

    def __init__(self, slots: Slots, calls: SystemCalls) -> None:
        """@param slots: have the payloads."""
        self._iovs = [slots.iovAddress(slot) for slot in range(SLOTS)]
        self._calls = calls
        self._memory = mmap.mmap(-1, mmap.PAGESIZE * 2)
        self._anchor, self._address = library.anchor(self._memory)
        self._name = self._controls = bytes(1)

    def send(self, descriptor: int, first: int, count: int, name: bytes, controls: bytes) -> int:
        """Send the payloads of C{count} slots from C{first} on, each with the length in its I/O vector.

        @param name: the destination, as C{struct sockaddr_in} or C{sockaddr_in6}; empty for a connected socket.
        @param controls: as L{cmsg.packControls <udpecho.net.linux.cmsg.packControls>} packs them.
        @return: how many the system has taken.
        """
        if name != self._name or controls != self._controls:
            self._write(name, controls)
        return max(0, self._calls.sendmmsg(descriptor, self._address + first * HEADER_SIZE, count, sockopt.MSG_DONTWAIT))

    def _write(self, name: bytes, controls: bytes) -> None:
        memory = self._memory
        if (len(name), len(controls)) != (len(self._name), len(self._controls)):
            nameAddress = self._address + _nameAt if name else 0
            controlsAddress = self._address + _controlsAt if controls else 0
            lengths = len(name), len(controls)
            headers = [packHeader(nameAddress, lengths[0], iov, 1, controlsAddress, lengths[1]) for iov in self._iovs]
            memory[:_nameAt] = b"".join(headers)
        memory[_nameAt : _nameAt + len(name)] = name
        memory[_controlsAt : _controlsAt + len(controls)] = controls
        self._name, self._controls = name, controls
