"""
UDP echo for Twisted: a server (RFC 862), a connected client with a deadline, a prober, and a test kit.

The names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from udpecho._version import __version__

if TYPE_CHECKING:
    from udpecho.addresses import DatagramAddress
    from udpecho.client.connect import connect, echo
    from udpecho.client.protocol import EchoClient, Reply
    from udpecho.errors import (
        ClientClosed,
        EchoError,
        HostUnreachable,
        MessageTooLong,
        NetworkUnreachable,
        PortUnreachable,
        ResponseTimeout,
    )
    from udpecho.faults.plan import FaultPlan
    from udpecho.faults.proxy import FaultProxy
    from udpecho.guard.guard import Guard
    from udpecho.guard.networks import parseNetwork
    from udpecho.guard.policy import GuardPolicy
    from udpecho.net.open import listen
    from udpecho.net.port import DatagramPort
    from udpecho.probe.prober import Prober
    from udpecho.probe.schedule import Plan
    from udpecho.probe.service import ProbeService
    from udpecho.probe.stats.summary import Statistics
    from udpecho.probe.target import Target
    from udpecho.server.counters import Counters
    from udpecho.server.protocol import EchoServer
    from udpecho.server.service import EchoService
    from udpecho.testing.memory_network import MemoryNetwork
    from udpecho.testing.trial import RunningServer
else:
    _homes = {
        "ClientClosed": "errors",
        "Counters": "server.counters",
        "DatagramAddress": "addresses",
        "DatagramPort": "net.port",
        "EchoClient": "client.protocol",
        "EchoError": "errors",
        "EchoServer": "server.protocol",
        "EchoService": "server.service",
        "FaultPlan": "faults.plan",
        "FaultProxy": "faults.proxy",
        "Guard": "guard.guard",
        "GuardPolicy": "guard.policy",
        "HostUnreachable": "errors",
        "MemoryNetwork": "testing.memory_network",
        "MessageTooLong": "errors",
        "NetworkUnreachable": "errors",
        "Plan": "probe.schedule",
        "PortUnreachable": "errors",
        "ProbeService": "probe.service",
        "Prober": "probe.prober",
        "Reply": "client.protocol",
        "ResponseTimeout": "errors",
        "RunningServer": "testing.trial",
        "Statistics": "probe.stats.summary",
        "Target": "probe.target",
        "connect": "client.connect",
        "echo": "client.connect",
        "listen": "net.open",
        "parseNetwork": "guard.networks",
    }

    def __getattr__(name):
        if name not in _homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"udpecho.{_homes[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ClientClosed",
    "Counters",
    "DatagramAddress",
    "DatagramPort",
    "EchoClient",
    "EchoError",
    "EchoServer",
    "EchoService",
    "FaultPlan",
    "FaultProxy",
    "Guard",
    "GuardPolicy",
    "HostUnreachable",
    "MemoryNetwork",
    "MessageTooLong",
    "NetworkUnreachable",
    "Plan",
    "PortUnreachable",
    "ProbeService",
    "Prober",
    "Reply",
    "ResponseTimeout",
    "RunningServer",
    "Statistics",
    "Target",
    "__version__",
    "connect",
    "echo",
    "listen",
    "parseNetwork",
]
