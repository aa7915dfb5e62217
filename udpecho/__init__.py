"""UDP echo for Twisted: a server (RFC 862), a connected client with a deadline, a prober, and a test kit.

The names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from udpecho._version import __version__

#: The public names of each module. A type checker reads the imports below instead; a test compares them.
_modules = {
    "addresses": "DatagramAddress",
    "client.connect": "connect echo",
    "client.protocol": "EchoClient Reply",
    "daemon.drop_log": "DropLog",
    "daemon.health": "SelfEcho",
    "daemon.http_pages": "MetricsService",
    "errors": "ClientClosed EchoError HostUnreachable MessageTooLong NetworkUnreachable PortUnreachable ResponseTimeout",
    "faults.decision": "Decision",
    "faults.models": "GilbertElliott Jitter",
    "faults.plan": "FaultPlan",
    "faults.proxy": "FaultProxy",
    "guard.guard": "Guard",
    "guard.networks": "parseNetwork",
    "guard.policy": "GuardPolicy",
    "interfaces": (
        "DROP_REASONS GuardLike IBatchReceiver IDatagramAddressReceiver IDatagramBatch IDropReceiver INetworkErrorReceiver"
    ),
    "net.open": "listen",
    "net.options": "PortOptions",
    "net.port": "DatagramPort",
    "net.replace": "useDatagramPorts",
    "probe.flow": "Flow",
    "probe.io.socket": "SocketOptions",
    "probe.outcomes": "Event Outcome",
    "probe.prober": "Prober",
    "probe.schedule": "Plan",
    "probe.service": "ProbeService",
    "probe.stats.summary": "Statistics",
    "probe.target": "Target",
    "server.counters": "Counters CountersView",
    "server.metrics": "makeRegistry",
    "server.protocol": "EchoServer",
    "server.service": "EchoService",
    "server.settings": "ServiceOptions",
    "testing.memory_host": "MemoryHost",
    "testing.memory_network": "MemoryNetwork",
    "testing.trial": "RunningServer UDPEchoMixin",
}
_homes = {name: module for module, names in _modules.items() for name in names.split()}

if TYPE_CHECKING:
    from udpecho.addresses import DatagramAddress
    from udpecho.client.connect import connect, echo
    from udpecho.client.protocol import EchoClient, Reply
    from udpecho.daemon.drop_log import DropLog
    from udpecho.daemon.health import SelfEcho
    from udpecho.daemon.http_pages import MetricsService
    from udpecho.errors import (
        ClientClosed,
        EchoError,
        HostUnreachable,
        MessageTooLong,
        NetworkUnreachable,
        PortUnreachable,
        ResponseTimeout,
    )
    from udpecho.faults.decision import Decision
    from udpecho.faults.models import GilbertElliott, Jitter
    from udpecho.faults.plan import FaultPlan
    from udpecho.faults.proxy import FaultProxy
    from udpecho.guard.guard import Guard
    from udpecho.guard.networks import parseNetwork
    from udpecho.guard.policy import GuardPolicy
    from udpecho.interfaces import (
        DROP_REASONS,
        GuardLike,
        IBatchReceiver,
        IDatagramAddressReceiver,
        IDatagramBatch,
        IDropReceiver,
        INetworkErrorReceiver,
    )
    from udpecho.net.open import listen
    from udpecho.net.options import PortOptions
    from udpecho.net.port import DatagramPort
    from udpecho.net.replace import useDatagramPorts
    from udpecho.probe.flow import Flow
    from udpecho.probe.io.socket import SocketOptions
    from udpecho.probe.outcomes import Event, Outcome
    from udpecho.probe.prober import Prober
    from udpecho.probe.schedule import Plan
    from udpecho.probe.service import ProbeService
    from udpecho.probe.stats.summary import Statistics
    from udpecho.probe.target import Target
    from udpecho.server.counters import Counters, CountersView
    from udpecho.server.metrics import makeRegistry
    from udpecho.server.protocol import EchoServer
    from udpecho.server.service import EchoService
    from udpecho.server.settings import ServiceOptions
    from udpecho.testing.memory_host import MemoryHost
    from udpecho.testing.memory_network import MemoryNetwork
    from udpecho.testing.trial import RunningServer, UDPEchoMixin
else:

    def __getattr__(name):
        if name not in _homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"udpecho.{_homes[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "DROP_REASONS",
    "ClientClosed",
    "Counters",
    "CountersView",
    "DatagramAddress",
    "DatagramPort",
    "Decision",
    "DropLog",
    "EchoClient",
    "EchoError",
    "EchoServer",
    "EchoService",
    "Event",
    "FaultPlan",
    "FaultProxy",
    "Flow",
    "GilbertElliott",
    "Guard",
    "GuardLike",
    "GuardPolicy",
    "HostUnreachable",
    "IBatchReceiver",
    "IDatagramAddressReceiver",
    "IDatagramBatch",
    "IDropReceiver",
    "INetworkErrorReceiver",
    "Jitter",
    "MemoryHost",
    "MemoryNetwork",
    "MessageTooLong",
    "MetricsService",
    "NetworkUnreachable",
    "Outcome",
    "Plan",
    "PortOptions",
    "PortUnreachable",
    "ProbeService",
    "Prober",
    "Reply",
    "ResponseTimeout",
    "RunningServer",
    "SelfEcho",
    "ServiceOptions",
    "SocketOptions",
    "Statistics",
    "Target",
    "UDPEchoMixin",
    "__version__",
    "connect",
    "echo",
    "listen",
    "makeRegistry",
    "parseNetwork",
    "useDatagramPorts",
]
