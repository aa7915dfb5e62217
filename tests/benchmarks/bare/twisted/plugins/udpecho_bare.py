"""A plugin that does nothing, to set ours beside: C{twistd -n udpecho-bare --tell PORT}."""

from __future__ import annotations

import socket

from twisted.application.service import IServiceMaker, Service
from twisted.plugin import IPlugin
from twisted.python import usage
from zope.interface import implementer


class Options(usage.Options):
    """Whom to tell that the reactor runs."""

    optParameters = [["tell", None, None, "a UDP port of 127.0.0.1 that gets a datagram when the reactor runs", int]]


class Bare(Service):
    """Tells that the reactor runs, and does no more: the moment in which a server would give its first answer."""

    def __init__(self, port: int) -> None:
        self._port = port

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        reactor.callWhenRunning(self._tell)

    def _tell(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"running", ("127.0.0.1", self._port))


@implementer(IServiceMaker, IPlugin)
class BareMaker:
    """Makes the service."""

    tapname = "udpecho-bare"
    description = "Nothing, for the benchmarks."
    options = Options

    def makeService(self, options: Options) -> Bare:
        return Bare(options["tell"])


bare = BareMaker()
