"""A datagram on its way, as rules see it."""

from __future__ import annotations

from typing import NamedTuple


class Datagram(NamedTuple):
    """A datagram on its way.

    @ivar payload: its payload.
    @ivar source: the C{(host, port)} pair of its sender.
    @ivar destination: the C{(host, port)} pair that it was sent to. In a proxy the clients and the upstream are the two
        ends; its own addresses are not seen.
    @ivar time: when it was sent, in seconds on the clock of a network in memory, or since a proxy was made.
    @ivar link: the link that carries it: C{"client > server"} by the names of hosts in memory, C{"up"} or C{"down"} in a proxy.
    """

    payload: bytes
    source: tuple[str, int]
    destination: tuple[str, int]
    time: float
    link: str = ""

    @property
    def size(self) -> int:
        """Its payload in bytes."""
        return len(self.payload)
