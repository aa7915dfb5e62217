"""Tests of L{udpecho.net.replace}: C{reactor.listenUDP} made ours."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application import internet
from twisted.internet import error, udp
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorMulticast, IReactorSocket, IReactorUDP
from twisted.internet.task import Clock
from twisted.names import client, dns, server
from zope.interface.verify import verifyObject

from tests.support.running import REACTORS, Recorder, Run, udpSocket, unusedPort
from udpecho.net.options import PortOptions
from udpecho.net.port import DatagramPort
from udpecho.net.replace import useDatagramPorts

_NAMES = ("listenUDP", "listenMulticast", "adoptDatagramPort")


async def kinds(reactor: Any) -> list[type]:
    """What the three methods open, closed again."""
    with udpSocket() as sock:
        sock.setblocking(False)
        ports = [
            reactor.listenUDP(0, Recorder(), "127.0.0.1"),
            reactor.listenMulticast(0, Recorder(), listenMultiple=True),
            reactor.adoptDatagramPort(sock.fileno(), socket.AF_INET, Recorder()),
        ]
    for port in ports:
        await maybeDeferred(port.stopListening)
    return [type(port) for port in ports]


STOCK = [udp.Port, udp.MulticastPort, udp.Port]
OURS = [DatagramPort] * 3


class UseTests:
    """L{useDatagramPorts}."""

    def test_andBack(self, run: Run) -> None:
        """On each kind of reactor all three methods open ours inside, and the stock ports before and after; nothing is left."""

        async def test(reactor: Any) -> None:
            before = dict(vars(reactor))
            assert await kinds(reactor) == STOCK
            # A module that imported it before has the very object.
            imported = reactor
            with useDatagramPorts(reactor):
                assert await kinds(imported) == OURS
                for interface in (IReactorUDP, IReactorMulticast, IReactorSocket):
                    assert verifyObject(interface, reactor)
            assert await kinds(imported) == STOCK
            assert {name for name in vars(reactor) if name in _NAMES} == {name for name in before if name in _NAMES}

        run(test)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
    def test_nested(self, runOnce: Run, order: tuple[int, ...]) -> None:
        """Calls may be nested, and taken back in any order and twice: the last that is left counts, and at the end none."""

        async def test(reactor: Any) -> None:
            undo = [useDatagramPorts(reactor, PortOptions(maxWaiting=number)) for number in range(3)]
            left = {0, 1, 2}
            for number in order:
                port = reactor.listenUDP(0, Recorder(), "127.0.0.1")
                assert port._context.options.maxWaiting == max(left)
                await port.stopListening()
                undo[number].close()
                undo[number].close()
                left.discard(number)
            assert not {*vars(reactor)} & {*_NAMES}
            assert await kinds(reactor) == STOCK

        runOnce(test)

    def test_others(self, runOnce: Run) -> None:
        """What somebody else has put there is put back; what he puts there meanwhile stays, and what he has kept of ours calls
        what was there before.
        """

        async def test(reactor: Any) -> None:
            def theirs(port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> tuple[Any, ...]:
                return port, interface, maxPacketSize

            reactor.listenUDP = theirs
            first = useDatagramPorts(reactor)
            second = useDatagramPorts(reactor)
            kept = reactor.listenUDP
            first.close()
            second.close()
            assert reactor.listenUDP is theirs
            assert kept(1, None) == (1, "", 8192)
            assert kept(1, None, "::1", maxPacketSize=5) == (1, "::1", 5)
            del reactor.listenUDP

            with useDatagramPorts(reactor):
                ours = reactor.listenUDP
                reactor.listenUDP = lambda *arguments: ours(*arguments)
                port = reactor.listenUDP(0, Recorder(), "127.0.0.1")
                assert type(port) is DatagramPort
                await port.stopListening()
            port = reactor.listenUDP(0, Recorder(), "127.0.0.1")
            assert type(port) is udp.Port
            await maybeDeferred(port.stopListening)
            del reactor.listenUDP

        runOnce(test)

    def test_services(self, run: Run) -> None:
        """Code of others gets them: a DNS server as a service and a client of Twisted's, over UDP."""

        class Answers(server.DNSServerFactory):
            noisy = False

            def handleQuery(self, message: Any, proto: Any, address: Any) -> None:
                name = message.queries[0].name.name
                message.answers = [dns.RRHeader(name, payload=dns.Record_A("192.0.2.7"))]
                self.sendReply(proto, message, address)

        async def test(reactor: Any) -> None:
            number = unusedPort()
            with useDatagramPorts(reactor):
                protocol = dns.DNSDatagramProtocol(Answers(), reactor)
                protocol.noisy = False
                service = internet.UDPServer(number, protocol, "127.0.0.1", reactor=reactor)
                service.startService()
                assert type(service._port) is DatagramPort
                resolver = client.Resolver(servers=[("127.0.0.1", number)], reactor=reactor)
                answers, _, _ = await resolver.lookupAddress("example.org", [10])
                assert answers[0].payload.dottedQuad() == "192.0.2.7"
                await service.stopService()
                for port in [each for each in reactor.getReaders() if isinstance(each, udp.Port)]:
                    assert type(port) is DatagramPort
                    await port.stopListening()
                for call in reactor.getDelayedCalls():
                    if "_parseCall" in str(call) or "maybeParseConfig" in str(call):
                        call.cancel()

        run(test)

    def test_sizes(self, runOnce: Run) -> None:
        """Datagrams of any size come, where the stock port truncates those over 8192 bytes; with a limit longer ones do not."""

        async def test(reactor: Any) -> None:
            with useDatagramPorts(reactor), udpSocket() as sock:
                for options, expected in (({}, [9000, 20]), ({"maxPacketSize": 100}, [20])):
                    protocol = Recorder()
                    port = reactor.listenUDP(0, protocol, "127.0.0.1", **options)
                    for size in (9000, 20):
                        sock.sendto(bytes(size), ("127.0.0.1", port.getHost().port))
                    await protocol.count(len(expected))
                    assert [len(datagram) for datagram, _ in protocol.datagrams] == expected
                    await port.stopListening()

        runOnce(test)

    def test_errors(self, runOnce: Run) -> None:
        """What the reactor's own methods raise these raise, too."""

        async def test(reactor: Any) -> None:
            # The stock port raises the same, and leaves sockets behind.
            with udpSocket() as sock, useDatagramPorts(reactor):
                with pytest.raises(error.CannotListenError):
                    reactor.listenUDP(sock.getsockname()[1], Recorder(), "127.0.0.1")
                with pytest.raises(error.InvalidAddressError):
                    reactor.listenUDP(0, Recorder(), "localhost")
                with pytest.raises(OverflowError):
                    reactor.listenUDP(99999, Recorder(), "127.0.0.1")
                with pytest.raises(error.UnsupportedAddressFamily):
                    reactor.adoptDatagramPort(sock.fileno(), 12345, Recorder())
                with pytest.raises(OSError, match="Bad file descriptor"):
                    reactor.adoptDatagramPort(-1, socket.AF_INET, Recorder())

        runOnce(test)

    def test_noDescriptors(self) -> None:
        """A reactor that has no descriptors is refused."""
        with pytest.raises(TypeError, match="reactor must provide IReactorFDSet, got"):
            useDatagramPorts(Clock())


LINES = "import udpecho\nfrom twisted.internet import reactor\nudpecho.useDatagramPorts(reactor)\n"
PROGRAM = """
from twisted.application.service import Application
from twisted.application.internet import UDPServer
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from twisted.python import log

class Kind(DatagramProtocol):
    def startProtocol(self):
        log.msg("kind=" + type(self.transport).__name__ + " reactor=" + type(reactor).__name__)
        reactor.callLater(0, reactor.stop)

application = Application("another")
UDPServer(0, Kind(), "127.0.0.1").setServiceParent(application)
"""


class TwistdTests:
    """C{twistd} runs a program that knows nothing of us."""

    def test_twoLines(self, tmp_path: Path) -> None:
        """Two lines in the program do it; without them its ports are the stock ports."""
        for prefix, kind in (("", "Port"), (LINES, "DatagramPort")):
            (tmp_path / "program.tac").write_text(prefix + PROGRAM)
            assert f"kind={kind} " in self._run(tmp_path, "", "-noy", "program.tac")

    @pytest.mark.parametrize("name", ["default", *REACTORS])
    def test_plugin(self, tmp_path: Path, name: str) -> None:
        """A program with three lines runs what C{twistd} runs, with its options, on any reactor: here Twisted's DNS server."""
        module = {"select": "selectreactor", "poll": "pollreactor", "epoll": "epollreactor", "asyncio": "asyncioreactor"}
        install = f"from twisted.internet import {module[name]}; {module[name]}.install()\n" if name in module else ""
        watch = "reactor.callWhenRunning(lambda: (print(*{type(r).__name__ for r in reactor.getReaders()}), reactor.stop()))\n"
        found = self._run(tmp_path, install + LINES + watch, "-no", "dns", "--port", str(unusedPort()), "--recursive")
        assert "DatagramPort" in found

    def _run(self, directory: Path, lines: str, *options: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-c", lines + "from twisted.scripts.twistd import run; run()", "--pidfile=", *options],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout
