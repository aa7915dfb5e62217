"""Why a daemon cannot start. It stands alone, so that a failed start imports nothing more."""

from __future__ import annotations

from twisted.internet import error

#: How much of an exception twistd prints on the terminal when it has gone to the background, in bytes, less C{"1 udpecho: "}.
_maxSummary = 100 - 11


class CannotServeMetrics(error.CannotListenError):
    """The HTTP pages cannot be served on their endpoint."""

    def __init__(self, endpoint: str, reason: Exception) -> None:
        """@param endpoint: the endpoint, as the user wrote it.
        @param reason: what the system answered.
        """
        super().__init__(endpoint, None, reason)

    def __str__(self) -> str:
        reason = getattr(self.socketError, "strerror", None) or self.socketError
        return f"cannot serve metrics on {self.interface}: {reason}"


class CannotStart(SystemExit, Exception):
    """The service cannot start, for a reason that the operator can mend: one line on standard error, and exit status 1.

    C{twistd} cleans up after any C{Exception}, and Python prints no traceback for a C{SystemExit}: this is both. In the
    background C{twistd} prints the start of the qualified name and the text (C{_formatChildException} in
    C{twisted.scripts._twistd_unix}); so the name is short, and the text is one that fits.
    """

    def __init__(self, sentence: str, *shorter: str) -> None:
        """@param sentence: what the line says.
        @param shorter: the same in fewer words, for where it does not fit.
        """
        super().__init__(f"udpecho: {sentence}")
        self._sentences = (sentence, *shorter)

    def __str__(self) -> str:
        return next((text for text in self._sentences if len(text) <= _maxSummary), self._sentences[-1])


CannotStart.__module__, CannotStart.__qualname__ = "builtins", "udpecho"
