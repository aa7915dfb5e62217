"""Tests of L{udpecho.pieces}."""

from __future__ import annotations

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from udpecho.pieces import Work, finish, inPieces


def work(clock: Clock, pieces: int, seconds: float = 0.0) -> Work[int]:
    """Pieces that take some time each."""
    for _ in range(pieces):
        clock.rightNow += seconds
        yield
    return pieces


class PiecesTests:
    """L{finish} and L{inPieces}."""

    def test_finish(self) -> None:
        """All is done at once, and there is the result."""
        assert finish(work(Clock(), 5)) == 5

    def test_share(self) -> None:
        """A turn of the reactor has a millisecond of it, or one piece that is longer; after each there is a rest."""
        for seconds, pieces in ((0.0003, 4), (0.002, 1)):
            clock, found = Clock(), list[int]()
            inPieces(clock, work(clock, 40, seconds)).addCallback(found.append)
            for _ in range(40 // pieces):
                before = clock.seconds()
                clock.advance(0 if before == 0 else 0.004)
                assert clock.seconds() - before < 0.004 + 0.0021
                assert not found
            clock.advance(0.004)
            assert found == [40]
            assert clock.getDelayedCalls() == []

    def test_failed(self) -> None:
        """An exception is that of the Deferred."""

        def failing() -> Work[None]:
            yield
            raise ZeroDivisionError

        clock = Clock()
        done = inPieces(clock, failing())
        clock.pump([0, 0.004])
        done.addErrback(lambda failure: failure.trap(ZeroDivisionError))
        assert done.called

    def test_cancelled(self) -> None:
        """One that is cancelled goes no further."""
        clock = Clock()
        done = inPieces(clock, work(clock, 40, 0.01))
        clock.advance(0)
        done.cancel()
        done.addErrback(lambda failure: failure.trap(defer.CancelledError))
        assert clock.getDelayedCalls() == []
        assert clock.seconds() == pytest.approx(0.01)
