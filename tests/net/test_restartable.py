"""Tests of L{udpecho.net.restartable}."""

from __future__ import annotations

import pytest
from twisted.internet import defer, error

from tests.support.server import Lines
from udpecho.net.restartable import RestartableService


class Slow(RestartableService):
    """A service that is stopped when C{stopped} fires.

    @ivar calls: what it was asked for.
    @ivar refused: whether its address is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.refused = False
        self.stopped: defer.Deferred[None] = defer.Deferred()

    def _bind(self) -> None:
        if self.refused:
            raise error.CannotListenError("192.0.2.1", 7, OSError(99, "Cannot assign requested address"))
        self.calls.append("bind")

    def _start(self) -> None:
        self.calls.append("start")

    async def _stop(self) -> None:
        self.stopped = defer.Deferred()
        self.calls.append("stop")
        await self.stopped


class RestartableServiceTests:
    """L{RestartableService}."""

    def stopping(self) -> tuple[Slow, defer.Deferred[None]]:
        """A service that stops, and the Deferred of its stop."""
        service = Slow()
        service.startService()
        stopping = service.stopService()
        assert service.calls == ["bind", "start", "stop"]
        del service.calls[:]
        return service, stopping

    def test_startMeanwhile(self) -> None:
        """A start during the stop takes place, once, after it has ended, and after those who wait for that know it."""
        service, stopping = self.stopping()
        stopping.addCallback(lambda _: service.calls.append("stopped"))
        for _ in range(2):
            service.privilegedStartService()
            service.startService()
        assert (service.running, service.calls) == (1, [])
        service.stopped.callback(None)
        assert (service.running, service.calls) == (1, ["stopped", "bind", "start"])

    def test_stoppedAgain(self) -> None:
        """Another stop after such a start is the same stop, and it stays stopped."""
        service, stopping = self.stopping()
        service.startService()
        again = service.stopService()
        service.stopped.callback(None)
        assert stopping.called
        assert again.called
        assert (service.running, service.calls) == (0, [])

    def test_startAfterwards(self) -> None:
        """One that waits for the stop may start it, or stop what was started meanwhile."""
        service, stopping = self.stopping()
        stopping.addCallback(lambda _: service.startService())
        service.startService()
        service.stopped.callback(None)
        assert (service.running, service.calls) == (1, ["bind", "start"])
        service, stopping = self.stopping()
        stopping.addCallback(lambda _: service.stopService())
        service.startService()
        service.stopped.callback(None)
        assert (service.running, service.calls) == (0, ["stop"])
        service.stopped.callback(None)
        assert (service.running, service.calls) == (0, ["stop"])

    def test_refused(self, lines: Lines) -> None:
        """An address that is refused then is logged, and the service is stopped; it can be started later."""
        service, _ = self.stopping()
        service.startService()
        service.refused = True
        service.stopped.callback(None)
        assert service.running == 0
        (text,) = lines.texts
        assert text.startswith("cannot start again: Couldn't listen on 192.0.2.1:7: [Errno 99]")
        service.refused = False
        service.startService()
        assert service.calls == ["bind", "start"]

    def test_callbacks(self) -> None:
        """Those who wait for the stop may stop it again: each Deferred fires once, and the service stays stopped."""
        service, stopping = self.stopping()
        fired: list[object] = []
        all_ = [stopping, *(service.stopService() for _ in range(300))]
        for each in all_:
            each.addCallback(lambda _: service.stopService())
            each.addCallback(fired.append)
        service.stopped.callback(None)
        # The first of them began another stop, for which all wait.
        assert fired == []
        service.stopped.callback(None)
        assert fired == [None] * 301
        assert (service.running, service.calls) == (0, ["stop"])

    def test_stoppedWhileItBinds(self) -> None:
        """Something that is called while it binds, an observer of the log for example, may stop it: it does not start."""

        class Stopped(Slow):
            def _bind(self) -> None:
                super()._bind()
                self.stopService()

        service = Stopped()
        service.startService()
        assert (service.running, service.calls) == (0, ["bind", "stop"])
        service.stopped.callback(None)
        assert (service.running, service.calls) == (0, ["bind", "stop"])

    def test_refusedAtOnce(self) -> None:
        """A service whose address is refused at the start is not running."""
        service = Slow()
        service.refused = True
        with pytest.raises(error.CannotListenError):
            service.startService()
        assert (service.running, service.calls) == (0, [])
