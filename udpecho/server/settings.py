"""The one table of options. The command line and the configuration file are made from it, and tests check that the tables in
the documentation have the same. What an option sets is a field of L{ServiceOptions} or L{GuardPolicy}.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.net.options import PortOptions
from udpecho.net.sockets import MAX_DATAGRAM
from udpecho.options import CONFIG, LIST, NUMBER, SWITCH, TEXT, Option, fieldsOf, makeTable
from udpecho.parsing import (
    MAX_WORKERS,
    checkTimeout,
    parseBytes,
    parseEndpoint,
    parseInterface,
    parseLimit,
    parseLogRate,
    parsePayloadSize,
    parsePort,
    parseSeconds,
    parseSocketName,
    parseWorkers,
)
from udpecho.pieces import Work
from udpecho.server.datagram_log import DEFAULT_LOG_RATE

#: The port that the server listens on by default.
DEFAULT_PORT = 1234


def checkInteger(name: str, value: int, lowest: int, highest: int) -> None:
    """@raise TypeError: if C{value} is not an integer.
    @raise ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must be {lowest} to {highest}, got {value!r}")


@dataclass(frozen=True)
class ServiceOptions:
    """How an L{EchoService <udpecho.server.service.EchoService>} serves.

    @ivar maxPayload: the longest payload to answer, in bytes; C{None} for UDP's own limit.
    @ivar logDatagrams: how many datagrams a second get their lines in the log; C{None} for all, 0 for none.
    @ivar writeTimeout: how many seconds a reply waits while the send queue is full.
    @ivar receiveBuffer: bytes of receive buffer to request for each interface, and for each worker; C{None} for the system's
        default.
    @ivar offload: whether the kernel may hand over, and take, segments of one flow as one batch entry (GRO, GSO).
    @ivar workers: how many processes serve, 1 to 256; with 1 it is this process.
    """

    maxPayload: int | None = None
    logDatagrams: int | None = DEFAULT_LOG_RATE
    writeTimeout: float = PortOptions.writeTimeout
    receiveBuffer: int | None = None
    offload: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        if self.maxPayload is not None:
            checkInteger("maxPayload", self.maxPayload, 0, MAX_DATAGRAM)
        if self.logDatagrams is not None:
            checkInteger("logDatagrams", self.logDatagrams, 0, sys.maxsize)
        checkTimeout(self.writeTimeout)
        if self.receiveBuffer is not None:
            # setsockopt(2) takes a C int, and Linux doubles the value.
            checkInteger("receiveBuffer", self.receiveBuffer, 1, 2**30 - 1)
        checkInteger("workers", self.workers, 1, MAX_WORKERS)


_port = partial(parsePort, lowest=0)
_limit = partial(parseLimit, lowest=0)
_burst = partial(parseLimit, lowest=1)
_service = partial(Option, owner=ServiceOptions)
_guard = partial(Option, owner=GuardPolicy)

# An option in one line or two, which the formatter would make eight.
# fmt: off
_options = (
    Option("port", NUMBER, "N", str(DEFAULT_PORT), parse=_port, short="p",
           help="The UDP port to listen on; 0 for any free one."),
    Option("interface", LIST, "ADDR", defaultText="127.0.0.1 and ::1", parse=parseInterface, short="i",
           help="A local IP address to listen on. 0.0.0.0 is all of IPv4, :: all of IPv6."),
    _service("max-payload", NUMBER, "N", defaultText="no limit", parse=parsePayloadSize,
             help="Drop datagrams of more than N bytes."),
    _service("log-datagrams", NUMBER, "RATE", str(ServiceOptions.logDatagrams), parse=parseLogRate, reloads=True,
             help="How many datagrams a second get their two lines in the log; 0 logs none, all logs every one."),
    _service("write-timeout", NUMBER, "SECONDS", f"{ServiceOptions.writeTimeout:g}", parse=parseSeconds,
             help="How long a reply waits while the send queue is full."),
    _service("receive-buffer", NUMBER, "BYTES", defaultText="the system's", parse=parseBytes,
             help="Receive buffer to request from the system, as in 4M."),
    _guard("allow", LIST, "NETWORK", defaultText="any", parse=parseNetwork, reloads=True,
           help="A network to answer, as 192.0.2.0/24, an address, private, loopback or any."),
    _guard("trust", LIST, "NETWORK", defaultText="loopback and private", parse=parseNetwork, reloads=True,
           help="A network to answer without a limit."),
    _guard("rate", NUMBER, "N", str(GuardPolicy.rate), parse=_limit, reloads=True,
           help="Datagrams a second to answer to each source that is not trusted; 0 for no limit."),
    _guard("burst", NUMBER, "N", str(GuardPolicy.burst), parse=_burst, reloads=True,
           help="How many datagrams of one such source may come at once."),
    _guard("max-rate", NUMBER, "N", str(GuardPolicy.maxRate), parse=_limit, reloads=True,
           help="Datagrams a second to answer to all sources together; 0 for no limit."),
    _guard("no-loop-guard", SWITCH, attribute="refuseLoops",
           help="Answer other servers and forged sources too, and do not limit the hops of replies."),
    _guard("dry-run", SWITCH, reloads=True, help="Count what the guard would drop, and drop nothing."),
    _service("no-offload", SWITCH, help="Receive and send each datagram separately: no GRO, no GSO."),
    Option("metrics", TEXT, "ENDPOINT", defaultText="nowhere", parse=parseEndpoint,
           help="Serve Prometheus metrics and health checks at ENDPOINT, as in tcp:9107:interface=127.0.0.1."),
    *CONFIG,
    Option("socket-activation", LIST, "NAME", defaultText="none", parse=parseSocketName,
           help="Serve on a socket that systemd has passed: its name, its position from 0, or all."),
    _service("workers", NUMBER, "N", str(ServiceOptions.workers), parse=parseWorkers,
             help="Processes that share the port (Linux only); auto for one on each processor, within the CPU quota."),
)
# fmt: on
#: All options by name, in the order of the documentation.
OPTIONS = makeTable(_options)


def settingsFrom(values: Mapping[str, Any]) -> tuple[ServiceOptions, GuardPolicy]:
    """Make the settings objects of the parsed values, by the names of their options. An empty list stands for the default."""
    service, guard = (fieldsOf(OPTIONS, owner, values) for owner in (ServiceOptions, GuardPolicy))
    return ServiceOptions(**service), GuardPolicy(**guard)


def toWorkerSettings(options: ServiceOptions, policy: GuardPolicy) -> Work[dict[str, Any]]:
    """What a worker needs, as JSON can carry it."""
    return {"options": asdict(options), "policy": (yield from policy.asSettings())}


def fromWorkerSettings(settings: Mapping[str, Any]) -> Work[tuple[ServiceOptions, GuardPolicy]]:
    """Read what L{toWorkerSettings} made."""
    return ServiceOptions(**settings["options"]), (yield from GuardPolicy.fromSettings(settings["policy"]))
