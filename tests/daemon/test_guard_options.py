"""Tests of the guard in C{twistd udpecho}: real servers, and sources that they should not answer."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support.guards import needsSharing
from tests.support.processes import Processes, Server
from tests.support.running import PATIENCE, Run, unusedPort
from udpecho.guard.guard import Guard
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import DROP_REASONS
from udpecho.net.linux import sockopt
from udpecho.pieces import finish
from udpecho.server.protocol import EchoServer
from udpecho.server.service import EchoService

#: As one process, and as several.
_workers = pytest.mark.parametrize(
    "workers",
    [
        [],
        pytest.param(["--workers", "2"], marks=needsSharing),
    ],
    ids=["one", "workers"],
)


@contextmanager
def source(host: str, port: int = 0) -> Iterator[socket.socket]:
    """A client with a source of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.bind((host, port))
        except OSError as e:
            if e.errno in (errno.EADDRINUSE, errno.EACCES):
                pytest.skip(f"port {port} is not to be had: {e.strerror}")
            raise
        yield sock


def send(sock: socket.socket, address: tuple[str, int], times: int = 1) -> None:
    for number in range(times):
        sock.sendto(b"%d" % number, address)


def replies(sock: socket.socket) -> int:
    """How many replies have come. A server that was stopped sends no more."""
    sock.setblocking(False)
    found = 0
    with suppress(BlockingIOError):
        while sock.recv(100):
            found += 1
    return found


def dropped(server: Server) -> dict[str, int]:
    """Stop a server, which answers before that what has come, and take its drops by reason."""
    return {reason: number for reason, number in server.stop().items() if reason in DROP_REASONS}


# The sources have fixed ports, such as memcached's, and one is forged.
@pytest.mark.isolated
class GuardTests:
    """What the options of the guard do."""

    def start(self, processes: Processes, workers: Sequence[str], *options: str) -> tuple[Server, tuple[str, int]]:
        options = ("--interface", "127.0.0.1", *workers, *options)
        server = processes.server(*options, twistd=["twistd", "-n", "--pidfile="])
        (address,) = server.addresses
        return server, address

    @_workers
    def test_loops(self, processes: Processes, workers: list[str]) -> None:
        """Sources that might answer are not answered: services, and our own port on any host; others are."""
        server, address = self.start(processes, workers)
        with source("127.0.0.1", 11211) as service, source("127.0.0.2", address[1]) as own, source("127.0.0.1") as other:
            for sock in (service, own, other):
                send(sock, address)
            assert dropped(server) == {"loop_guard": 2}
            assert (replies(service), replies(own), replies(other)) == (0, 0, 1)

    @_workers
    def test_off(self, processes: Processes, workers: list[str]) -> None:
        """C{--no-loop-guard} answers them, and leaves the replies' time to live as the system has it."""
        server, address = self.start(processes, workers, "--no-loop-guard")
        with source("127.0.0.1", 11211) as service, source("127.0.0.2", address[1]) as own:
            for sock in (service, own):
                send(sock, address)
                assert sock.recv(100) == b"0"
            if sockopt.available:
                assert sockopt.enableRecvHopLimit(service)
                service.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 3)
                service.sendto(b"hello", address)
                ((_, _, hopLimit),) = service.recvmsg(100, 100)[1]
                assert int.from_bytes(hopLimit, "little") > 3
        assert dropped(server) == {}

    @_workers
    def test_allow(self, processes: Processes, workers: list[str]) -> None:
        """C{--allow} names who is answered, several times."""
        server, address = self.start(processes, workers, "--allow", "127.0.0.2", "--allow", "192.0.2.0/24")
        with source("127.0.0.1") as other, source("127.0.0.2") as guest:
            send(other, address)
            send(guest, address)
            assert dropped(server) == {"not_allowed": 1}
            assert (replies(other), replies(guest)) == (0, 1)

    def test_rate(self, processes: Processes) -> None:
        """A source that is not trusted has its rate, and one in four of what is over it; a trusted one has no limit."""
        server, address = self.start(processes, [], "--trust", "127.0.0.2", "--rate", "1", "--burst", "5")
        with source("127.0.0.1") as other, source("127.0.0.2") as trusted:
            send(other, address, 100)
            send(trusted, address, 100)
            assert 40 <= dropped(server)["rate_limited"] <= 95
            assert 5 <= replies(other) <= 60
            assert replies(trusted) == 100

    def test_dryRun(self, processes: Processes) -> None:
        """C{--dry-run} drops nothing."""
        server, address = self.start(processes, [], "--dry-run", "--allow", "192.0.2.1", "--rate", "1")
        with source("127.0.0.1", 11211) as service:
            send(service, address, 20)
            assert dropped(server) == {}
            assert replies(service) == 20

    @pytest.mark.parametrize("options", [[], ["--no-offload"]])
    def test_twoServers(self, processes: Processes, options: list[str]) -> None:
        """Two servers, and a datagram to one that is forged to come from the other: they come to an end by themselves."""
        try:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except PermissionError:
            pytest.skip("needs a raw socket")
        with raw:
            servers = [self.start(processes, [], "--log-datagrams", "0", *options) for _ in range(2)]
            (_, one), (_, other) = servers
            payload = b"and so on"
            udp = struct.pack("!HHHH", one[1], other[1], 8 + len(payload), 0) + payload
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 255, 17, 0, *[socket.inet_aton("127.0.0.1")] * 2)
            raw.sendto(ip + udp, ("127.0.0.1", 0))
            with source("127.0.0.1") as client:
                # Each of these takes as long as a turn of the exchange.
                for _ in range(300):
                    for _, address in servers:
                        send(client, address)
                        client.recv(100)
            sums = [server.stop() for server, _ in servers]
        assert sum(each["received"] for each in sums) == 255 + 600
        assert sum(each["echoed"] for each in sums) == 254 + 600
        assert sum(each["dropped"] for each in sums) == 1


class ServiceTests:
    """The guard of an L{EchoService}."""

    def test_policy(self, runOnce: Run) -> None:
        """The service makes the guard of a policy, or takes one that is made; by default it has the default policy. The guard
        knows the ports of the service.
        """

        async def test(reactor: Any) -> None:
            made = Guard(seconds=reactor.seconds)
            for guard in (None, GuardPolicy(), made):
                service = EchoService(reactor, unusedPort(), ["127.0.0.1"], guard=guard)
                assert isinstance(service._listeners.guardStats, Guard)
                assert (service._listeners.guardStats is made) == (guard is made)
                assert service._listeners.guardStats.policy == GuardPolicy()
                service.startService()
                (address,) = service.addresses
                assert service._listeners.guardStats.refuse(0, ("192.0.2.1", address.port)) == "loop_guard"
                assert service._listeners.guardStats.refuse(0, ("192.0.2.1", 40000 if address.port != 40000 else 40001)) is None
                await service.stopService()

        runOnce(test)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("allow", "192.0.2.0/24", "allow must be a tuple of networks"),
            ("trust", ["private"], "trust must be a tuple of networks"),
            ("rate", "5", "rate must be an integer, got '5'"),
            ("burst", True, "burst must be an integer, got True"),
        ],
    )
    def test_wrongPolicy(self, name: str, value: Any, message: str) -> None:
        """A policy of the wrong types is refused with a sentence, and at once."""
        with pytest.raises(TypeError, match=message):
            GuardPolicy(**{name: value})

    def test_noGuard(self, runOnce: Run) -> None:
        """What cannot refuse is no guard."""
        for make in (lambda: EchoService(runOnce.reactor, 0, guard=5), lambda: EchoServer(5)):  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="guard must have a method refuse"):
                make()

    def test_settings(self) -> None:
        """A policy can be carried to another process."""
        policy = GuardPolicy(
            allow=parseNetwork("private"), trust=parseNetwork("2001:db8::/32"), rate=7, burst=8, maxRate=9, refuseLoops=False
        )
        assert finish(GuardPolicy.fromSettings(finish(policy.asSettings()))) == policy
