"""Tests of L{udpecho.server.service}."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Any

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet import defer, error
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.guards import needsIPv6, needsSharing, onlyLinux
from tests.support.hosts import until
from tests.support.ports import script
from tests.support.reaction import Reaction
from tests.support.running import PATIENCE, Run, sleep, udpSocket
from tests.support.server import Lines, check
from udpecho.addresses import DatagramAddress
from udpecho.client.connect import echo
from udpecho.net.linux import sockopt
from udpecho.net.open import listen
from udpecho.net.port import DatagramPort
from udpecho.server.counters import Counters
from udpecho.server.service import EchoService
from udpecho.server.settings import ServiceOptions


def overflow(service: EchoService) -> None:
    """Send a service more than its receive buffer takes."""
    with udpSocket() as sock:
        for _ in range(100):
            sock.sendto(bytes(1000), service.addresses[0])


class EchoServiceTests:
    """L{EchoService} on real sockets."""

    def test_interface(self, runOnce: Run) -> None:
        """It provides C{IService}."""
        assert verifyObject(IService, EchoService(runOnce.reactor))

    def test_lifeCycle(self, run: Run, lines: Lines) -> None:
        """Started it echoes, stopped it logs the sums and its ports are free; then it can be started again."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            assert service.addresses == []
            for round_ in (1, 2):
                del lines.events[:]
                service.startService()
                (address,) = service.addresses
                assert isinstance(address, DatagramAddress)
                assert lines.texts[0] == f"answering on 127.0.0.1:{address.port}"
                assert "--interface 0.0.0.0 --interface ::" in lines.texts[1]
                assert await echo(reactor, address.host, address.port, b"hello") == 5
                await service.stopService()
                assert lines.texts[-1].startswith(f"stopped: received={round_} echoed={round_} dropped=0")
                assert service.addresses == []
                with udpSocket(*address):
                    pass
            check(service.counters)

        run(test)

    @needsIPv6
    def test_defaultInterfaces(self, runOnce: Run, lines: Lines) -> None:
        """By default it is on both loopback addresses, on one port number."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0)
            service.startService()
            (host4, port4), (host6, port6) = service.addresses
            assert (host4, host6) == ("127.0.0.1", "::1")
            assert port4 == port6
            for address in service.addresses:
                assert await echo(reactor, *address, b"hello") == 5
            await service.stopService()
            assert service.counters.echoed == 2

        runOnce(test)

    def test_withoutIPv6(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a machine that has no IPv6 the default is IPv4 alone, but an interface that was given must be there."""

        def listenUnless(reactor: Any, port: int, protocol: Any, interface: str, **options: Any) -> Any:
            if ":" in interface:
                raise error.CannotListenError(interface, port, OSError(errno.EADDRNOTAVAIL, "no IPv6"))
            return listen(reactor, port, protocol, interface, **options)

        monkeypatch.setattr("udpecho.server.listeners.listen", listenUnless)

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0)
            service.startService()
            assert [address.host for address in service.addresses] == ["127.0.0.1"]
            await service.stopService()
            with pytest.raises(error.CannotListenError):
                EchoService(reactor, 0, ["127.0.0.1", "::1"]).startService()

        runOnce(test)

    @needsIPv6
    def test_everywhere(self, runOnce: Run, lines: Lines) -> None:
        """All of IPv4 and all of IPv6 on one port, each answering from the address that was asked, and no hint about the
        network.
        """

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["0.0.0.0", "::"])
            service.startService()
            number = service.addresses[0].port
            for host in ("127.0.0.1", "127.0.0.2", "::1"):
                assert await echo(reactor, host, number, b"hello") == 5
            await service.stopService()
            assert not any("--interface" in text for text in lines.texts)

        runOnce(test)

    def test_inUse(self, runOnce: Run) -> None:
        """If one of its addresses is taken, the error names it, and none of the others stays bound."""

        async def test(reactor: Any) -> None:
            with udpSocket("127.0.0.2") as taken:
                number = taken.getsockname()[1]
                service = EchoService(reactor, number, ["127.0.0.1", "127.0.0.2"])
                for start in (service.privilegedStartService, service.startService):
                    with pytest.raises(error.CannotListenError) as caught:
                        start()
                    assert (caught.value.interface, caught.value.port) == ("127.0.0.2", number)
                assert service.addresses == []
                with udpSocket("127.0.0.1", number):
                    pass

        runOnce(test)

    @needsSharing
    def test_noRoomForWorkers(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """If there is no memory for the counters of its workers, it does not start, and no port is bound."""

        def full(name: str) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        async def test(reactor: Any) -> None:
            with udpSocket() as sock:
                number = sock.getsockname()[1]
            service = EchoService(reactor, number, ["127.0.0.1"], workers=2)
            with monkeypatch.context() as patched:
                patched.setattr("os.memfd_create", full)
                with pytest.raises(error.CannotListenError) as caught:
                    service.privilegedStartService()
            assert caught.value.socketError.errno == errno.EMFILE
            assert service.addresses == []
            with udpSocket("127.0.0.1", number):
                pass

        runOnce(test)

    def test_freeOnOneInterfaceOnly(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """With port 0, a number that is free on the first interface and taken on the second is given up for another."""
        refusals = [True, True]

        def listenUnless(reactor: Any, port: int, protocol: Any, interface: str, **options: Any) -> Any:
            if port and refusals:
                refusals.pop()
                raise error.CannotListenError(interface, port, OSError(errno.EADDRINUSE, "taken"))
            return listen(reactor, port, protocol, interface, **options)

        monkeypatch.setattr("udpecho.server.listeners.listen", listenUnless)

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1", "127.0.0.2"])
            service.startService()
            first, second = service.addresses
            assert first.port == second.port
            await service.stopService()
            assert refusals == []

        runOnce(test)

    def test_privileged(self, runOnce: Run) -> None:
        """The ports are bound in C{privilegedStartService}, once."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.privilegedStartService()
            addresses = service.addresses
            assert len(addresses) == 1
            service.startService()
            assert service.addresses == addresses
            await service.stopService()

        runOnce(test)

    def test_stopWithoutStart(self, runOnce: Run, lines: Lines) -> None:
        """Stopping what was never started is nothing."""

        async def test(reactor: Any) -> None:
            await EchoService(reactor, 0).stopService()
            assert lines.texts == []

        runOnce(test)

    def test_stopAnswersWhatIsQueued(self, run: Run) -> None:
        """What is in the receive queue when the service stops is answered."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1", "127.0.0.2"], receiveBuffer=2**20)
            service.startService()
            with udpSocket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
                for number in range(300):
                    sock.sendto(b"%d" % number, service.addresses[number % 2])
                await service.stopService()
                assert {sock.recv(100) for _ in range(300)} == {b"%d" % number for number in range(300)}
            assert service.counters.echoed == 300

        run(test)

    @pytest.mark.parametrize("drained", [True, False])
    def test_stopUnderAFlood(self, runOnce: Run, lines: Lines, monkeypatch: pytest.MonkeyPatch, drained: bool) -> None:
        """A port whose queue does not become empty in time is closed all the same; there is a warning."""
        timeouts: list[float] = []

        def drain(port: DatagramPort, timeout: float) -> defer.Deferred[bool]:
            timeouts.append(timeout)
            return defer.succeed(drained)

        monkeypatch.setattr(DatagramPort, "drain", drain)

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.startService()
            await service.stopService()
            assert timeouts == [1.0]
            assert any(
                text.startswith("stopped with datagrams still queued: not all could be answered within 1.0 s")
                for text in lines.texts
            ) == (not drained)
            assert service.addresses == []

        runOnce(test)

    def test_stopWithABrokenSocket(self, runOnce: Run, lines: Lines) -> None:
        """A port that cannot be read any more is closed at the stop like the others; there is a warning."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1", "127.0.0.2"])
            service.startService()
            first, _ = service._listeners.ports
            script(first, receives=[errno.EBADF])  # type: ignore[arg-type]
            await service.stopService()
            assert any(text.startswith("stopped with datagrams still queued") for text in lines.texts)
            assert lines.texts[-1].startswith("stopped: ")

        runOnce(test)

    def test_stopWithAFullSendQueue(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replies that still wait for the send queue at the stop are counted as not sent in time."""
        monkeypatch.setattr("udpecho.server.listeners.DRAIN_TIMEOUT", 0.02)

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.startService()
            (port,) = service._listeners.ports
            script(port, [errno.EAGAIN] * 1_000_000)  # type: ignore[arg-type]
            with udpSocket() as sock:
                sock.sendto(b"waits", service.addresses[0])
                await until(reactor, lambda: service.counters.waiting == 1, "a reply waits")
                await service.stopService()
            assert service.counters.dropped == {"send_timeout": 1}
            check(service.counters)

        runOnce(test)

    def test_options(self, runOnce: Run) -> None:
        """The limit of payloads and the write timeout reach the ports."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], maxPayload=5, writeTimeout=0.01)
            service.startService()
            (port,) = service._listeners.ports
            failing = script(port, [errno.EAGAIN] * 1_000_000)  # type: ignore[arg-type]
            with udpSocket() as sock:
                sock.sendto(b"123456", service.addresses[0])
                sock.sendto(b"waits", service.addresses[0])
                while not service.counters.dropped["send_timeout"]:
                    await sleep(reactor, 0.005)
                failing.sends.clear()
                sock.sendto(b"again", service.addresses[0])
                await until(reactor, lambda: service.counters.echoed == 1, "it is answered")
                assert sock.recv(100) == b"again"
            assert service.counters.dropped == {"too_large": 1, "send_timeout": 1}
            await service.stopService()

        runOnce(test)

    def test_receiveBuffer(self, runOnce: Run, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
        """A receive buffer is requested; if the system grants less, there is a warning."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], receiveBuffer=100_000)
            service.startService()
            (port,) = service._listeners.ports
            assert port.getReceiveBuffer() >= 100_000  # type: ignore[union-attr]
            assert not any("receive buffer" in text for text in lines.texts)
            await service.stopService()
            # No system grants 2 GiB, and only root may use the forcing option.
            monkeypatch.setattr(sockopt, "SO_RCVBUFFORCE", socket.SO_RCVBUF)
            service = EchoService(reactor, 0, ["127.0.0.1"], receiveBuffer=2**30 - 1)
            service.startService()
            (warning,) = [text for text in lines.texts if "receive buffer" in text]
            assert f"not {2**30 - 1}" in warning
            await service.stopService()

        runOnce(test)

    def test_addedWhileItRuns(self, runOnce: Run) -> None:
        """Added to a parent that runs already, when it runs already itself, it keeps its ports."""

        async def test(reactor: Any) -> None:
            parent = MultiService()
            parent.startService()
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.startService()
            addresses = service.addresses
            service.setServiceParent(parent)
            assert service.addresses == addresses
            await parent.stopService()

        runOnce(test)

    def test_stopTwice(self, runOnce: Run) -> None:
        """Both of two stops wait until the ports are closed."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.startService()
            (address,) = service.addresses
            first, second = service.stopService(), service.stopService()
            assert not second.called
            await second
            with udpSocket(*address):
                pass
            await first

        runOnce(test)

    def test_startWhileStopping(self, run: Run) -> None:
        """A start during the stop takes place after it."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.startService()
            stopping = service.stopService()
            service.privilegedStartService()
            service.startService()
            assert not service.isServing
            await stopping
            await service.whenServing()
            (address,) = service.addresses
            assert await echo(reactor, address.host, address.port, b"hello") == 5
            await service.stopService()
            assert not service.isServing

        run(test)

    def test_logStops(self, run: Run) -> None:
        """An observer of the log may stop it when it begins to answer: C{whenServing} waits for the next start."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"])
            serving = service.whenServing()
            stopping: list[Any] = []
            with Reaction("answering on", lambda: stopping.append(service.stopService())):
                service.startService()
            await stopping[0]
            assert not serving.called
            assert service.addresses == []
            service.startService()
            await serving
            await service.stopService()

        run(test)

    def test_stopBeforeTheReactorRuns(self, runOnce: Run) -> None:
        """A service that is stopped before the reactor runs does not begin to serve then."""
        service = EchoService(runOnce.reactor, 0, ["127.0.0.1"])
        service.startService()
        stopping = service.stopService()

        async def test(reactor: Any) -> None:
            await stopping
            assert not service.isServing
            assert service.addresses == []

        runOnce(test)

    def test_wrongInterfaces(self, runOnce: Run) -> None:
        """No interface at all, and a string, are refused with a sentence."""
        with pytest.raises(ValueError, match=r"interfaces must have an IP address, got \[\]"):
            EchoService(runOnce.reactor, 0, [])
        with pytest.raises(TypeError, match=r"interfaces must be a list of IP addresses, got '127.0.0.1'"):
            EchoService(runOnce.reactor, 0, "127.0.0.1")
        for interface in ("localhost", "127.0.0.1:7", "", "224.0.0.1"):
            with pytest.raises(ValueError, match=re.escape(repr(interface))):
                EchoService(runOnce.reactor, 0, ["127.0.0.1", interface])

    @pytest.mark.parametrize(
        ("options", "kind"),
        [
            ({"port": "1234"}, TypeError),
            ({"port": 70000}, ValueError),
            ({"logDatagrams": "all"}, TypeError),
            ({"logDatagrams": -1}, ValueError),
            ({"maxPayload": "5"}, TypeError),
            ({"maxPayload": -1}, ValueError),
            ({"writeTimeout": "5"}, TypeError),
            ({"writeTimeout": -1}, ValueError),
            ({"receiveBuffer": "4M"}, TypeError),
            ({"receiveBuffer": 0}, ValueError),
        ],
    )
    def test_wrongOptions(self, runOnce: Run, options: dict[str, Any], kind: type[Exception]) -> None:
        """A value of the wrong type, or out of its range, is refused at once, by its name."""
        ((name, value),) = options.items()
        with pytest.raises(kind, match="timeout" if name == "writeTimeout" else rf"^{name} must be .*, got {value!r}$"):
            EchoService(runOnce.reactor, **options)

    def test_unknownOption(self, runOnce: Run) -> None:
        """An option that does not exist is refused."""
        with pytest.raises(TypeError, match="wokers"):
            EchoService(runOnce.reactor, wokers=2)

    def test_serviceOptions(self, runOnce: Run) -> None:
        """Options may be an object, and those that are given by name change it."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], options=ServiceOptions(maxPayload=1, logDatagrams=0), maxPayload=2)
            service.startService()
            with udpSocket() as sock:
                for payload in (b"123", b"12"):
                    sock.sendto(payload, service.addresses[0])
                await service.stopService()
                assert sock.recv(100) == b"12"
            assert service.counters.dropped == {"too_large": 1}

        runOnce(test)

    @onlyLinux
    def test_kernelDrops(self, runOnce: Run, lines: Lines) -> None:
        """What the kernel dropped before it was received is logged at the stop."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], receiveBuffer=4096)
            service.startService()
            overflow(service)
            await service.stopService()
            lost = 100 - service.counters.received
            assert lost > 0
            assert any(text.startswith(f"the kernel dropped {lost} datagrams") for text in lines.texts)

        runOnce(test)

    @onlyLinux
    def test_kernelDropsOfReopened(self, runOnce: Run) -> None:
        """What the kernel dropped on a port that was opened again is counted until the stop, and not after the next start."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], receiveBuffer=4096)
            service.startService()
            overflow(service)
            lost = service.kernelDrops()
            assert lost
            service._listeners.reopen(service._listeners.ports[0], "127.0.0.2")
            assert service.kernelDrops() == lost
            await service.stopService()
            service.startService()
            assert service.kernelDrops() == 0
            service.abort()

        runOnce(test)

    def test_composed(self, run: Run) -> None:
        """In a C{MultiService} it starts and stops with its parent."""

        async def test(reactor: Any) -> None:
            parent = MultiService()
            service = EchoService(reactor, 0, ["127.0.0.1"])
            service.setServiceParent(parent)
            parent.privilegedStartService()
            parent.startService()
            assert await echo(reactor, *service.addresses[0], b"hello") == 5
            await parent.stopService()
            assert service.addresses == []

        run(test)


class WorkersTests:
    """L{EchoService} with several workers, as far as no process is needed."""

    def test_wrong(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wrong numbers, a reactor that starts no processes, what processes cannot share, and a system that cannot share ports,
        are refused with a sentence.
        """
        reactor = runOnce.reactor
        for number in (0, 257):
            with pytest.raises(ValueError, match=f"workers must be 1 to 256, got {number}"):
                EchoService(reactor, workers=number)
        with pytest.raises(TypeError, match="workers must be an integer, got 'auto'"):
            EchoService(reactor, workers="auto")
        monkeypatch.setattr("udpecho.server.service.canShare", True)
        with pytest.raises(TypeError, match="reactor must start processes"):
            EchoService(Clock(), workers=2)
        with pytest.raises(ValueError, match="counters must be left out with several workers"):
            EchoService(reactor, workers=2, counters=Counters())
        monkeypatch.setattr("udpecho.server.service.canShare", False)
        with pytest.raises(ValueError, match="workers must be 1 on this system"):
            EchoService(reactor, workers=2)

    @needsSharing
    def test_lifeCycle(self, run: Run, lines: Lines) -> None:
        """On a reactor without signal handlers, too, it serves and stops, twice, with the same counters, and leaves nothing."""

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], workers=2)
            for round_ in (1, 2):
                del lines.events[:]
                service.startService()
                (address,) = service.addresses
                assert await echo(reactor, address.host, address.port, b"hello", timeout=PATIENCE) == 5
                assert service.counters.received == round_
                while not any(text.startswith("answering on") for text in lines.texts):
                    await sleep(reactor, 0.01)
                await service.stopService()
                assert lines.texts[-1].startswith(f"stopped: received={round_} echoed={round_} dropped=0")
                assert service.addresses == []
                with udpSocket(*address):
                    pass
                assert memories() == before
            check(service.counters)

        def memories() -> int:
            """How much of the memory that processes share is open."""
            opened = (f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd"))
            return sum("udpecho" in os.readlink(path) for path in opened if os.path.islink(path))

        before = memories()
        run(test)

    @needsSharing
    def test_stopWhileStarting(self, runOnce: Run, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stopped before the workers answer, it answers what is queued nevertheless, and never logs that it answers."""
        # On a busy machine a worker takes longer to start than it usually has to end.
        monkeypatch.setattr("udpecho.server.worker_pool._grace", PATIENCE)

        async def test(reactor: Any) -> None:
            service = EchoService(reactor, 0, ["127.0.0.1"], workers=2, logDatagrams=0)
            service.startService()
            with udpSocket() as first, udpSocket() as second:
                for sock in (first, second):
                    sock.sendto(b"hello", service.addresses[0])
                await service.stopService()
                assert [sock.recv(100) for sock in (first, second)] == [b"hello"] * 2
            assert len(lines.texts) == 1, lines.texts
            assert lines.texts[0].startswith("stopped: received=2 echoed=2 dropped=0")

        runOnce(test)

    @needsSharing
    def test_boundOnly(self, runOnce: Run, lines: Lines) -> None:
        """Stopped before the reactor has run, it has bound and closed its sockets, and started no process."""
        service = EchoService(runOnce.reactor, 0, ["127.0.0.1", "127.0.0.2"], workers=3)

        async def test(reactor: Any) -> None:
            service.privilegedStartService()
            first, second = service.addresses
            assert first.port == second.port
            await service.stopService()
            assert service.addresses == []
            for address in (first, second):
                with udpSocket(*address):
                    pass
            assert service.counters.received == 0

        runOnce(test)
