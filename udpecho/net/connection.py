"""Connected sockets. C{connect(2)} chooses the local address, and the interface of a link-local peer, once for the life of a
socket; here the choice is made again when the addresses or interfaces of this machine have changed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from twisted.internet import error
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.interfaces import Reactor
from udpecho.net.linux import sockopt
from udpecho.net.sockets import connectedSocket, datagramAddress

#: Seconds without anything from the peer after which the choice is compared before a datagram is sent, and seconds from one
#: such comparison to the next.
QUIET = 1.0
#: The shortest time between two comparisons when sending fails, in seconds.
PAUSE = 0.25

#: This machine has no address or no route to send from. A socket that was connected before may go on over IPv6, from an address
#: that is gone, where no reply arrives.
_noPath = frozenset({errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV, errno.ENETDOWN})

_log = Logger()


class Connection:
    """How to open a socket that is connected to one peer."""

    def __init__(
        self,
        peer: DatagramAddress,
        bindAddress: tuple[str, int] | None = None,
        receiveBuffer: int | None = None,
        configure: Callable[[socket.socket], object] | None = None,
    ) -> None:
        """@see: L{connectedSocket} for the parameters."""
        self._peer = peer
        self._bindAddress = bindAddress
        self._receiveBuffer = receiveBuffer
        self._configure = configure
        self._interface: str | None = None

    def open(self, replaced: socket.socket | None = None) -> socket.socket:
        """Open the socket.

        @param replaced: a socket that is to be closed, and whose local port the new one shares until then.
        @raise error.CannotListenError: if the system refuses the local address.
        @raise OSError: if it refuses the peer's, for example without a route.
        """
        shared = replaced is not None and self._bindAddress is not None
        if replaced is not None and shared:
            replaced.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return self._open(self._bindAddress, shared)

    def renew(self, sock: socket.socket) -> socket.socket | None:
        """Compare what C{connect(2)} would choose now with what it has chosen for a socket.

        @return: a new socket if it is not the same.
        @raise error.CannotListenError: as L{open} does, and C{OSError}.
        """
        host, port = self._bindAddress or ("", 0)
        present = _choice(sock)
        # Two sockets on one port would share what comes for it.
        fresh = self._open((host, 0) if host else None)
        if _choice(fresh) == present or not sockopt.sameNetwork(fresh, sock):
            fresh.close()
            return None
        if not port:
            return fresh
        fresh.close()
        return self.open(sock)

    def _open(self, bindAddress: tuple[str, int] | None, shared: bool = False) -> socket.socket:
        peer = DatagramAddress(self._peer)
        peer.scopeID = self._scope()
        return connectedSocket(peer, bindAddress, self._receiveBuffer, self._configure, shared)

    def _scope(self) -> int:
        """The index of the peer's interface. One that is made anew has the same name, and another index."""
        scope = self._peer.scopeID
        if not scope:
            return 0
        try:
            self._interface = socket.if_indextoname(scope)
        except OSError:
            if self._interface is None:
                return scope
            try:
                return socket.if_nametoindex(self._interface)
            except OSError:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
        return scope


def _choice(sock: socket.socket) -> tuple[object, ...]:
    local = sock.getsockname()
    return local[0], local[2:], sock.getpeername()


class Renewal:
    """Keeps a port's socket as the system would connect it now. What would be chosen is compared with what was chosen before a
    datagram is sent, if nothing has come from the peer for a while, and when the system has rejected one.
    """

    def __init__(
        self, reactor: Reactor, connection: Connection, sock: socket.socket, replace: Callable[[socket.socket], object]
    ) -> None:
        """@param sock: the socket that is open.
        @param replace: puts another one into its place, and closes it.
        """
        self._reactor = reactor
        self._connection = connection
        self._socket = sock
        self._replace = replace
        self._quietSince = self._compared = reactor.seconds()
        self._failure = 0

    def received(self) -> None:
        """A datagram came from the peer."""
        self._quietSince = self._reactor.seconds()

    def beforeSending(self) -> int:
        """@return: the error number that sending fails with, 0 if there is none."""
        if self._failure or self._reactor.seconds() - self._quietSince >= QUIET:
            self.renew()
        return self._failure

    def renew(self) -> bool:
        """Open the socket again, if the system would choose something else now.

        @return: whether there is a new socket.
        """
        now = self._reactor.seconds()
        if now - self._compared < PAUSE:
            return False
        self._compared = self._quietSince = now
        try:
            fresh = self._connection.renew(self._socket)
        except (OSError, error.CannotListenError) as e:
            number = e.socketError.errno if isinstance(e, error.CannotListenError) else e.errno
            self._failure = number if number in _noPath else 0
            return False
        self._failure = 0
        if fresh is None:
            return False
        before = formatAddress(datagramAddress(self._socket.getsockname()))
        self._socket = fresh
        self._replace(fresh)
        _log.warn(
            "socket to {peer} reopened: it sends from {source} now, before from {before}",
            peer=formatAddress(datagramAddress(fresh.getpeername())),
            source=formatAddress(datagramAddress(fresh.getsockname())),
            before=before,
        )
        return True
