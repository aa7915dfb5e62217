"""Server and client on the installed reactor, under pytest-twisted, as a user's own suite has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed

from tests.support.running import unusedPort
from udpecho.client.connect import connect, echo
from udpecho.errors import PortUnreachable, ResponseTimeout
from udpecho.server.service import EchoService

reactor: Any = installed


@pytest_twisted.async_yield_fixture
async def service() -> AsyncIterator[EchoService]:
    """A running server."""
    running = EchoService(reactor, 0, ["127.0.0.1"])
    running.startService()
    yield running
    await running.stopService()


class InstalledReactorTests:
    """L{echo} and L{connect}."""

    @pytest_twisted.ensureDeferred
    async def test_echo(self, service: EchoService) -> None:
        """The Deferred fires with the byte count."""
        host, port = service.addresses[0]
        assert await echo(reactor, host, port, b"hello") == 5

    @pytest_twisted.inlineCallbacks
    def test_client(self, service: EchoService) -> Any:
        """Several payloads, one socket."""
        host, port = service.addresses[0]
        client = yield connect(reactor, host, port)
        assert (yield client.echo(b"hello")) == 5
        assert (yield client.echo(b"")) == 0
        yield client.close()

    @pytest_twisted.ensureDeferred
    async def test_failures(self, service: EchoService) -> None:
        """The named failures."""
        with pytest.raises(PortUnreachable):
            await echo(reactor, "127.0.0.1", unusedPort(), b"hello")
        with pytest.raises(ResponseTimeout):
            await echo(reactor, *service.addresses[0], b"hello", 0)
