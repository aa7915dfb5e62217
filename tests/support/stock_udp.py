"""Runs Twisted's own UDP tests with L{DatagramPort} in the place of the stock port.

python -m tests.support.stock_udp [trial's options, as --reactor=poll]
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import udp

from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort

MODULES = ("twisted.test.test_udp", "twisted.internet.test.test_udp")


class MulticastDatagramPort(DatagramPort):
    """It with the parameters of L{udp.MulticastPort}."""

    def __init__(
        self,
        port: int,
        proto: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        reactor: Any = None,
        listenMultiple: bool = False,
    ) -> None:
        super().__init__(port, proto, interface, maxPacketSize, reactor, PortOptions(listenMultiple=listenMultiple))


def main() -> None:
    """Run trial."""
    from twisted.scripts.trial import run

    # The reactors look these names up when they are asked to listen.
    udp.Port = DatagramPort  # type: ignore[misc]
    udp.MulticastPort = MulticastDatagramPort  # type: ignore[misc, assignment]
    sys.argv[1:] = [*sys.argv[1:], *MODULES]
    run()


if __name__ == "__main__":
    main()
