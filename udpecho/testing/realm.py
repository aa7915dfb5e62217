"""Which addresses there are in a network, and in those behind its NATs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from udpecho.addresses import isGroup
from udpecho.testing.flight import Node
from udpecho.testing.memory_addresses import canonical, isLoopback, unmapped


class Member(Node, Protocol):
    """A node of a realm.

    @ivar realm: the realm that its addresses are in.
    """

    realm: Realm


class Realm:
    """The network in which an address means one host (RFC 2663 section 2.1): the one outside, or that behind a NAT.

    @ivar gateway: the way out, C{None} of the outermost realm.
    """

    def __init__(self, gateway: Member | None = None) -> None:
        self.gateway = gateway
        self._nodes: dict[str, Member] = {}
        self._former: set[str] = set()

    def __contains__(self, address: str) -> bool:
        return address in self._nodes

    def check(self, name: str, addresses: Sequence[str]) -> list[str]:
        """Check new addresses of a node.

        @return: the addresses in the system's spelling.
        @raise ValueError: if one is taken, or is not one of a single host.
        """
        for address in addresses:
            if not isinstance(address, str):
                raise TypeError(f"address of {name!r} must be a string, got {address!r}")
        own = [canonical(address) for address in addresses]
        for address in own:
            if address in self._nodes or own.count(address) > 1 or isLoopback(unmapped(address)):
                raise ValueError(f"address of {name!r} must be its own, got {address}, which is taken")
            if address in ("0.0.0.0", "::") or isGroup(address) or address != unmapped(address):
                raise ValueError(f"address of {name!r} must be that of a single host, got {address}")
            if ":" in address and self.gateway is not None:
                # IPv6 is not translated.
                self.gateway.realm.check(name, [address])
        return own

    def add(self, address: str, node: Member) -> None:
        """An address is a node's from now on."""
        self._nodes[address] = node
        if ":" in address and self.gateway is not None:
            # Outside, the way to it is the gateway.
            self.gateway.realm.add(address, self.gateway)

    def remove(self, address: str) -> None:
        """It is nobody's now. Others still have a route to it, as to its whole network."""
        del self._nodes[address]
        self._former.add(address)
        if ":" in address and self.gateway is not None:
            self.gateway.realm.remove(address)

    def nextHop(self, address: str) -> Member | None:
        """The node to send to for an address: its host, or the gateway that is on the way."""
        node = self._nodes.get(address)
        if node is None and self.gateway is not None and self.gateway.realm.nextHop(address) is not None:
            return self.gateway
        return node

    def isRoutable(self, address: str) -> bool:
        """Whether there is a route, even if nobody has the address at present."""
        known = address in self._nodes or address in self._former
        return known or (self.gateway is not None and self.gateway.realm.isRoutable(address))
