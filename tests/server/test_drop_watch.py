"""Tests of L{udpecho.server.drop_watch}, and of an L{EchoServer} that has such a watch."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.running import Run, sleep, udpSocket
from udpecho.guard.guard import Guard
from udpecho.guard.networks import parseNetwork
from udpecho.guard.policy import GuardPolicy
from udpecho.interfaces import DROP_REASONS
from udpecho.net.open import listen
from udpecho.server.datagram_log import DatagramLog
from udpecho.server.drop_watch import WATCH_SIZE, DropWatch
from udpecho.server.protocol import EchoServer

SOURCE = ("192.0.2.7", 4321)


class DropWatchTests:
    """L{DropWatch}."""

    @pytest.mark.parametrize("source", [SOURCE, ("2001:db8::7", 4321), ("fe80::7%2", 4321)])
    @pytest.mark.parametrize("size", [0, 1, 7, 8, 100])
    @pytest.mark.parametrize("reason", DROP_REASONS)
    def test_found(self, source: tuple[str, int], size: int, reason: str) -> None:
        """The datagram is found by its source and its content, and its reason is kept until another is looked for."""
        watch, payload = DropWatch(), os.urandom(size)
        watch.expect(*source, payload)
        assert watch.reason is None
        watch.lookAt(payload, (source[0].partition("%")[0], source[1]), reason)
        assert watch.reason == reason
        watch.forget()
        assert watch.reason == reason
        watch.expect(*source, payload)
        assert watch.reason is None

    @pytest.mark.parametrize(
        ("payload", "source"),
        [
            (b"12345678", ("192.0.2.8", 4321)),
            (b"12345678", ("192.0.2.7", 4322)),
            (b"12345678", ("::c000:207", 4322)),
            (b"12345679", SOURCE),
            (b"1234567", SOURCE),
            (b"123456789", SOURCE),
            (b"", SOURCE),
        ],
    )
    def test_others(self, payload: bytes, source: tuple[str, int]) -> None:
        """A datagram from another host or port, or of another content or size, is not it."""
        watch = DropWatch()
        watch.expect(*SOURCE, b"12345678")
        watch.lookAt(payload, source, "not_allowed")
        assert watch.reason is None

    def test_nothing(self) -> None:
        """Nothing is found before there is something to look for, and after that: also what comes from port 0."""
        watch = DropWatch()
        watch.lookAt(b"", ("0.0.0.0", 0), "loop_guard")
        assert watch.reason is None
        watch.expect(*SOURCE, b"12345678")
        watch.forget()
        watch.lookAt(b"12345678", SOURCE, "not_allowed")
        watch.lookAt(b"12345678", (SOURCE[0], 0), "not_allowed")
        assert watch.reason is None

    @given(st.binary(max_size=64))
    def test_shared(self, payload: bytes) -> None:
        """The process that checks and the one that serves may share the memory; a detached watch keeps its state."""
        memory = bytearray(WATCH_SIZE)
        checking, serving = DropWatch(memory), DropWatch(memory)
        checking.expect(*SOURCE, payload)
        serving.lookAt(payload, SOURCE, "rate_limited")
        assert checking.reason == "rate_limited"
        checking.detach()
        memory[:] = bytes(WATCH_SIZE)
        assert (checking.reason, serving.reason) == ("rate_limited", None)


class ServerTests:
    """L{EchoServer} with a watch, on real sockets."""

    @pytest.mark.parametrize("batches", [True, False], ids=["batches", "single"])
    @pytest.mark.parametrize("lines", [0, None], ids=["no lines", "lines"])
    @pytest.mark.parametrize("offload", [True, False], ids=["GRO", "no GRO"])
    def test_amongOthers(self, batches: bool, lines: int | None, offload: bool, runOnce: Run) -> None:
        """Among many drops of others the one datagram is found, however it is received; without it, nothing is."""

        async def test(reactor: Any) -> None:
            watch = DropWatch()
            guard = Guard(GuardPolicy(allow=parseNetwork("192.0.2.0/24")))
            server = EchoServer(guard, log=DatagramLog(lines), watch=watch)
            port: Any = listen(reactor, 0, server, batches=batches, offload=offload)
            address = ("127.0.0.1", port.getHost().port)
            sent = 0
            with udpSocket() as own, udpSocket() as other:
                watch.expect("127.0.0.1", own.getsockname()[1], b"12345678")

                async def received() -> None:
                    while server.counters.received < sent:
                        await sleep(reactor, 0.01)

                for sock, payload in ((other, b"12345678"), (own, b"87654321")):
                    sent += send(sock, address, payload, 50)
                await received()
                assert watch.reason is None
                sent += send(other, address, b"12345678", 20) + send(own, address, b"12345678", 1)
                sent += send(other, address, b"12345678", 20)
                await received()
                assert watch.reason == "not_allowed"
            assert server.counters.dropped == {"not_allowed": sent}
            await port.stopListening()

        runOnce(test)


def send(sock: socket.socket, address: tuple[str, int], payload: bytes, times: int) -> int:
    """Send a datagram some times.

    @return: how many times.
    """
    for _ in range(times):
        sock.sendto(payload, address)
    return times
