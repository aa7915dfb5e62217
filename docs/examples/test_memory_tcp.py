"""A web client and a web server on a network in memory."""

import pytest
from twisted.internet import error
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import Site

from udpecho import FaultPlan, MemoryNetwork


class Page(Resource):
    """A page for every path."""

    isLeaf = True

    def render_GET(self, request):
        return b"hello"


def get(loss):
    network = MemoryNetwork(FaultPlan(seed=1, loss=loss), latency=0.05)
    client, server = network.host("client", "10.0.0.1"), network.host("server", "10.0.0.2")
    server.listenTCP(80, Site(Page(), reactor=server))
    agent = Agent(client, connectTimeout=5)
    return network, agent.request(b"GET", b"http://server/")


def test_bad_network():
    network, response = get(loss=0.2)
    assert network.runUntil(response).code == 200


def test_no_network():
    network, response = get(loss=1.0)
    with pytest.raises(error.TimeoutError):
        network.runUntil(response)
    assert network.clock.seconds() == 5
