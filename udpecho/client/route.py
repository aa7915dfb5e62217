"""Which of its peer's addresses a client uses, and when it opens its socket again.

Until the peer has answered, a refusal leads to the next address, and what is outstanding is sent there. When calls keep
failing, the name is looked up again: the client goes on to the next address, or to the same one from a new socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet import defer, error
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.addresses import DatagramAddress, formatAddress
from udpecho.errors import EXHAUSTED, EchoError
from udpecho.interfaces import Reactor
from udpecho.net.network_errors import connectFailure

#: The name is looked up again when so many calls in a row have failed, and no reply came for so many seconds.
RUN = 2
QUIET = 2.0
#: Each lookup without a reply after it doubles L{QUIET}, up to this.
MAX_QUIET = 60.0

_log = Logger()


class Route:
    """The addresses of one client's peer."""

    def __init__(
        self,
        reactor: Reactor,
        lookUp: Callable[[], defer.Deferred[list[DatagramAddress]]],
        open_: Callable[[DatagramAddress], object],
    ) -> None:
        """@param reactor: an C{IReactorTime}.
        @param lookUp: looks the peer's addresses up.
        @param open_: opens the client's socket, connected to one of them, in place of the one that it has. It raises
            C{OSError}, or C{error.CannotListenError} for the local address.
        """
        self._reactor = reactor
        self._lookUp = lookUp
        self._open = open_
        self._addresses: list[DatagramAddress] = []
        self._current = DatagramAddress(("", 0))
        self._untried: list[DatagramAddress] = []
        self._reasons: list[EchoError] = []
        self._answered = False
        self._failures = 0
        self._refusals = 0
        self._quiet = QUIET
        self._quietSince = reactor.seconds()
        self._looking: defer.Deferred[None] | None = None

    def start(self, addresses: list[DatagramAddress]) -> None:
        """Open the socket to the first address that the system takes.

        @raise EchoError: if it takes none, or there is no socket left.
        @raise error.CannotListenError: if it refuses the local address.
        """
        self._addresses = addresses
        self._untried = list(addresses)
        if not self._openNext():
            raise self._reason()

    def answered(self) -> None:
        """The peer has answered."""
        self._answered = True
        self._failures = self._refusals = 0
        self._quiet = QUIET
        self._quietSince = self._reactor.seconds()
        self._reasons = []

    def refused(self, reason: EchoError) -> EchoError | None:
        """The current address cannot be reached.

        @return: what the outstanding calls fail with; C{None} if the client is connected to another address now.
        """
        self._reasons.append(reason)
        try:
            if not self._answered and self._openNext():
                return None
        except (EchoError, error.CannotListenError) as e:
            self._reasons.append(e if isinstance(e, EchoError) else EchoError(str(e)))
        failure = self._reason()
        self._refusals += 1
        self.failed()
        return failure

    def failed(self) -> None:
        """A call has failed."""
        self._failures += 1
        now = self._reactor.seconds()
        if self._failures < RUN or now - self._quietSince < self._quiet or self._looking is not None:
            return
        silent = not self._refusals
        self._failures = self._refusals = 0
        self._quiet = min(2 * self._quiet, MAX_QUIET)
        self._quietSince = now
        looking = defer.maybeDeferred(self._lookUp)
        self._looking = looking.addCallbacks(self._found, _logUnlessCancelled, callbackArgs=(silent,))
        self._looking.addBoth(self._finished)

    def close(self) -> None:
        """Look nothing up any more."""
        if self._looking is not None:
            self._looking.cancel()

    def _finished(self, _: object) -> None:
        self._looking = None

    def _found(self, addresses: list[DatagramAddress], silent: bool) -> None:
        self._addresses = addresses
        others = self._others()
        # A new socket helps where the system, or the network, has kept something of the old one; not against a refusal.
        self._untried = others + [address for address in addresses if silent and address not in others]
        before = formatAddress(self._current)
        try:
            if self._untried and self._openNext():
                self._answered = False
                _log.warn("no reply from {before}: socket reopened to {peer}", before=before, peer=str(self._current))
        except (EchoError, error.CannotListenError) as e:
            _log.warn("no reply from {before}, and the socket cannot be reopened: {reason}", before=before, reason=str(e))
        self._reasons = []

    def _others(self) -> list[DatagramAddress]:
        """The other addresses, from the one after the current on."""
        if self._current not in self._addresses:
            return list(self._addresses)
        index = self._addresses.index(self._current)
        return self._addresses[index + 1 :] + self._addresses[:index]

    def _openNext(self) -> bool:
        """Go on to the next address that the system takes, if there is one."""
        while self._untried:
            address = self._untried.pop(0)
            try:
                self._open(address)
            except OSError as e:
                if e.errno in EXHAUSTED:
                    raise EchoError(f"cannot open a socket: {os.strerror(e.errno or 0)}", e.errno) from None
                self._reasons.append(connectFailure(e.errno or 0, address))
            else:
                self._current = address
                return True
        return False

    def _reason(self) -> EchoError:
        """One failure for all addresses that were tried; the next call tries them again."""
        reasons, self._reasons = self._reasons, []
        self._untried = self._others()
        last = reasons[-1]
        texts = dict.fromkeys(map(str, reasons))
        return last if len(texts) == 1 else type(last)("; ".join(texts), last.errno)


def _logUnlessCancelled(failure: Failure) -> None:
    if not failure.check(defer.CancelledError):
        _log.warn("cannot look up the peer again: {reason}", reason=failure.getErrorMessage())
