"""C{twistd udpecho-client}: sends standard input to a server, logs its replies, and stops the reactor."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial

from twisted.application.service import IService, Service
from twisted.internet import defer, error
from twisted.internet.abstract import isIPv6Address
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from udpecho.addresses import formatAddress
from udpecho.client.protocol import TIMEOUT
from udpecho.client.transfer import Transfer, failureMessage
from udpecho.daemon.preload import preload
from udpecho.daemon.start_errors import ExitOnStartError, checkSender
from udpecho.errors import ResponseTimeout
from udpecho.interfaces import Reactor
from udpecho.net.installed import installedReactor
from udpecho.net.pipe import InputReader
from udpecho.net.stopping import allowSecondStop
from udpecho.net.threads import abandonThreads
from udpecho.parsing import checkFamily, optionValue, parseLocalAddress, parsePayloadSize, parsePort, parseSeconds
from udpecho.printing import escapeWhatDoesNotFit
from udpecho.server.settings import DEFAULT_PORT

_log = Logger()


class Options(usage.Options):
    """The options of C{twistd udpecho-client}."""

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
        ["chunk", "c", None, "Bytes in each datagram. [default: the whole input in one datagram]"],
    ]
    optFlags = [["no-verify", None, "Accept the first datagram from the server as the reply, whatever its payload."]]

    def __init__(self) -> None:
        super().__init__()
        escapeWhatDoesNotFit()

    def postOptions(self) -> None:
        """@raise usage.UsageError: if a value is wrong."""
        if not self["host"]:
            raise usage.UsageError("--host: the server's name or IP address must be given")
        if self["host"].startswith("[") or (":" in self["host"] and not isIPv6Address(self["host"])):
            raise usage.UsageError(f"--host: must be a name or an IP address, without a port, got {self['host']!r}")
        for name, parse in (
            ("port", parsePort),
            ("timeout", parseSeconds),
            ("bind", parseLocalAddress),
            ("chunk", lambda text: parsePayloadSize(text, lowest=1)),
        ):
            if self[name] is not None:
                self[name] = optionValue(parse, name, self[name])
        if self["bind"] is not None:
            optionValue(partial(checkFamily, self["bind"][0]), "bind", self["host"])
        if sys.stdin is None:
            raise usage.UsageError("standard input must be open: it is what is sent")
        if self.parent is not None and not self.parent.get("nodaemon", True):
            raise usage.UsageError("a daemon has no standard input to send: run twistd -n udpecho-client")


def makeService(options: Options) -> IService:
    """Make the service for a command line."""
    reactor = installedReactor()
    preload(options)
    abandonThreads(reactor)
    allowSecondStop(reactor)
    transfer = Transfer(
        options["host"], options["port"], options["timeout"], not options["no-verify"], options["bind"], options["chunk"]
    )
    return _CommandLineClient(reactor, transfer)


class ClientService(Service):
    """Runs one L{Transfer} and stops the reactor."""

    def __init__(self, reactor: Reactor, transfer: Transfer, descriptor: int = 0) -> None:
        """@param reactor: an C{IReactorCore}, C{IReactorTime}, C{IReactorUDP} and C{IReactorFDSet} provider; it is stopped.
        @param descriptor: the file descriptor of the input.
        """
        self._reactor = reactor
        self._transfer = transfer
        self._descriptor = descriptor
        self._running: defer.Deferred[None] | None = None

    def startService(self) -> None:
        """Start the transfer when the reactor runs.

        @raise CannotListenError: if the system refuses the local address to send from.
        """
        if self._transfer.bindAddress is not None:
            checkSender(*self._transfer.bindAddress)
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> defer.Deferred[None] | None:
        """Cancel the transfer."""
        super().stopService()
        if self._running is not None:
            self._running.cancel()
        return self._running

    def _begin(self) -> None:
        if not self.running:
            return
        source = InputReader(self._reactor, self._descriptor)
        running = defer.Deferred.fromCoroutine(self._transfer.run(self._reactor, source.read, self))
        running.addCallbacks(lambda sums: _log.info("{sums}", sums=str(sums), **asdict(sums)), self._failed)
        self._running = running.addBoth(self._finished)

    def written(self, size: int) -> None:
        """@see: L{Report.written}"""
        _log.info("packet-written: bytes={bytes}", bytes=size)

    def received(self, size: int, peer: tuple[str, int]) -> None:
        """@see: L{Report.received}"""
        _log.info("packet-received: bytes={bytes} from={from}", bytes=size, **{"from": formatAddress(peer)})

    def unanswered(self, reason: ResponseTimeout) -> None:
        """@see: L{Report.unanswered}"""
        _log.error("{reason}", reason=str(reason))

    def _failed(self, failure: Failure) -> None:
        if failure.check(defer.CancelledError):
            _log.info("interrupted: {sums}", sums=str(self._transfer.sums), **asdict(self._transfer.sums))
            return
        sentence = failureMessage(failure.value, "standard input")
        if sentence is None:
            _log.failure("the client failed", failure)
        else:
            _log.error("{reason}", reason=sentence)

    def _finished(self, _: object) -> None:
        self._running = None
        with suppress(error.ReactorNotRunning):
            self._reactor.stop()


class _CommandLineClient(ExitOnStartError, ClientService):
    pass
