"""
C{twistd udpecho-client}: standard input to a peer, its replies to the log, then the reactor stops.
"""

from __future__ import annotations

import sys

from twisted.application.service import IService
from twisted.internet.abstract import isIPv6Address
from twisted.python import usage

from udpecho.addresses import parseLocalAddress, parsePort
from udpecho.arguments import optionValue, parsePayloadSize, parseSeconds
from udpecho.client import TIMEOUT
from udpecho.service import DEFAULT_PORT
from udpecho.transfer import ClientService, Transfer


class Options(usage.Options):
    """
    The options of C{twistd udpecho-client}.
    """

    synopsis = "--host HOST --port PORT [options] < FILE"
    longdesc = (
        "A UDP echo client: sends standard input as one datagram, or in pieces with --chunk, logs each reply or its failure,"
        " and stops. Run it with twistd -n."
    )

    optParameters = [
        ["host", "H", None, "The server's name or IP address."],
        ["port", "p", str(DEFAULT_PORT), "The server's UDP port."],
        ["timeout", "t", f"{TIMEOUT:g}", "Seconds to wait for each reply."],
        ["bind", "b", None, "The local address to send from: ADDR, ADDR:PORT or [ADDR]:PORT. [default: the system's choice]"],
        ["chunk", "c", None, "Send datagrams of so many bytes. [default: the whole input as one]"],
    ]
    optFlags = [["no-verify", None, "Take the first datagram from the server, whatever is in it."]]

    def postOptions(self) -> None:
        """
        Read the values.

        @raise usage.UsageError: if one is wrong.
        """
        if not self["host"]:
            raise usage.UsageError("--host: the server's name or IP address is missing")
        if self["host"].startswith("[") or (":" in self["host"] and not isIPv6Address(self["host"])):
            raise usage.UsageError(f"--host: {self['host']!r} is no host: a name or an IP address is, without a port")
        self["port"] = optionValue(parsePort, "port", self["port"])
        self["timeout"] = optionValue(parseSeconds, "timeout", self["timeout"])
        if self["bind"] is not None:
            self["bind"] = optionValue(parseLocalAddress, "bind", self["bind"])
        if self["chunk"] is not None:
            self["chunk"] = optionValue(lambda text: parsePayloadSize(text, lowest=1), "chunk", self["chunk"])
        if sys.stdin is None:
            raise usage.UsageError("standard input is closed: there is nothing to send")
        if self.parent is not None and not self.parent.get("nodaemon", True):
            raise usage.UsageError("a daemon has no standard input to send: run twistd -n udpecho-client")


def makeService(options: Options) -> IService:
    """
    Make the client that the command line asks for.
    """
    from twisted.internet import reactor

    service: IService = ClientService(
        reactor,
        Transfer(
            options["host"],
            options["port"],
            options["timeout"],
            not options["no-verify"],
            options["bind"],
            options["chunk"],
        ),
    )
    return service
