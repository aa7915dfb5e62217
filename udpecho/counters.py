"""
The account of a server's datagrams.
"""

from __future__ import annotations

from collections import Counter

#: Every reason for which a datagram is not answered.
DROP_REASONS = (
    "loop_guard",
    "not_allowed",
    "rate_limited",
    "too_large",
    "truncated",
    "send_failed",
    "send_timeout",
)


class Counters:
    """
    What came in and what became of it: C{received == echoed + sum(dropped.values())}.

    The three are counted each on its own, so that the equation is a check and not a definition. What it lacks at a given
    moment are the replies that L{wait <waiting>} while the system's send queue is full.

    @ivar received: datagrams that came in.
    @ivar receivedBytes: their payload, in bytes.
    @ivar echoed: datagrams that went back.
    @ivar echoedBytes: their payload, in bytes.
    @ivar dropped: datagrams that did not, by reason (see L{DROP_REASONS}).
    @ivar droppedBytes: their payload, in bytes.
    """

    def __init__(self) -> None:
        self.received = 0
        self.receivedBytes = 0
        self.echoed = 0
        self.echoedBytes = 0
        self.dropped: Counter[str] = Counter()
        self.droppedBytes = 0

    @property
    def waiting(self) -> int:
        """
        Replies that wait for room in the system's send queue.
        """
        return self.received - self.echoed - sum(self.dropped.values())

    def receive(self, size: int) -> None:
        """
        Count a datagram of C{size} bytes that came in.
        """
        self.received += 1
        self.receivedBytes += size

    def echo(self, size: int) -> None:
        """
        Count a datagram of C{size} bytes that went back.
        """
        self.echoed += 1
        self.echoedBytes += size

    def drop(self, reason: str, size: int) -> None:
        """
        Count a datagram of C{size} bytes that is not answered.

        @param reason: one of L{DROP_REASONS}.
        """
        self.dropped[reason] += 1
        self.droppedBytes += size

    def asFields(self) -> dict[str, object]:
        """
        The numbers as a log event's fields.
        """
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


__all__ = ["DROP_REASONS", "Counters"]
