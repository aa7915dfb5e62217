"""
What a bad network does to datagrams: decided by a seed, the same on every machine, and again when asked again.

Nothing here knows of sockets or reactors: a plan is asked about one datagram at a time, and says what becomes of it.
"""

from __future__ import annotations

import math
import random
from typing import Any

from udpecho.faults.decision import (
    _BYTE_DIGITS,
    _DIGITS,
    BURST_LOST,
    CORRUPTED,
    DELAYED,
    DELIVERED,
    DUPLICATED,
    LOST,
    QUEUE_FULL,
    REORDERED,
    TOO_LONG,
    TRUNCATED,
    Decision,
)
from udpecho.faults.models import GilbertElliott, Jitter, _checks


class FaultPlan:
    """
    Decides what becomes of each datagram in one direction.

    Each datagram takes the same number of draws from the generator whatever is switched on, so that a plan with more faults
    makes the same decisions about those it shares with a plan of the same seed. Only C{random.Random.random} is used, whose
    sequence Python promises for a seed.

    The attributes may be changed at any time, by L{change}, which checks them.

    @ivar seed: what the decisions come from; print it when a test fails.
    """

    loss: float
    burst: GilbertElliott | None
    duplicate: float
    reorder: float
    corrupt: float
    truncate: float
    delay: float
    jitter: Jitter
    reorderDelay: float
    rate: float | None
    queue: int
    mtu: int | None

    def __init__(
        self,
        seed: int | str = 0,
        *,
        loss: float = 0.0,
        burst: GilbertElliott | None = None,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        truncate: float = 0.0,
        delay: float = 0.0,
        jitter: float | Jitter = 0.0,
        reorderDelay: float = 0.01,
        rate: float | None = None,
        queue: int = 65536,
        mtu: int | None = None,
    ) -> None:
        """
        @param seed: a number or a string.
        @param loss: the probability that a datagram is lost, independent of the others.
        @param burst: bursty loss, beside the independent.
        @param duplicate: the probability that a datagram arrives twice, each with a jitter of its own.
        @param reorder: the probability that a datagram is held back by C{reorderDelay}, so that later ones overtake it.
        @param corrupt: the probability that one bit of the payload is flipped.
        @param truncate: the probability that the end of the payload is cut off, perhaps with the bit that was flipped.
        @param delay: seconds that each datagram takes.
        @param jitter: seconds that it takes beside these, at random: a number for uniform from 0, or a L{Jitter}.
        @param reorderDelay: seconds that a reordered datagram takes in addition.
        @param rate: how many bytes of payload a second the link carries; C{None} for any number.
        @param queue: how many bytes may wait for the link, with those that it is carrying; what comes then is lost.
        @param mtu: the longest payload that gets through; C{None} for any.

        @raise ValueError: if a value is out of its range.
        @raise TypeError: if a value is of the wrong type.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, str)):
            raise TypeError(f"a seed is a whole number or a string, not {seed!r}")
        self.seed = seed
        # Of a number Python's generator does not see the sign.
        self._random = random.Random(str(seed) if isinstance(seed, int) and seed < 0 else seed).random
        self._bad = False
        self._backlog = 0.0
        self._backlogAt = -math.inf
        self.change(
            loss=loss,
            burst=burst,
            duplicate=duplicate,
            reorder=reorder,
            corrupt=corrupt,
            truncate=truncate,
            delay=delay,
            jitter=jitter,
            reorderDelay=reorderDelay,
            rate=rate,
            queue=queue,
            mtu=mtu,
        )

    def change(self, **faults: Any) -> None:
        """
        Change some of the faults, all of those given or none; the decisions go on from where the generator is.

        @param faults: as the constructor takes them.

        @raise ValueError: if a value is out of its range.
        @raise TypeError: if a value is of the wrong type, or there is no such fault.
        """
        checked = {}
        for name, value in faults.items():
            if name not in _checks:
                raise TypeError(f"there is no fault {name!r}: {', '.join(_checks)} are")
            checked[name] = _checks[name](name, value)
        for name, value in checked.items():
            setattr(self, name, value)

    def decide(self, size: int, now: float) -> Decision:
        """
        Decide what becomes of the next datagram.

        @param size: its payload, in bytes.
        @param now: when it is sent, in seconds on any clock that does not go back; only the rate limit looks at it.
        """
        # Always all of them, in this order.
        draws = [self._random() for _ in range(11)]
        lost, turn, burstLost, corrupted, position, truncated, left, duplicated, reordered, jitter, jitterOfSecond = draws

        if self.burst is not None:
            self._bad = turn >= self.burst.r if self._bad else turn < self.burst.p
            if burstLost >= (self.burst.h if self._bad else self.burst.k):
                return Decision((BURST_LOST,), ())
        if lost < self.loss:
            return Decision((LOST,), ())
        if self.mtu is not None and size > self.mtu:
            return Decision((TOO_LONG,), ())
        queued = self._queueFor(size, now)
        if queued is None:
            return Decision((QUEUE_FULL,), ())

        reasons = []
        flipped = cut = None
        if corrupted < self.corrupt and size:
            flipped = int(position * 8 * size)
            reasons.append(CORRUPTED)
        if truncated < self.truncate and size:
            cut = int(left * size)
            reasons.append(TRUNCATED)
        delays = [queued + self._delay(jitter)]
        if duplicated < self.duplicate:
            delays.append(queued + self._delay(jitterOfSecond))
            reasons.append(DUPLICATED)
        if reordered < self.reorder:
            delays = [delay + self.reorderDelay for delay in delays]
            reasons.append(REORDERED)
        if any(delays):
            reasons.append(DELAYED)
        return Decision(tuple(reasons) or (DELIVERED,), tuple([round(delay, _DIGITS) for delay in delays]), flipped, cut)

    def _delay(self, uniform: float) -> float:
        return max(0.0, self.delay + self.jitter.draw(uniform))

    def _queueFor(self, size: int, now: float) -> float | None:
        """
        Put a datagram behind those that the link still has to carry.

        @return: seconds until the link has carried it, C{None} if there is no room for it.
        """
        if self.rate is None:
            return 0.0
        # Rounded, so that a queue that is just full is not over-full by a float's last bit.
        self._backlog = round(max(0.0, self._backlog - (now - self._backlogAt) * self.rate), _BYTE_DIGITS)
        self._backlogAt = now
        if self._backlog + size > self.queue:
            return None
        self._backlog += size
        return self._backlog / self.rate
