"""What a proxy does with datagrams from other ports of its upstream. A TFTP server answers each request from a new port (RFC
1350 section 4): the client gets the answer from a new port of the proxy, and what it sends there goes to that of the server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from twisted.internet import error
from twisted.logger import Logger

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import NO_DESCRIPTOR
from udpecho.faults.decision import Direction
from udpecho.faults.proxy_client import Companion, OtherPort, ProxyClient, closePort
from udpecho.faults.upstream import sameHost
from udpecho.interfaces import Reactor
from udpecho.net.companion import accompany
from udpecho.net.open import dial, listen
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort

#: How many other ports of the upstream a client knows at a time; for one more, the longest idle one is forgotten.
MAX_OTHER_PORTS = 16
#: For so many clients at a time it is counted what is lost without C{anyPort}: each takes one more descriptor.
MAX_COUNTED = 256

_options = PortOptions(batches=False, decrementHopLimit=True)

_log = Logger()


class OtherPorts:
    """Opens the sockets for other ports of the upstream, for all clients of one proxy."""

    def __init__(self, reactor: Reactor, down: Direction, anyPort: bool, warn: Callable[[str, str], object]) -> None:
        """@param down: counts what is dropped.
        @param anyPort: whether anything is passed on.
        @param warn: logs a sentence, each kind at most so often.
        """
        self._reactor = reactor
        self._down = down
        self._anyPort = anyPort
        self._warn = warn

    def attend(self, client: ProxyClient, clients: int) -> None:
        """Receive what comes from other ports for a client whose own socket is new, or was opened again elsewhere.

        @param clients: how many there are.
        """
        port = client.port
        if port is None:
            return
        former, client.companion, client.attended = client.companion, None, port.socket
        if former is not None and former is not port:
            closePort(former, self._down)
        if not self._anyPort and clients > MAX_COUNTED:
            return
        try:
            client.companion = accompany(self._reactor, Companion(client), port)
        except OSError as e:
            if self._anyPort and e.errno not in NO_DESCRIPTOR:
                self._replace(client, port)
            else:
                self._warnIfNeeded(client, e)
        except error.CannotListenError as e:
            self._warnIfNeeded(client, e.socketError)

    def _warnIfNeeded(self, client: ProxyClient, reason: OSError) -> None:
        if self._anyPort:
            why = os.strerror(reason.errno or 0)
            self._warn("companion", f"cannot receive from other ports for {client.address}: {why}")

    def _replace(self, client: ProxyClient, port: DatagramPort) -> None:
        """Where there cannot be two sockets on one address: have a single one, which gets no refusals."""
        host = "::" if ":" in port.getHost().host else "0.0.0.0"
        try:
            both = listen(self._reactor, 0, Companion(client), host, batches=False, decrementHopLimit=True)
        except error.CannotListenError as e:
            self._warnIfNeeded(client, e.socketError)
            return
        client.port = client.companion = both
        client.attended = both.socket
        closePort(port, self._down)

    def find(self, client: ProxyClient, address: DatagramAddress, listening: str) -> OtherPort | None:
        """The other port of an address, opened if it is new. If a datagram from there is not passed on, it is counted.

        @param listening: the local address that the proxy listens on.
        """
        peer = client.peer
        if peer is None or not sameHost(address, peer):
            self._down.drop("not_allowed")
            return None
        if not self._anyPort:
            if not self._down.outcomes["other_port"]:
                _log.warn(
                    "the upstream answers from another port, {other}: that is dropped, and counted as other_port,"
                    " unless --any-port is given (in Python anyPort=True)",
                    other=formatAddress(address),
                )
            self._down.drop("other_port")
            return None
        other = client.others.pop(address, None)
        if other is None:
            try:
                other = self._open(client, address, listening)
            except (OSError, error.CannotListenError) as e:
                number = (e.socketError if isinstance(e, error.CannotListenError) else e).errno
                self._down.drop("no_socket" if number in NO_DESCRIPTOR else "own_loss")
                self._warn("socket", f"cannot open a socket for {client.address}: {os.strerror(number or 0)}")
                return None
        # The last one is the one that was used last.
        client.others[address] = other
        return other

    def _open(self, client: ProxyClient, address: DatagramAddress, listening: str) -> OtherPort:
        while len(client.others) >= MAX_OTHER_PORTS:
            next(iter(client.others.values())).close(self._down)
        local = client.address.localHost or listening
        if client.address.scopeID and "%" not in local:
            local = f"{local}%{socket.if_indextoname(client.address.scopeID)}"
        other = OtherPort(client, address, client.address)
        other.port = dial(self._reactor, other, client.address, (local, 0), renewed=False, options=_options)
        return other
