"""trial test_with_trial.py"""

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from udpecho import EchoServer, EchoService, FaultPlan, MemoryNetwork, ResponseTimeout, echo


class EchoTests(TestCase):
    def setUp(self):
        self.service = EchoService(reactor, 0, ["127.0.0.1"])
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def test_echo(self):
        self.assertEqual(await echo(reactor, *self.service.addresses[0], b"hello"), 5)


class DeadlineTests(SynchronousTestCase):
    def test_inVirtualTime(self):
        network = MemoryNetwork(FaultPlan(loss=1))
        here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
        there.listenUDP(7, EchoServer())
        waiting = echo(here, "192.0.2.2", 7, b"hello", timeout=3600)
        network.advance(3600)
        self.failureResultOf(waiting, ResponseTimeout)
