"""Counters in memory that parent and workers share."""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress

from udpecho.server.counters import COUNTERS_SIZE, Counters


class SharedCounters:
    """Counters in memory that processes share.

    @ivar descriptor: the memory, for the processes to map.
    @ivar counters: those of each process.
    """

    def __init__(self, number: int) -> None:
        """@param number: of how many processes.
        @raise OSError: if there is no descriptor or no memory left.
        """
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("udpecho")
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(self.descriptor, number * COUNTERS_SIZE)
            self._memory = mmap.mmap(self.descriptor, number * COUNTERS_SIZE)
        except BaseException:
            os.close(self.descriptor)
            raise
        whole = memoryview(self._memory)
        self.counters = [Counters(whole[at : at + COUNTERS_SIZE]) for at in range(0, len(whole), COUNTERS_SIZE)]

    def close(self) -> None:
        """Release the memory. The counters keep their numbers."""
        for counters in self.counters:
            counters.detach()
        # Where objects outlive their last use (PyPy), the memory does too.
        with suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)
