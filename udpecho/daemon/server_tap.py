"""C{twistd udpecho}: from the command line to the service."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from ipaddress import ip_address

from twisted.application.service import IService
from twisted.python import usage

from udpecho.daemon.environment import removePassed
from udpecho.daemon.options import DaemonOptions, Reload
from udpecho.daemon.paths import endpointLater
from udpecho.daemon.preload import preload
from udpecho.daemon.service import Daemon
from udpecho.daemon.socket_activation import ALL, ActivationError, activatedSockets
from udpecho.daemon.start_errors import CannotStart, ExitOnStartError
from udpecho.net.installed import installedReactor
from udpecho.net.reuseport import canShare
from udpecho.net.stopping import allowSecondStop
from udpecho.parsing import firstTwice
from udpecho.pieces import spareGarbageCollector
from udpecho.server.service import EchoService
from udpecho.server.settings import OPTIONS, settingsFrom


class Options(DaemonOptions):
    """The options of C{twistd udpecho}, which are those of L{OPTIONS}."""

    synopsis = "[options]"
    longdesc = "A UDP echo server (RFC 862): every datagram goes back to where it came from."
    table = OPTIONS

    def checkTogether(self) -> None:
        """@raise usage.UsageError: if a value excludes another."""
        if self["workers"] > 1 and not canShare:
            raise usage.UsageError("--workers: must be 1 on this system, which cannot share a port among processes")
        self._checkInterfaces()
        self._checkActivation()

    def _checkActivation(self) -> None:
        names = self["socket-activation"]
        if not names:
            return
        found = self.commandLine
        if self["interface"] or "port" in found.given or "port" in found.values:
            raise usage.UsageError("--socket-activation: the sockets are bound: leave --port and --interface out")
        if self["workers"] > 1:
            raise usage.UsageError("--socket-activation: one process serves on passed sockets: leave --workers out")
        others = [name for name in names if name != ALL]
        again = others[0] if others and ALL in names else firstTwice(names)
        if again is not None:
            raise usage.UsageError(f"--socket-activation: each socket must be selected once, got {again!a} again")

    def _checkInterfaces(self) -> None:
        addresses = [ip_address(interface) for interface in self["interface"]]
        twice = firstTwice(addresses)
        if twice is not None:
            raise usage.UsageError(f"--interface: each must be given once, got {twice} twice")
        for address in filter(lambda one: one.is_unspecified, addresses):
            for another in addresses:
                if another.version == address.version and another != address:
                    raise usage.UsageError(f"--interface: {address} has {another} in it: give one of them")


class _CommandLineDaemon(ExitOnStartError, Daemon):
    def startService(self) -> None:
        super().startService()
        spareGarbageCollector()


def makeService(options: Options) -> IService:
    """Make the service for a command line."""
    reactor = installedReactor()
    preload(options)
    allowSecondStop(reactor)
    removePassed(os.environ)
    serviceOptions, policy = settingsFrom(options)
    echo = EchoService(
        reactor,
        options["port"],
        options["interface"] or None,
        guard=policy,
        sockets=_activatedSockets(options.passed, options["socket-activation"]),
        options=serviceOptions,
    )
    pages = endpointLater(options["metrics"], options)
    reload = None if options["config"] is None else Reload(reactor, options)
    return _CommandLineDaemon(
        reactor, echo, options.passed, metrics=pages, reload=reload, payloadSize=serviceOptions.maxPayload
    )


def _activatedSockets(passed: MutableMapping[str, str], selection: Sequence[str]) -> list[socket.socket] | None:
    try:
        return activatedSockets(passed, selection) if selection else None
    except ActivationError as e:
        raise CannotStart(str(e)) from None
