"""pytest --reactor=default test_with_pytest.py"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from udpecho.client.connect import echo
from udpecho.errors import ResponseTimeout
from udpecho.server.service import EchoService


@pytest_twisted.async_yield_fixture
async def server():
    service = EchoService(reactor, 0, ["127.0.0.1"])
    service.startService()
    yield service.addresses[0]
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_echo(server):
    assert await echo(reactor, *server, b"hello") == 5


@pytest_twisted.ensureDeferred
async def test_too_late(server):
    with pytest.raises(ResponseTimeout):
        await echo(reactor, *server, b"hello", timeout=0)
