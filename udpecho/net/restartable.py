"""A service that can be started while it stops."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.net.call_queue import CallQueue, cancelled

_log = Logger()


class RestartableService(Service):
    """A service whose stop takes time. A start during the stop takes place when the stop has ended and its addresses are free.

    A subclass has C{_bind}, C{_start} and C{_stop}, and calls this class's constructor.
    """

    def __init__(self) -> None:
        self._stopping: list[defer.Deferred[None]] = []
        self._startsAgain = False

    def _bind(self) -> None:
        """Bind what must be bound at the start, unless it is.

        @raise CannotListenError: if the system refuses an address; none is bound then.
        """
        raise NotImplementedError

    def _start(self) -> None:
        """Start with what is bound, if more is to be done."""

    async def _stop(self) -> None:
        """Stop, and close what was bound."""
        raise NotImplementedError

    def privilegedStartService(self) -> None:
        """Bind the addresses.

        @raise CannotListenError: if the system refuses one; none is bound then.
        """
        super().privilegedStartService()
        if not self._stopping:
            self._bind()

    def startService(self) -> None:
        """Start. The addresses are bound first, if C{privilegedStartService} has not been called.

        @raise CannotListenError: if the system refuses one; none is bound then. After a start during the stop, that is logged.
        """
        self._startsAgain = bool(self._stopping)
        super().startService()
        if self._startsAgain:
            return
        try:
            self._bind()
        except BaseException:
            super().stopService()
            raise
        if self.running and not self._stopping:
            # An observer of the log has not stopped it again.
            self._start()

    def stopService(self) -> defer.Deferred[None]:
        """Stop. May be called repeatedly.

        @return: fires when all has stopped and is closed.
        """
        super().stopService()
        self._startsAgain = False
        stopped: defer.Deferred[None] = defer.Deferred(cancelled)
        self._stopping.append(stopped)
        if len(self._stopping) == 1:
            defer.Deferred.fromCoroutine(self._stop()).addBoth(self._stopped)
        return stopped

    def _stopped(self, result: object) -> None:
        calls = CallQueue()
        calls.addResults(self._stopping, result)
        calls.add(self._startAgain)
        calls.run()

    def _startAgain(self) -> None:
        # A callback may have started it, or stopped it.
        if self._stopping or not self._startsAgain:
            return
        try:
            RestartableService.startService(self)
        except Exception as e:
            super().stopService()
            _log.error("cannot start again: {reason}", reason=str(e) or type(e).__name__, failure=Failure())
