"""Recognise one datagram among those that a server drops: its own self-echo, so that the check gets to know why.

The process that checks writes what to look for, and the process that serves writes the reason; they may be two, and share the
memory. Only what is dropped is compared, and only during a check.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from udpecho.interfaces import DROP_REASONS, IDatagramBatch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The source port, 0 if nothing is to be found; the size; the index of the reason from 1, 0 if it was not found; the source's
# host; the first bytes of the payload.
_format = "=HHB3x16s8s"
_portAt, _reasonAt = 0, 4

#: Bytes of memory of one L{DropWatch}.
WATCH_SIZE = struct.calcsize(_format)


class DropWatch:
    """Watches the drops of one address of a server for one datagram."""

    def __init__(self, memory: WriteableBuffer | None = None) -> None:
        """@param memory: L{WATCH_SIZE} bytes, which may be shared; by default new ones."""
        self._cells = memoryview(bytearray(WATCH_SIZE) if memory is None else memory).cast("B")

    # For the process that checks

    def expect(self, host: str, port: int, payload: bytes) -> None:
        """Look for a datagram from now on, in place of the one before. Its size and its first 8 bytes are compared."""
        self._cells[:] = struct.pack(_format, 0, len(payload), 0, _hostBytes(_hostNumber(host)), payload)
        # The port comes last: who reads it finds the rest complete.
        struct.pack_into("=H", self._cells, _portAt, port)

    def forget(self) -> None:
        """Look for nothing."""
        struct.pack_into("=H", self._cells, _portAt, 0)

    @property
    def reason(self) -> str | None:
        """Why the datagram was dropped; C{None} if no drop of it was seen."""
        index = self._cells[_reasonAt]
        return DROP_REASONS[index - 1] if index else None

    def detach(self) -> None:
        """Copy the state into memory of its own, before the shared memory is closed."""
        self._cells = memoryview(bytearray(self._cells)).cast("B")

    # For the process that serves

    def lookAt(self, payload: bytes, address: tuple[str, int], reason: str) -> None:
        """A datagram is dropped."""
        port = self._port()
        if port and port == address[1]:
            self._compare(payload, _hostNumber(address[0]), reason)

    def lookThrough(self, batch: IDatagramBatch) -> None:
        """Some datagrams of a batch are dropped."""
        port = self._port()
        if not port:
            return
        ports = batch.ports()
        if port in ports:
            hosts = batch.hosts()
            for entry in batch.dropped:
                if ports[entry] == port:
                    for payload in batch.payloads(entry):
                        self._compare(payload, hosts[entry], batch.dropped[entry])

    def _port(self) -> int:
        port: int = struct.unpack_from("=H", self._cells, _portAt)[0]
        return port

    def _compare(self, payload: bytes, host: int, reason: str) -> None:
        _, size, _, wantedHost, wanted = struct.unpack(_format, self._cells)
        if len(payload) == size and payload[:8].ljust(8, b"\0") == wanted and _hostBytes(host) == wantedHost:
            self._cells[_reasonAt] = 1 + DROP_REASONS.index(reason)


def _hostNumber(host: str) -> int:
    return int(ip_address(host.partition("%")[0]))


def _hostBytes(host: int) -> bytes:
    return host.to_bytes(16, "big")
