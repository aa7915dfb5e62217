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
    "interfaces": "DROP_REASONS GuardLike IBatchReceiver IDatagramBatch IDropReceiver INetworkErrorReceiver",
    "net.open": "listen",
    "net.options": "PortOptions",
    "net.port": "DatagramPort",
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
    "testing.memory_network": "MemoryHost MemoryNetwork",
    "testing.trial": "RunningServer UDPEchoMixin",
}
_homes = {name: module for module, names in _modules.items() for name in names.split()}

__all__ = ["__version__", *sorted(_homes)]

if TYPE_CHECKING:
    from udpecho.addresses import DatagramAddress as DatagramAddress
    from udpecho.client.connect import connect as connect
    from udpecho.client.connect import echo as echo
    from udpecho.client.protocol import EchoClient as EchoClient
    from udpecho.client.protocol import Reply as Reply
    from udpecho.daemon.drop_log import DropLog as DropLog
    from udpecho.daemon.health import SelfEcho as SelfEcho
    from udpecho.daemon.http_pages import MetricsService as MetricsService
    from udpecho.errors import ClientClosed as ClientClosed
    from udpecho.errors import EchoError as EchoError
    from udpecho.errors import HostUnreachable as HostUnreachable
    from udpecho.errors import MessageTooLong as MessageTooLong
    from udpecho.errors import NetworkUnreachable as NetworkUnreachable
    from udpecho.errors import PortUnreachable as PortUnreachable
    from udpecho.errors import ResponseTimeout as ResponseTimeout
    from udpecho.faults.decision import Decision as Decision
    from udpecho.faults.models import GilbertElliott as GilbertElliott
    from udpecho.faults.models import Jitter as Jitter
    from udpecho.faults.plan import FaultPlan as FaultPlan
    from udpecho.faults.proxy import FaultProxy as FaultProxy
    from udpecho.guard.guard import Guard as Guard
    from udpecho.guard.networks import parseNetwork as parseNetwork
    from udpecho.guard.policy import GuardPolicy as GuardPolicy
    from udpecho.interfaces import DROP_REASONS as DROP_REASONS
    from udpecho.interfaces import GuardLike as GuardLike
    from udpecho.interfaces import IBatchReceiver as IBatchReceiver
    from udpecho.interfaces import IDatagramBatch as IDatagramBatch
    from udpecho.interfaces import IDropReceiver as IDropReceiver
    from udpecho.interfaces import INetworkErrorReceiver as INetworkErrorReceiver
    from udpecho.net.open import listen as listen
    from udpecho.net.options import PortOptions as PortOptions
    from udpecho.net.port import DatagramPort as DatagramPort
    from udpecho.probe.flow import Flow as Flow
    from udpecho.probe.io.socket import SocketOptions as SocketOptions
    from udpecho.probe.outcomes import Event as Event
    from udpecho.probe.outcomes import Outcome as Outcome
    from udpecho.probe.prober import Prober as Prober
    from udpecho.probe.schedule import Plan as Plan
    from udpecho.probe.service import ProbeService as ProbeService
    from udpecho.probe.stats.summary import Statistics as Statistics
    from udpecho.probe.target import Target as Target
    from udpecho.server.counters import Counters as Counters
    from udpecho.server.counters import CountersView as CountersView
    from udpecho.server.metrics import makeRegistry as makeRegistry
    from udpecho.server.protocol import EchoServer as EchoServer
    from udpecho.server.service import EchoService as EchoService
    from udpecho.server.settings import ServiceOptions as ServiceOptions
    from udpecho.testing.memory_network import MemoryHost as MemoryHost
    from udpecho.testing.memory_network import MemoryNetwork as MemoryNetwork
    from udpecho.testing.trial import RunningServer as RunningServer
    from udpecho.testing.trial import UDPEchoMixin as UDPEchoMixin
else:

    def __getattr__(name):
        if name not in _homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"udpecho.{_homes[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
