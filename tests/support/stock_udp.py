"""Runs Twisted's own UDP tests with L{DatagramPort} in the place of the stock port.

python -m tests.support.stock_udp [trial's options, as --reactor=poll]
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import udp
from twisted.internet.interfaces import IMulticastTransport
from zope.interface import implementer

from udpecho.net.port import DatagramPort

MODULES = ("twisted.test.test_udp", "twisted.internet.test.test_udp")


@implementer(IMulticastTransport)
class MulticastDatagramPort(udp.MulticastMixin, DatagramPort):  # type: ignore[name-defined]
    """L{udp.MulticastPort} with the other base."""

    def __init__(
        self,
        port: int,
        proto: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        reactor: Any = None,
        listenMultiple: bool = False,
    ) -> None:
        DatagramPort.__init__(self, port, proto, interface, maxPacketSize, reactor)
        self.listenMultiple = listenMultiple

    createInternetSocket = udp.MulticastPort.createInternetSocket


def main() -> None:
    """Run trial."""
    from twisted.scripts.trial import run

    # The reactors look these names up when they are asked to listen.
    udp.Port = DatagramPort  # type: ignore[misc]
    udp.MulticastPort = MulticastDatagramPort  # type: ignore[misc]
    sys.argv[1:] = [*sys.argv[1:], *MODULES]
    run()


if __name__ == "__main__":
    main()
