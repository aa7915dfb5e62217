"""Multicast groups: the methods of C{IMulticastTransport}, for IPv4 and IPv6 with every version of Twisted.

The stock port has those of IPv4, and of late those of IPv6, with two mistakes that are mended here: its C{setTTL} sets the time
to live of IPv4 on a socket of IPv6, too, and it packs the interface of an IPv6 group as an address where the system wants an
index (C{struct ipv6_mreq}, RFC 3493 section 5.2).
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import MulticastJoinError

from udpecho.net.sockets import interfaceIndex

_Family = socket.AddressFamily
_IPV4, _IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
# Twisted's names, by the family.
_JOIN = {socket.AF_INET: socket.IP_ADD_MEMBERSHIP, socket.AF_INET6: socket.IPV6_JOIN_GROUP}
_LEAVE = {socket.AF_INET: socket.IP_DROP_MEMBERSHIP, socket.AF_INET6: socket.IPV6_LEAVE_GROUP}


class GroupMethods:
    """What C{IMulticastTransport} adds to a port."""

    addressFamily: _Family
    reactor: Any
    socket: socket.socket

    def joinGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Receive what is sent to a group, too.

        @param addr: the group's address, or a name for it; for IPv6 perhaps with the interface, C{"ff02::fb%eth0"}.
        @param interface: by which interface; by default the system chooses. For IPv4 one of its addresses, or a name for that.
            For IPv6 its name, its index or one of its addresses.
        @return: fires with C{None}; fails with C{error.MulticastJoinError} if the system refuses it, for example because it is
            no group, or joined already.
        """
        return Deferred.fromCoroutine(self._change(_JOIN, addr, interface))

    def leaveGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Take back a L{joinGroup} with the same arguments. Fails as that does."""
        return Deferred.fromCoroutine(self._change(_LEAVE, addr, interface))

    async def _change(self, commands: dict[_Family, int], addr: str, interface: str | int) -> None:
        group, _, scope = (await self._resolve(addr)).partition("%")
        isIPv4 = self.addressFamily == socket.AF_INET
        source = await self._resolve(interface or "0.0.0.0") if isIPv4 else ""
        try:
            by = self._pack(source) if isIPv4 else struct.pack("@I", interfaceIndex(interface or scope))
            self.socket.setsockopt(self._level, commands[self.addressFamily], self._pack(group) + by)
        except OSError as e:
            raise MulticastJoinError(addr, interface, *e.args) from e

    def setTTL(self, ttl: int) -> None:
        """Set the time to live (IPv6: hop limit) of what is sent to groups, 0 to 255. It is 1 at first.

        @raise struct.error: if it is none.
        @raise OSError: if the system refuses it.
        """
        packed = struct.pack("B", ttl)
        if self.addressFamily == socket.AF_INET:
            self.socket.setsockopt(_IPV4, socket.IP_MULTICAST_TTL, packed)
            return
        self.socket.setsockopt(_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
        with suppress(OSError):
            # To a mapped address it sends IPv4, where the system lets it.
            self.socket.setsockopt(_IPV4, socket.IP_MULTICAST_TTL, packed)

    def getTTL(self) -> int:
        """The time to live (IPv6: hop limit) of what is sent to groups."""
        return self.socket.getsockopt(self._level, self._option("IP_MULTICAST_TTL", "IPV6_MULTICAST_HOPS"))

    def setLoopbackMode(self, mode: bool | int) -> None:
        """Set whether this machine gets what is sent to groups, too. It does at first."""
        packed: bytes | int = struct.pack("B", bool(mode)) if self.addressFamily == socket.AF_INET else int(bool(mode))
        self.socket.setsockopt(self._level, self._option("IP_MULTICAST_LOOP", "IPV6_MULTICAST_LOOP"), packed)

    def getLoopbackMode(self) -> bool:
        """Whether this machine gets what is sent to groups, too."""
        return bool(self.socket.getsockopt(self._level, self._option("IP_MULTICAST_LOOP", "IPV6_MULTICAST_LOOP")))

    def setOutgoingInterface(self, addr: str | int) -> Deferred[int]:
        """Set the interface that sends to groups.

        @param addr: for IPv4 one of its addresses, or a name for that; for IPv6 its index (C{socket.if_nametoindex}).
        @return: fires with 1. Fails with C{AssertionError} if C{addr} is of the wrong type, with C{OSError} if the system
            refuses the interface.
        """
        return Deferred.fromCoroutine(self._setOutgoing(addr))

    async def _setOutgoing(self, addr: str | int) -> int:
        value: bytes | int
        if self.addressFamily == socket.AF_INET:
            if not isinstance(addr, str):
                raise AssertionError(f"interface must be an IPv4 address, got {addr!r}")
            value = self._pack(await self._resolve(addr))
        else:
            if not isinstance(addr, int):
                raise AssertionError(f"interface must be an index, got {addr!r}")
            value = addr
        self.socket.setsockopt(self._level, self._option("IP_MULTICAST_IF", "IPV6_MULTICAST_IF"), value)
        return 1

    def getOutgoingInterface(self) -> str | int:
        """The interface that sends to groups: its address, or for IPv6 its index; C{"0.0.0.0"} or 0 if the system chooses."""
        option = self._option("IP_MULTICAST_IF", "IPV6_MULTICAST_IF")
        if self.addressFamily == socket.AF_INET:
            return socket.inet_ntoa(self.socket.getsockopt(_IPV4, option, 4))
        return self.socket.getsockopt(_IPV6, option)

    @property
    def _level(self) -> int:
        return _IPV4 if self.addressFamily == socket.AF_INET else _IPV6

    def _option(self, ipv4: str, ipv6: str) -> int:
        option: int = getattr(socket, ipv4 if self.addressFamily == socket.AF_INET else ipv6)
        return option

    async def _resolve(self, name: Any) -> str:
        if isIPAddress(name) or isIPv6Address(name):
            return str(name)
        found: str = await self.reactor.resolve(name)
        return found

    def _pack(self, host: str) -> bytes:
        try:
            return socket.inet_pton(self.addressFamily, host)
        except OSError:
            family = "IPv4" if self.addressFamily == socket.AF_INET else "IPv6"
            raise MulticastJoinError(f"address must be of {family}, got {host!r}") from None
