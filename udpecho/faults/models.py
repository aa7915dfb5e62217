"""Models of loss and delay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

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
        """The share of datagrams that is lost in the long run."""
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
        """Turn a number of C{[0, 1)} into seconds, by the inverse of the distribution."""
        if self.shape == "uniform":
            return uniform * self.seconds
        if self.shape == "exponential":
            return -math.log1p(-uniform) * self.seconds
        return _standardNormal.inv_cdf(min(max(uniform, 1e-12), 1 - 1e-12)) * self.seconds


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
