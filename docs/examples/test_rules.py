"""pytest test_rules.py"""

from udpecho import EchoServer, FaultPlan, ResponseTimeout, connect
from udpecho.faults.matching import matching
from udpecho.faults.rules import Rules, lose


def test_secondReply(udp_network):
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())
    udp_network.setPlan(there, here, lose(matching(lambda d: d.payload.startswith(b"ack")).nth(2)))
    connecting = connect(here, "192.0.2.2", 7, timeout=1)
    udp_network.advance(0)
    client = connecting.result
    outcomes = []
    for _ in range(3):
        client.echo(b"ack").addBoth(outcomes.append)
        udp_network.advance(2)
    assert outcomes[0] == outcomes[2] == 3
    assert outcomes[1].check(ResponseTimeout)
    assert [entry.payload for entry in udp_network.trace.undelivered()] == [b"ack"]


def test_onAPlan(udp_network):
    plan = Rules(lose(matching().source("192.0.2.1").during(10, 20)), plan=FaultPlan(7, delay=0.05))
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    udp_network.setPlan(here, there, plan)
    there.listenUDP(7, EchoServer())
    connecting = connect(here, "192.0.2.2", 7, timeout=1)
    udp_network.advance(0)
    waiting = connecting.result.echo(b"hello")
    udp_network.advance(1)
    assert waiting.result == 5
