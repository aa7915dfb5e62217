"""Several sockets on one address that share its datagrams (C{SO_REUSEPORT}), bound before somebody reads them."""

from __future__ import annotations

import socket

from twisted.internet import abstract, defer, error
from twisted.internet.address import IPv4Address, IPv6Address

from udpecho.net import features
from udpecho.net.linux import sockopt
from udpecho.net.sockets import prepare, receiveBuffer, socketAddress

#: Whether several sockets can share an address here, each receiving its part of the flows. The BSDs and macOS have the
#: option too, but hand all datagrams to the last socket.
canShare = sockopt.available and hasattr(socket, "SO_REUSEPORT")


class SocketGroup:
    """Several sockets on one address, all open for as long as the group is. The kernel chooses among them by a hash of a
    datagram's addresses and ports, so that a flow keeps to one of them (C{SO_REUSEPORT} in C{socket(7)}).

    All options that must be set before the first datagram comes are set when a socket is bound, so that each datagram has its
    destination, however late it is read.
    """

    def __init__(self, number: int, interface: str, size: int, receiveBuffer: int | None = None) -> None:
        """@param number: the port number, 0 for any free one.
        @param interface: the local IP address to bind C{size} sockets to; C{"::"} is all of IPv6 and nothing of IPv4.
        @param receiveBuffer: the receive buffer to request for each, in bytes.
        @raise error.InvalidAddressError: if C{interface} is not an IP address.
        @raise error.CannotListenError: if the system refuses the address: also if another program has it that would share it.
        """
        if not (abstract.isIPAddress(interface) or abstract.isIPv6Address(interface)):
            raise error.InvalidAddressError(interface, "must be an IPv4 or IPv6 address")
        self._family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self._receiveBuffer = receiveBuffer
        self.sockets: list[socket.socket] = []
        try:
            self._add(interface, number)
            # Read once: a later reader gets it even when the system is short of memory.
            self._boundName = self.sockets[0].getsockname()
            for _ in range(1, size):
                self._add(interface, self._boundName[1])
        except OSError as e:
            self.close()
            raise error.CannotListenError(interface, number, e) from None

    def _add(self, interface: str, number: int) -> None:
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        isFirst = not self.sockets
        self.sockets.append(sock)
        sock.setblocking(False)
        prepare(sock, interface, True, self._receiveBuffer)
        if sockopt.available:
            sockopt.disablePathMTUDiscovery(sock)
            sockopt.enablePktinfo(sock)
        needed = "workers must have SO_REUSEPORT to share a port"
        # One that would share may join any socket that would too, ours or not: the first is bound without the option.
        features.require(sock, needed, socket.SOL_SOCKET, socket.SO_REUSEPORT, not isFirst)
        sock.bind(socketAddress(interface, number))
        features.require(sock, needed, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address; for link-local IPv6 with its scope."""
        bound = self._boundName
        return IPv4Address("UDP", *bound) if self._family == socket.AF_INET else IPv6Address("UDP", *bound)

    def getReceiveBuffer(self) -> int:
        """The receive buffer that the system has granted each socket, in bytes, as for L{DatagramPort.getReceiveBuffer}."""
        return receiveBuffer(self.sockets[0])

    def getKernelDrops(self) -> int | None:
        """How many datagrams the system dropped because a receive buffer was full; C{None} where it does not report it."""
        drops = [sockopt.kernelDrops(sock) for sock in self.sockets]
        return None if None in drops else sum(number or 0 for number in drops)

    def close(self) -> None:
        """Close the sockets. May be called twice."""
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            sock.close()

    def stopListening(self) -> defer.Deferred[None]:
        """Close the sockets."""
        self.close()
        return defer.succeed(None)
