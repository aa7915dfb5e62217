"""Tests of L{ClientService <udpecho.daemon.client_tap.ClientService>}."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.support.client import serve
from tests.support.running import Run, sleep, udpSocket, unusedPort
from tests.support.server import Lines
from udpecho.client.transfer import Transfer
from udpecho.daemon.client_tap import ClientService


class StoppableReactor:
    """Lets a test see that a reactor's C{stop} is called, without stopping it."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.stopped: Deferred[None] = Deferred()

    def stop(self) -> None:
        self.stopped.callback(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class ClientServiceTests:
    """L{ClientService}."""

    def test_interface(self) -> None:
        """It provides C{IService}."""
        assert verifyObject(IService, ClientService(None, Transfer("127.0.0.1", 7)))

    def serve(self, reactor: Any, transfer: Transfer, descriptor: int) -> tuple[ClientService, Deferred[None]]:
        from twisted.internet.interfaces import IReactorFDSet
        from zope.interface import directlyProvides

        stoppable = StoppableReactor(reactor)
        directlyProvides(stoppable, IReactorFDSet)
        service = ClientService(stoppable, transfer, descriptor)
        service.startService()
        return service, stoppable.stopped

    def test_answered(self, run: Run, lines: Lines, tmp_path: Path) -> None:
        """It sends the input, logs both lines with their values, and stops the reactor."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")

        async def test(reactor: Any) -> None:
            server = serve(reactor, lambda datagram: [datagram])
            number = server.getHost().port
            with path.open("rb") as file:
                service, stopped = self.serve(reactor, Transfer("127.0.0.1", number), file.fileno())
                await stopped
                await defer.maybeDeferred(service.stopService)
            assert lines.texts == [
                "packet-written: bytes=5",
                f"packet-received: bytes=5 from=127.0.0.1:{number}",
                "sent=1 answered=1 unanswered=0 sent-bytes=5 answered-bytes=5",
            ]
            assert lines.events[1]["from"] == f"127.0.0.1:{number}"
            await server.stopListening()

        run(test)

    @pytest.mark.parametrize(
        ("peer", "timeout", "sentence"),
        [
            ("refused", 25, "refused the datagram"),
            ("silent", 0.02, "no reply from"),
            ("nosuch..name", 5, "cannot be the name of a host"),
        ],
    )
    def test_fails(self, runOnce: Run, lines: Lines, tmp_path: Path, peer: str, timeout: float, sentence: str) -> None:
        """What goes wrong is a line in the log, and no traceback."""
        path = tmp_path / "input"
        path.write_bytes(b"hello")

        async def test(reactor: Any) -> None:
            with udpSocket() as silent, path.open("rb") as file:
                number = silent.getsockname()[1] if peer == "silent" else unusedPort()
                host = peer if "." in peer else "127.0.0.1"
                _, stopped = self.serve(reactor, Transfer(host, number, timeout), file.fileno())
                await stopped
            assert any(sentence in text for text in lines.texts)

        runOnce(test)

    def test_stopped(self, run: Run, lines: Lines) -> None:
        """Stopping it while it waits, for its input or for a reply, ends it with nothing left."""

        async def test(reactor: Any) -> None:
            reading, writing = os.pipe()
            with udpSocket() as silent:
                host, port = silent.getsockname()
                for waitsForReply in (False, True):
                    service, stopped = self.serve(reactor, Transfer(host, port, chunk=5), reading)
                    await sleep(reactor)
                    if waitsForReply:
                        os.write(writing, b"hello")
                        await sleep(reactor, 0.01)
                    await defer.maybeDeferred(service.stopService)
                    await stopped
            os.close(reading)
            os.close(writing)
            assert [text for text in lines.texts if text.startswith("interrupted: ")] == [
                "interrupted: sent=0 answered=0 unanswered=0 sent-bytes=0 answered-bytes=0",
                "interrupted: sent=1 answered=0 unanswered=1 sent-bytes=5 answered-bytes=0",
            ]

        run(test)

    def test_stoppedBeforeItBegins(self, runOnce: Run, lines: Lines) -> None:
        """Stopped before the reactor runs, it does nothing."""
        calls: list[Any] = []

        class Reactor:
            def callWhenRunning(self, call: Any) -> None:
                calls.append(call)

            def stop(self) -> None:
                raise error.ReactorNotRunning

        service = ClientService(Reactor(), Transfer("127.0.0.1", 7))
        service.startService()
        assert service.stopService() is None
        calls[0]()
        assert lines.texts == []
