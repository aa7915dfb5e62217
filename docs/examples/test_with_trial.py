"""trial test_with_trial.py"""

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from udpecho.client.connect import echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import ResponseTimeout
from udpecho.server.service import EchoService


class EchoTests(TestCase):
    def setUp(self):
        self.service = EchoService(reactor, 0, ["127.0.0.1"])
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def test_echo(self):
        self.assertEqual(await echo(reactor, *self.service.addresses[0], b"hello"), 5)


class DeadlineTests(SynchronousTestCase):
    def test_inVirtualTime(self):
        class Nowhere:
            def write(self, datagram, address):
                pass

        clock = Clock()
        client = EchoClient(clock)
        client.makeConnection(Nowhere())
        waiting = client.echo(b"hello", timeout=3600)
        clock.advance(3600)
        self.failureResultOf(waiting, ResponseTimeout)
