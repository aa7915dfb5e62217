"""Tests of L{udpecho.net.linux.gso}."""

from __future__ import annotations

import errno

from udpecho.net.linux.gso import SegmentLimits


class SegmentLimitsTests:
    """L{SegmentLimits}."""

    def test_causes(self) -> None:
        """Each cause stands for itself."""
        limits = SegmentLimits()
        assert limits.allow(1400, 128)
        assert "128 datagrams" in limits.refused(errno.EINVAL, 100, 128)
        assert limits.allow(1400, 127)
        assert not limits.allow(1, 128)
        assert "1400 bytes" in limits.refused(errno.EINVAL, 1400, 3)
        assert limits.allow(1399, 2)
        assert not limits.allow(1400, 2)
        assert "checksums" in limits.refused(errno.EIO, 10, 2)
        assert not limits.allow(1, 2)
