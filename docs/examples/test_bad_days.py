"""Hosts and networks have bad days: in memory, each at its time."""

from typing import Any

import pytest

from udpecho import EchoServer, MemoryNetwork, ResponseTimeout, connect, echo, listen
from udpecho.testing.mappings import NATBehavior


def start(host):
    listen(host, 7, EchoServer(), "0.0.0.0")


def run(network, deferred):
    results: list[Any] = []
    deferred.addBoth(results.append)
    network.advance(10)
    return results[0]


def test_crash():
    """A server without power is silent; after its restart it answers."""
    network = MemoryNetwork(latency=0.05)
    client, server = network.host("client", "10.0.0.1"), network.host("server", "10.0.0.2")
    server.onStart(start)
    network.at(1.0, server.crash)
    network.at(15.0, server.restart)
    network.advance(2)
    assert run(network, echo(client, "server", 7, b"hello")).check(ResponseTimeout)
    network.advance(10)
    assert run(network, echo(client, "server", 7, b"hello")) == 5


def test_link():
    """What a link holds arrives late; a partition lets nothing through."""
    network = MemoryNetwork(latency=0.05)
    client, server = network.host("client", "10.0.0.1"), network.host("server", "10.0.0.2")
    server.onStart(start)
    link = network.link(client, server)
    link.to(client).hold()
    network.at(1.0, link.to(client).release)
    assert run(network, echo(client, "server", 7, b"hello")) == 5
    network.partition([client], [server])
    assert run(network, echo(client, "server", 7, b"hello")).check(ResponseTimeout)
    network.heal()


def test_nat():
    """A client behind a NAT that forgets it is answered at its new port."""
    network = MemoryNetwork(latency=0.05)
    home = network.nat("home", "203.0.113.1", NATBehavior(mapping="address-dependent", timeout=30))
    phone, server = home.host("phone", "192.168.0.2"), network.host("server", "198.51.100.7")
    server.onStart(start)
    client = run(network, connect(phone, "server", 7))
    assert run(network, client.echo(b"hello")) == 5
    home.rebind()
    assert run(network, client.echo(b"hello")) == 5


@pytest.mark.parametrize("hops", [3, 64])
def test_path(hops):
    """Routers take hops; an MTU has long datagrams in fragments."""
    network = MemoryNetwork(latency=0.05)
    client, server = network.host("client", "10.0.0.1"), network.host("server", "10.0.0.2")
    server.onStart(start)
    network.link(client, server).set(mtu=1500, hops=hops)
    replies = run(network, echo(client, "server", 7, b"hello"))
    assert replies == 5 if hops == 3 else not isinstance(replies, int)
