"""C{twistd udpecho-probe}: continuous probes, and an HTTP page for Prometheus."""

from __future__ import annotations

from twisted.application.service import IService, MultiService
from twisted.internet import defer
from twisted.python import usage

from udpecho.daemon.start_errors import checkLibrary, exitOnStartError
from udpecho.parsing import (
    optionValue,
    parseAddress,
    parseEndpoint,
    parseInterval,
    parseLocalAddress,
    parseNumber,
    parseSizes,
    parseTOS,
)
from udpecho.printing import escapeWhatDoesNotFit
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.schedule import Plan
from udpecho.probe.service import ProbeService


class Options(usage.Options):
    """The options of C{twistd udpecho-probe}."""

    synopsis = "--target HOST:PORT [--target HOST:PORT ...] [--metrics tcp:9108] [options]"
    longdesc = (
        "Probes UDP echo servers (RFC 862) continuously, and exports round trips and outcomes for Prometheus at /metrics. Times"
        " are seconds or have a unit, as in 100ms."
    )

    optParameters = [
        ["interval", "i", "1", "Time between two probes to a target."],
        ["timeout", "W", "1", "Time until a probe without a reply is lost; a reply after that is late."],
        ["size", "s", "64", "Bytes of payload: a size, a list 64,512 or a range 64-1400:8, used in turn."],
        ["sources", None, "1", "Number of local ports to probe each target from."],
        ["bind", "b", None, "The local address to send from: ADDR or ADDR:PORT. [default: the system's choice]"],
        ["tos", "Q", None, "The traffic class: a byte, or the name of a code point, as in EF. [default: the system's]"],
        ["metrics", "m", None, "Serve metrics at an endpoint, as in tcp:9108:interface=127.0.0.1. [default: nowhere]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        escapeWhatDoesNotFit()
        self.targets: list[str] = []

    def opt_target(self, target: str) -> None:
        """A server to probe, HOST:PORT or [ADDR]:PORT; may be given several times."""
        optionValue(parseAddress, "target", target)
        if target in self.targets:
            raise usage.UsageError(f"--target: each target must be given once, got {target!r} twice")
        self.targets.append(target)

    opt_t = opt_target

    def postOptions(self) -> None:
        """@raise usage.UsageError: if a value is wrong."""
        if not self.targets:
            raise usage.UsageError("--target: one target or more must be given, as HOST:PORT, got none")
        for name, parse in (
            ("interval", parseInterval),
            ("timeout", parseInterval),
            ("size", parseSizes),
            ("sources", lambda text: parseNumber(text, 1, 1024, "number of sources")),
            ("bind", parseLocalAddress),
            ("tos", parseTOS),
            ("metrics", parseEndpoint),
        ):
            if self[name] is not None:
                self[name] = optionValue(parse, name, self[name])
        try:
            self.plan = Plan(interval=self["interval"], timeout=self["timeout"], sizes=self["size"])
        except ValueError as e:
            raise usage.UsageError(str(e)) from None
        if self["metrics"] is not None:
            checkLibrary()


class _ProbeDaemon(MultiService):
    """The prober and its pages."""

    def privilegedStartService(self) -> None:
        exitOnStartError(super().privilegedStartService)


def makeService(options: Options) -> IService:
    """Make the service for a command line."""
    from twisted.internet import reactor

    daemon = _ProbeDaemon()
    metrics = None
    if options["metrics"] is not None:
        from udpecho.daemon.http_pages import MetricsService
        from udpecho.probe.metrics import ProbeMetrics, makeRegistry

        metrics = ProbeMetrics()
        # Targets that do not answer do not make the prober unhealthy: a restart would not help. They are in the metrics.
        pages = MetricsService(reactor, options["metrics"], makeRegistry(metrics), lambda: defer.succeed({"prober": None}))
        pages.setServiceParent(daemon)
    socketOptions = SocketOptions(options["bind"], options["tos"])
    prober = ProbeService(
        reactor, options.targets, options.plan, sources=options["sources"], options=socketOptions, metrics=metrics
    )
    prober.setServiceParent(daemon)
    return daemon
