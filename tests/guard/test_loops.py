"""Tests of what the guard's documentation promises about loops and distant clients, on real servers."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.guard import never
from tests.support.guards import onlyLinux
from tests.support.running import Run, sleep, udpSocket
from udpecho.guard.guard import Guard
from udpecho.net.linux import sockopt
from udpecho.server.service import EchoService

pytestmark = onlyLinux


def serve(reactor: Any, port: int = 0) -> tuple[EchoService, tuple[str, int]]:
    """A server on 127.0.0.1, with the default guard."""
    service = EchoService(reactor, port, ["127.0.0.1"])
    service.startService()
    (address,) = service.addresses
    return service, (address.host, address.port)


class LoopTests:
    """A forged datagram that makes two servers on different ports answer each other."""

    @pytest.mark.parametrize("hops", [1, 2, 20, 255])
    def test_ends(self, hops: int, run: Run) -> None:
        """The exchange ends, since each reply has one hop less than its request."""

        async def test(reactor: Any) -> None:
            first, address = serve(reactor)
            with udpSocket() as forger:
                own = forger.getsockname()[1]
                forger.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                forger.sendto(b"hello", address)
            # The reactor has not run since: the reply will find a server where the forger was.
            second, _ = serve(reactor, own)
            services = (first, second)
            while not sum(sum(service.counters.dropped.values()) for service in services):
                await sleep(reactor)
            assert sum(service.counters.received for service in services) == hops
            assert sum(service.counters.echoed for service in services) == hops - 1
            assert sum(service.counters.dropped["loop_guard"] for service in services) == 1
            for service in services:
                await service.stopService()

        run(test)

    def test_limiterAlone(self) -> None:
        """The limiter does not end it: a datagram that takes a millisecond each way is always within the limit."""
        now = 0.0
        guards = {port: Guard(ownPorts=[port], seconds=lambda: now, entropy=never) for port in (1234, 4321)}
        source, own = 4321, 1234
        for _ in range(10_000):
            assert guards[own].refuse(5, ("198.51.100.1", source)) is None
            now += 0.001
            source, own = own, source


class DistantClientTests:
    """Clients behind many routers."""

    @pytest.mark.parametrize(("hops", "reached"), [(0, True), (31, True), (32, False), (63, False)])
    def test_routers(self, hops: int, reached: bool, runOnce: Run) -> None:
        """A client that sends with 64 hops gets its reply from up to 31 routers away (docs/guard.rst)."""

        async def test(reactor: Any) -> None:
            service, address = serve(reactor)
            with udpSocket() as client:
                assert sockopt.enableRecvHopLimit(client)
                # As the server would see it behind so many routers.
                client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64 - hops)
                client.sendto(b"hello", address)
                while not service.counters.echoed + sum(service.counters.dropped.values()):
                    await sleep(reactor)
                left = 0
                if service.counters.echoed:
                    ((_, _, value),) = client.recvmsg(100, 100)[1]
                    left = int.from_bytes(value, "little")
                assert left == 64 - hops - 1
                assert (left - hops >= 1) == reached
            await service.stopService()

        runOnce(test)
