"""What ports and hosts in memory have found out about addresses, until something changes."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from udpecho.addresses import MAX_PAYLOAD_IPV4, MAX_PAYLOAD_IPV6, DatagramAddress, isGroup

#: Of how many addresses a port or a host knows something. One that is flooded forgets, and finds out again.
MAX_KNOWN = 4096

_K = TypeVar("_K")
_V = TypeVar("_V")


class Known(dict[_K, _V]):
    """What is known, of a bounded number of addresses."""

    def keep(self, key: _K, value: _V) -> _V:
        """Keep a value, and return it."""
        if len(self) >= MAX_KNOWN:
            self.clear()
        self[key] = value
        return value


class Path(NamedTuple):
    """Where a port sends what is written to an address.

    @ivar longest: the longest payload of a datagram that is sent without a further look, in bytes.
    @ivar isGroup: whether it goes to a group.
    """

    source: DatagramAddress
    destination: DatagramAddress
    longest: int
    isGroup: bool

    @classmethod
    def between(cls, source: tuple[str, int], destination: tuple[str, int], longest: int) -> Path:
        """The path between two addresses; IPv4 addresses are plain here, not IPv4-mapped."""
        return cls(DatagramAddress(source), DatagramAddress(destination), longest, isGroup(destination[0]))


def longest(host: str) -> int:
    """The longest payload of a datagram to an IP address, in bytes."""
    return MAX_PAYLOAD_IPV6 if ":" in host else MAX_PAYLOAD_IPV4
