"""Time and chance of a network in memory in place of the machine's, for programs that use neither through the reactor."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from udpecho.testing.substitution import Substitution

#: These keep the functions that they have imported from C{time}: they are at work in the test's own time.
_spared = sys.stdlib_module_names | {
    "_pytest",
    "coverage",
    "execnet",
    "hypothesis",
    "pytest",
    "pytest_twisted",
    "twisted.internet",
    "twisted.trial",
    "udpecho",
    "xdist",
}


@contextmanager
def ownTime(seconds: Callable[[], float]) -> Generator[None, None, None]:
    """Have the functions of C{time} that read a clock read another one.

    @param seconds: the time.
    """

    def nanoseconds() -> int:
        return round(seconds() * 1e9)

    def read() -> float:
        return seconds()

    names = ("time", "monotonic", "perf_counter")
    pairs: list[tuple[object, object]] = [(getattr(time, name), read) for name in names]
    pairs += [(getattr(time, f"{name}_ns"), nanoseconds) for name in names]
    # One function each, so that each has its own place back.
    pairs = [(old, _copy(new)) for old, new in pairs]
    spared = _spared - {"time"}
    Substitution(pairs).run(spared)
    try:
        yield
    finally:
        Substitution([(new, old) for old, new in pairs]).run(spared)


def _copy(function: object) -> Callable[[], float]:
    assert callable(function)
    return lambda: function()


class Chance:
    """The chance of one seed. Each use goes on where the last one ended."""

    def __init__(self, seed: int | str) -> None:
        """@param seed: the same seed gives the same chance."""
        self._source = random.Random(f"{seed} of a network")
        self._state = random.Random(seed).getstate()

    @contextmanager
    def use(self) -> Generator[None, None, None]:
        """Take from this what C{random}, C{secrets} and C{os.urandom} give, and the seeds of C{random.Random()}."""
        before, seed = random.getstate(), random.Random.seed
        source = self._source

        def seedWithout(self: random.Random, a: int | float | str | bytes | bytearray | None = None, version: int = 2) -> None:
            seed(self, random.Random.getrandbits(source, 64) if a is None else a, version)

        def urandom(size: int, /) -> bytes:
            return source.randbytes(size)

        system = os.urandom
        spared = _spared - {"os", "random", "posix", "nt"}
        random.setstate(self._state)
        random.Random.seed = seedWithout  # type: ignore[method-assign]
        Substitution([(system, urandom)]).run(spared)
        try:
            yield
        finally:
            Substitution([(urandom, system)]).run(spared)
            random.Random.seed = seed  # type: ignore[method-assign]
            self._state = random.getstate()
            random.setstate(before)
