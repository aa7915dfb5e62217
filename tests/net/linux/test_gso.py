"""Tests of L{udpecho.net.linux.gso}."""

from __future__ import annotations

import errno
import os

from udpecho.net.linux.gso import REMEMBERED, SegmentLimits


class SegmentLimitsTests:
    """L{SegmentLimits}."""

    def test_causes(self) -> None:
        """Each cause stands for itself."""
        limits = SegmentLimits()
        assert limits.allow(1400, 128)
        assert "128 datagrams" in str(limits.refused(errno.EINVAL, 100, 128))
        assert limits.allow(1400, 127)
        assert not limits.allow(1, 128)
        assert "1400 bytes" in str(limits.refused(errno.EINVAL, 1400, 3))
        assert limits.allow(1399, 2)
        assert not limits.allow(1400, 2)
        # Each path carries this: it is not the reason.
        assert limits.refused(errno.EINVAL, 20, 3) == f"this system refuses UDP_SEGMENT ({os.strerror(errno.EINVAL)})"
        assert "checksums" in str(limits.refused(errno.EIO, 10, 2))
        assert not limits.allow(1, 2)

    def test_forgets(self) -> None:
        """After a while each batch is tried again, and a cause that comes again is not logged again."""
        now = 0.0
        limits = SegmentLimits(lambda: now)
        assert limits.refused(errno.EIO, 10, 2)
        now = REMEMBERED - 1
        assert not limits.allow(1, 2)
        assert limits.refusedAny
        now = REMEMBERED
        assert limits.allow(1, 2)
        assert not limits.refusedAny
        assert limits.refused(errno.EIO, 10, 2) is None
        now = 2 * REMEMBERED - 1
        assert not limits.allow(1, 2)
