"""A second socket on the local address of a connected one. A connected socket has datagrams of its peer only; the second one
has what all others send there, and sends to others from there.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.internet.protocol import DatagramProtocol

from udpecho.interfaces import Reactor
from udpecho.net.linux import sockopt
from udpecho.net.open import openPort
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort

#: The one that has others' datagrams never needs batches: their memory would be reserved for each.
_options = PortOptions(batches=False, decrementHopLimit=True)


def accompany(reactor: Reactor, protocol: DatagramProtocol, port: DatagramPort) -> DatagramPort:
    """Open a port on the address of a connected one.

    @param reactor: an C{IReactorFDSet} and C{IReactorTime} provider.
    @param port: the connected port; it goes on with its peer.
    @raise OSError: if the system has no such sockets, or no descriptor is left.
    """
    if not (sockopt.available and isinstance(port, DatagramPort)):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    connected = port.socket
    sock = socket.socket(connected.family, socket.SOCK_DGRAM)
    both = (connected, sock)
    try:
        sock.setblocking(False)
        if sock.family == socket.AF_INET6:
            only = connected.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        for each in both:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(connected.getsockname())
    except BaseException:
        sock.close()
        raise
    finally:
        # Nobody else is to share it.
        for each in both:
            if each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return openPort(reactor, sock, protocol, _options)
