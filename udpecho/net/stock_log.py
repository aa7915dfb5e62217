"""What the stock port writes to the log about a protocol."""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol
from twisted.python import log


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
