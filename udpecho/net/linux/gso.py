"""GSO batches: which ones this system has refused to send with one call (C{UDP_SEGMENT} in C{udp(7)})."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from math import inf

#: How the kernel rejects C{UDP_SEGMENT} (C{udp_send_skb}): an argument out of its range, a device that cannot make checksums, a
#: segment longer than the path carries. None is about the peer.
REFUSALS = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE})

#: Every kernel that has C{UDP_SEGMENT} takes so many datagrams as one (C{UDP_MAX_SEGMENTS}, 128 since Linux 6.9).
MAX_SEGMENTS = 64
#: Bytes of payload that each path carries: IPv4 hosts take 576 with the headers, without fragments or with (RFC 791).
_ALWAYS_CARRIED = 548

#: Seconds for which a refusal is remembered: routes, devices and their settings change.
REMEMBERED = 600.0


class SegmentLimits:
    """Remembers, for each cause and for L{REMEMBERED} seconds, which GSO batches the system has refused.

    @ivar refusedAny: whether any refusal is remembered.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._logged: set[str] = set()
        self._end = inf
        self._forget()

    def _forget(self) -> None:
        self.refusedAny = False
        self._off = False
        # The fewest datagrams, and the shortest ones, that were refused.
        self._fewest = self._shortest = inf

    def allow(self, segment: int, count: int) -> bool:
        """Whether to try a batch of C{count} datagrams of C{segment} bytes."""
        if self.refusedAny and self._seconds() >= self._end:
            self._forget()
        return not self._off and count < self._fewest and segment < self._shortest

    def refused(self, number: int, segment: int, count: int) -> str | None:
        """Remember a batch that was refused, although its datagrams can be sent one by one.

        @return: the cause, for the log; C{None} if it has been returned before.
        """
        if not self.refusedAny:
            self.refusedAny, self._end = True, self._seconds() + REMEMBERED
        cause = self._remember(number, segment, count)
        if cause in self._logged:
            return None
        self._logged.add(cause)
        return cause

    def _remember(self, number: int, segment: int, count: int) -> str:
        if number == errno.EIO:
            self._off = True
            return "the device cannot make checksums"
        if count > MAX_SEGMENTS:
            self._fewest = min(count, self._fewest)
            return f"{count} datagrams are too many for one send"
        self._shortest = min(segment, self._shortest)
        if segment <= _ALWAYS_CARRIED:
            return f"this system refuses UDP_SEGMENT ({os.strerror(number)})"
        return f"the path does not carry {segment} bytes"
