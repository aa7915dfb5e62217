"""What a bad network does to datagrams, decided from a seed: the same on every machine, and every time.

Nothing here uses sockets or reactors: a plan decides about one datagram at a time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, cast

import attrs
from attrs.validators import optional

from udpecho.faults.decision import (
    AT_ONCE,
    BURST_LOST,
    CONGESTED,
    CORRUPTED,
    DELAY_DIGITS,
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
from udpecho.faults.models import GilbertElliott, Jitter, number, probability, seconds

_backlogDigits = 6
#: How many numbers each datagram takes, and the bits of a number: two words of the generator.
_draws = 11
_drawBits = 64


def _seed(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    # Other types do not give the same numbers on every machine.
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"seed must be an integer or a string, got {value!r}")


def _rate(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not 0 < number("rate", value) < math.inf:
        raise ValueError(f"rate must be a finite number of bytes a second, more than 0, got {value!r}")


def _bytes(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name} must be an integer of bytes, got {value!r}")
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 bytes or more, got {value!r}")


def _burst(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, GilbertElliott):
        raise TypeError(f"burst must be a GilbertElliott or None, got {value!r}")


def _jitter(value: float | Jitter) -> Jitter:
    return value if isinstance(value, Jitter) else Jitter(value)


@attrs.define(eq=False, on_setattr=attrs.setters.NO_OP)
class FaultPlan:
    """Decides what becomes of each datagram in one direction.

    Each datagram takes the same number of draws from the generator, with any faults, so that a plan with more faults
    makes the same decisions about those that it shares with a plan of the same seed. Only C{random.Random.random} is used:
    Python promises its sequence for a seed.

    All but the seed are keyword arguments, and L{change} changes them later. A value that is out of range raises
    C{ValueError}, one of the wrong type C{TypeError}.

    @ivar seed: a number or a string that determines the decisions; print it when a test fails.
    @ivar loss: the probability that a datagram is lost, independent of the others.
    @ivar burst: bursty loss, in addition to the independent.
    @ivar duplicate: the probability that a datagram arrives twice, each with a jitter of its own.
    @ivar reorder: the probability that a datagram is delayed by C{reorderDelay}, so that later ones overtake it.
    @ivar corrupt: the probability that one bit of the payload is flipped.
    @ivar truncate: the probability that the end of the payload is missing, perhaps with the flipped bit.
    @ivar delay: the delay of each datagram, in seconds.
    @ivar jitter: a random delay in addition: a L{Jitter}, or a number of seconds for uniform from 0.
    @ivar reorderDelay: the delay of a reordered datagram in addition, in seconds.
    @ivar rate: how many bytes of payload a second the link carries; C{None} for no limit.
    @ivar queue: how many bytes may wait for the link, including those that it is carrying; more are lost.
    @ivar mark: a datagram that joins a queue of more bytes is C{congested}, and if it is ECN-capable, which only a network in
        memory knows, it gets the codepoint CE (RFC 3168 section 5); C{None} for no marks. It needs a C{rate}.
    @ivar mtu: the longest payload that gets through, in bytes; C{None} for no limit.
    """

    seed: int | str = attrs.field(default=0, validator=_seed)
    loss: float = attrs.field(default=0.0, validator=probability, kw_only=True)
    burst: GilbertElliott | None = attrs.field(default=None, validator=_burst, kw_only=True)
    duplicate: float = attrs.field(default=0.0, validator=probability, kw_only=True)
    reorder: float = attrs.field(default=0.0, validator=probability, kw_only=True)
    corrupt: float = attrs.field(default=0.0, validator=probability, kw_only=True)
    truncate: float = attrs.field(default=0.0, validator=probability, kw_only=True)
    delay: float = attrs.field(default=0.0, validator=seconds, kw_only=True)
    jitter: Jitter = attrs.field(default=cast(Any, 0.0), converter=_jitter, kw_only=True)
    reorderDelay: float = attrs.field(default=0.01, validator=seconds, kw_only=True)
    rate: float | None = attrs.field(default=None, validator=optional(_rate), kw_only=True)
    queue: int = attrs.field(default=65536, validator=_bytes, kw_only=True)
    mtu: int | None = attrs.field(default=None, validator=optional(_bytes), kw_only=True)
    mark: int | None = attrs.field(default=None, validator=optional(_bytes), kw_only=True)
    _random: Callable[[], float] = attrs.field(init=False, repr=False)
    _bits: Callable[[int], int] = attrs.field(init=False, repr=False)
    _bad: bool = attrs.field(default=False, init=False, repr=False)
    _backlog: float = attrs.field(default=0.0, init=False, repr=False)
    _backlogAt: float = attrs.field(default=-math.inf, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.mark is not None and self.rate is None:
            raise ValueError(f"mark must be with a rate, which makes a queue, got mark={self.mark} alone")
        # Python's generator ignores the sign of a number.
        negative = isinstance(self.seed, int) and self.seed < 0
        generator = random.Random(str(self.seed) if negative else self.seed)
        self._random, self._bits = generator.random, generator.getrandbits

    def change(self, **faults: Any) -> None:
        """Change some of the faults, all of those given or none; the decisions continue with the generator's next numbers.

        @param faults: as the constructor takes them.
        @raise ValueError: if a value is out of its range.
        @raise TypeError: if a value is of the wrong type, or there is no such fault.
        """
        names = [field.name for field in attrs.fields(FaultPlan) if field.init and field.name != "seed"]
        for name in faults:
            if name not in names:
                raise TypeError(f"fault must be one of {', '.join(names)}, got {name!r}")
        checked = attrs.evolve(self, **faults)
        for name in faults:
            setattr(self, name, getattr(checked, name))

    @property
    def faultless(self) -> bool:
        """Whether every datagram is delivered at once, as it is."""
        shares = self.loss or self.duplicate or self.reorder or self.corrupt or self.truncate
        times = self.delay or self.jitter.seconds or self.rate
        return not (shares or times) and self.burst is None and self.mtu is None

    def skip(self, datagrams: int) -> None:
        """Go on as if so many had been decided about, without a fault."""
        self._bits(datagrams * _draws * _drawBits)

    def decide(self, size: int, now: float) -> Decision:
        """Decide what becomes of the next datagram.

        @param size: its payload, in bytes.
        @param now: when it is sent, in seconds on any clock that does not go back; only the rate limit uses it.
        """
        # Always all of them, in this order.
        draws = [self._random() for _ in range(_draws)]
        lost, turn, burstLost, corrupted, position, truncated, left, duplicated, reordered, jitter, secondJitter = draws

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
        flipped = truncatedTo = None
        if corrupted < self.corrupt and size:
            flipped = int(position * 8 * size)
            reasons.append(CORRUPTED)
        if truncated < self.truncate and size:
            truncatedTo = int(left * size)
            reasons.append(TRUNCATED)
        delays = [queued + self._delay(jitter)]
        if duplicated < self.duplicate:
            delays.append(queued + self._delay(secondJitter))
            reasons.append(DUPLICATED)
        if reordered < self.reorder:
            delays = [delay + self.reorderDelay for delay in delays]
            reasons.append(REORDERED)
        if any(delays):
            reasons.append(DELAYED)
        if self.mark is not None and self._backlog > self.mark:
            reasons.append(CONGESTED)
        if not reasons:
            return AT_ONCE
        rounded = tuple([round(delay, DELAY_DIGITS) for delay in delays])
        return Decision(tuple(reasons) or (DELIVERED,), rounded, flipped, truncatedTo)

    def _delay(self, uniform: float) -> float:
        return max(0.0, self.delay + self.jitter.draw(uniform))

    def _queueFor(self, size: int, now: float) -> float | None:
        """Put a datagram behind those that the link still has to carry.

        @return: seconds until the link has carried it, C{None} if the queue is full.
        """
        if self.rate is None:
            return 0.0
        # Rounded, so that a queue that is just full is not over-full by a float's last bit.
        self._backlog = round(max(0.0, self._backlog - (now - self._backlogAt) * self.rate), _backlogDigits)
        self._backlogAt = now
        if self._backlog + size > self.queue:
            return None
        self._backlog += size
        return self._backlog / self.rate
