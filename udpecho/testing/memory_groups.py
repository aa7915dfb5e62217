"""Multicast groups of a port in memory."""

from __future__ import annotations

import errno
import ipaddress
import os
from typing import Any

from twisted.internet import defer, error
from twisted.internet.abstract import isIPAddress, isIPv6Address

from udpecho.testing.memory_addresses import canonical


class MemoryGroups:
    """What C{IMulticastTransport} adds to a port.

    @ivar groups: the multicast groups that were joined.
    @ivar loopback: whether the host receives what this port sends to its groups.
    @ivar ttl: the time to live of what it sends to groups.
    """

    host: Any
    interface: str

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.loopback = True
        self.ttl = 1
        self._outgoingInterface = self.interface

    def joinGroup(self, addr: str, interface: str = "") -> defer.Deferred[None]:
        """Join a group. Fails with C{error.MulticastJoinError} if C{addr} is not a group, or joined already."""
        if not (isIPAddress(addr) or isIPv6Address(addr)) or not ipaddress.ip_address(addr).is_multicast:
            return defer.fail(error.MulticastJoinError(addr, interface, "not a multicast address"))
        if canonical(addr) in self.groups:
            return defer.fail(error.MulticastJoinError(addr, interface, errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        self.groups.add(canonical(addr))
        self.host.changed()
        return defer.succeed(None)

    def leaveGroup(self, addr: str, interface: str = "") -> defer.Deferred[None]:
        """Leave a group. Fails with C{error.MulticastJoinError} if it was not joined."""
        if not (isIPAddress(addr) or isIPv6Address(addr)) or canonical(addr) not in self.groups:
            number = errno.EADDRNOTAVAIL
            return defer.fail(error.MulticastJoinError(addr, interface, number, os.strerror(number)))
        self.groups.remove(canonical(addr))
        self.host.changed()
        return defer.succeed(None)

    def getOutgoingInterface(self) -> str | int:
        """The interface for datagrams to groups."""
        return self._outgoingInterface

    def setOutgoingInterface(self, addr: str | int) -> defer.Deferred[Any]:
        """Set it, without effect: a host in memory has one interface."""
        self._outgoingInterface = str(addr)
        return defer.succeed(self._outgoingInterface)

    def getLoopbackMode(self) -> bool:
        """Whether the host itself receives what it sends to its groups."""
        return self.loopback

    def setLoopbackMode(self, mode: bool) -> None:
        """Set whether it does."""
        self.loopback = bool(mode)

    def getTTL(self) -> int:
        """The time to live of datagrams to groups (C{IP_MULTICAST_TTL} in C{ip(7)})."""
        return self.ttl

    def setTTL(self, ttl: int) -> None:
        """Set it. With 0 a datagram stays on the host, with more it passes less routers than that."""
        self.ttl = ttl
