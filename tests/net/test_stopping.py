"""Tests of L{udpecho.net.stopping}."""

from __future__ import annotations

from twisted.internet import defer

from tests.support.server import Lines
from udpecho.net.stopping import stopAll


class StopAllTests:
    """L{stopAll}."""

    def test_failures(self, lines: Lines) -> None:
        """Whatever a part does, each is stopped, and waited for; failures are warnings with their reasons."""
        stopped: list[str] = []
        slow: defer.Deferred[None] = defer.Deferred()

        def broken() -> None:
            stopped.append("broken")
            raise ValueError

        def failing() -> defer.Deferred[None]:
            stopped.append("failing")
            return defer.fail(OSError(13, "Permission denied"))

        done = stopAll(
            {"one": broken, "two": failing, "three": lambda: slow, "four": lambda: stopped.append("last")},
        )
        assert stopped == ["broken", "failing", "last"]
        assert not done.called
        slow.callback(None)
        assert done.called
        assert lines.texts == [
            "cannot stop one as it should be: ValueError",
            "cannot stop two as it should be: [Errno 13] Permission denied",
        ]
