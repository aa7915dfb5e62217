"""Helpers for sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from twisted.internet import error

from udpecho.addresses import DatagramAddress
from udpecho.net import features
from udpecho.net.linux import sockopt
from udpecho.net.linux.adopted import isUDP

#: Longer than any datagram that UDP can carry (its length field has 16 bits, RFC 768), in bytes.
MAX_DATAGRAM = 65535

#: The receive queue is empty, or the send queue is full.
TRY_AGAIN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
#: The state of an address that is not usable yet.
TENTATIVE = "tentative (duplicate address detection has not finished)"
# linux/if_addr.h
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
#: How often to send a datagram when sending reports the errors of earlier ones: they may come as fast as it is sent.
SEND_TRIES = 3


def hasQueued(sock: socket.socket) -> bool:
    """Whether datagrams are queued on a socket in non-blocking mode."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except OSError:
        return False
    return True


def hasBoth(sock: socket.socket) -> bool:
    """Whether a socket may serve IPv4 and IPv6 (RFC 3493 section 5.3)."""
    with suppress(OSError):
        return sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return True


def prepare(sock: socket.socket, host: str, ipv6Only: bool, receiveBuffer: int | None) -> None:
    """Set the options that must be set before a socket is bound to a local address.

    @param ipv6Only: keep IPv4 out of a socket of IPv6 (RFC 3493 section 5.3).
    @param receiveBuffer: the receive buffer to request, in bytes.
    @raise features.Refused: if the system cannot keep IPv4 out of an address of both families.
    """
    if receiveBuffer is not None:
        growReceiveBuffer(sock, receiveBuffer)
    if not ipv6Only or sock.family != socket.AF_INET6:
        return
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except OSError:
        if not int(ip_address(host.partition("%")[0])):
            features.require(sock, ":: must have IPV6_V6ONLY to keep IPv4 out", socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def shareAddress(sock: socket.socket) -> None:
    """Let other sockets that ask for the same be bound to the same address, as C{listenMulticast} does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        # Some systems have the name alone; there the former is enough.
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def checkAdoptable(sock: socket.socket) -> None:
    """@raise ValueError: if it is not a UDP socket, or not bound."""
    isIP = sock.family in (socket.AF_INET, socket.AF_INET6)
    if not isIP or sock.type != socket.SOCK_DGRAM or (sockopt.available and not isUDP(sock)):
        raise ValueError(f"socket must be a UDP socket over IPv4 or IPv6, got {sock!r}")
    if not sock.getsockname()[1]:
        raise ValueError(f"socket must be bound to an address, got {sock!r}")


def growReceiveBuffer(sock: socket.socket, size: int) -> None:
    """Request a receive buffer of so many bytes, beyond the limit where that is allowed (C{SO_RCVBUFFORCE} in C{socket(7)})."""
    if sockopt.available:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, sockopt.SO_RCVBUFFORCE, size)
            return
    # Linux grants what it may; others refuse, and leave the buffer as it is.
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def growSendBuffer(sock: socket.socket) -> None:
    """Have a socket take the longest datagrams: macOS and the BSDs take none that is longer than C{SO_SNDBUF}, which is 9216
    bytes at first (C{net.inet.udp.maxdgram}). Linux takes one of any length.
    """
    if not sockopt.available:
        with suppress(OSError):
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < MAX_DATAGRAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_DATAGRAM)


def isConnected(sock: socket.socket) -> bool:
    """Whether a socket has a peer."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def receiveBuffer(sock: socket.socket) -> int:
    """The receive buffer of a socket, in bytes, as it was requested: Linux doubles that, for its own use (C{socket(7)})."""
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return granted // 2 if sockopt.available else granted


def isOwnAddress(host: str, scopeID: int = 0) -> bool:
    """Whether an IP address is one of this machine's: of an interface, loopback, or routed to it (C{ip-route(8)})."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((host, 9, 0, scopeID)[: 4 if family == socket.AF_INET6 else 2])
        if ip_address(host).is_loopback or sock.getsockname()[0] == host:
            return True
    # A group can be bound, too. An address that nobody has can be bound only if the system allows any (ip_nonlocal_bind), and
    # then this proves nothing.
    nobodys = "2001:db8::1" if ":" in host else "192.0.2.1"
    return not sockopt.isNonUnicast(host) and _canBind(family, host, scopeID) and not _canBind(family, nobodys)


def _canBind(family: int, host: str, scopeID: int = 0) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0, 0, scopeID)[: 4 if family == socket.AF_INET6 else 2])
    except OSError:
        return False
    return True


def datagramAddress(name: tuple[Any, ...]) -> DatagramAddress:
    """Read a socket address of Python's C{socket} module."""
    address = DatagramAddress(name[:2])
    if len(name) == 4:
        address.flowInfo, address.scopeID = name[2:]
    return address


def socketAddress(host: str | bytes, port: int, *more: int) -> tuple[Any, ...]:
    """Make a socket address. Python drops the scope of a link-local address in a pair.

    @param more: what the stock port takes, too: the flow and the scope of IPv6, as in Python's C{socket} module.
    @raise OSError: if the scope is not an interface of this machine.
    """
    if isinstance(host, bytes):
        host = host.decode("ascii")
    if "%" not in host:
        return host, port, *more
    try:
        return socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0][4]
    except socket.gaierror:
        raise OSError(errno.ENODEV, f"this machine has no interface {host.partition('%')[2]!r}") from None


def duplicateDetection(host: str) -> str | None:
    """Why Linux refuses to bind an IPv6 address that this machine has: another machine may have it too (RFC 4862 section 5.4).

    @param host: an IP address, perhaps with a scope.
    @return: what the address is if the detection is not over or has failed, else C{None}.
    """
    for _, flags in _interfacesOf(host):
        if flags & _IFA_F_DADFAILED:
            return "used by another machine too (duplicate address detection has failed)"
        if flags & _IFA_F_TENTATIVE:
            return TENTATIVE
    return None


def _interfacesOf(host: str) -> list[tuple[int, int]]:
    """The interfaces of Linux that have an IPv6 address, by their indexes, each with the flags of the address there."""
    packed, _, scope = host.partition("%")
    try:
        wanted = socket.inet_pton(socket.AF_INET6, packed).hex()
        with open("/proc/self/net/if_inet6") as file:
            found = [line.split() for line in file]
    except OSError:
        return []
    # Address, index of the interface, length of the prefix, scope, flags, all in hexadecimal, and the interface's name.
    return [
        (int(index, 16), int(flags, 16))
        for address, index, _, _, flags, name in found
        if address == wanted and scope in ("", name, str(int(index, 16)))
    ]


def interfaceIndex(interface: str | int) -> int:
    """Look up an interface.

    @param interface: its index, its name or, on Linux, one of its IPv6 addresses; nothing, or C{"::"}, for none.
    @return: its index, 0 for none.
    @raise OSError: if there is no such interface.
    """
    if isinstance(interface, int) or interface.isdecimal():
        return int(interface)
    if interface in ("", "::"):
        return 0
    if ":" not in interface:
        return socket.if_nametoindex(interface)
    address, _, scope = interface.partition("%")
    if scope:
        return interfaceIndex(scope)
    found = _interfacesOf(address)
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return found[0][0]


def checkBindable(host: str, port: int) -> None:
    """Check that a socket can be bound to a local address, which is free again after that.

    @raise error.CannotListenError: if the system refuses it.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(socketAddress(host, port))
    except OSError as e:
        raise error.CannotListenError(host, port, e) from None


def connectedSocket(
    peer: DatagramAddress,
    bindAddress: tuple[str, int] | None = None,
    receiveBuffer: int | None = None,
    configure: Callable[[socket.socket], object] | None = None,
    shared: bool = False,
) -> socket.socket:
    """Open a socket that is connected to one peer, and does not block.

    @param peer: the peer, with its scope where it is link-local.
    @param bindAddress: the local C{(host, port)} to send from; by default the system chooses.
    @param receiveBuffer: the receive buffer to request, in bytes.
    @param configure: sets more options.
    @param shared: bind an address that another socket of ours has (C{SO_REUSEADDR} is set on that one).
    @raise error.CannotListenError: if the system refuses the local address.
    @raise OSError: if it refuses the peer's, for example without a route.
    """
    family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if receiveBuffer is not None:
            growReceiveBuffer(sock, receiveBuffer)
        growSendBuffer(sock)
        if configure is not None:
            configure(sock)
        if bindAddress is not None:
            try:
                if shared:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(socketAddress(*bindAddress))
            except OSError as e:
                raise error.CannotListenError(*bindAddress, e) from None
            if shared:
                # Nobody else is to share it.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.connect(tuple(peer) if family == socket.AF_INET else (*peer, 0, peer.scopeID))
    except BaseException:
        sock.close()
        raise
    return sock
