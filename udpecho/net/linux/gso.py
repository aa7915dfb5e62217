"""GSO batches: which ones this system has refused to send with one call (C{UDP_SEGMENT} in C{udp(7)})."""

from __future__ import annotations

import errno

#: How the kernel refuses C{UDP_SEGMENT} (C{udp_send_skb}): an argument out of its range, a device that cannot make checksums, a
#: segment longer than the path carries. None is about the peer.
REFUSALS = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE})

#: Every kernel that has C{UDP_SEGMENT} takes so many datagrams as one (C{UDP_MAX_SEGMENTS}, 128 since Linux 6.9).
MAX_SEGMENTS = 64


def countSegments(size: int, segment: int) -> int:
    """How many datagrams are in a batch.

    @param size: its bytes.
    @param segment: the bytes of each datagram but the last.
    """
    return -(-size // segment)


class SegmentLimits:
    """Remembers, for each cause, which GSO batches the system has refused."""

    def __init__(self) -> None:
        self._off = False
        self._mostRefused: int | None = None
        self._shortestRefused: int | None = None

    @property
    def refusedAny(self) -> bool:
        """Whether any batch was refused so far."""
        return self._off or self._mostRefused is not None or self._shortestRefused is not None

    def allow(self, segment: int, count: int) -> bool:
        """Whether to try a batch of C{count} datagrams of C{segment} bytes."""
        return not (
            self._off
            or (self._mostRefused is not None and count >= self._mostRefused)
            or (self._shortestRefused is not None and segment >= self._shortestRefused)
        )

    def refused(self, number: int, segment: int, count: int) -> str:
        """Remember a batch that was refused, although its datagrams can be sent one by one.

        @param number: the system's error number.
        @return: the cause, for the log.
        """
        if number == errno.EIO:
            self._off = True
            return "the device cannot make checksums"
        if count > MAX_SEGMENTS:
            self._mostRefused = min(count, self._mostRefused or count)
            return f"{count} datagrams are too many for one send"
        self._shortestRefused = min(segment, self._shortestRefused or segment)
        return f"the path does not carry {segment} bytes"
