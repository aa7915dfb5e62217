"""
What a bad network does to datagrams: decided by a seed, the same on every machine, and again when asked again.

Nothing here knows of sockets or reactors: a plan is asked about one datagram at a time, and says what becomes of it.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

#: Why something happened to a datagram, in the order in which it happens.
BURST_LOST = "burst_lost"
LOST = "lost"
TOO_LONG = "too_long"
QUEUE_FULL = "queue_full"
CORRUPTED = "corrupted"
TRUNCATED = "truncated"
DUPLICATED = "duplicated"
REORDERED = "reordered"
DELAYED = "delayed"
DELIVERED = "delivered"

#: The reasons for which a datagram is never delivered.
LOSSES = frozenset({LOST, BURST_LOST, TOO_LONG, QUEUE_FULL})

_reasons = LOSSES | {CORRUPTED, TRUNCATED, DUPLICATED, REORDERED, DELAYED, DELIVERED}

#: Delays are rounded to so many digits, which hides that the logarithms of two machines differ in their last bit.
_DIGITS = 9
_BYTE_DIGITS = 6
_standardNormal = NormalDist()


@dataclass(frozen=True)
class GilbertElliott:
    """
    Bursty loss by two states, good and bad, between which a coin is tossed for each datagram.

    The names are those of the literature: E. N. Gilbert, I{Capacity of a burst-noise channel}, Bell System Technical Journal
    39 (1960), and E. O. Elliott, I{Estimates of error rates for codes on burst-noise channels}, 42 (1963), as G. Hasslinger
    and O. Hohlfeld write them in I{The Gilbert-Elliott model for packet loss in real time services on the Internet} (2008):
    the stationary share of the bad state is C{p / (p + r)}, the mean length of a bad spell C{1 / r} datagrams.

    @ivar p: probability to go from good to bad.
    @ivar r: probability to go from bad to good.
    @ivar k: probability that a datagram gets through in the good state.
    @ivar h: probability that a datagram gets through in the bad state.
    """

    p: float
    r: float
    k: float = 1.0
    h: float = 0.0

    def __post_init__(self) -> None:
        for name in ("p", "r", "k", "h"):
            _checkProbability(f"{name} of Gilbert-Elliott", getattr(self, name))

    @property
    def loss(self) -> float:
        """
        The share of datagrams that is lost in the long run.
        """
        if not self.p + self.r:
            return 1 - self.k
        bad = self.p / (self.p + self.r)
        return (1 - self.k) * (1 - bad) + (1 - self.h) * bad


@dataclass(frozen=True)
class Jitter:
    """
    A random part of the delay, drawn for each delivery.

    @ivar seconds: how much: for C{uniform} the most (from 0), for C{normal} the standard deviation (about the fixed delay,
        never below none), for C{exponential} the mean.
    @ivar shape: C{uniform}, C{normal} or C{exponential}.
    """

    seconds: float
    shape: str = "uniform"

    def __post_init__(self) -> None:
        _checkSeconds("jitter", self.seconds)
        if self.shape not in ("uniform", "normal", "exponential"):
            raise ValueError(f"{self.shape!r} is not a shape of jitter: uniform, normal or exponential is")

    def draw(self, uniform: float) -> float:
        """
        Turn a number of C{[0, 1)} into seconds, by the inverse of the distribution.
        """
        if self.shape == "uniform":
            return uniform * self.seconds
        if self.shape == "exponential":
            return -math.log1p(-uniform) * self.seconds
        return _standardNormal.inv_cdf(min(max(uniform, 1e-12), 1 - 1e-12)) * self.seconds


class Delivery(NamedTuple):
    """
    One arrival of a datagram.

    @ivar delay: seconds after it was sent.
    @ivar datagram: its bytes, as they arrive.
    """

    delay: float
    datagram: bytes


class Decision(NamedTuple):
    """
    What becomes of one datagram.

    @ivar reasons: what happened to it, as the constants of this module name it; at least one.
    @ivar delays: seconds after which it arrives, once for each arrival; empty if it never does.
    @ivar flipped: the number of the bit that is flipped, counted from the first byte's lowest, or C{None}.
    @ivar cut: how many bytes are left of it, or C{None} for all.
    """

    reasons: tuple[str, ...]
    delays: tuple[float, ...]
    flipped: int | None = None
    cut: int | None = None

    def apply(self, datagram: bytes) -> list[Delivery]:
        """
        Do it to a datagram.

        @return: its arrivals, in the order of their delays.
        """
        if self.flipped is not None and datagram:
            changed = bytearray(datagram)
            position = self.flipped % (8 * len(changed))
            changed[position // 8] ^= 1 << (position % 8)
            datagram = bytes(changed)
        if self.cut is not None:
            datagram = datagram[: self.cut]
        return [Delivery(delay, datagram) for delay in sorted(self.delays)]

    def __str__(self) -> str:
        parts = [",".join(self.reasons)]
        if self.flipped is not None:
            parts.append(f"flip={self.flipped}")
        if self.cut is not None:
            parts.append(f"cut={self.cut}")
        parts += [f"+{delay:.9f}" for delay in self.delays]
        return " ".join(parts)

    @classmethod
    def fromString(cls, text: str) -> Decision:
        """
        Read a decision as it was printed.

        @raise ValueError: if it was not printed by this class.
        """
        match = re.fullmatch(r"([a-z_,]+)(?: flip=(\d+))?(?: cut=(\d+))?((?: \+\d+\.\d{9})*)", text.strip(), re.ASCII)
        if match is None or not _reasons.issuperset(match[1].split(",")):
            raise ValueError(f"{text!r} is not a decision: one reads as in 'delivered +0.050000000'")
        return cls(
            tuple(match[1].split(",")),
            tuple(float(delay) for delay in match[4].split()),
            None if match[2] is None else int(match[2]),
            None if match[3] is None else int(match[3]),
        )


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


class Replay:
    """
    Makes decisions again that were printed, one a line; a number and a colon before one are passed over.

    After the last of them every datagram is delivered at once.
    """

    def __init__(self, text: str) -> None:
        """
        @param text: the printed decisions, in their order.

        @raise ValueError: if a line is not a decision.
        """
        lines = (line.strip() for line in text.splitlines())
        self._decisions = iter([Decision.fromString(re.sub(r"^\d+: *", "", line)) for line in lines if line])

    def decide(self, size: int, now: float) -> Decision:
        """
        @see: L{FaultPlan.decide}
        """
        return next(self._decisions, Decision((DELIVERED,), (0.0,)))


class Recording:
    """
    Remembers the decisions of a plan, so that a failing test can print them: C{str()} of it is what L{Replay} reads.
    """

    def __init__(self, plan: Plan) -> None:
        """
        @param plan: what decides.
        """
        self._plan = plan
        self.decisions: list[Decision] = []

    def decide(self, size: int, now: float) -> Decision:
        """
        @see: L{FaultPlan.decide}
        """
        decision = self._plan.decide(size, now)
        self.decisions.append(decision)
        return decision

    def __str__(self) -> str:
        return "\n".join(f"{number}: {decision}" for number, decision in enumerate(self.decisions))


class Plan(Protocol):
    """
    Whatever decides.
    """

    def decide(self, size: int, now: float) -> Decision:
        """
        Decide what becomes of the next datagram of C{size} bytes, sent at C{now}.
        """


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {value!r}")
    return value


def _checkProbability(name: str, value: Any) -> float:
    if not 0 <= _number(name, value) <= 1:
        raise ValueError(f"{name} is a probability, from 0 to 1, not {value!r}")
    return float(value)


def _checkSeconds(name: str, value: Any) -> float:
    if not 0 <= _number(name, value) < math.inf:
        raise ValueError(f"{name} is a number of seconds, 0 or more, not {value!r}")
    return float(value)


def _checkJitter(name: str, value: Any) -> Jitter:
    return value if isinstance(value, Jitter) else Jitter(_checkSeconds(name, value))


def _checkBurst(name: str, value: Any) -> GilbertElliott | None:
    if value is not None and not isinstance(value, GilbertElliott):
        raise TypeError(f"{name} is a GilbertElliott or None, not {value!r}")
    return value


def _checkRate(name: str, value: Any) -> float | None:
    if value is not None and not 0 < _number(name, value) < math.inf:
        raise ValueError(f"{name} is a number of bytes a second, more than 0, or None, not {value!r}")
    return None if value is None else float(value)


def _checkBytes(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number of bytes, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} is a number of bytes, 0 or more, not {value!r}")
    return value


def _checkMTU(name: str, value: Any) -> int | None:
    return None if value is None else _checkBytes(name, value)


_checks: dict[str, Callable[[str, Any], Any]] = {
    "loss": _checkProbability,
    "burst": _checkBurst,
    "duplicate": _checkProbability,
    "reorder": _checkProbability,
    "corrupt": _checkProbability,
    "truncate": _checkProbability,
    "delay": _checkSeconds,
    "jitter": _checkJitter,
    "reorderDelay": _checkSeconds,
    "rate": _checkRate,
    "queue": _checkBytes,
    "mtu": _checkMTU,
}

__all__ = ["Decision", "Delivery", "FaultPlan", "GilbertElliott", "Jitter", "Plan", "Recording", "Replay"]
