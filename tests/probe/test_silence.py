"""Tests of L{udpecho.probe.silence} and L{udpecho.probe.sockets}."""

from __future__ import annotations

from tests.support.probes import ScriptedSocket
from udpecho.probe.silence import PAUSE, Silence
from udpecho.probe.sockets import FlowSockets


class SilenceTests:
    """L{Silence}."""

    def test_failed(self) -> None:
        """A second with a failed probe and without a reply is silence; a reply ends it."""
        silence = Silence()
        silence.look(PAUSE, None)
        assert not silence.lasts
        silence.failed = True
        silence.look(2 * PAUSE, None)
        assert silence.lasts
        # It lasts also if nothing is sent: at long intervals.
        silence.look(3 * PAUSE, None)
        assert silence.lasts
        silence.answeredAt = 3 * PAUSE + 1
        silence.look(4 * PAUSE, None)
        assert not silence.lasts

    def test_loss(self) -> None:
        """With replies in the same second, a failed probe is loss."""
        silence = Silence()
        silence.look(PAUSE, None)
        silence.failed = True
        silence.answeredAt = PAUSE + 5
        silence.look(2 * PAUSE, None)
        assert not silence.lasts

    def test_outstanding(self) -> None:
        """A probe that waits for a second is enough, whatever the timeout."""
        silence = Silence()
        silence.look(PAUSE, None)
        silence.look(2 * PAUSE, PAUSE + 1)
        assert not silence.lasts
        assert silence.next(PAUSE + 1) == 3 * PAUSE
        assert silence.next(2 * PAUSE + 1) == 3 * PAUSE + 1
        silence.look(3 * PAUSE, PAUSE + 1)
        assert silence.lasts
        assert silence.next(2 * PAUSE + 1) == 4 * PAUSE

    def test_sendFailed(self) -> None:
        """A send that fails on this machine counts although a reply came before it in the same second."""
        silence = Silence()
        silence.look(PAUSE, None)
        silence.answeredAt = PAUSE + 5
        silence.sendFailed()
        silence.look(2 * PAUSE, None)
        assert silence.lasts


class Closable(ScriptedSocket):
    """@ivar closed: whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class FlowSocketsTests:
    """L{FlowSockets}."""

    def test_former(self) -> None:
        """A former socket is closed when its time is over."""
        sockets = FlowSockets()
        first, second = Closable(), Closable()
        assert not sockets.isOpen
        sockets.use(first, "one", 0, 100)
        sockets.look(1000)
        assert sockets.isOpen
        sockets.use(second, "two", 5, 2000)
        sockets.look(1999)
        assert sockets.all == [first, second]
        sockets.look(2000)
        assert (sockets.current, sockets.all, first.closed, second.closed) == (second, [second], True, False)
        sockets.close()
        assert second.closed
        assert not sockets.isOpen

    def test_few(self) -> None:
        """However often a socket is replaced, few are open."""
        sockets = FlowSockets()
        made = [Closable() for _ in range(20)]
        for number, each in enumerate(made):
            sockets.use(each, "", number, 1000 + number)
        assert sockets.all == made[-5:]
        assert all(each.closed for each in made[:-5])

    def test_drops(self) -> None:
        """The drops of all sockets are one sum, also when a counter of 32 bits wraps."""
        sockets = FlowSockets()
        first, second = Closable(), Closable()
        first.dropped = (1 << 32) - 1
        sockets.use(first, "", 0, 0)
        first.dropped = 2
        assert sockets.newDrops() == 3
        sockets.use(second, "", 0, 1000)
        first.dropped, second.dropped = 6, 5
        assert sockets.newDrops() == 9
        assert sockets.newDrops() == 0

    def test_release(self) -> None:
        """A socket that is closed first, to free its port, is followed by another."""
        sockets = FlowSockets()
        first, second = Closable(), Closable()
        sockets.use(first, "", 0, 0)
        sockets.release()
        assert (first.closed, sockets.isOpen, sockets.current) == (True, False, first)
        sockets.use(second, "", 0, 0)
        assert sockets.all == [second]
