"""pytest test_with_hypothesis.py"""

from contextlib import suppress

from hypothesis import given, settings

from udpecho import EchoServer, ResponseTimeout, echo
from udpecho.testing.strategies import networks


@settings(deadline=None)
@given(networks({"here": "192.0.2.1", "there": "192.0.2.2"}, latency=0.01))
def test_endsInTime(network):
    network.hosts["there"].listenUDP(7, EchoServer())
    with suppress(ResponseTimeout):
        assert network.runUntil(echo(network.hosts["here"], "192.0.2.2", 7, b"hello", timeout=1)) == 5
