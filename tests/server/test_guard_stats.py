"""Tests of L{udpecho.server.guard_stats}."""

from __future__ import annotations

from udpecho.server.guard_stats import GuardStats


class GuardStatsTests:
    """L{GuardStats}."""

    def test_empty(self) -> None:
        """Without a report there is nothing."""
        stats = GuardStats()
        assert (stats.fill, stats.wouldDrop, stats.busiest(3)) == (0.0, {}, {})

    def test_merge(self) -> None:
        """Datagrams of all workers are added, prefix by prefix and reason by reason."""
        stats = GuardStats()
        stats.merge(1, {"not_allowed": [("192.0.2.1/32", 3), ("192.0.2.2/32", 4)]}, {"not_allowed": 7}, 0.25)
        stats.merge(2, {"not_allowed": [("192.0.2.1/32", 2)], "loop_guard": [("::1/64", 1)]}, {"loop_guard": 1}, 0.125)
        assert stats.wouldDrop == {"not_allowed": 7, "loop_guard": 1}
        assert stats.busiest(1) == {"not_allowed": [("192.0.2.1/32", 5)], "loop_guard": [("::1/64", 1)]}
        assert stats.busiest(1) == {}

    def test_fill(self) -> None:
        """The fill is that of the fullest table now: a worker's latest report counts."""
        stats = GuardStats()
        stats.merge(1, {}, {}, 0.5)
        stats.merge(2, {}, {}, 0.25)
        assert stats.fill == 0.5
        stats.merge(1, {}, {}, 0.125)
        assert stats.fill == 0.25
