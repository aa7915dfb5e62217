"""Why a daemon cannot start. What this needs is imported by every daemon, so that a failed start imports nothing more."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet import error
from twisted.logger import Logger
from twisted.python import usage

from udpecho.addresses import formatAddress
from udpecho.net.features import Refused
from udpecho.net.sockets import TENTATIVE, checkBindable, duplicateDetection

#: How much of an exception twistd prints on the terminal when it has gone to the background, in bytes, less C{"1 udpecho: "}.
_maxSummary = 100 - 11
#: Seconds in which an address must be usable. The detection takes about two, and starts anew when a link comes up.
_detectionTimeout = 10
_pollInterval = 0.05
_log = Logger()
_hints = {
    errno.EADDRINUSE: "; choose another --port",
    errno.EACCES: "; ports below 1024 are for root",
    errno.EADDRNOTAVAIL: "; --interface is an address of this machine",
}
_sendHints = {
    errno.EADDRINUSE: "leave the port of --bind out",
    errno.EACCES: "ports below 1024 are for root",
    errno.EADDRNOTAVAIL: "--bind is an address of this machine",
}


class CannotServeMetrics(error.CannotListenError):
    """The HTTP pages cannot be served on their endpoint. C{interface} is that, as the user wrote it."""

    hint = "choose another --metrics"

    @property
    def host(self) -> str:
        """The IP address of the endpoint, or an empty text."""
        found = re.search(r"interface=((?:[^:\\]|\\.)*)", self.interface)
        return "" if found is None else found[1].replace("\\", "")

    def __str__(self) -> str:
        reason = getattr(self.socketError, "strerror", None) or self.socketError
        return f"cannot serve metrics on {self.interface}: {reason}"


class CannotSend(error.CannotListenError):
    """The system refuses the local address of C{--bind}."""

    @property
    def host(self) -> str:
        """The IP address."""
        return str(self.interface)

    @property
    def hint(self) -> str:
        """What to do about it."""
        return _sendHints.get(self.socketError.errno, "choose another --bind")

    def __str__(self) -> str:
        return f"cannot send from {formatAddress((self.interface, self.port))}: {self.socketError.strerror}"


def checkSender(host: str, port: int) -> None:
    """@raise CannotSend: if no socket can be bound to a local address."""
    try:
        checkBindable(host, port)
    except error.CannotListenError as e:
        raise CannotSend(host, port, e.socketError) from None


class CannotStart(SystemExit, Exception):
    """The service cannot start, for a reason that the operator can mend: one line on standard error, and exit status 1.

    C{twistd} cleans up after any C{Exception}, and Python prints no traceback for a C{SystemExit}: this is both. In the
    background C{twistd} prints the start of the qualified name and the text (C{_formatChildException} in
    C{twisted.scripts._twistd_unix}); so the name is short, and the text is one that fits.
    """

    def __init__(self, sentence: str, *shorter: str) -> None:
        """@param sentence: the text of the line.
        @param shorter: the same in fewer words, for where it does not fit.
        """
        super().__init__(f"udpecho: {sentence}")
        self._sentences = (sentence, *shorter)

    def __str__(self) -> str:
        return next((text for text in self._sentences if len(text) <= _maxSummary), self._sentences[-1])


CannotStart.__module__, CannotStart.__qualname__ = "builtins", "udpecho"


def checkLibrary() -> None:
    """@raise usage.UsageError: if the library that C{--metrics} needs is missing."""
    from udpecho.server.metrics import requireLibrary

    try:
        requireLibrary()
    except ImportError as e:
        raise usage.UsageError(f"--metrics: {e}") from None


class ExitOnStartError(Service):
    """Put before a daemon's class in a list of bases, makes its start errors L{CannotStart}."""

    def privilegedStartService(self) -> None:
        """@raise CannotStart: if the system refuses an address of the daemon."""
        exitOnStartError(super().privilegedStartService)

    def startService(self) -> None:
        """@raise CannotStart: if the system refuses an address of the daemon."""
        exitOnStartError(super().startService)


def exitOnStartError(start: Callable[[], None]) -> None:
    """Bind the addresses of the daemon. At the boot one may be tentative for a while: that is waited for.

    @raise CannotStart: if the system refuses one.
    """
    try:
        _startWhenUsable(start)
    except KeyboardInterrupt:
        raise CannotStart("interrupted") from None
    except (CannotServeMetrics, CannotSend) as e:
        state = duplicateDetection(e.host)
        raise CannotStart(f"{e}; {f'the address is {state}' if state else e.hint}", str(e)) from None
    except error.CannotListenError as e:
        address = formatAddress((e.interface, e.port))
        reason = e.socketError
        if isinstance(reason, Refused):
            raise CannotStart(str(reason.strerror)) from None
        hint = _hints.get(reason.errno, "") if reason.errno != errno.EACCES or e.port < 1024 else ""
        state = duplicateDetection(e.interface)
        if state is not None:
            raise CannotStart(f"cannot listen on {address}: the address is {state}", f"{address} is {state}") from None
        sentence = f"cannot listen on {address}: {reason.strerror}"
        raise CannotStart(sentence + hint, sentence, f"{reason.strerror}: {address}") from None


def _startWhenUsable(start: Callable[[], None]) -> None:
    # Nothing else runs yet: the reactor is started later, and signals end the process.
    isLogged = isTriedAgain = False
    for left in reversed(range(int(_detectionTimeout / _pollInterval) + 1)):
        try:
            start()
            return
        except error.CannotListenError as e:
            host = getattr(e, "host", e.interface)
            if not left or getattr(e.socketError, "errno", None) != errno.EADDRNOTAVAIL:
                raise
            isTentative = duplicateDetection(host) == TENTATIVE
            if not isTentative and isTriedAgain:
                raise
        # One that is not tentative may have become usable since it was refused.
        isTriedAgain = not isTentative
        if isTentative:
            if not isLogged:
                isLogged = True
                _log.info("waiting for {host}: the address is {state}", host=host, state=TENTATIVE)
            time.sleep(_pollInterval)
