"""C{twistd udpecho-probe}: continuous probes, and HTTP pages for Prometheus."""

from __future__ import annotations

import os
from functools import partial

from twisted.application.service import IService
from twisted.python import usage

from udpecho.daemon.environment import removePassed
from udpecho.daemon.options import DaemonOptions, Reload
from udpecho.daemon.paths import endpointLater
from udpecho.daemon.preload import preload
from udpecho.daemon.probe_service import ProbeDaemon
from udpecho.daemon.start_errors import ExitOnStartError
from udpecho.net.installed import installedReactor
from udpecho.net.stopping import allowSecondStop
from udpecho.net.threads import abandonThreads
from udpecho.parsing import checkFamily, firstTwice, optionValue, parseAddress
from udpecho.pieces import spareGarbageCollector
from udpecho.probe.service import ProbeService
from udpecho.probe.settings import OPTIONS, settingsFrom


class Options(DaemonOptions):
    """The options of C{twistd udpecho-probe}, which are those of L{OPTIONS}."""

    synopsis = "--target HOST:PORT [--target HOST:PORT ...] [--metrics tcp:9108] [options]"
    longdesc = (
        "Probes UDP echo servers (RFC 862) continuously, and exports round trips and outcomes for Prometheus at /metrics. Times"
        " are seconds or have a unit, as in 100ms."
    )
    table = OPTIONS

    def checkTogether(self) -> None:
        """@raise usage.UsageError: if a value excludes another."""
        targets = self["target"]
        if not targets:
            raise usage.UsageError("--target: one target or more must be given, as HOST:PORT, got none")
        twice = firstTwice(targets)
        if twice is not None:
            raise usage.UsageError(f"--target: each target must be given once, got {twice!r} twice")
        try:
            settingsFrom(self)
        except ValueError as e:
            raise usage.UsageError(str(e)) from None
        if self["bind"] is not None:
            self._checkBind(*self["bind"])

    def _checkBind(self, host: str, port: int) -> None:
        for target in self["target"]:
            optionValue(partial(checkFamily, host), "bind", parseAddress(target)[0])
        last = port + len(self["target"]) * self["sources"] - 1
        if port and last > 65535:
            raise usage.UsageError(f"--bind: local ports must be 1 to 65535, got {port} to {last} for all targets and sources")


class _CommandLineDaemon(ExitOnStartError, ProbeDaemon):
    def startService(self) -> None:
        super().startService()
        spareGarbageCollector()


def makeService(options: Options) -> IService:
    """Make the service for a command line."""
    reactor = installedReactor()
    preload(options)
    allowSecondStop(reactor)
    removePassed(os.environ)
    abandonThreads(reactor)
    metrics = None
    if options["metrics"] is not None:
        from udpecho.probe.metrics import ProbeMetrics

        metrics = ProbeMetrics()
    plan, socketOptions = settingsFrom(options)
    probes = ProbeService(
        reactor,
        options["target"],
        plan,
        sources=options["sources"],
        options=socketOptions,
        metrics=metrics,
        resolveInterval=options["resolve-interval"],
    )
    pages = endpointLater(options["metrics"], options)
    reload = None if options["config"] is None else Reload(reactor, options)
    return _CommandLineDaemon(reactor, probes, options.passed, metrics=pages, probeMetrics=metrics, reload=reload)
