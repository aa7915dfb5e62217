"""Whether a flow is answered. Times are in ns of the monotonic clock."""

from __future__ import annotations

#: The time from one look to the next, and how long a probe is without a reply to count, in ns: less than the usual interval, so
#: that the next probe leaves by another socket already.
PAUSE = 750_000_000
_never = -(1 << 62)


class Silence:
    """A flow is silent if from one look to the next no probe was answered, and one has failed or waited for L{PAUSE}. The next
    reply ends that. Failures with replies in between are ordinary loss.

    @ivar answeredAt: when the latest reply came.
    @ivar failed: whether a probe was lost, refused, unreachable or could not be sent since the last look.
    @ivar lookedAt: the time of the last look.
    @ivar lasts: whether the flow is silent, as of the last look.
    """

    def __init__(self) -> None:
        self.answeredAt = self.lookedAt = _never
        self.failed = self.lasts = False

    def sendFailed(self) -> None:
        """This machine could not send: what came before counts no more."""
        self.failed = True
        self.answeredAt = _never

    def look(self, now: int, oldest: int | None) -> None:
        """Look again; to be called at the first opportunity after L{PAUSE}.

        @param oldest: when the oldest outstanding probe was sent.
        """
        before, self.lookedAt = self.lookedAt, now
        if self.answeredAt >= before:
            self.lasts = False
        elif self.failed or (oldest is not None and now - oldest >= PAUSE):
            self.lasts = True
        self.failed = False

    def next(self, oldest: int | None) -> int:
        """When to look next, if nothing else happens."""
        return (self.lookedAt if self.lasts or oldest is None else max(oldest, self.lookedAt)) + PAUSE
