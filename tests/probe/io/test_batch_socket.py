"""Tests of the sockets of probes, and of what watches them."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from tests.support.guards import needsBatches, needsStamps, onlyLinux
from tests.support.running import PATIENCE, Run, udpSocket, unusedPort
from udpecho.addresses import DatagramAddress
from udpecho.errors import MessageTooLong, PortUnreachable
from udpecho.net.linux import errqueue, library, sockopt, timerfd
from udpecho.net.linux.mmsg import SLOTS
from udpecho.net.sockets import connectedSocket
from udpecho.probe.io.batch_socket import BatchSocket, failureOf
from udpecho.probe.io.socket import SocketOptions, Taken, explain
from udpecho.probe.io.timer import DelayedTurns, Watch, openWatch, watching


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """The peer."""
    with udpSocket() as sock:
        yield sock


def open(far: socket.socket, size: int = 100, stamps: bool = True) -> BatchSocket:
    """A probe socket to a peer."""
    return BatchSocket(connectedSocket(DatagramAddress(far.getsockname()), None, 2**22), size, stamps)


def fill(near: BatchSocket, *payloads: bytes) -> int:
    """Put datagrams into the slots.

    @return: how many.
    """
    for index, payload in enumerate(payloads):
        near.slot(index, len(payload))[:] = payload
    return len(payloads)


@needsBatches
class BatchSocketTests:
    """L{BatchSocket}."""

    def test_bothWays(self, far: socket.socket) -> None:
        """What is in the slots is sent, of any size, and what comes is received, the longer too."""
        near = open(far)
        payloads = [b"", b"x", b"y" * 100, b"z" * 50]
        if near.stamped:
            assert near.send(fill(near, *payloads)) == Taken(4)
        else:
            for payload in payloads:
                assert near.send(fill(near, payload)) == Taken(1)
        for payload in payloads:
            datagram, client = far.recvfrom(1000)
            assert datagram == payload
            far.sendto(datagram + b"more" * 20, client)
        assert tuple(near.source) == client
        received = near.receive()
        # As much more is received as shows that it is more.
        assert [bytes(datagram) for datagram in received.datagrams] == [(each + b"more" * 20)[:132] for each in payloads]
        assert near.receive().datagrams == ()
        near.close()
        near.close()

    @needsStamps
    def test_stamps(self, far: socket.socket) -> None:
        """Each datagram that was sent has its stamp, in their order, and each that has come; a whole batch too."""
        near = open(far)
        before = time.time_ns()
        near.send(fill(near, *[b"x"] * SLOTS))
        near.send(fill(near, *[b"y"] * 3))
        stamps, failures = near.readErrors()
        after = time.time_ns()
        assert [number for number, _ in stamps] == list(range(SLOTS + 3))
        times = [stamp for _, stamp in stamps]
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] <= after
        assert not failures
        client = far.recvfrom(10)[1]
        for _ in range(3):
            far.sendto(b"hello", client)
        arrivals = near.receive()
        assert len(arrivals.stamps) == 3
        assert all(after <= stamp <= time.time_ns() for stamp in arrivals.stamps)
        near.close()

    def test_notStamped(self, far: socket.socket) -> None:
        """Where no stamps are wanted there are none, and each datagram has a call of its own."""
        near = open(far, stamps=False)
        assert (near.stamped, near.most) == (False, 1)
        near.send(fill(near, b"x"))
        far.sendto(b"y", far.recvfrom(10)[1])
        assert near.receive().stamps == [0]
        assert near.readErrors() == ([], [])
        near.close()

    @needsStamps
    def test_refused(self) -> None:
        """Refusals come with what they are of, and no send is lost for them, nor any stamp mistaken."""
        near = BatchSocket(connectedSocket(DatagramAddress(("127.0.0.1", unusedPort()))), 100)
        assert near.send(fill(near, b"a", b"b", b"c", b"d")) == Taken(4)
        stamps, failures = near.readErrors()
        assert [number for number, _ in stamps] == [0, 1, 2, 3]
        assert [failure.quoted for failure in failures] == [b"a", b"b", b"c", b"d"]
        assert all(isinstance(failure.reason, PortUnreachable) for failure in failures)
        near.close()

    @needsStamps
    def test_tooLong(self) -> None:
        """One that cannot be sent stops the call there, with the reason; the stamps of those after it are theirs."""
        with udpSocket() as far:
            near = open(far, 65535)
            assert near.send(fill(near, b"a", b"b" * 65508, b"c")) == Taken(1, errno.EMSGSIZE)
            assert near.send(fill(near, b"c", b"d")) == Taken(2)
            assert [number for number, _ in near.readErrors()[0]] == [0, 1, 2]
            near.close()
        assert explain(errno.EMSGSIZE) == "too long for the path, or for any datagram"

    def test_drops(self, far: socket.socket) -> None:
        """What the receive queue drops is counted by the system."""
        near = BatchSocket(connectedSocket(DatagramAddress(far.getsockname()), None, 1), 10, False)
        before = near.drops()
        near.send(fill(near, b"x"))
        client = far.recvfrom(10)[1]
        for _ in range(100):
            far.sendto(b"y", client)
        drops, kept = near.drops(), 0
        while count := len(near.receive().datagrams):
            kept += count
        assert before == 0
        assert drops == 100 - kept > 0
        near.close()
        assert near.drops() is None


class OutcomesTests:
    """L{Taken}, L{failureOf} and L{SocketOptions}: no batch is needed for them."""

    def test_full(self) -> None:
        """That the send queue is full is recognised."""
        assert Taken(3, errno.EAGAIN).full
        assert not Taken(3, errno.EPERM).full
        assert not Taken(3).full

    def test_reasons(self) -> None:
        """What a router reports of the path has how much it carries."""
        reason = failureOf(errqueue.QueuedError(errno.EMSGSIZE, 1400), "192.0.2.1:7")
        assert isinstance(reason, MessageTooLong)
        assert str(reason) == "the path to 192.0.2.1:7 carries 1400 bytes at the most, with headers"

    @onlyLinux
    def test_family(self) -> None:
        """IPv6 has options of its own."""
        try:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        except OSError:
            pytest.skip("this machine has no IPv6")
        with sock:
            SocketOptions(None, 184, 7, True).apply(sock)
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 184
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 7
            assert sock.getsockopt(socket.IPPROTO_IPV6, sockopt.IPV6_MTU_DISCOVER) == sockopt.IP_PMTUDISC_DO


class WatchTests:
    """L{Watch} and L{DelayedTurns}."""

    @onlyLinux
    def test_rings(self, run: Run) -> None:
        """It calls at the requested time and not before, and once; and when a socket that it watches has something."""

        async def test(reactor: Any) -> None:
            turns: list[tuple[int, set[int]]] = []
            waiting: list[defer.Deferred[None]] = []

            def turn(ready: Any) -> None:
                turns.append((time.monotonic_ns(), set(ready)))
                waiting.pop().callback(None)

            async def another() -> tuple[int, set[int]]:
                done: defer.Deferred[None] = defer.Deferred()
                waiting.append(done)
                await done.addTimeout(PATIENCE, reactor)
                return turns[-1]

            watch = openWatch(reactor, turn, time.monotonic_ns)
            assert isinstance(watch, Watch)
            with udpSocket() as far, udpSocket() as near:
                watch.watch(near.fileno())
                at = time.monotonic_ns() + 3_000_000
                watch.setDeadline(at + 10**12)
                watch.setDeadline(at)
                when, ready = await another()
                assert when >= at
                assert not ready
                far.sendto(b"x", near.getsockname())
                assert (await another())[1] == {near.fileno()}
                near.recv(10)
                # A time that has passed is now.
                watch.setDeadline(1)
                assert not (await another())[1]
                watch.setDeadline(time.monotonic_ns() + 1000)
                watch.setDeadline(None)
                pause: defer.Deferred[None] = defer.Deferred()
                reactor.callLater(0.005, pause.callback, None)
                await pause
                assert len(turns) == 3
            watch.close()
            watch.close()
            watch.setDeadline(1)

        run(test)

    @onlyLinux
    @pytest.mark.parametrize(
        ("module", "name", "value"),
        [
            # Of another width, with space for what the kernel writes.
            (timerfd, "_itimerspec", struct.Struct("@hhhh56x")),
            (library, "ctypes", None),
            (select, "epoll", None),
        ],
        ids=["layout", "ctypes", "epoll"],
    )
    def test_refused(self, monkeypatch: pytest.MonkeyPatch, runOnce: Run, module: object, name: str, value: object) -> None:
        """Where a timer cannot be used as it is meant, whatever the cause, the reactor's delayed calls do."""
        monkeypatch.setattr(module, name, value)
        timerfd._functions.cache_clear()
        watching.forget()

        async def test(reactor: Any) -> None:
            watch = openWatch(reactor, lambda ready: None, time.monotonic_ns)
            assert isinstance(watch, DelayedTurns)
            watch.close()

        try:
            runOnce(test)
        finally:
            timerfd._functions.cache_clear()
            watching.forget()

    @onlyLinux
    def test_timerResults(self) -> None:
        """What the system returns is looked at; and the latest time that a timer can have is one for all machines."""
        timer = timerfd.Timerfd()
        timer.set(10**30)
        assert timer.remaining() > 10**9 * 2**30
        timer.set(None)
        assert timer.remaining() == 0
        timer.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            timer.set(1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            timer.remaining()

    def test_delayed(self) -> None:
        """Without descriptors the reactor's delayed calls do."""
        clock = Clock()
        turns: list[float] = []
        watch = openWatch(clock, lambda ready: turns.append(clock.seconds()), lambda: round(clock.seconds() * 1e9))
        assert isinstance(watch, DelayedTurns)
        watch.setDeadline(10**9)
        watch.setDeadline(2 * 10**9)
        watch.setDeadline(2 * 10**9)
        clock.pump([0.5] * 10)
        assert turns == [2.0]
        watch.setDeadline(10**10)
        watch.close()
        assert not clock.getDelayedCalls()
