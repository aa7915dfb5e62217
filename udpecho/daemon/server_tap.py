"""C{twistd udpecho}: from the command line to the service."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet import error
from twisted.python import usage

from udpecho.addresses import formatAddress
from udpecho.daemon.service import Daemon, NewSettings
from udpecho.daemon.socket_activation import ActivationError, activatedSockets
from udpecho.daemon.start_errors import CannotServeMetrics
from udpecho.guard.networks import ANY, LOOPBACK, PRIVATE, Network, parseNetwork
from udpecho.guard.policy import DEFAULT_BURST, GuardPolicy
from udpecho.guard.policy import DEFAULT_RATE as DEFAULT_LIMIT
from udpecho.net.options import PortOptions
from udpecho.net.reuseport import canShare
from udpecho.parsing import (
    optionValue,
    parseBytes,
    parseEndpoint,
    parseInterface,
    parseLimit,
    parseLogRate,
    parsePayloadSize,
    parsePort,
    parseSeconds,
    parseWorkers,
)
from udpecho.server.datagram_log import DEFAULT_RATE
from udpecho.server.service import DEFAULT_PORT, EchoService

if TYPE_CHECKING:
    from udpecho.daemon.command_line import CommandLine

_hints = {
    errno.EADDRINUSE: "; choose another --port",
    errno.EACCES: "; ports below 1024 are for root",
    errno.EADDRNOTAVAIL: "; --interface is an address of this machine",
}


class CannotStart(SystemExit, Exception):
    """
    The service cannot start, for a reason that is the operator's to mend: one line on standard error, and exit status 1.

    C{twistd} cleans up after any C{Exception}, and Python prints no traceback for a C{SystemExit}: this is both.
    """


class Options(usage.Options):
    """The options of C{twistd udpecho}."""

    synopsis = "[options]"
    longdesc = "A UDP echo server (RFC 862): every datagram goes back to where it came from."
    #: What was read, where the file behind the command line, or what it has itself, matters.
    commandLine: CommandLine | None = None

    optParameters = [
        ["port", "p", str(DEFAULT_PORT), "The UDP port to listen on; 0 for any free one."],
        ["max-payload", None, None, "Drop longer datagrams than so many bytes. [default: no limit]"],
        ["log-datagrams", None, str(DEFAULT_RATE), "Log so many datagrams a second, a line for each way; 0 for none, or all."],
        ["write-timeout", None, f"{PortOptions.writeTimeout:g}", "Seconds that a reply waits for a full send queue."],
        ["receive-buffer", None, None, "Bytes of receive buffer to ask of the system, as in 4M. [default: the system's]"],
        [
            "rate",
            None,
            str(DEFAULT_LIMIT),
            "Answer so many datagrams a second to a source not trusted; 0 for no limit.",
        ],
        ["burst", None, str(DEFAULT_BURST), "How many of them may come at once."],
        ["max-rate", None, "0", "Answer so many datagrams a second to all sources together; 0 for no limit."],
        ["metrics", None, None, "Serve metrics there, as tcp:9107:interface=127.0.0.1. [default: nowhere]"],
        ["config", None, None, "A TOML file with more of these options; SIGHUP has it read again. [default: none]"],
        ["workers", None, "1", "Processes that share the port; auto for one on each processor."],
    ]

    optFlags = [
        ["no-loop-guard", None, "Answer also what may be another server's, or a forger's, and let replies go any way."],
        ["dry-run", None, "Count what the guard would drop, and drop nothing."],
        ["no-offload", None, "Have the system hand over each datagram for itself, and take each reply so."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.interfaces: list[str] = []
        self.networks: dict[str, list[Network]] = {}
        self.activated: list[str] = []

    def opt_interface(self, address: str) -> None:
        """
        A local IP address to listen on; may be given several times. 0.0.0.0 is all of IPv4, :: all of IPv6.
        [default: 127.0.0.1 and ::1]
        """
        self.interfaces.append(optionValue(parseInterface, "interface", address))

    opt_i = opt_interface

    def opt_allow(self, network: str) -> None:
        """
        A network to answer, as 192.0.2.0/24, an address, private, loopback or any; may be given several times. [default: any]
        """
        self.networks.setdefault("allow", []).extend(optionValue(parseNetwork, "allow", network))

    def opt_trust(self, network: str) -> None:
        """A network to answer without a limit; may be given several times. [default: loopback and private]"""
        self.networks.setdefault("trust", []).extend(optionValue(parseNetwork, "trust", network))

    def opt_socket_activation(self, which: str) -> None:
        """
        Serve on a socket that systemd has passed, by its name, by its place from 0, or all; may be given several times.
        [default: none]
        """
        self.activated.append(which)

    def opt_check_config(self, path: str) -> None:
        """Tell what is wrong with a configuration file, and exit."""
        from udpecho.daemon.command_line import check

        raise SystemExit(check(path, print, lambda arguments: type(self)().parseOptions(arguments)))

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read a command line, and the file that it names.

        @raise usage.UsageError: if one is wrong.
        """
        self.arguments = list(sys.argv[1:] if options is None else options)
        # A server without a file starts sooner when nothing is imported that reads one.
        if any(argument.startswith(("--c", "--s")) for argument in self.arguments):
            from udpecho.daemon.command_line import expand
            from udpecho.daemon.config_file import ConfigurationError

            try:
                self.commandLine = expand(self, self.arguments)
            except ConfigurationError as e:
                raise usage.UsageError(str(e)) from None
        super().parseOptions(self.arguments if self.commandLine is None else list(self.commandLine.arguments))

    @property
    def policy(self) -> GuardPolicy:
        """What the guard is to do."""
        return GuardPolicy(
            allow=tuple(self.networks.get("allow", ANY)),
            trust=tuple(self.networks.get("trust", (*LOOPBACK, *PRIVATE))),
            rate=self["rate"],
            burst=self["burst"],
            maxRate=self["max-rate"],
            loops=not self["no-loop-guard"],
            dryRun=bool(self["dry-run"]),
        )

    def postOptions(self) -> None:
        """
        Read the values.

        @raise usage.UsageError: if one is wrong.
        """
        self["port"] = optionValue(lambda text: parsePort(text, lowest=0), "port", self["port"])
        self["log-datagrams"] = optionValue(parseLogRate, "log-datagrams", self["log-datagrams"])
        self["write-timeout"] = optionValue(parseSeconds, "write-timeout", self["write-timeout"])
        if self["max-payload"] is not None:
            self["max-payload"] = optionValue(parsePayloadSize, "max-payload", self["max-payload"])
        if self["receive-buffer"] is not None:
            self["receive-buffer"] = optionValue(parseBytes, "receive-buffer", self["receive-buffer"])
        self["rate"] = optionValue(lambda text: parseLimit(text, 0), "rate", self["rate"])
        self["burst"] = optionValue(lambda text: parseLimit(text, 1), "burst", self["burst"])
        self["max-rate"] = optionValue(lambda text: parseLimit(text, 0), "max-rate", self["max-rate"])
        self["workers"] = optionValue(parseWorkers, "workers", self["workers"])
        if self["workers"] > 1 and not canShare:
            raise usage.UsageError("--workers: processes cannot share a port on this system: leave the option out")
        if self["metrics"] is not None:
            self._checkMetrics()
        self._checkInterfaces()
        self._checkActivation()

    def _checkMetrics(self) -> None:
        """@raise usage.UsageError: if metrics cannot be served as they are wanted."""
        from udpecho.server.metrics import requireLibrary

        self["metrics"] = optionValue(parseEndpoint, "metrics", self["metrics"])
        try:
            requireLibrary()
        except ImportError as e:
            raise usage.UsageError(f"--metrics: {e}") from None

    def _checkActivation(self) -> None:
        """@raise usage.UsageError: if sockets are to be passed, and others bound."""
        if self.activated:
            found = self.commandLine
            if self.interfaces or (found is not None and ("port" in found.given or "port" in found.values)):
                raise usage.UsageError("--socket-activation: the sockets are bound: leave --port and --interface out")
            if self["workers"] > 1:
                raise usage.UsageError("--socket-activation: one process serves on passed sockets: leave --workers out")

    def _checkInterfaces(self) -> None:
        """@raise usage.UsageError: if one interface is another, or has it in itself."""
        found: list[Any] = []
        for interface in self.interfaces:
            address = ip_address(interface)
            if address in found:
                raise usage.UsageError(f"--interface: {interface} is given twice: once is enough")
            found.append(address)
        for address in found:
            for other in found:
                if address.is_unspecified and other.version == address.version and other != address:
                    raise usage.UsageError(f"--interface: {other} is in {address} already: one of them is enough")


class _CommandLineDaemon(Daemon):
    """The daemon with its failure to start told in one line."""

    def privilegedStartService(self) -> None:
        self._exitOnStartError(super().privilegedStartService)

    def startService(self) -> None:
        self._exitOnStartError(super().startService)

    def _exitOnStartError(self, start: Callable[[], None]) -> None:
        try:
            start()
        except CannotServeMetrics as e:
            raise CannotStart(f"udpecho: {e}; choose another --metrics") from None
        except error.CannotListenError as e:
            address = formatAddress((e.interface, e.port))
            reason = e.socketError
            hint = _hints.get(reason.errno, "")
            if reason.errno == errno.EINVAL and e.interface.lower().startswith("fe80:"):
                hint = f"; name its interface, as in {e.interface}%eth0"
            # twistd shows 100 bytes of it when it has gone to the background.
            raise CannotStart(f"udpecho: cannot listen on {address}: {reason.strerror}{hint}") from None


def makeService(options: Options) -> IService:
    """Make the server that the command line asks for."""
    from twisted.internet import reactor

    running: Any = reactor
    echo = EchoService(
        running,
        options["port"],
        options.interfaces or None,
        maxPayload=options["max-payload"],
        logDatagrams=options["log-datagrams"],
        writeTimeout=options["write-timeout"],
        receiveBuffer=options["receive-buffer"],
        guard=options.policy,
        offload=not options["no-offload"],
        workers=options["workers"],
        sockets=_activatedSockets(options.activated),
    )
    reload = None if options["config"] is None else _Reload(options)
    return _CommandLineDaemon(
        running, echo, os.environ, metrics=options["metrics"], reload=reload, payloadSize=options["max-payload"]
    )


def _activatedSockets(selection: Sequence[str]) -> list[socket.socket] | None:
    """
    Take what systemd has passed, if it is wanted.

    @raise CannotStart: if it is not there, or not of the right kind.
    """
    if not selection:
        return None
    try:
        return activatedSockets(os.environ, selection)
    except ActivationError as e:
        raise CannotStart(f"udpecho: {e}") from None


class _Reload:
    """Reads a command line and its file again."""

    def __init__(self, options: Options) -> None:
        """@param options: what was read first."""
        assert options.commandLine is not None
        self._arguments = options.arguments
        self._known = options.commandLine.values

    def __call__(self) -> NewSettings:
        """
        Read.

        @raise ValueError: if what is there cannot be used.
        """
        from udpecho.daemon.command_line import compare

        options = Options()
        try:
            options.parseOptions(self._arguments)
        except usage.UsageError as e:
            raise ValueError(str(e)) from None
        found = options.commandLine
        assert found is not None
        changes = compare(self._known, found.values, given=found.given)
        # What needs a restart is told each time until there was one.
        kept = {name: value for name, value in self._known.items() if name in changes.needRestart}
        self._known = {**{name: value for name, value in found.values.items() if name not in changes.needRestart}, **kept}
        return NewSettings(options.policy, options["log-datagrams"], changes.applicable, changes.needRestart)
