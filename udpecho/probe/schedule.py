"""
When each probe is to leave: fixed in advance, whatever comes back; or, for a flood, as fast as replies come.

Times are ns of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from udpecho.probe.packet import DEFAULT_PATTERN, sequencesAtOnce

#: How many seconds a probe may be late, and be sent nevertheless: of those that were due while this process was stopped, say.
MOST_LATE = 1.0
#: How many probes of a flood may be without a reply, and how many are sent in a second if none has one, as C{ping -f} has it.
FLOOD_OUTSTANDING = 256
FLOOD_LEAST = 100
#: How many probes of a flow may be under way at once, whatever their size.
MOST_OUTSTANDING = 1 << 20

_second = 1_000_000_000


@dataclass(frozen=True)
class Plan:
    """
    What to send to each target, and how long to wait.

    @ivar interval: seconds from one probe of a flow to the next.
    @ivar count: how many probes to send; C{None} for no end.
    @ivar duration: for how many seconds to send; C{None} for no end. The first end counts.
    @ivar timeout: after how many seconds a reply is late, and the probe lost until it comes.
    @ivar wait: for how many seconds after the last probe to wait for what is missing, late or not; by default until each probe
        has its reply, is refused, or has timed out.
    @ivar sizes: how long probes are, in bytes: one after the other, and again from the first.
    @ivar pattern: what fills them.
    @ivar flood: send as fast as replies come, and not by the interval.
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
        """@raise ValueError: if a number is none that can be, or replies could not be told apart."""
        for name in ("interval", "timeout"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"the {name} is a number of seconds above 0, not {getattr(self, name)!r}")
        for name in ("duration", "wait"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"the {name} is a number of seconds, 0 or more, not {value!r}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"the count is a number of probes from 1 on, not {self.count!r}")
        if not self.sizes:
            raise ValueError("there is no size: one or more are needed")
        if self.outstanding > MOST_OUTSTANDING:
            raise ValueError(
                f"of {self.outstanding} probes that may be under way at once, no more than {MOST_OUTSTANDING} are remembered:"
                " make the interval longer or the timeout shorter"
            )
        smallest = min(self.sizes)
        if self.outstanding > sequencesAtOnce(smallest):
            most = sequencesAtOnce(smallest)
            raise ValueError(
                f"of {self.outstanding} probes of {smallest} bytes that may be under way at once, no more than {most} can be"
                " told apart: make them larger, the interval longer or the timeout shorter"
            )

    @property
    def outstanding(self) -> int:
        """How many probes of a flow may be under way at once, before they time out."""
        if self.flood:
            return FLOOD_OUTSTANDING + ceil(self.timeout * FLOOD_LEAST)
        most = max(1, ceil(self.timeout / self.interval))
        return most if self.count is None else min(most, self.count)


class Schedule:
    """
    One flow's probes at equal distances.

    @ivar total: how many there are; C{None} for no end.
    """

    def __init__(self, plan: Plan, start: int) -> None:
        """
        @param plan: what is asked for.
        @param start: when the first one is to leave.
        """
        self._start = start
        self._interval = plan.interval * _second
        ends = [] if plan.count is None else [plan.count]
        if plan.duration is not None:
            # One at the start, however short it is.
            ends.append(max(1, ceil(plan.duration * _second / self._interval - 1e-9)))
        self.total = min(ends) if ends else None

    def at(self, sequence: int, now: int) -> int:
        """
        When a probe is to leave.

        @param sequence: its number.
        @param now: the time.
        """
        return self._start + round(sequence * self._interval)

    def due(self, following: int, outstanding: int, now: int) -> int:
        """
        How many probes are to leave now.

        @param following: the number of the next one.
        @param outstanding: how many are under way.
        @param now: the time.
        """
        if now < self._start + round(following * self._interval):
            return 0
        # The division alone may be off by one, for the last bits of it.
        count = int((now - self._start) / self._interval) + 2
        while count > following and self.at(count - 1, now) > now:
            count -= 1
        return (count if self.total is None else min(count, self.total)) - following

    def missed(self, following: int, now: int) -> int:
        """How many probes should have left so long ago that it is too late for them."""
        late = now - round(MOST_LATE * _second) - 1
        return self.due(following, 0, late) if late >= self._start else 0

    def next(self, following: int, outstanding: int, now: int) -> int | None:
        """
        When to send next.

        @return: C{None} if there is none left to send.
        """
        return None if self.isOver(following, now) else self.at(following, now)

    def isOver(self, following: int, now: int) -> bool:
        """Whether all have had their turn."""
        return self.total is not None and following >= self.total


class Flood:
    """Probes as fast as replies come, and if none come, a hundred in a second. Each is on time when it leaves."""

    def __init__(self, plan: Plan, start: int) -> None:
        """
        @param plan: what is asked for.
        @param start: when the first one is to leave.
        """
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
        room = FLOOD_OUTSTANDING - outstanding
        if room <= 0 and now >= self._last + self._pause:
            room = 1
        if room <= 0:
            return 0
        self._last = now
        return room if self._total is None else min(room, self._total - following)

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
