"""The account of a server's datagrams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from udpecho.interfaces import DROP_REASONS

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


#: How many batches held at most so many entries; larger ones have the last number.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)

_cells = ("received", "receivedBytes", "echoed", "echoedBytes", "droppedBytes", "batchedEntries")
_firstReason = len(_cells)
_firstBatch = _firstReason + len(DROP_REASONS)
_reasons = {reason: _firstReason + index for index, reason in enumerate(DROP_REASONS)}

#: How many bytes of memory the numbers of one L{Counters} take.
COUNTERS_SIZE = 8 * (_firstBatch + len(BATCH_SIZES))


class Account:
    """
    What came in and what became of it, to be read: C{received == echoed + sum(dropped.values())}.

    The three are counted each on its own, so that the equation is a check and not a definition. What it lacks at a given
    moment are the replies that L{wait <waiting>} while the system's send queue is full.
    """

    def _numbers(self) -> Sequence[int]:
        """The numbers of all cells, in their order."""
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
        """Datagrams that did not, by reason (see L{DROP_REASONS})."""
        return Counter({reason: self._numbers()[cell] for reason, cell in _reasons.items() if self._numbers()[cell]})

    @property
    def droppedBytes(self) -> int:
        """Their payload, in bytes."""
        return self._numbers()[4]

    @property
    def batchedEntries(self) -> int:
        """What all batches held: datagrams, and bursts of datagrams that came as one."""
        return self._numbers()[5]

    @property
    def batches(self) -> tuple[int, ...]:
        """How many batches there were of each size in L{BATCH_SIZES}."""
        return tuple(self._numbers()[_firstBatch:])

    @property
    def waiting(self) -> int:
        """Replies that wait for room in the system's send queue."""
        return self.received - self.echoed - sum(self.dropped.values())

    def asFields(self) -> dict[str, object]:
        """The numbers as a log event's fields."""
        return {
            "received": self.received,
            "receivedBytes": self.receivedBytes,
            "echoed": self.echoed,
            "echoedBytes": self.echoedBytes,
            "dropped": dict(self.dropped),
            "droppedBytes": self.droppedBytes,
        }

    def __str__(self) -> str:
        dropped = sum(self.dropped.values())
        reasons = " ".join(f"{reason}={self.dropped[reason]}" for reason in DROP_REASONS if self.dropped[reason])
        return (
            f"received={self.received} echoed={self.echoed} dropped={dropped}"
            f"{f' ({reasons})' if reasons else ''}"
            f" received-bytes={self.receivedBytes} echoed-bytes={self.echoedBytes} dropped-bytes={self.droppedBytes}"
        )


class Counters(Account):
    """
    An account to keep.

    The numbers are 64-bit cells in memory that may be shared: a process that is killed leaves its account behind.
    """

    def __init__(self, memory: WriteableBuffer | None = None) -> None:
        """@param memory: L{COUNTERS_SIZE} bytes to keep the numbers in, and to go on from; by default they start at 0."""
        self._cells = memoryview(bytearray(COUNTERS_SIZE) if memory is None else memory).cast("B").cast("Q")

    def receive(self, size: int, datagrams: int = 1) -> None:
        """
        Count datagrams that came in.

        @param size: their payload, in bytes, altogether.
        """
        cells = self._cells
        cells[0] += datagrams
        cells[1] += size

    def echo(self, size: int, datagrams: int = 1) -> None:
        """
        Count datagrams that went back.

        @param size: their payload, in bytes, altogether.
        """
        cells = self._cells
        cells[2] += datagrams
        cells[3] += size

    def drop(self, reason: str, size: int, datagrams: int = 1) -> None:
        """
        Count datagrams that are not answered.

        @param reason: one of L{DROP_REASONS}.
        @param size: their payload, in bytes, altogether.
        """
        cells = self._cells
        cells[_reasons[reason]] += datagrams
        cells[4] += size

    def receiveBatch(self, entries: int, size: int, datagrams: int) -> None:
        """
        Count a batch that came in.

        @param entries: how many datagrams, or bursts of datagrams that came as one, were in it; one or more.
        @param size: the payload of all, in bytes.
        """
        cells = self._cells
        cells[0] += datagrams
        cells[1] += size
        cells[5] += entries
        cells[_firstBatch + min((entries - 1).bit_length(), len(BATCH_SIZES) - 1)] += 1

    def add(self, other: Account) -> None:
        """Add all that another account has."""
        cells = self._cells
        for index, number in enumerate(other._numbers()):
            cells[index] += number

    def writeOffPending(self) -> int:
        """
        Book what came in and has met no fate as C{send_failed}: the account is that of a process that is gone, and nobody
        else will.

        It may have been killed between counting a datagram and counting its bytes; these are then booked with the others', so
        that C{receivedBytes == echoedBytes + droppedBytes} holds too.

        @return: how many datagrams these were.
        """
        waiting = self.waiting
        self.drop("send_failed", self.receivedBytes - self.echoedBytes - self.droppedBytes, waiting)
        return waiting

    def detach(self) -> None:
        """Go on in memory of its own, with the numbers as they are now: nobody else counts there any more."""
        self._cells = memoryview(bytearray(self._cells)).cast("B").cast("Q")

    def _numbers(self) -> Sequence[int]:
        return self._cells


class SummedCounters(Account):
    """The sum of several accounts, as they are at the moment."""

    def __init__(self, parts: Sequence[Account]) -> None:
        """@param parts: the accounts, one at least; what is added to the list later counts too."""
        self._parts = parts

    def _numbers(self) -> Sequence[int]:
        return [sum(column) for column in zip(*(part._numbers() for part in self._parts))]
