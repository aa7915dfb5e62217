"""The least echo server on Twisted's own C{listenUDP}: C{stock.py HOST PORT}."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.protocol import DatagramProtocol


class Echo(DatagramProtocol):
    """Echoes."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


if __name__ == "__main__":
    reactor: Any = installed
    reactor.listenUDP(int(sys.argv[2]), Echo(), sys.argv[1])
    reactor.run()
