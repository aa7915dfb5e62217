"""
C{twistd udpecho}: from the command line to the service.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.application.service import IService
from twisted.internet import error
from twisted.python import usage

from udpecho.addresses import formatAddress, parsePort
from udpecho.arguments import (
    optionValue,
    parseBytes,
    parseInterface,
    parseLimit,
    parsePayloadSize,
    parseRate,
    parseSeconds,
    parseWorkers,
)
from udpecho.guard import DEFAULT_BURST, GuardPolicy
from udpecho.guard import DEFAULT_RATE as DEFAULT_LIMIT
from udpecho.journal import DEFAULT_RATE
from udpecho.networks import ANY, LOOPBACK, PRIVATE, Network, parseNetwork
from udpecho.service import DEFAULT_PORT, EchoService
from udpecho.sockets.group import canShare
from udpecho.sockets.port import WRITE_TIMEOUT

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
    """
    The options of C{twistd udpecho}.
    """

    synopsis = "[options]"
    longdesc = "A UDP echo server (RFC 862): every datagram goes back to where it came from."

    optParameters = [
        ["port", "p", str(DEFAULT_PORT), "The UDP port to listen on; 0 for any free one."],
        ["max-payload", None, None, "Drop longer datagrams than so many bytes. [default: no limit]"],
        ["log-datagrams", None, str(DEFAULT_RATE), "Log so many datagrams a second, a line for each way; 0 for none, or all."],
        ["write-timeout", None, f"{WRITE_TIMEOUT:g}", "Seconds that a reply waits for a full send queue."],
        ["receive-buffer", None, None, "Bytes of receive buffer to ask of the system, as in 4M. [default: the system's]"],
        [
            "rate",
            None,
            str(DEFAULT_LIMIT),
            "Answer so many datagrams a second to a source not trusted; 0 for no limit.",
        ],
        ["burst", None, str(DEFAULT_BURST), "How many of them may come at once."],
        ["max-rate", None, "0", "Answer so many datagrams a second to all sources together; 0 for no limit."],
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
        """
        A network to answer without a limit; may be given several times. [default: loopback and private]
        """
        self.networks.setdefault("trust", []).extend(optionValue(parseNetwork, "trust", network))

    @property
    def policy(self) -> GuardPolicy:
        """
        What the guard is to do.
        """
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
        self["log-datagrams"] = optionValue(parseRate, "log-datagrams", self["log-datagrams"])
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
        self._checkInterfaces()

    def _checkInterfaces(self) -> None:
        """
        @raise usage.UsageError: if one interface is another, or has it in itself.
        """
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


class _CommandLineService(EchoService):
    """
    The service with its failure to start told in one line.
    """

    def privilegedStartService(self) -> None:
        self._orInOneLine(super().privilegedStartService)

    def startService(self) -> None:
        self._orInOneLine(super().startService)

    def _orInOneLine(self, start: Callable[[], None]) -> None:
        try:
            start()
        except error.CannotListenError as e:
            address = formatAddress((e.interface, e.port))
            reason = e.socketError
            hint = _hints.get(reason.errno, "")
            if reason.errno == errno.EINVAL and e.interface.lower().startswith("fe80:"):
                hint = f"; name its interface, as in {e.interface}%eth0"
            # twistd shows 100 bytes of it when it has gone to the background.
            raise CannotStart(f"udpecho: cannot listen on {address}: {reason.strerror}{hint}") from None


def makeService(options: Options) -> IService:
    """
    Make the server that the command line asks for.
    """
    from twisted.internet import reactor

    running: Any = reactor
    service: IService = _CommandLineService(
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
    )
    return service
