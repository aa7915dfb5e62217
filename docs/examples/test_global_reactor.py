"""A program that imports the reactor, on a network in memory."""

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol

from udpecho import FaultPlan, MemoryNetwork


class Client(DatagramProtocol):
    """Asks each second until it is answered."""

    def startProtocol(self):
        self.answers = []
        self.ask()

    def ask(self):
        self.transport.write(b"hello?", ("10.0.0.2", 7))
        self.again = reactor.callLater(1, self.ask)

    def datagramReceived(self, datagram, addr):
        self.answers.append((reactor.seconds(), datagram))
        self.again.cancel()
        reactor.stop()


class Server(DatagramProtocol):
    """Answers half a second later."""

    def datagramReceived(self, datagram, addr):
        reactor.callLater(0.5, self.transport.write, b"hello!", addr)


def test_asks_again():
    network = MemoryNetwork(FaultPlan(seed=1, loss=0.5), latency=0.1)
    client = network.host("client", "10.0.0.1")
    server = network.host("server", "10.0.0.2")
    protocol = Client()
    with network.running(client):
        server.listenUDP(7, Server())
        client.listenUDP(0, protocol)
        reactor.run()
    assert [datagram for _, datagram in protocol.answers] == [b"hello!"]
    assert len(network.trace) > 2
