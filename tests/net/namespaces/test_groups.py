"""Tests of ports that join groups by one of several interfaces, between hosts."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.hosts import PORT, listenOn, needsIPv6, stop
from tests.support.namespaces import IPV4, IPV6, LINK_LOCAL_ROUTER, Network, Plan
from tests.support.ports import path  # noqa: F401
from tests.support.running import Recorder, Run
from udpecho.net.open import listen

pytestmark = pytest.mark.namespaces

_GROUPS = {IPV4: "239.1.2.3", IPV6: "ff15::1234"}


class InterfaceTests:
    """A group is joined, and sent to, by one interface."""

    @pytest.mark.parametrize(
        ("plan", "near", "far"),
        [
            pytest.param(IPV4, IPV4.near, IPV4.far, id="IPv4"),
            *(
                pytest.param(IPV6, near, far, id=name, marks=needsIPv6)
                for name, near, far in (
                    ("name", "eth0", "eth1"),
                    ("address", IPV6.near, IPV6.far),
                    ("scope", f"{LINK_LOCAL_ROUTER}%eth0", f"{LINK_LOCAL_ROUTER}%eth1"),
                )
            ),
        ],
    )
    def test_joined(self, net: Network, runOnce: Run, plan: Plan, near: str, far: str) -> None:
        """The router gets what comes to the group by the interface that it has joined by, and by no other."""
        group = _GROUPS[plan]

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = listenOn(net.router, reactor, plan.wildcard, protocol)
            ways = []
            for host, address in ((net.client, plan.client), (net.server, plan.server)):
                way = host.call(listen, reactor, 0, Recorder(), plan.wildcard)
                index = host.call(socket.if_nametoindex, "eth0")
                await way.setOutgoingInterface(address if plan is IPV4 else index)
                ways.append(way)

            async def exchange(expected: list[bytes]) -> None:
                protocol.datagrams.clear()
                # To the router alone is what shows that all has come that will.
                for way, target, name in zip(ways, (plan.near, plan.far), (b"near", b"far")):
                    way.write(name, (group, PORT))
                    way.write(b"end", (target, PORT))
                await protocol.until(lambda: [datagram for datagram, _ in protocol.datagrams].count(b"end") == 2)
                assert {datagram for datagram, _ in protocol.datagrams} == {*expected, b"end"}

            await exchange([])
            with net.router.entered():
                await port.joinGroup(group, near)
            await exchange([b"near"])
            with net.router.entered():
                await port.joinGroup(group, far)
            await exchange([b"near", b"far"])
            with net.router.entered():
                await port.leaveGroup(group, near)
            await exchange([b"far"])
            await stop(port, *ways)

        runOnce(test)
