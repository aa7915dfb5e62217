"""C{twistd udpecho-probe}: from the command line to probes that go on for ever, and to the page that Prometheus fetches."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService, MultiService
from twisted.internet import endpoints
from twisted.python import usage

from udpecho.parsing import optionValue, parseAddress, parseInterval, parseLocalAddress, parseNumber, parseSizes, parseTOS
from udpecho.probe.io.socket import SocketOptions
from udpecho.probe.schedule import Plan
from udpecho.probe.service import ProbeService


class Options(usage.Options):
    """The options of C{twistd udpecho-probe}."""

    synopsis = "--target HOST:PORT [--target HOST:PORT ...] [--metrics tcp:9108] [options]"
    longdesc = (
        "Probes UDP echo servers (RFC 862) for ever, and exports round trips and outcomes for Prometheus at /metrics. Times are"
        " seconds or have a unit, as in 100ms."
    )

    optParameters = [
        ["interval", "i", "1", "Time between two probes to a target."],
        ["timeout", "W", "1", "A later reply is late, and the probe lost until it comes."],
        ["size", "s", "64", "Bytes in each probe, a list 64,512 or a range 64-1400:8, gone through again and again."],
        ["sources", None, "1", "Probe each target from so many ports."],
        ["bind", "b", None, "The local address to send from: ADDR or ADDR:PORT. [default: the system's choice]"],
        ["tos", "Q", None, "The traffic class: a byte, or the name of a code point, as in EF. [default: the system's]"],
        [
            "metrics",
            "m",
            None,
            "Where to answer Prometheus: a server endpoint, as in tcp:9108 or tcp:9108:interface=127.0.0.1.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def opt_target(self, target: str) -> None:
        """Whom to probe, HOST:PORT or [ADDR]:PORT; may be given several times."""
        optionValue(parseAddress, "target", target)
        if target in self.targets:
            raise usage.UsageError(f"--target: {target} is given twice: once is enough")
        self.targets.append(target)

    opt_t = opt_target

    def postOptions(self) -> None:
        """
        Read the values.

        @raise usage.UsageError: if one is wrong.
        """
        if not self.targets:
            raise usage.UsageError("--target: whom to probe is missing, HOST:PORT")
        self["interval"] = optionValue(parseInterval, "interval", self["interval"])
        self["timeout"] = optionValue(parseInterval, "timeout", self["timeout"])
        self["size"] = optionValue(parseSizes, "size", self["size"])
        self["sources"] = optionValue(lambda text: parseNumber(text, 1, 1024, "number of sources"), "sources", self["sources"])
        for name, parse in (("bind", parseLocalAddress), ("tos", parseTOS)):
            if self[name] is not None:
                self[name] = optionValue(parse, name, self[name])
        try:
            self.plan = Plan(interval=self["interval"], timeout=self["timeout"], sizes=self["size"])
        except ValueError as e:
            raise usage.UsageError(str(e)) from None
        if self["metrics"] is not None and find_spec("prometheus_client") is None:
            raise usage.UsageError("--metrics needs the package prometheus-client: install udpecho[metrics]")


def makeService(options: Options) -> IService:
    """
    Make the service that the command line asks for.

    @raise usage.UsageError: if C{--metrics} is no endpoint.
    """
    from twisted.internet import reactor

    running: Any = reactor
    both = MultiService()
    metrics: Any = None
    if options["metrics"] is not None:
        from twisted.web.resource import Resource
        from twisted.web.server import Site

        from udpecho.probe.metrics import MetricsPage, ProbeMetrics

        metrics = ProbeMetrics()
        root = Resource()
        root.putChild(b"metrics", MetricsPage([metrics]))
        try:
            endpoint = endpoints.serverFromString(running, options["metrics"])
        except (ValueError, TypeError, KeyError) as e:
            raise usage.UsageError(f"--metrics: {options['metrics']!r} is not a server endpoint, as tcp:9108 is: {e}") from None
        StreamServerEndpointService(endpoint, Site(root)).setServiceParent(both)
    ProbeService(
        running,
        options.targets,
        options.plan,
        sources=options["sources"],
        options=SocketOptions(options["bind"], options["tos"]),
        metrics=metrics,
    ).setServiceParent(both)
    service: IService = both
    return service
