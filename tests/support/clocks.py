"""Clocks that a test sets."""

from __future__ import annotations

from udpecho.probe.io.timestamps import Clocks


class SettableClocks:
    """Clocks that a test sets.

    @ivar time: the monotonic clock, in ns.
    @ivar offset: how far the wall clock is ahead of it, in ns.
    """

    def __init__(self) -> None:
        self.time = 5_000_000_000
        self.offset = 1_700_000_000_000_000_000

    @property
    def clocks(self) -> Clocks:
        """As a prober takes them."""
        return Clocks(lambda: self.time, lambda: self.time + self.offset)
