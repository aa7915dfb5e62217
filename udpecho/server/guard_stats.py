"""The statistics of the guards of several workers, merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from udpecho.guard.heavy_hitters import HeavyHitters


class GuardStats:
    """The statistics of the guards of all workers, or of a guard that has none.

    @ivar wouldDrop: in a dry run, the datagrams that would have been dropped, by reason.
    """

    def __init__(self) -> None:
        self.wouldDrop: Counter[str] = Counter()
        self._busiest: dict[str, HeavyHitters[str]] = {}
        self._fills: dict[int, float] = {}

    def merge(
        self, worker: int, busiest: Mapping[str, Sequence[tuple[str, int]]], wouldDrop: Mapping[str, int], fill: float
    ) -> None:
        """Add a report.

        @param worker: the number of the worker.
        @param busiest: the result of its L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}.
        @param wouldDrop: how many datagrams more it would have dropped, by reason.
        @param fill: how full its limiter's table is, from 0 to 1.
        """
        for reason, found in busiest.items():
            for prefix, datagrams in found:
                self._busiest.setdefault(reason, HeavyHitters()).add(prefix, datagrams)
        self.wouldDrop.update(wouldDrop)
        self._fills[worker] = fill

    @property
    def fill(self) -> float:
        """How full the fullest table is, from 0 to 1."""
        return max(self._fills.values(), default=0.0)

    def busiest(self, most: int) -> dict[str, list[tuple[str, int]]]:
        """@see: L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}"""
        drained = {reason: busiest.drain(most) for reason, busiest in self._busiest.items()}
        return {reason: found for reason, found in drained.items() if found}
