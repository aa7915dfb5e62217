"""Why a daemon cannot start. It stands alone, so that a failed start imports nothing more."""

from __future__ import annotations

from twisted.internet import error


class CannotServeMetrics(error.CannotListenError):
    """The HTTP pages cannot be served on their endpoint."""

    def __init__(self, endpoint: str, reason: Exception) -> None:
        """
        @param endpoint: the endpoint, as the user wrote it.
        @param reason: what the system answered.
        """
        super().__init__(endpoint, None, reason)

    def __str__(self) -> str:
        reason = getattr(self.socketError, "strerror", None) or self.socketError
        return f"cannot serve metrics on {self.interface}: {reason}"
