"""Proofs that something works here as it is used."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from udpecho.errors import NO_DESCRIPTOR

_log = Logger()


class Proof:
    """A proof that is made once in a process: C{None} if all is right, else what is not.

    Whatever it raises is a refusal: how something shows that another Python, C library or kernel does not have, nobody knows
    beforehand. An C{OSError} is of the moment, as without the loopback interface: the next call makes the proof again.
    """

    def __init__(self, prove: Callable[[], str | None]) -> None:
        """@param prove: makes it. This decorates it."""
        self._prove = prove
        self.forget()

    def forget(self) -> None:
        """Make it again."""
        self._done = False
        self._fault: str | None = None

    def reason(self) -> str | None:
        """Why it does not work; C{None} if it does.

        @raise OSError: if there is no descriptor left to find out.
        """
        if not self._done:
            try:
                self._fault = self._prove()
            except OSError as e:
                if e.errno in NO_DESCRIPTOR:
                    raise
                return e.strerror or str(e)
            except Exception as e:
                _log.debug("{proof} raised {error!r}", proof=self._prove.__qualname__, error=e)
                self._fault = f"{type(e).__name__}: {e}"
            self._done = True
        return self._fault
