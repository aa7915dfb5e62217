"""The one table of options. The command line and the configuration file are made from it, and tests check that the tables in
the documentation have the same. What an option sets is a field of L{ServiceOptions} or L{GuardPolicy}.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.net.options import PortOptions
from udpecho.net.sockets import MAX_DATAGRAM
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
from udpecho.server.datagram_log import DEFAULT_LOG_RATE

#: The port that the server listens on by default.
DEFAULT_PORT = 1234

#: An option's value as the command line would have it: its text, those of an option that may be given several times, or whether
#: a switch is on.
Value = str | tuple[str, ...] | bool
#: Values by the names of their options.
Values = Mapping[str, Value]

TEXT, NUMBER, LIST, SWITCH = "text", "number", "list", "switch"


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


@dataclass(frozen=True)
class Option:
    """An option of C{twistd udpecho}.

    @ivar name: on the command line and in the configuration file.
    @ivar kind: L{TEXT}, a string; L{NUMBER}, a number, or a string such as C{"4M"} or C{"all"}; L{LIST}, a string or an array
        of strings; L{SWITCH}, C{true} or C{false}.
    @ivar metavar: what the documentation calls the value.
    @ivar default: the default as the command line would have it; C{None} if no text stands for it.
    @ivar parse: reads the text, and raises C{ValueError} if it is wrong; C{None} if any text will do.
    @ivar defaultText: what applies without the option, where there is no C{default}.
    @ivar owner: the class with a field for the value, if there is one. The field has the option's name, without C{no-},
        unless C{attribute} names it.
    @ivar reloads: whether a reload applies it while the server answers.
    @ivar inFile: whether the configuration file may have it.
    """

    name: str
    kind: str
    metavar: str = ""
    default: str | None = None
    help: str = ""
    parse: Callable[[str], object] | None = None
    defaultText: str = ""
    owner: type[ServiceOptions] | type[GuardPolicy] | None = None
    attribute: str = ""
    reloads: bool = False
    inFile: bool = True
    short: str | None = None

    @property
    def description(self) -> str:
        """The whole help."""
        return f"{self.help} May be given several times." if self.kind == LIST else self.help

    @property
    def field(self) -> str:
        """The name of the field."""
        first, *others = self.name.removeprefix("no-").split("-")
        return self.attribute or first + "".join(map(str.capitalize, others))

    def fieldValue(self, value: Any) -> Any:
        """The value for the field, from the parsed value."""
        if self.kind == LIST:
            return tuple(value)
        return bool(value) != self.name.startswith("no-") if self.kind == SWITCH else value


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
    Option("config", TEXT, "FILE", defaultText="none", inFile=False,
           help="A TOML file with options; those on the command line win. SIGHUP reads it again."),
    Option("check-config", TEXT, "FILE", defaultText="none", inFile=False,
           help="Print what is wrong with a configuration file and the options beside it, and exit."),
    Option("socket-activation", LIST, "NAME", defaultText="none", parse=parseSocketName,
           help="Serve on a socket that systemd has passed: its name, its position from 0, or all."),
    _service("workers", NUMBER, "N", str(ServiceOptions.workers), parse=parseWorkers,
             help="Processes that share the port (Linux only); auto for one on each processor."),
)
# fmt: on
#: All options by name, in the order of the documentation.
OPTIONS: Mapping[str, Option] = {option.name: option for option in _options}
#: The options that a configuration file may have.
FILE_OPTIONS: Mapping[str, Option] = {name: option for name, option in OPTIONS.items() if option.inFile}


def settingsFrom(values: Mapping[str, Any]) -> tuple[ServiceOptions, GuardPolicy]:
    """Make the settings objects of the parsed values, by the names of their options. An empty list stands for the default."""

    def fields(owner: type) -> dict[str, Any]:
        chosen = (option for option in _options if option.owner is owner and values[option.name] != [])
        return {option.field: option.fieldValue(values[option.name]) for option in chosen}

    return ServiceOptions(**fields(ServiceOptions)), GuardPolicy(**fields(GuardPolicy))


def toWorkerSettings(options: ServiceOptions, policy: GuardPolicy) -> dict[str, Any]:
    """What a worker needs, as JSON can carry it."""
    return {"options": asdict(options), "policy": policy.asSettings()}


def fromWorkerSettings(settings: Mapping[str, Any]) -> tuple[ServiceOptions, GuardPolicy]:
    """Read what L{toWorkerSettings} made."""
    return ServiceOptions(**settings["options"]), GuardPolicy.fromSettings(settings["policy"])
