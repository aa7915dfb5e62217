"""When each probe is sent: on a schedule that is fixed in advance, or, for a flood, as fast as replies come.

L{Plan} is in seconds. Times of L{Schedule} and L{Flood} are in ns of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from udpecho.addresses import MAX_PAYLOAD_IPV6
from udpecho.probe.packet import DEFAULT_PATTERN, sequencesAtOnce

#: How many seconds after its scheduled time a probe is still sent, for instance after this process was stopped.
MOST_LATE = 1.0
#: How many probes of a flood may be outstanding, and how many are sent in a second if no replies come, as in C{ping -f}.
FLOOD_OUTSTANDING = 256
FLOOD_LEAST = 100
#: How many probes of a flow may be outstanding, of any size.
MOST_OUTSTANDING = 1 << 20

_second = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """What to send to each target, and how long to wait for replies.

    @ivar interval: the time from one probe of a flow to the next, in seconds.
    @ivar count: the number of probes to send; C{None} for no limit.
    @ivar duration: how long to send, in seconds; C{None} for no limit. Sending ends at the first of both limits.
    @ivar timeout: how long a reply may take, in seconds. After that the probe is lost, and its reply late if it still comes.
    @ivar wait: how long to wait after the last probe for all missing replies, late ones too, in seconds; by default until each
        probe is answered, refused or timed out.
    @ivar sizes: the sizes of the probes, in bytes of UDP payload, which take turns.
    @ivar pattern: the bytes that fill probes, repeated.
    @ivar flood: send as fast as replies come, regardless of the interval.
    """

    interval: float = 1.0
    count: int | None = None
    duration: float | None = None
    timeout: float = 1.0
    wait: float | None = None
    sizes: Sequence[int] = (64,)
    pattern: bytes = DEFAULT_PATTERN
    flood: bool = False

    def __post_init__(self) -> None:
        """@raise ValueError: if a value is impossible, or too many probes would be outstanding to match their replies."""
        for name, value in (("interval", self.interval), ("timeout", self.timeout)):
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number of seconds above 0, got {value!r}")
        for name, seconds in (("duration", self.duration), ("wait", self.wait)):
            if seconds is not None and (not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf")):
                raise ValueError(f"{name} must be a number of seconds, 0 or more, got {seconds!r}")
        if self.count is not None and (not isinstance(self.count, int) or self.count < 1):
            raise ValueError(f"count must be 1 probe or more, got {self.count!r}")
        if not isinstance(self.sizes, Sequence) or not self.sizes:
            raise ValueError(f"sizes must be a list of one size or more, in bytes, got {self.sizes!r}")
        for size in self.sizes:
            if not isinstance(size, int) or not 0 <= size <= MAX_PAYLOAD_IPV6:
                raise ValueError(f"size must be 0 to {MAX_PAYLOAD_IPV6} bytes, got {size!r}")
        if not isinstance(self.pattern, bytes) or not self.pattern:
            raise ValueError(f"pattern must be one byte or more, got {self.pattern!r}")
        self._checkOutstanding()

    def _checkOutstanding(self) -> None:
        if self.outstanding > MOST_OUTSTANDING:
            raise ValueError(
                f"outstanding probes must be {MOST_OUTSTANDING} or fewer, got {self.outstanding}:"
                " make the interval longer or the timeout shorter"
            )
        smallest = min(self.sizes)
        if self.outstanding > (most := sequencesAtOnce(smallest)):
            raise ValueError(
                f"outstanding probes of {smallest} bytes must be {most} or fewer for replies to be matched, got"
                f" {self.outstanding}: make the size larger, the interval longer or the timeout shorter"
            )

    @property
    def outstanding(self) -> int:
        """How many probes of a flow may be outstanding before they time out."""
        if self.flood:
            return FLOOD_OUTSTANDING + ceil(self.timeout * FLOOD_LEAST)
        most = max(1, ceil(self.timeout / self.interval))
        return most if self.count is None else min(most, self.count)


class Schedule:
    """The probes of one flow at equal intervals.

    @ivar total: the number of probes; C{None} for no limit.
    """

    def __init__(self, plan: Plan, start: int) -> None:
        self._start = start
        self._interval = plan.interval * _second
        ends = [] if plan.count is None else [plan.count]
        if plan.duration is not None:
            # At least one probe, at the start.
            ends.append(max(1, ceil(plan.duration * _second / self._interval - 1e-9)))
        self.total = min(ends) if ends else None

    def at(self, sequence: int, now: int) -> int:
        """The scheduled time of a probe."""
        return self._start + round(sequence * self._interval)

    def due(self, following: int, outstanding: int, now: int) -> int:
        """How many probes are due, if C{following} is the number of the next one and C{outstanding} are outstanding."""
        if now < self._start + round(following * self._interval):
            return 0
        # The division may be off by one because of rounding.
        count = int((now - self._start) / self._interval) + 2
        while count > following and self.at(count - 1, now) > now:
            count -= 1
        return (count if self.total is None else min(count, self.total)) - following

    def missed(self, following: int, now: int) -> int:
        """How many probes are more than L{MOST_LATE} overdue, and not to be sent any more."""
        late = now - round(MOST_LATE * _second) - 1
        return self.due(following, 0, late) if late >= self._start else 0

    def next(self, following: int, outstanding: int, now: int) -> int | None:
        """When to send next; C{None} if all were sent."""
        return None if self.isOver(following, now) else self.at(following, now)

    def isOver(self, following: int, now: int) -> bool:
        """Whether the time of all probes has come."""
        return self.total is not None and following >= self.total


class Flood:
    """Probes as fast as replies come, or L{FLOOD_LEAST} a second if none come. The scheduled time is when they are sent."""

    def __init__(self, plan: Plan, start: int) -> None:
        self._total = plan.count
        self._end = None if plan.duration is None else start + round(plan.duration * _second)
        self._start = self._last = start
        self._pause = _second // FLOOD_LEAST

    def at(self, sequence: int, now: int) -> int:
        """@see: L{Schedule.at}"""
        return now

    def due(self, following: int, outstanding: int, now: int) -> int:
        """@see: L{Schedule.due}"""
        if now < self._start or self.isOver(following, now):
            return 0
        free = FLOOD_OUTSTANDING - outstanding
        if free <= 0 and now >= self._last + self._pause:
            free = 1
        if free <= 0:
            return 0
        self._last = now
        return free if self._total is None else min(free, self._total - following)

    def missed(self, following: int, now: int) -> int:
        """@see: L{Schedule.missed}"""
        return 0

    def next(self, following: int, outstanding: int, now: int) -> int | None:
        """@see: L{Schedule.next}"""
        if self.isOver(following, now):
            return None
        return max(self._start, now if outstanding < FLOOD_OUTSTANDING else self._last + self._pause)

    def isOver(self, following: int, now: int) -> bool:
        """@see: L{Schedule.isOver}"""
        return (self._total is not None and following >= self._total) or (self._end is not None and now >= self._end)
