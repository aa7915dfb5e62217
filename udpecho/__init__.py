"""
UDP echo for Twisted: a server (RFC 862), a connected client with a deadline, a prober, and the UDP port they
stand on.

The names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from udpecho._version import __version__

if TYPE_CHECKING:
    from udpecho.addresses import DatagramAddress
    from udpecho.client import EchoClient, Reply, connect, echo
    from udpecho.counters import Counters
    from udpecho.errors import (
        ClientClosed,
        EchoError,
        HostUnreachable,
        MessageTooLong,
        NetworkUnreachable,
        PortUnreachable,
        ResponseTimeout,
    )
    from udpecho.probe.prober import Prober
    from udpecho.probe.statistics import Statistics
    from udpecho.server import EchoServer
    from udpecho.service import EchoService
    from udpecho.sockets.port import DatagramPort, listen

_homes = {
    "ClientClosed": "errors",
    "Counters": "counters",
    "DatagramAddress": "addresses",
    "DatagramPort": "sockets.port",
    "EchoClient": "client",
    "EchoError": "errors",
    "EchoServer": "server",
    "EchoService": "service",
    "HostUnreachable": "errors",
    "MessageTooLong": "errors",
    "NetworkUnreachable": "errors",
    "PortUnreachable": "errors",
    "Prober": "probe.prober",
    "Reply": "client",
    "ResponseTimeout": "errors",
    "Statistics": "probe.statistics",
    "connect": "client",
    "echo": "client",
    "listen": "sockets.port",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"udpecho.{_homes[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes})


__all__ = [
    "ClientClosed",
    "Counters",
    "DatagramAddress",
    "DatagramPort",
    "EchoClient",
    "EchoError",
    "EchoServer",
    "EchoService",
    "HostUnreachable",
    "MessageTooLong",
    "NetworkUnreachable",
    "PortUnreachable",
    "Prober",
    "Reply",
    "ResponseTimeout",
    "Statistics",
    "__version__",
    "connect",
    "echo",
    "listen",
]
