"""Who comes most often, in little memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)


class HeavyHitters(Generic[_K]):
    """
    Finds what is added most often among any number of different things, with a fixed number of counters: the algorithm of
    Misra and Gries ("Finding repeated elements", 1982). What makes up more than one part in C{counters + 1} of the whole is
    among them for certain; a count is at most that part too low, and never too high.
    """

    def __init__(self, counters: int = 64) -> None:
        """@param counters: how many things to count at a time."""
        self._counters = counters
        self._counts: dict[_K, int] = {}

    def add(self, thing: _K, times: int = 1) -> None:
        """
        Count a thing.

        @param times: how often it came.
        """
        counts = self._counts
        if thing in counts:
            counts[thing] += times
            return
        if len(counts) >= self._counters:
            # Each of so many different things is taken away alike. It costs as many additions as it has counters, so that
            # over all an addition costs the same, whatever is added.
            least = min(times, min(counts.values()))
            self._counts = counts = {known: count - least for known, count in counts.items() if count > least}
            times -= least
        if times:
            counts[thing] = times

    def take(self, most: int) -> list[tuple[_K, int]]:
        """
        Say what came most often, and start over.

        @param most: how many things to name.

        @return: each with its count, the busiest first.
        """
        counts, self._counts = self._counts, {}
        return sorted(counts.items(), key=lambda item: item[1], reverse=True)[: max(0, most)]
