"""The definitions of RFCs, written down word for word, to compare the product with."""

from __future__ import annotations

from collections.abc import Sequence


def variations(order: Sequence[int], roundTrips: dict[int, int]) -> list[int]:
    """The absolute delay variations of RFC 3393: of each two consecutive probes that both have a reply."""
    return [abs(roundTrips[each] - roundTrips[each - 1]) for each in order if each - 1 in roundTrips]


def nReordering(arrivals: Sequence[int]) -> list[int]:
    """For each arrival the greatest n by which it is n-reordered: RFC 4737 section 5.3, word for word."""
    found = []
    for i, sequence in enumerate(arrivals):
        degrees = [n for n in range(1, i + 1) if all(arrivals[j] > sequence for j in range(i - n, i))]
        found.append(max(degrees, default=0))
    return found
