"""pytest --reactor=default test_fixtures.py"""

import pytest
import pytest_twisted
from twisted.internet import reactor

from udpecho import EchoServer, FaultPlan, ResponseTimeout, echo

pytestmark = pytest.mark.usefixtures("udp_leaks")


@pytest_twisted.ensureDeferred
async def test_server(udpecho_server):
    host, port = udpecho_server.address
    assert await echo(reactor, host, port, b"hello") == 5
    assert udpecho_server.counters.echoed == 1


@pytest_twisted.ensureDeferred
async def test_proxy(udpecho_server, udp_proxy):
    proxy = udp_proxy(udpecho_server.address, seed=7, loss=1)
    host, port = proxy.address
    with pytest.raises(ResponseTimeout):
        await echo(reactor, host, port, b"hello", timeout=0.1)
    assert proxy.up.outcomes["lost"] == 1


def test_network(udp_network):
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())
    udp_network.setPlan(here, there, FaultPlan(7, delay=1800))
    waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=3600)
    udp_network.advance(1800)
    assert waiting.result == 5
    assert str(udp_network.trace).splitlines()[0].endswith("5 B  delayed: delivered")


def test_errors(udp_network, udp_errors):
    udp_network.host("here").callLater(60, int, "no number")
    udp_network.advance(60)
    assert len(udp_errors.flush(ValueError)) == 1
