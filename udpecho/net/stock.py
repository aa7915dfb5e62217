"""What the stock port does with its protocol, and what it leaves undone when it closes."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.python import log


class ProtocolAttribute:
    """The attribute C{protocol} of a port. One that is set later gets what comes from then on, in the way of the first one."""

    #: What has the protocol too.
    _having: tuple[Any, ...] = ()

    @property
    def protocol(self) -> Any:
        """The protocol."""
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: DatagramProtocol) -> None:
        self._protocol = protocol
        for part in self._having:
            part.protocol = protocol


def logAsStock(protocol: DatagramProtocol, text: str) -> None:
    """Log what the stock port always logs, unless the protocol is not C{noisy}."""
    if getattr(protocol, "noisy", True):
        log.msg(text)


def stopProtocol(protocol: DatagramProtocol, number: int) -> None:
    """Log that the port of a protocol is closed, and stop it.

    @param number: the number of the port.
    """
    logAsStock(protocol, f"(UDP Port {number} Closed)")
    if getattr(protocol, "numPorts", True):  # none when startProtocol has failed
        protocol.doStop()


def closeSocket(port: Any, sock: socket.socket) -> None:
    """Do what the stock port leaves undone when it cannot start, or when C{stopProtocol} raises."""
    sock.close()
    for name in ("socket", "fileno"):
        port.__dict__.pop(name, None)
