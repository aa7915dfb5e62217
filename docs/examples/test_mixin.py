"""trial test_mixin"""

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from udpecho import EchoServer, ResponseTimeout, UDPEchoMixin, echo


class RealTests(UDPEchoMixin, TestCase):
    def setUp(self):
        self.watchForLeaks()
        self.server = self.startEchoServer()

    async def test_server(self):
        self.assertEqual(await echo(reactor, *self.server.address, b"hello"), 5)
        self.assertEqual(self.server.counters.echoed, 1)

    async def test_proxy(self):
        proxy = self.startFaultProxy(self.server.address, seed=7, loss=1)
        await self.assertFailure(echo(reactor, *proxy.address, b"hello", timeout=0.1), ResponseTimeout)
        self.assertEqual(proxy.up.outcomes["lost"], 1)


class MemoryTests(UDPEchoMixin, SynchronousTestCase):
    def test_network(self):
        network = self.makeNetwork(latency=0.5)
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        there.listenUDP(7, EchoServer())
        waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=2)
        network.advance(1)
        self.assertEqual(self.successResultOf(waiting), 5)
