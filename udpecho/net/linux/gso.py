"""Bursts of one flow: what was learned of the bursts that this system does not send as one, and how a burst is taken apart."""

from __future__ import annotations

import errno

#: What the kernel says to C{UDP_SEGMENT}, when it does not mean the peer: an argument out of its range, a way out that cannot
#: make the checksums, a segment longer than the path carries (C{udp_send_skb}).
REFUSALS = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE})

#: Every kernel that has C{UDP_SEGMENT} takes so many datagrams as one (C{UDP_MAX_SEGMENTS}, 128 since Linux 6.9).
MAX_SEGMENTS = 64


def countSegments(size: int, segment: int) -> int:
    """
    How many datagrams a burst is.

    @param size: its bytes.
    @param segment: the length of each datagram but the last.
    """
    return -(-size // segment)


class SegmentLimits:
    """Remembers, for each cause, which bursts the system has refused to send as one."""

    def __init__(self) -> None:
        self._off = False
        self._mostRefused: int | None = None
        self._shortestRefused: int | None = None

    @property
    def refusedAny(self) -> bool:
        """Whether any burst was refused so far."""
        return self._off or self._mostRefused is not None or self._shortestRefused is not None

    def allow(self, segment: int, count: int) -> bool:
        """Whether a burst like this is worth a try."""
        return not (
            self._off
            or (self._mostRefused is not None and count >= self._mostRefused)
            or (self._shortestRefused is not None and segment >= self._shortestRefused)
        )

    def refused(self, number: int, segment: int, count: int) -> str:
        """
        Learn from a burst that was refused, and whose datagrams were sent one by one then.

        @param number: the system's error number.

        @return: the cause, for the log.
        """
        if number == errno.EIO:
            self._off = True
            return "the way out cannot make checksums"
        if count > MAX_SEGMENTS:
            self._mostRefused = min(count, self._mostRefused or count)
            return f"{count} datagrams are too many for one send"
        self._shortestRefused = min(segment, self._shortestRefused or segment)
        return f"the way out does not carry {segment} bytes"
