"""Tests of L{udpecho.faults.other_ports}: upstreams that answer from another port than the one that was asked."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from tests.support.guards import needsIPv6, onlyLinux, tool
from tests.support.processes import Processes
from tests.support.proxy import ProxyProcess, until
from tests.support.running import Run, sleep, unusedPort
from udpecho.faults import other_ports
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy


def bound(host: str = "127.0.0.1") -> socket.socket:
    """A socket on a free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


async def receive(reactor: Any, sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """The next datagram of a socket, while the reactor runs."""
    sock.setblocking(False)
    found: list[tuple[bytes, tuple[str, int]]] = []

    def arrived() -> bool:
        with suppress(BlockingIOError):
            datagram, address = sock.recvfrom(65536)
            found.append((datagram, address[:2]))
        return bool(found)

    await until(reactor, arrived, "a datagram")
    return found[0]


class Case:
    """A proxy before an upstream that has a second port, and one client."""

    def __init__(self, reactor: Any, host: str = "127.0.0.1", interface: str = "", **options: Any) -> None:
        self.reactor = reactor
        self.main, self.other, self.client = bound(host), bound(host), bound(host)
        self.proxy = FaultProxy(reactor, self.main.getsockname()[:2], **options)
        self.proxy.start(0, interface or host)

    async def ask(self) -> Any:
        """Send a request.

        @return: where the upstream saw it come from.
        """
        self.client.sendto(b"request", (self.client.getsockname()[0], self.proxy.address[1]))
        datagram, source = await receive(self.reactor, self.main)
        assert datagram == b"request"
        return source

    def close(self) -> None:
        """Close everything."""
        self.proxy.stop()
        for sock in (self.main, self.other, self.client):
            sock.close()


class OtherPortTests:
    """C{FaultProxy(anyPort=True)}."""

    @pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needsIPv6)])
    @pytest.mark.parametrize("wildcard", [False, True])
    def test_conversation(self, run: Run, host: str, wildcard: bool) -> None:
        """The client gets the reply from a new port of the address that it asked, and what it sends there goes to the other
        port of the upstream, from the port that this one knows.
        """

        async def test(reactor: Any) -> None:
            case = Case(reactor, host, ("::" if ":" in host else "0.0.0.0") if wildcard else "", anyPort=True)
            source = await case.ask()
            case.other.sendto(b"reply", source)
            datagram, face = await receive(reactor, case.client)
            assert datagram == b"reply"
            assert face[0] == host
            assert face[1] != case.proxy.address[1]
            for number in range(3):
                case.client.sendto(b"again %d" % number, face)
                assert await receive(reactor, case.other) == (b"again %d" % number, source)
                case.other.sendto(b"more %d" % number, source)
                assert await receive(reactor, case.client) == (b"more %d" % number, face)
            # Its own port goes on as before.
            case.main.sendto(b"main", source)
            assert (await receive(reactor, case.client))[1][1] == case.proxy.address[1]
            assert await case.ask() == source
            assert case.proxy.up.outcomes == {"delivered": 5}
            assert case.proxy.down.outcomes["delivered"] == 5
            assert case.proxy.clients == 1
            case.close()

        run(test)

    def test_everyPort(self, runOnce: Run) -> None:
        """Each port of the upstream has one of its own, for each client; the faults are those of the direction."""

        async def test(reactor: Any) -> None:
            case = Case(reactor, anyPort=True, down=FaultPlan(duplicate=1))
            source = await case.ask()
            faces = set()
            for _ in range(2):
                with bound() as another:
                    another.sendto(b"reply", source)
                    faces |= {(await receive(reactor, case.client))[1] for _ in range(2)}
            assert len(faces) == 2
            assert case.proxy.down.outcomes == {"duplicated": 2}
            case.close()

        runOnce(test)

    def test_strangers(self, runOnce: Run) -> None:
        """What another host sends is dropped and counted; what others send to a new port never comes in."""

        async def test(reactor: Any) -> None:
            case = Case(reactor, anyPort=True)
            source = await case.ask()
            with bound("127.0.0.2") as stranger:
                stranger.sendto(b"forged", source)
                await until(reactor, lambda: case.proxy.down.outcomes["not_allowed"] == 1, "the drop")
                case.other.sendto(b"reply", source)
                datagram, face = await receive(reactor, case.client)
                assert datagram == b"reply"
                stranger.sendto(b"forged", face)
                case.client.sendto(b"real", face)
                assert await receive(reactor, case.other) == (b"real", source)
            assert case.proxy.up.datagrams == 2
            case.close()

        runOnce(test)

    def test_bound(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client has so many other ports; for one more the longest idle one is closed, and nothing is left at the end."""
        monkeypatch.setattr(other_ports, "MAX_OTHER_PORTS", 2)

        async def test(reactor: Any) -> None:
            case = Case(reactor, anyPort=True)
            source = await case.ask()
            sockets = [bound() for _ in range(3)]
            for each in (sockets[0], sockets[1], sockets[0], sockets[2]):
                each.sendto(b"reply", source)
                await receive(reactor, case.client)
            (client,) = case.proxy._clients.values()
            assert list(client.others) == [sockets[0].getsockname(), sockets[2].getsockname()]
            for each in sockets:
                each.close()
            case.close()
            assert client.others == {}

        runOnce(test)

    @onlyLinux
    def test_counted(self, runOnce: Run) -> None:
        """Without the option it is dropped, counted, and one line says which option passes it on."""

        async def test(reactor: Any) -> None:
            case = Case(reactor)
            source = await case.ask()
            case.main.sendto(b"main", source)
            assert (await receive(reactor, case.client))[0] == b"main"
            for number in (1, 2, 3):
                case.other.sendto(b"reply", source)
                await until(reactor, lambda number=number: case.proxy.down.outcomes["other_port"] == number, "it")  # type: ignore[misc]
            assert "down: datagrams=4 delivered=1 other_port=3" in str(case.proxy)
            case.close()

        with capturedLogs() as events:
            runOnce(test)
        lines = [formatEvent(event) or "" for event in events if "other port" in (event["log_format"] or "")]
        assert len([line for line in lines if "--any-port" in line]) == 1, lines

    def test_oneSocket(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where two sockets cannot share an address, one does it all."""

        def refuse(*arguments: object) -> None:
            raise OSError(95, os.strerror(95))

        monkeypatch.setattr(other_ports, "accompany", refuse)

        async def test(reactor: Any) -> None:
            case = Case(reactor, anyPort=True)
            source = await case.ask()
            case.other.sendto(b"reply", source)
            datagram, face = await receive(reactor, case.client)
            assert datagram == b"reply"
            case.client.sendto(b"again", face)
            assert await receive(reactor, case.other) == (b"again", source)
            case.main.sendto(b"main", source)
            assert await receive(reactor, case.client) == (b"main", case.proxy.address)
            case.close()

        runOnce(test)

    def test_private(self, runOnce: Run) -> None:
        """Nobody else can bind the address of a client's socket."""

        async def test(reactor: Any) -> None:
            case = Case(reactor, anyPort=True)
            _, number = await case.ask()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind(("127.0.0.1", number))
            await sleep(reactor)
            case.close()

        runOnce(test)

    def test_unknownOption(self) -> None:
        """An option that is none is refused."""
        wrong: dict[str, Any] = {"anyport": True}
        with pytest.raises(TypeError, match=r"^option must be maxHeld or anyPort, got 'anyport'$"):
            FaultProxy(None, ("127.0.0.1", 9), **wrong)


class TFTPTests:
    """A real TFTP server behind C{udpecho proxy}, asked by a real client."""

    def test_get(self, processes: Processes, tmp_path: Path) -> None:
        """A file of many blocks comes through C{--any-port}."""
        server, client = tool("in.tftpd"), tool("atftp")
        if os.geteuid() or sys.platform != "linux":
            pytest.skip("the server takes root")
        content = os.urandom(20_000)
        (tmp_path / "file").write_bytes(content)
        for path in (tmp_path, *tmp_path.parents):
            if path.stat().st_mode & 0o005 != 0o005 and path.owner() == "root":
                path.chmod(path.stat().st_mode | 0o005)
        port = unusedPort()
        serving = processes.start(server, "-L", "-u", "root", "-a", f"127.0.0.1:{port}", "-s", str(tmp_path))

        proxy = ProxyProcess(processes, ("127.0.0.1", port), "--any-port")
        target = tmp_path / "target"
        host, number = proxy.address
        done = processes.run(client, "-g", "-r", "file", "-l", str(target), host, str(number))
        assert target.read_bytes() == content, (done, proxy.process)
        sums = proxy.stop()
        # Blocks of 512 bytes, and each is acknowledged.
        assert sums["up"]["delivered"] >= 40
        assert "other_port" not in sums["down"]
        serving.kill()
