"""C{twistd udpecho}: from the command line to the service."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, MutableMapping, Sequence
from ipaddress import ip_address
from itertools import permutations
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.python import usage

from udpecho.daemon.environment import readPassed, removePassed
from udpecho.daemon.service import Daemon, NewSettings
from udpecho.daemon.socket_activation import ALL, ActivationError, activatedSockets
from udpecho.daemon.start_errors import CannotStart, checkLibrary, exitOnStartError
from udpecho.net.reuseport import canShare
from udpecho.parsing import optionValue
from udpecho.printing import escapeWhatDoesNotFit
from udpecho.server.service import EchoService
from udpecho.server.settings import LIST, OPTIONS, SWITCH, Option, settingsFrom

if TYPE_CHECKING:
    from udpecho.daemon.command_line import CommandLine


def _usage(option: Option) -> str:
    return option.description + (f" [default: {option.defaultText}]" if option.defaultText else "")


class Options(usage.Options):
    """The options of C{twistd udpecho}, which are those of L{OPTIONS}.

    @ivar commandLine: the file behind the command line, if it has one or if it matters what the command line itself has.
    @ivar passed: what systemd has passed in the environment.
    """

    synopsis = "[options]"
    longdesc = "A UDP echo server (RFC 862): every datagram goes back to where it came from."
    commandLine: CommandLine | None = None

    optParameters = [
        [option.name, option.short, option.default, _usage(option)]
        for option in OPTIONS.values()
        if option.kind not in (LIST, SWITCH)
    ]
    optFlags = [[option.name, option.short, _usage(option)] for option in OPTIONS.values() if option.kind == SWITCH]

    def __init__(self) -> None:
        super().__init__()
        escapeWhatDoesNotFit()
        self.passed = readPassed(os.environ)
        self.update({option.name: [] for option in OPTIONS.values() if option.kind == LIST})

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read a command line, and the file that it names.

        @raise SystemExit: after C{--check-config}.
        """
        self.arguments = list(sys.argv[1:] if options is None else options)
        # A server without a file starts sooner without the modules that read one.
        if not any(argument.startswith(("--c", "--s")) for argument in self.arguments):
            super().parseOptions(self.arguments)
            return
        from udpecho.daemon.command_line import check, fileToCheck
        from udpecho.daemon.config_file import ConfigurationError

        path = fileToCheck(self, self.arguments)
        if path is not None:
            raise SystemExit(check(path, self._parseWithFile))
        try:
            self._parseWithFile()
        except ConfigurationError as e:
            raise usage.UsageError(str(e)) from None

    def _parseWithFile(self) -> None:
        from udpecho.daemon.command_line import expand

        self.commandLine = expand(self, self.arguments)
        super().parseOptions(list(self.commandLine.arguments))

    def postOptions(self) -> None:
        """@raise usage.UsageError: if a value is wrong, or excludes another."""
        for option in OPTIONS.values():
            if option.parse is not None and isinstance(self[option.name], str):
                self[option.name] = optionValue(option.parse, option.name, self[option.name])
        if self["workers"] > 1 and not canShare:
            raise usage.UsageError("--workers: must be 1 on this system, which cannot share a port among processes")
        if self["metrics"] is not None:
            checkLibrary()
        self._checkInterfaces()
        self._checkActivation()

    def _checkActivation(self) -> None:
        names = self["socket-activation"]
        if not names:
            return
        found = self.commandLine
        if self["interface"] or (found is not None and ("port" in found.given or "port" in found.values)):
            raise usage.UsageError("--socket-activation: the sockets are bound: leave --port and --interface out")
        if self["workers"] > 1:
            raise usage.UsageError("--socket-activation: one process serves on passed sockets: leave --workers out")
        again = [name for index, name in enumerate(names) if name in names[:index] or (ALL in names and name != ALL)]
        if again:
            raise usage.UsageError(f"--socket-activation: each socket must be selected once, got {again[0]!a} again")

    def _checkInterfaces(self) -> None:
        for interface, other in permutations(self["interface"], 2):
            address, another = ip_address(interface), ip_address(other)
            if address == another:
                raise usage.UsageError(f"--interface: each must be given once, got {other} twice")
            if address.is_unspecified and another.version == address.version:
                raise usage.UsageError(f"--interface: {address} has {another} in it: give one of them")


def _listMethod(option: Option) -> Callable[[usage.Options, str], None]:
    """The method that Twisted calls with each value of an option that may be given several times."""

    def add(self: usage.Options, text: str) -> None:
        found = text if option.parse is None else optionValue(option.parse, option.name, text)
        # The name of a network may stand for several.
        self[option.name] += [found] if isinstance(found, str) else found

    add.__doc__ = _usage(option)
    return add


def _addMethods() -> None:
    """Twisted calls methods for the options that it does not store itself."""
    for option in OPTIONS.values():
        if option.kind == LIST:
            method = _listMethod(option)
            setattr(Options, f"opt_{option.name.replace('-', '_')}", method)
            if option.short is not None:
                setattr(Options, f"opt_{option.short}", method)


_addMethods()


class _CommandLineDaemon(Daemon):
    def privilegedStartService(self) -> None:
        exitOnStartError(super().privilegedStartService)

    def startService(self) -> None:
        exitOnStartError(super().startService)


def makeService(options: Options) -> IService:
    """Make the service for a command line."""
    from twisted.internet import reactor

    running: Any = reactor
    removePassed(os.environ)
    serviceOptions, policy = settingsFrom(options)
    echo = EchoService(
        running,
        options["port"],
        options["interface"] or None,
        guard=policy,
        sockets=_activatedSockets(options.passed, options["socket-activation"]),
        options=serviceOptions,
    )
    reload = None if options["config"] is None else _Reload(options)
    return _CommandLineDaemon(
        running, echo, options.passed, metrics=options["metrics"], reload=reload, payloadSize=serviceOptions.maxPayload
    )


def _activatedSockets(passed: MutableMapping[str, str], selection: Sequence[str]) -> list[socket.socket] | None:
    try:
        return activatedSockets(passed, selection) if selection else None
    except ActivationError as e:
        raise CannotStart(str(e)) from None


class _Reload:
    """Reads a command line and its file again."""

    def __init__(self, options: Options) -> None:
        assert options.commandLine is not None
        self._arguments = options.arguments
        self._inUse = options.commandLine.values

    def __call__(self) -> NewSettings:
        """@raise ValueError: if the file cannot be used."""
        from udpecho.daemon.command_line import compare

        options = Options()
        try:
            options.parseOptions(self._arguments)
        except usage.UsageError as e:
            raise ValueError(str(e)) from None
        found = options.commandLine
        assert found is not None
        changes = compare(self._inUse, found.values, found.given)
        # What needs a restart is reported each time until there was one.
        kept = {name: value for name, value in self._inUse.items() if name in changes.needRestart}
        self._inUse = {**{name: value for name, value in found.values.items() if name not in changes.needRestart}, **kept}
        serviceOptions, policy = settingsFrom(options)
        return NewSettings(policy, serviceOptions.logDatagrams, changes.applicable, changes.needRestart)
