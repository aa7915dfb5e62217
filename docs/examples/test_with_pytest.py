"""pytest --reactor=default test_with_pytest.py"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from udpecho import EchoService, ResponseTimeout, echo


@pytest_twisted.async_yield_fixture
async def port():
    service = EchoService(reactor, 0, ["127.0.0.1"])
    service.startService()
    yield service.addresses[0].port
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_echo(port):
    assert await echo(reactor, "127.0.0.1", port, b"hello") == 5


@pytest_twisted.ensureDeferred
async def test_too_late(port):
    with pytest.raises(ResponseTimeout):
        await echo(reactor, "127.0.0.1", port, b"hello", timeout=0)
