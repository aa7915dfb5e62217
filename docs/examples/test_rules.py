"""pytest test_rules.py"""

from udpecho import EchoServer, FaultPlan, ResponseTimeout, connect
from udpecho.faults.matching import matching
from udpecho.faults.rules import Rules, lose


def test_secondReply(udp_network):
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())
    udp_network.setPlan(there, here, lose(matching(lambda d: d.payload.startswith(b"ack")).nth(2)))
    client = udp_network.runUntil(connect(here, "192.0.2.2", 7, timeout=1))
    outcomes: list[object] = []
    for _ in range(3):
        try:
            outcomes.append(udp_network.runUntil(client.echo(b"ack")))
        except ResponseTimeout:
            outcomes.append("lost")
    assert outcomes == [3, "lost", 3]
    assert [entry.payload for entry in udp_network.trace.undelivered()] == [b"ack"]


def test_onAPlan(udp_network):
    plan = Rules(lose(matching().source("192.0.2.1").during(10, 20)), plan=FaultPlan(7, delay=0.05))
    here, there = udp_network.host("here", "192.0.2.1"), udp_network.host("there", "192.0.2.2")
    udp_network.setPlan(here, there, plan)
    there.listenUDP(7, EchoServer())
    client = udp_network.runUntil(connect(here, "192.0.2.2", 7, timeout=1))
    assert udp_network.runUntil(client.echo(b"hello")) == 5
