"""The least echo server on asyncio, on its own event loop or on uvloop's: C{loop.py HOST PORT [uvloop]}."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any


class Echo(asyncio.DatagramProtocol):
    """Echoes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


def serve(host: str, port: int, kind: str) -> None:
    """Serve for ever.

    @param kind: C{asyncio} or C{uvloop}.
    """
    loop: asyncio.AbstractEventLoop = importlib.import_module(kind).new_event_loop()
    loop.run_until_complete(loop.create_datagram_endpoint(Echo, local_addr=(host, port)))
    loop.run_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "asyncio")
