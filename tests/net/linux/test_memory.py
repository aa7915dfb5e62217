"""Tests of what the kernel writes into the memory of batches: nothing but what it was offered."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.batch_mix import CHANGES, Mix
from tests.support.guards import needsBatches, tool
from tests.support.running import hasIPv6
from tests.support.source import LONG, ROOT
from udpecho.net.batch import SLOT_SIZE, MessageBatch
from udpecho.net.linux import cmsg
from udpecho.net.linux.mmsg import CONTROLS_AT, SystemCalls, _rowSize, systemCalls

_PATTERN = b"\xa5"


class Watched:
    """The memory of a batch, with a pattern where neither the kernel nor anybody else is to write."""

    def __init__(self, batch: MessageBatch) -> None:
        self.slots: Any = batch.slots
        self._payloads: Any = self.slots._payloads
        self._nameLength = 28 if batch.isIPv6 else 16
        self.gaps = [range(slot * self.slots._stride + SLOT_SIZE, (slot + 1) * self.slots._stride) for slot in range(64)]
        for gap in self.gaps:
            self._payloads[gap.start : gap.stop] = _PATTERN * len(gap)
        batch.calls = SystemCalls(self._receive, self._send, systemCalls().lastError)

    def _receive(self, descriptor: int, address: int, count: int, *arguments: Any) -> int:
        slots = self.slots
        for start in slots._rowStarts:
            # What the kernel leaves of the names and controls keeps the pattern.
            slots._memory[start : start + _rowSize] = _PATTERN * _rowSize
        spares = slots._memory[slots._sparesAt :]
        vectors = slots._memory[slots._iovsAt : slots._namesAt]
        received = systemCalls().recvmmsg(descriptor, address, count, *arguments)
        assert slots._memory[slots._sparesAt :] == spares
        assert slots._memory[slots._iovsAt : slots._namesAt] == vectors
        for slot, start in enumerate(slots._rowStarts):
            used = slots.controlLengths[slot] if slot < received else 0
            assert used <= cmsg.CONTROL_SIZE
            left = slots._memory[start + CONTROLS_AT + used : start + _rowSize]
            # The last message may be padded.
            assert left.endswith(_PATTERN * max(0, len(left) - 7)), (slot, used, left)
            name = slots._memory[start : start + CONTROLS_AT]
            assert name.endswith(_PATTERN * (CONTROLS_AT - (self._nameLength if slot < received else 0)))
        self.check()
        return received

    def _send(self, descriptor: int, address: int, count: int, flags: int) -> int:
        kept = [bytes(self.slots._memory[self.slots._iovsAt : self.slots._sparesAt]), bytes(self._payloads)]
        sent = systemCalls().sendmmsg(descriptor, address, count, flags)
        assert kept == [bytes(self.slots._memory[self.slots._iovsAt : self.slots._sparesAt]), bytes(self._payloads)]
        return sent

    def check(self) -> None:
        for gap in self.gaps:
            assert self._payloads[gap.start : gap.stop] == _PATTERN * len(gap)


@needsBatches
class MemoryTests:
    """L{udpecho.net.linux.mmsg.Slots}, written by the kernel."""

    @settings(max_examples=25, deadline=None)
    @given(
        st.sampled_from([80, 88, 104, 120, 256, 576]),
        st.booleans() if hasIPv6() else st.just(False),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
        st.lists(st.tuples(st.sampled_from(CHANGES) | st.none(), st.integers(0, 2**32)), min_size=1, max_size=6),
    )
    @example(80, False, (True, True, True), [("SO_TIMESTAMP", 1), ("SO_TIMESTAMPING", 2)])
    def test_anyTraffic(
        self, size: int, isIPv6: bool, enabled: tuple[bool, bool, bool], rounds: list[tuple[str | None, int]]
    ) -> None:
        """Whatever comes, with any options and control memory that is too short, each buffer stays within its bounds."""
        before, cmsg.CONTROL_SIZE = cmsg.CONTROL_SIZE, size
        try:
            with Mix(isIPv6, enabled) as mix:
                watched = Watched(mix.batch)
                for name, seed in rounds:
                    mix.turn(random.Random(seed), name)
                watched.check()
        finally:
            cmsg.CONTROL_SIZE = before

    @pytest.mark.slow
    def test_memoryChecker(self) -> None:
        """A memory checker finds no access beyond what was allocated, by the kernel on our behalf either."""
        checker = [tool("valgrind"), "--quiet", "--undef-value-errors=no", "--error-exitcode=9"]
        program = [sys.executable, "-m", "tests.support.batch_mix", "862", "30"]
        done = subprocess.run(
            [*checker, *program], cwd=ROOT, env={**os.environ, "PYTHONMALLOC": "malloc"}, capture_output=True, timeout=LONG
        )
        assert (done.returncode, done.stderr) == (0, b"")
