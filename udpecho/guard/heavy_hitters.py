"""The most frequent keys of a stream, in memory of a fixed size."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)


class HeavyHitters(Generic[_K]):
    """Finds the keys that are added most often, with a fixed number of counters: the algorithm of Misra and Gries ("Finding
    repeated elements", 1982). A key that makes up more than one part in C{counters + 1} of the total is found for certain. A
    count is at most that part too low, and never too high.
    """

    def __init__(self, counters: int = 64) -> None:
        self._counters = counters
        self._counts: dict[_K, int] = {}

    def add(self, key: _K, times: int = 1) -> None:
        """Count some occurrences of a key."""
        counts = self._counts
        if key in counts:
            counts[key] += times
            return
        if len(counts) >= self._counters:
            # All keys lose the same count. This costs as many steps as there are counters, and each step was paid for by an
            # earlier addition: on average an addition costs the same for any stream.
            least = min(times, min(counts.values()))
            self._counts = counts = {known: count - least for known, count in counts.items() if count > least}
            times -= least
        if times:
            counts[key] = times

    def drain(self, most: int) -> list[tuple[_K, int]]:
        """Return at most C{most} keys with their counts, the most frequent first, and start over with none."""
        counts, self._counts = self._counts, {}
        return sorted(counts.items(), key=lambda item: item[1], reverse=True)[: max(0, most)]
