"""Read a file, a pipe or a terminal without blocking the reactor."""

from __future__ import annotations

import os
from contextlib import suppress

from twisted.internet import defer
from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure

from udpecho.interfaces import Reactor


class InputReader(FileDescriptor):
    """Reads bytes from a file descriptor on request.

    The descriptor stays in blocking mode, since it may be a terminal that other programs share: it is read only when the
    reactor reports that there is something. It is never closed here.
    """

    def __init__(self, reactor: Reactor, descriptor: int) -> None:
        """@param reactor: an C{IReactorFDSet} provider."""
        super().__init__(reactor)
        self._descriptor = descriptor
        self._wanted = 0
        self._got = bytearray()
        self._done: defer.Deferred[bytes] | None = None
        self._blocks = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name of this reader in logs."""
        return type(self).__name__

    def read(self, size: int) -> defer.Deferred[bytes]:
        """Read C{size} bytes, or fewer if the input ends before.

        @return: fires with the bytes; C{b""} at the end. Fails with C{OSError}. May be cancelled.
        """
        self._wanted = size
        done = self._done = defer.Deferred(self._cancelled)
        if os.name == "posix":
            self._blocks = os.get_blocking(self._descriptor)
            self.startReading()
        else:
            # Other systems cannot wait for files and terminals.
            while self._done is not None:
                self.doRead()
        return done

    def doRead(self) -> None:
        """Read what is there."""
        try:
            data = os.read(self._descriptor, self._wanted - len(self._got))
        except OSError:
            self._finish(Failure())
            return
        self._got += data
        if not data or len(self._got) >= self._wanted:
            self._finish()

    def connectionLost(self, reason: Failure) -> None:
        """The writing end of a pipe is closed, and nothing is left in it."""
        self._finish()

    def _cancelled(self, _: object) -> None:
        self._done = None
        self._finish()

    def _finish(self, failure: Failure | None = None) -> None:
        self.stopReading()
        if self._blocks:
            # uvloop has changed that, also for other programs on the terminal.
            with suppress(OSError):
                os.set_blocking(self._descriptor, True)
        done, self._done = self._done, None
        data = bytes(self._got)
        self._got.clear()
        if done is not None:
            done.callback(failure or data)
