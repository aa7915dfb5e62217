"""The counters of a server: what came in, what went back, what was dropped and why."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from udpecho.guard.heavy_hitters import HeavyHitters
from udpecho.interfaces import DROP_REASONS
from udpecho.net import features
from udpecho.server.drop_watch import WATCH_SIZE, DropWatch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


#: The buckets of L{CountersView.batches}: batches of at most so many entries; the last bucket has the larger ones too.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

_totals = ("received", "receivedBytes", "echoed", "echoedBytes", "droppedBytes")
# After them stands batchedEntries.
_firstReason = len(_totals) + 1
_firstBatch = _firstReason + len(DROP_REASONS)
_reasons = {reason: _firstReason + index for index, reason in enumerate(DROP_REASONS)}

#: Bytes of memory of one L{Counters}.
COUNTERS_SIZE = 8 * (_firstBatch + len(BATCH_SIZES))


class CountersView:
    """Counters to read: C{received == echoed + sum(dropped.values())}, but for replies that L{wait <waiting>} for a full send
    queue. The three are counted separately, so that the equation is a check and not a definition.
    """

    def _numbers(self) -> Sequence[int]:
        raise NotImplementedError

    @property
    def received(self) -> int:
        """Datagrams that came in."""
        return self._numbers()[0]

    @property
    def receivedBytes(self) -> int:
        """Their payload, in bytes."""
        return self._numbers()[1]

    @property
    def echoed(self) -> int:
        """Datagrams that went back."""
        return self._numbers()[2]

    @property
    def echoedBytes(self) -> int:
        """Their payload, in bytes."""
        return self._numbers()[3]

    @property
    def dropped(self) -> Counter[str]:
        """Datagrams that were dropped, by reason: one of L{DROP_REASONS}."""
        numbers = self._numbers()
        return Counter({reason: numbers[cell] for reason, cell in _reasons.items() if numbers[cell]})

    @property
    def droppedBytes(self) -> int:
        """Their payload, in bytes."""
        return self._numbers()[4]

    @property
    def batchedEntries(self) -> int:
        """The entries of all batches."""
        return self._numbers()[5]

    @property
    def batches(self) -> tuple[int, ...]:
        """How many batches there were of each size in L{BATCH_SIZES}."""
        return tuple(self._numbers()[_firstBatch:])

    @property
    def waiting(self) -> int:
        """Replies that wait while the send queue is full."""
        return self.received - self.echoed - sum(self.dropped.values())

    def asFields(self) -> dict[str, object]:
        """The numbers as a log event's fields."""
        return {**dict(zip(_totals, self._numbers())), "dropped": dict(self.dropped)}

    def __str__(self) -> str:
        dropped = sum(self.dropped.values())
        reasons = " ".join(f"{reason}={self.dropped[reason]}" for reason in DROP_REASONS if self.dropped[reason])
        return (
            f"received={self.received} echoed={self.echoed} dropped={dropped}"
            f"{f' ({reasons})' if reasons else ''}"
            f" received-bytes={self.receivedBytes} echoed-bytes={self.echoedBytes} dropped-bytes={self.droppedBytes}"
        )


class Counters(CountersView):
    """Counters in 64-bit cells of memory that may be shared: those of a killed process can still be read."""

    def __init__(self, memory: WriteableBuffer | None = None) -> None:
        """@param memory: L{COUNTERS_SIZE} bytes with the numbers to start from; by default new ones, which start at 0."""
        self._cells = memoryview(bytearray(COUNTERS_SIZE) if memory is None else memory).cast("B").cast("Q")

    def receive(self, size: int, datagrams: int = 1) -> None:
        """Count datagrams that came in, and the sum of their payloads in bytes."""
        cells = self._cells
        cells[0] += datagrams
        cells[1] += size

    def echo(self, size: int, datagrams: int = 1) -> None:
        """Count datagrams that went back, and the sum of their payloads in bytes."""
        cells = self._cells
        cells[2] += datagrams
        cells[3] += size

    def drop(self, reason: str, size: int, datagrams: int = 1) -> None:
        """Count datagrams that are dropped for one of L{DROP_REASONS}, and the sum of their payloads in bytes."""
        cells = self._cells
        cells[_reasons[reason]] += datagrams
        cells[4] += size

    def receiveBatch(self, entries: int, size: int, datagrams: int) -> None:
        """Count a batch that came in: its entries, each a datagram or GRO segments of one flow, and its payload in bytes."""
        cells = self._cells
        cells[0] += datagrams
        cells[1] += size
        cells[5] += entries
        cells[_firstBatch + min((entries - 1).bit_length(), len(BATCH_SIZES) - 1)] += 1

    def add(self, other: CountersView) -> None:
        """Add the numbers of other counters."""
        cells = self._cells
        for index, number in enumerate(other._numbers()):
            cells[index] += number

    def writeOffPending(self) -> int:
        """Count what a process that has ended received, and neither echoed nor dropped, as C{send_failed}.

        It may have been killed between counting a datagram and counting its bytes. These are dropped too, so that
        C{receivedBytes == echoedBytes + droppedBytes} holds.

        @return: how many datagrams these were.
        """
        waiting = self.waiting
        self.drop("send_failed", self.receivedBytes - self.echoedBytes - self.droppedBytes, waiting)
        return waiting

    def detach(self) -> None:
        """Copy the numbers into memory of their own, before the shared memory is closed."""
        self._cells = memoryview(bytearray(self._cells)).cast("B").cast("Q")

    def _numbers(self) -> Sequence[int]:
        return self._cells


class SummedCounters(CountersView):
    """The current sum of several counters."""

    def __init__(self, parts: Sequence[CountersView]) -> None:
        """@param parts: the counters, one or more; those that are added to the list later count too."""
        self._parts = parts

    def _numbers(self) -> Sequence[int]:
        return [sum(column) for column in zip(*(part._numbers() for part in self._parts))]


class SharedCounters:
    """Counters, and watches of drops, in memory that parent and workers share: the parent opens it, and workers map its
    C{descriptor}.
    """

    def __init__(self, number: int, addresses: int = 0) -> None:
        """@param number: how many workers there are, each with its counters.
        @param addresses: how many addresses they serve, each with a watch.
        @raise OSError: if there is no descriptor or no memory left.
        """
        self.descriptor = _openMemory()
        try:
            os.ftruncate(self.descriptor, addresses * WATCH_SIZE + number * COUNTERS_SIZE)
            self._memory = mmap.mmap(self.descriptor, 0)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.watches, self.counters = divide(memoryview(self._memory), addresses)

    def close(self) -> None:
        """Release the memory. The counters keep their numbers."""
        for watch in self.watches:
            watch.detach()
        for counters in self.counters:
            counters.detach()
        # Where objects outlive their last use (PyPy), the memory does too.
        with suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)


def _openMemory() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("udpecho")
        except OSError as e:
            if e.errno not in features.REFUSALS:
                raise
            features.missed(features.MEMORY, e)
    try:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError as e:
        why = "workers must have shared memory (memfd_create, or a temporary file), and this system refuses it"
        raise features.Refused(e.errno or 0, f"{why}: {e.strerror}") from None


def divide(memory: memoryview, addresses: int) -> tuple[list[DropWatch], list[Counters]]:
    """Divide the memory of L{SharedCounters}.

    @return: the watch of each address, and the counters of each worker.
    """
    first = addresses * WATCH_SIZE
    watches = [DropWatch(memory[at : at + WATCH_SIZE]) for at in range(0, first, WATCH_SIZE)]
    return watches, [Counters(memory[at : at + COUNTERS_SIZE]) for at in range(first, len(memory), COUNTERS_SIZE)]


class WorkerGuardStats:
    """The statistics of the guards of all workers. They stay empty for a guard that is no L{Guard <udpecho.guard.guard.Guard>}.

    @ivar wouldDrop: in a dry run, the datagrams that would have been dropped, by reason.
    """

    def __init__(self) -> None:
        self.wouldDrop: Counter[str] = Counter()
        self._busiest: dict[str, HeavyHitters[str]] = {}
        self._fills: dict[int, float] = {}

    def merge(
        self, worker: int, busiest: Mapping[str, Sequence[tuple[str, int]]], wouldDrop: Mapping[str, int], fill: float
    ) -> None:
        """Add a report of a worker's guard: its L{busiest} prefixes and dry-run drops since the last one, and its L{fill}."""
        for reason, found in busiest.items():
            for prefix, datagrams in found:
                self._busiest.setdefault(reason, HeavyHitters()).add(prefix, datagrams)
        self.wouldDrop.update(wouldDrop)
        self._fills[worker] = fill

    @property
    def fill(self) -> float:
        """How full the fullest limiter's table is, from 0 to 1."""
        return max(self._fills.values(), default=0.0)

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """@see: L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}"""
        drained = {reason: busiest.drain(most) for reason, busiest in self._busiest.items()}
        return {reason: found for reason, found in drained.items() if found}
