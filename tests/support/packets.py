"""Probes built one by one."""

from __future__ import annotations

from udpecho.probe import packet


class Codec(packet.Codec):
    """A codec that also builds single probes."""

    def build(self, sequence: int, size: int, sendTime: int = 0) -> bytes:
        """A probe of C{size} bytes; the other parameters are those of L{write}."""
        buffer = bytearray(size)
        self.prepare(buffer)
        self.write(buffer, sequence, sendTime)
        return bytes(buffer)
