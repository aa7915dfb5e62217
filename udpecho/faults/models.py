"""Models of loss and delay, and the checks of their parameters."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import attrs

_standardNormal = NormalDist()


def number(name: str, value: Any) -> float:
    """@raise TypeError: if a value is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value


def checkSeconds(name: str, value: Any) -> None:
    """@raise ValueError: if a number is negative or not finite."""
    if not 0 <= number(name, value) < math.inf:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, got {value!r}")


def checkLeast(name: str, value: Any, least: float) -> None:
    """@raise ValueError: if a number is below C{least} or not finite."""
    if not least <= number(name, value) < math.inf:
        raise ValueError(f"{name} must be a number, {least:g} or more, got {value!r}")


def checkProbability(name: str, value: Any) -> None:
    """@raise ValueError: if a number is not from 0 to 1."""
    if not 0 <= number(name, value) <= 1:
        raise ValueError(f"{name} must be a probability from 0 to 1, got {value!r}")


def checkCount(name: str, value: Any, least: int) -> None:
    """@raise TypeError: if a value is not an integer.
    @raise ValueError: if it is below C{least}.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, got {value!r}")


def probability(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validate a number from 0 to 1."""
    checkProbability(attribute.name, value)


def seconds(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Validate seconds: 0 or more, and finite."""
    checkSeconds(attribute.name, value)


@attrs.frozen
class GilbertElliott:
    """Bursty loss by two states, good and bad, with a random transition before each datagram.

    The names are those of the literature: E. N. Gilbert, I{Capacity of a burst-noise channel}, Bell System Technical Journal
    39 (1960), and E. O. Elliott, I{Estimates of error rates for codes on burst-noise channels}, 42 (1963), as G. Hasslinger
    and O. Hohlfeld write them in I{The Gilbert-Elliott model for packet loss in real time services on the Internet} (2008):
    the stationary share of the bad state is C{p / (p + r)}, its mean length C{1 / r} datagrams.

    @ivar p: probability to go from good to bad.
    @ivar r: probability to go from bad to good.
    @ivar k: probability that a datagram gets through in the good state.
    @ivar h: probability that a datagram gets through in the bad state.
    """

    p: float = attrs.field(validator=probability)
    r: float = attrs.field(validator=probability)
    k: float = attrs.field(default=1.0, validator=probability)
    h: float = attrs.field(default=0.0, validator=probability)

    @property
    def loss(self) -> float:
        """The share of datagrams that is lost in the long run, from 0 to 1."""
        if not self.p + self.r:
            return 1 - self.k
        bad = self.p / (self.p + self.r)
        return (1 - self.k) * (1 - bad) + (1 - self.h) * bad


@attrs.frozen
class Jitter:
    """A random part of the delay, drawn for each delivery.

    @ivar seconds: for C{uniform} the maximum (from 0), for C{normal} the standard deviation (the sum with the fixed delay is
        never below 0), for C{exponential} the mean.
    @ivar shape: C{uniform}, C{normal} or C{exponential}.
    """

    seconds: float
    shape: str = "uniform"

    def __attrs_post_init__(self) -> None:
        checkSeconds("jitter", self.seconds)
        if self.shape not in ("uniform", "normal", "exponential"):
            raise ValueError(f"shape must be uniform, normal or exponential, got {self.shape!r}")

    def draw(self, uniform: float) -> float:
        """Turn a number of C{[0, 1)} into seconds, by the inverse of the distribution."""
        if self.shape == "uniform":
            return uniform * self.seconds
        if self.shape == "exponential":
            return -math.log1p(-uniform) * self.seconds
        return _standardNormal.inv_cdf(min(max(uniform, 1e-12), 1 - 1e-12)) * self.seconds
