"""Tests of L{udpecho.server.shared_counters}."""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

import pytest

from udpecho.server.counters import COUNTERS_SIZE, Counters
from udpecho.server.shared_counters import SharedCounters


def openDescriptors() -> set[int]:
    """The descriptors that this process has open."""
    found = set()
    for descriptor in range(1024):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


class SharedCountersTests:
    """L{SharedCounters}."""

    @pytest.mark.parametrize("named", [True, False], ids=["memfd", "file"])
    def test_shared(self, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
        """Another mapping of the descriptor has the same numbers, each process its own; after the close they stay."""
        if not named:
            monkeypatch.delattr(os, "memfd_create", raising=False)
        elif not hasattr(os, "memfd_create"):
            pytest.skip("this system has no memfd_create")
        shared = SharedCounters(3)
        assert len(shared.counters) == 3
        with mmap.mmap(shared.descriptor, 3 * COUNTERS_SIZE) as memory:
            whole = memoryview(memory)
            other = Counters(whole[COUNTERS_SIZE : 2 * COUNTERS_SIZE])
            other.receive(5)
            other.detach()
            whole.release()
        shared.close()
        assert [counters.received for counters in shared.counters] == [0, 1, 0]
        shared.counters[1].receive(5)
        assert shared.counters[1].receivedBytes == 10

    def test_close(self) -> None:
        """The close gives descriptor and memory back."""
        descriptors = openDescriptors()
        shared = SharedCounters(2)
        assert shared.descriptor not in descriptors
        shared.close()
        assert openDescriptors() == descriptors

    def test_noMemory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no memory left, that is raised, and no descriptor stays open."""

        def fail(*arguments: object) -> None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        descriptors = openDescriptors()
        monkeypatch.setattr("udpecho.server.shared_counters.mmap.mmap", fail)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            SharedCounters(2)
        assert openDescriptors() == descriptors
