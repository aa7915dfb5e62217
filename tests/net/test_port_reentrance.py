"""What callbacks of a port, and its protocol, do to it: L{udpecho.net.port} and L{udpecho.net.sender}, on real sockets."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.depth import stackDepth
from tests.support.ports import address, open_, path, script  # noqa: F401
from tests.support.reaction import Reaction
from tests.support.running import Recorder, Run, sleep, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IBatchReceiver, IDatagramBatch
from udpecho.net import connection
from udpecho.net.open import dial
from udpecho.net.port import DatagramPort

MANY = 1000
#: How many frames callbacks may differ in their depth, at the most.
SAME_DEPTH = 100
NOWHERE = ("127.0.0.1", 9)


class Boom(Exception):
    """Is raised by callbacks."""


class SendCallbackTests:
    """The callbacks of C{send}."""

    @pytest.mark.parametrize("number", [0, errno.EPERM, errno.EAGAIN])
    def test_sendAgain(self, runOnce: Run, number: int) -> None:
        """A callback that sends the next datagram does not run inside the one before, be it taken, rejected or kept."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder(), writeTimeout=0.01)
            script(port, [number] * (MANY + 100))
            depths: list[int] = []
            done: Deferred[None] = Deferred()

            def sent(reason: str | None) -> None:
                depths.append(stackDepth())
                if len(depths) == MANY:
                    reactor.callLater(0, done.callback, None)
                elif number != errno.EAGAIN or len(depths) % 100:
                    port.send(b"again", NOWHERE, sent)
                else:
                    port.abort()
                    port.send(b"again", NOWHERE, sent)

            port.send(b"first", NOWHERE, sent)
            if number == errno.EAGAIN:
                port.abort()
            await done
            assert len(depths) == MANY
            assert max(depths) - min(depths) <= SAME_DEPTH
            await port.stopListening()

        runOnce(test)

    @pytest.mark.parametrize("action", ["abort", "stopListening", "raise", "send", "connect"])
    @pytest.mark.parametrize("ending", ["flush", "timeout", "close"])
    def test_whileOthersWait(self, runOnce: Run, caught: Any, action: str, ending: str) -> None:
        """When the first of several datagrams that wait is reported, the others are sent, or given up, and reported once."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            port = open_(reactor, protocol, writeTimeout=0.01 if ending == "timeout" else 60)
            fails = script(port, [errno.EAGAIN] * (1 if ending == "flush" else 1_000_000))
            outcomes: dict[int, list[str | None]] = {number: [] for number in range(6)}
            stopped: list[object] = []

            def sent(number: int, reason: str | None) -> None:
                outcomes[number].append(reason)
                if number:
                    return
                fails.sends.clear()
                if action == "abort":
                    port.abort()
                    stopped.append(hasattr(port, "socket"))
                elif action == "stopListening":
                    port.stopListening().addCallback(stopped.append)
                elif action == "send":
                    port.send(b"again", sock.getsockname(), lambda reason: outcomes[5].append(reason))
                elif action == "connect" and port.connected:
                    port.connect(*sock.getsockname())
                elif action == "raise":
                    raise Boom

            with udpSocket() as sock:
                for number in range(5):
                    port.send(b"%d" % number, sock.getsockname(), partial(sent, number))
                if ending == "close":
                    port.abort()
                while not all(outcomes[number] for number in range(5)):
                    await sleep(reactor, 0.001)
                expected = {"flush": None, "timeout": "send_timeout", "close": "send_timeout"}[ending]
                # A turn may have had no time for all, and each has a deadline of its own.
                late = [expected, "send_timeout"] if action in ("abort", "stopListening") else [expected]
                late += [None] if ending == "timeout" else []
                assert outcomes[0] == [expected]
                assert all(len(outcomes[number]) == 1 and outcomes[number][0] in late for number in range(1, 5))
                if action == "send":
                    assert outcomes[5] == ["send_failed" if ending == "close" else None]
            await port.stopListening()
            if action in ("abort", "stopListening"):
                assert stopped == [None if action == "stopListening" else ending == "close"]

        runOnce(test)
        assert len(caught.flush(Boom)) == (action == "raise")

    def test_order(self, runOnce: Run) -> None:
        """When a callback closes the port, what waits is reported, the protocol is stopped, and the Deferreds fire."""

        async def test(reactor: Any) -> None:
            order: list[str] = []

            class Protocol(Recorder):
                def stopProtocol(self) -> None:
                    order.append("stopped")

            port = open_(reactor, Protocol())
            script(port, [errno.EAGAIN])

            def sent(reason: str | None) -> None:
                order.append(f"first: {reason}")
                port.stopListening().addCallback(lambda _: order.append("closed"))
                port.abort()
                order.append("aborted")

            with udpSocket() as sock:
                port.send(b"1", sock.getsockname(), sent)
                await port.stopListening()
                await sleep(reactor)
                assert order == ["first: send_timeout", "aborted", "stopped", "closed"]

        runOnce(test)


@implementer(IBatchReceiver)
class BatchProtocol(Recorder):
    """Sends each batch back, drops every third entry, and calls back."""

    def __init__(self, callback: Callable[[str | None, int, int], None]) -> None:
        super().__init__()
        self.callback = callback

    def datagramsReceived(self, batch: IDatagramBatch) -> None:
        for entry in range(0, batch.entries, 3):
            batch.drop(entry, "not_allowed")
        batch.send(self.callback)


class BatchCallbackTests:
    """The callback of C{IDatagramBatch.send}."""

    @pytest.mark.parametrize("action", ["abort", "raise", "send"])
    def test_callback(self, runOnce: Run, path: str, caught: Any, action: str) -> None:  # noqa: F811
        """Whatever it does, each datagram of the batch has one outcome, and is sent before it is reported."""
        if path != "batch":
            pytest.skip("there are no batches")

        async def test(reactor: Any) -> None:
            outcomes: dict[str | None, int] = {}
            others: list[str | None] = []

            def callback(reason: str | None, datagrams: int, size: int) -> None:
                outcomes[reason] = outcomes.get(reason, 0) + datagrams
                if action == "abort":
                    port.abort()
                elif action == "send":
                    port.send(b"other", sock.getsockname(), others.append)
                else:
                    raise Boom

            port = open_(reactor, BatchProtocol(callback))
            with udpSocket() as sock:
                for number in range(9):
                    sock.sendto(b"%d" % number, address(port))
                while sum(outcomes.values()) < 9:
                    await sleep(reactor, 0.001)
                assert outcomes == {None: 6, "not_allowed": 3}
                received = [sock.recv(100) for _ in range(6 + len(others))]
                assert [each for each in received if each != b"other"] == [b"1", b"2", b"4", b"5", b"7", b"8"]
            await port.stopListening()

        runOnce(test)
        assert bool(caught.flush(Boom)) == (action == "raise")


class ProtocolTests:
    """Methods of the protocol."""

    @pytest.mark.parametrize("raises", [Boom, OSError])
    def test_startRaises(self, run: Run, raises: type[Exception]) -> None:
        """When C{startProtocol} raises, so does C{listen}, and nothing is left open."""

        class Protocol(Recorder):
            def startProtocol(self) -> None:
                raise raises(errno.EPERM, "of the test")

        async def test(reactor: Any) -> None:
            with pytest.raises(Boom if raises is Boom else error.CannotListenError):
                open_(reactor, Protocol())

        run(test)

    @pytest.mark.parametrize("how", ["stopListening", "abort"])
    def test_stopsAtStart(self, run: Run, how: str) -> None:
        """A protocol that stops its port when it begins gets no datagram."""

        class Protocol(Recorder):
            def startProtocol(self) -> None:
                getattr(self.transport, how)()

        async def test(reactor: Any) -> None:
            protocol = Protocol()
            with udpSocket() as sock:
                port = open_(reactor, protocol)
                if how == "stopListening":
                    sock.sendto(b"late", address(port))
                    port.startReading()
                    assert port not in reactor.getReaders()
                await port.stopListening()
            assert protocol.datagrams == []
            assert protocol.transport is None

        run(test)

    def test_stopProtocol(self, run: Run) -> None:
        """A protocol may write, stop, abort and listen elsewhere when it is stopped, and read what the port has counted."""
        ports: list[DatagramPort] = []
        others: list[DatagramPort] = []

        class Protocol(Recorder):
            reactor: Any

            def stopProtocol(self) -> None:
                port: Any = ports[0]
                port.write(b"late", NOWHERE)
                port.abort()
                port.getKernelDrops()
                port.getHost()
                stopped.append(port.stopListening())
                others.append(open_(self.reactor, Recorder()))

        stopped: list[Deferred[None]] = []

        async def test(reactor: Any) -> None:
            protocol = Protocol()
            protocol.reactor = reactor
            port = open_(reactor, protocol)
            ports.append(port)
            host = address(port)
            await DeferredList([port.stopListening(), port.stopListening()])
            await stopped[0]
            assert port.dropped == {"send_failed": 1}
            with udpSocket(*host):
                pass
            with udpSocket() as sock:
                sock.sendto(b"hello", address(others[0]))
                await others[0].protocol.count(1)
            await others[0].stopListening()

        run(test)

    def test_usedPort(self, runOnce: Run) -> None:
        """A port listens once: open or closed, it cannot be opened again."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            with pytest.raises(error.CannotListenError, match="must be new"):
                port.startListening()
            await port.stopListening()
            with pytest.raises(error.CannotListenError, match="must be new"):
                port.startListening()

        runOnce(test)

    def test_manyPorts(self, runOnce: Run) -> None:
        """Each of many protocols aborts the next port when it is stopped."""

        async def test(reactor: Any) -> None:
            depths: list[int] = []
            ports: list[DatagramPort] = []

            class Protocol(Recorder):
                def stopProtocol(self) -> None:
                    depths.append(stackDepth())
                    if len(depths) < len(ports):
                        ports[len(depths)].abort()

            ports += [open_(reactor, Protocol()) for _ in range(200)]
            ports[0].abort()
            assert len(depths) == 200
            assert max(depths) - min(depths) <= SAME_DEPTH

        runOnce(test)

    def test_stopListeningAgain(self, runOnce: Run) -> None:
        """Callbacks of many C{stopListening} may stop it again, and one that is cancelled does not disturb the others."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            fired: list[object] = []
            stopping = [port.stopListening() for _ in range(300)]
            for each in stopping:
                each.addBoth(fired.append)
                each.addCallback(lambda _: port.stopListening())
            stopping[7].cancel()
            await stopping[-1]
            assert fired.count(None) == 299
            assert isinstance(fired[0], Failure)
            assert fired[0].check(CancelledError)

        runOnce(test)


class LogTests:
    """An observer of the log closes the port."""

    @pytest.mark.parametrize("waits", [False, True])
    def test_reopened(self, runOnce: Run, monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
        """When the socket is opened again, while a datagram is sent, or one that waits."""
        monkeypatch.setattr(connection, "QUIET", 0.0)
        monkeypatch.setattr(connection, "PAUSE", 0.0)

        async def test(reactor: Any) -> None:
            outcomes: list[str | None] = []
            with udpSocket() as sock:
                port = dial(reactor, Recorder(), DatagramAddress(sock.getsockname()))
                if waits:
                    renewal, port._context.renewal = port._context.renewal, None
                    script(port, [errno.EAGAIN])
                    for _ in range(3):
                        port.send(b"hello", None, outcomes.append)
                    port._context.renewal = renewal
                monkeypatch.setattr(connection, "_choice", lambda sock: object())
                with Reaction("reopened", port.abort) as reaction:
                    if not waits:
                        port.send(b"hello", None, outcomes.append)
                    while len(outcomes) < (3 if waits else 1):
                        await sleep(reactor, 0.001)
            assert outcomes == (["send_timeout"] * 3 if waits else ["send_failed"])
            assert reaction.count == 1
            await port.stopListening()

        runOnce(test)

    def test_cannotRead(self, runOnce: Run) -> None:
        """When the system fails to read."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            script(port, receives=[errno.ENOMEM])
            with Reaction("cannot read", port.abort) as reaction, udpSocket() as sock:
                sock.sendto(b"hello", address(port))
                while port.connected:
                    await sleep(reactor, 0.001)
            assert reaction.count == 1

        runOnce(test)

    def test_closed(self, run: Run) -> None:
        """When the stock line about closing comes."""

        async def test(reactor: Any) -> None:
            protocol = Recorder()
            protocol.noisy = True
            port = open_(reactor, protocol)
            with Reaction("Closed)", port.abort) as reaction:
                port.abort()
            assert reaction.count == 1
            assert protocol.transport is None

        run(test)


class DrainTests:
    """C{drain}."""

    def test_cancelled(self, run: Run) -> None:
        """It can be cancelled, and leaves nothing."""

        async def test(reactor: Any) -> None:
            port = open_(reactor, Recorder())
            draining = port.drain(1000)
            results: list[Any] = []
            draining.addBoth(results.append)
            draining.cancel()
            assert results[0].check(CancelledError)
            assert reactor.getDelayedCalls() == [] or all(
                call.getTime() > reactor.seconds() for call in reactor.getDelayedCalls()
            )
            await port.stopListening()

        run(test)
