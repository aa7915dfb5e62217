"""What callbacks of a client's Deferreds do: each Deferred fires once, and no callback runs ever deeper inside others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.python.failure import Failure

from tests.support.client import ScriptedServer, serve
from tests.support.depth import stackDepth
from tests.support.reaction import Reaction
from tests.support.running import Run, udpSocket
from udpecho.client.connect import connect, echo
from udpecho.client.protocol import EchoClient
from udpecho.errors import ClientClosed
from udpecho.net.open import listen
from udpecho.server.protocol import EchoServer
from udpecho.testing.memory_network import MemoryNetwork

PORT = 1234
MANY = 1000
#: How many frames callbacks may differ in their depth, at the most, however many there are.
SAME_DEPTH = 150


class _Boom(Exception):
    pass


class Calls:
    """Many outstanding calls, each with something that its callback does.

    @ivar results: how often each has fired, by number.
    @ivar depths: the depth of the stack in each callback.
    """

    def __init__(self, reactor: Any, client: EchoClient, actions: list[str]) -> None:
        self.reactor = reactor
        self.clients = [client]
        self.actions = actions
        self.started: list[Deferred[int]] = []
        self.results: list[list[object]] = []
        self.depths: list[int] = []

    def start(self, client: EchoClient, action: str) -> None:
        number = len(self.started)
        self.results.append([])
        call = client.echo(b"%d" % number, 1.0)
        self.started.append(call)
        call.addBoth(self.fired, number, action)
        call.addErrback(lambda failure: failure.trap(_Boom))

    def startMany(self, count: int) -> None:
        for number in range(count):
            self.start(self.clients[0], self.actions[number % len(self.actions)])

    def fired(self, result: object, number: int, action: str) -> None:
        self.results[number].append(result)
        self.depths.append(stackDepth())
        getattr(self, action)(number)

    def nothing(self, number: int) -> None:
        pass

    def close(self, number: int) -> None:
        self.clients[0].close()
        self.clients[0].close()

    def cancelNext(self, number: int) -> None:
        if number + 1 < len(self.started):
            self.started[number + 1].cancel()

    def cancelLast(self, number: int) -> None:
        self.started[-1 - number % len(self.started)].cancel()

    def cancelAll(self, number: int) -> None:
        for call in self.started:
            call.cancel()

    def echoAgain(self, number: int) -> None:
        self.start(self.clients[0], "nothing")

    def stopListening(self, number: int) -> None:
        transport: Any = self.clients[0].transport
        if transport is not None:
            transport.stopListening()

    def abort(self, number: int) -> None:
        transport: Any = self.clients[0].transport
        if transport is not None:
            transport.abort()

    def fail(self, number: int) -> None:
        raise _Boom

    def connectAgain(self, number: int) -> None:
        def connected(client: EchoClient) -> None:
            self.clients.append(client)
            self.start(client, "nothing")

        connect(self.reactor, "192.0.2.7", PORT).addCallback(connected)

    def check(self) -> None:
        assert [len(results) for results in self.results] == [1] * len(self.results)
        assert max(self.depths) - min(self.depths) <= SAME_DEPTH
        for client in self.clients:
            assert client._outstanding == {}
            assert client._byPayload == {}
            assert client._former == []


#: What ends the calls.
TRIGGERS = ["reply", "refusal", "deadline", "close", "cancel", "stopProtocol"]
ACTIONS = [
    "nothing",
    "close",
    "cancelNext",
    "cancelLast",
    "cancelAll",
    "echoAgain",
    "stopListening",
    "abort",
    "fail",
    "connectAgain",
]


class VirtualTests:
    """In memory."""

    def world(self, trigger: str, actions: list[str]) -> tuple[MemoryNetwork, Any, Calls]:
        network = MemoryNetwork()
        if trigger != "refusal":
            server = EchoServer() if trigger == "reply" else ScriptedServer(lambda _: [])
            listen(network.host("peer", "192.0.2.7"), PORT, server, "192.0.2.7")
        else:
            network.host("peer", "192.0.2.7")
        host = network.host("here", "192.0.2.1")
        clients: list[EchoClient] = []
        connect(host, "192.0.2.7", PORT).addCallback(clients.append)
        return network, host, Calls(host, clients[0], actions)

    @settings(max_examples=50)
    @given(
        trigger=st.sampled_from(TRIGGERS),
        actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8),
        count=st.sampled_from([1, 2, 3, 7, 100, MANY]),
    )
    def test_anything(self, trigger: str, actions: list[str], count: int) -> None:
        """Whatever each callback does, all calls end once, by their deadline, and nothing is left."""
        network, host, calls = self.world(trigger, actions)
        client = calls.clients[0]
        calls.startMany(count)
        if trigger == "close":
            client.close()
        elif trigger == "cancel":
            calls.started[count // 2].cancel()
        elif trigger == "stopProtocol":
            client.transport.abort()  # type: ignore[union-attr]
        # The second second is that of calls that were started in callbacks.
        network.advance(1.5)
        network.advance(1.5)
        calls.check()
        for each in calls.clients:
            each.close()
        network.advance(0.1)
        assert host.getDelayedCalls() == []

    def test_order(self) -> None:
        """Callbacks run in the order of sending, also when one of them closes the client."""
        _, _, calls = self.world("close", ["close"])
        order: list[int] = []

        def fired(_: object, number: int) -> None:
            order.append(number)

        calls.startMany(10)
        for number, call in enumerate(calls.started):
            call.addBoth(fired, number)
        calls.clients[0].close()
        assert order == list(range(10))

    def test_closedFirst(self) -> None:
        """When the first callback runs, the socket is closed, and no deadline is left."""
        _, host, calls = self.world("deadline", ["nothing"])
        left: list[object] = []

        def look(result: object) -> None:
            left.append((calls.clients[0].transport, host.getDelayedCalls()))

        calls.startMany(3)
        for call in calls.started:
            call.addBoth(look)
        calls.clients[0].close()
        assert left == [(None, [])] * 3

    def test_notInside(self) -> None:
        """A callback that ends other calls returns before their callbacks run."""
        _, _, calls = self.world("deadline", ["nothing"])
        inside = False

        def callback(result: object) -> None:
            nonlocal inside
            assert not inside
            inside = True
            calls.clients[0].close()
            inside = False

        results = [call.addBoth(callback) for call in (calls.clients[0].echo(b"%d" % number) for number in range(5))]
        calls.clients[0].close()
        assert [each.result for each in results] == [None] * 5

    def test_cancelledWhileItWaits(self) -> None:
        """A call that has ended, and is cancelled before its callback runs, is cancelled."""
        _, _, calls = self.world("deadline", ["cancelNext", "nothing"])
        calls.startMany(2)
        calls.clients[0].close()
        first, second = (results[0] for results in calls.results)
        assert isinstance(first, Failure)
        assert first.check(ClientClosed)
        assert isinstance(second, Failure)
        assert second.check(CancelledError)

    def test_closeFromClosed(self) -> None:
        """A callback of C{close} may close again, and each of these Deferreds fires."""
        _, _, calls = self.world("deadline", ["nothing"])
        client, fired = calls.clients[0], []

        def closed(_: object, left: int) -> None:
            fired.append(left)
            if left:
                client.close().addCallback(closed, left - 1)

        for _ in range(3):
            client.close().addCallback(closed, 3)
        assert sorted(fired) == sorted([3, 2, 1, 0] * 3)

    def test_resolverRaises(self) -> None:
        """A resolver that raises when a silent peer is looked up again does not keep a call from its deadline."""
        network, _, calls = self.world("deadline", ["nothing"])
        client = calls.clients[0]

        def lookUp() -> Any:
            raise RuntimeError("of the test")

        assert client.route is not None
        client.route._lookUp = lookUp
        for _ in range(4):
            calls.start(client, "nothing")
            network.advance(2)
        calls.check()

    def test_logCloses(self) -> None:
        """An observer of the log may close the client when its line about another socket comes."""
        network, host, calls = self.world("deadline", ["nothing"])
        with Reaction("socket reopened", calls.clients[0].close) as reaction:
            for _ in range(8):
                calls.startMany(3)
                network.advance(2)
        assert reaction.count
        network.advance(0.1)
        calls.check()
        assert host.getDelayedCalls() == []

    def test_cancelManyEchoes(self) -> None:
        """Calls of C{echo}, each with a client of its own: each that is cancelled cancels the next one."""
        network, host, _ = self.world("deadline", ["nothing"])
        calls: list[Deferred[Any]] = []
        depths: list[int] = []

        def failed(failure: Failure, number: int) -> None:
            failure.trap(CancelledError)
            depths.append(stackDepth())
            if number + 1 < len(calls):
                calls[number + 1].cancel()

        for number in range(300):
            calls.append(echo(host, "192.0.2.7", PORT, b"hello"))
            calls[-1].addErrback(failed, number)
        calls[0].cancel()
        network.advance(0.1)
        assert len(depths) == 300
        assert max(depths) - min(depths) <= SAME_DEPTH


class RealTests:
    """On real sockets, and each kind of reactor."""

    @pytest.mark.parametrize("action", ["close", "cancelNext"])
    @pytest.mark.parametrize("trigger", TRIGGERS)
    def test_many(self, run: Run, trigger: str, action: str) -> None:
        """1000 outstanding calls, each of whose callbacks closes the client, or cancels the next call."""

        async def test(reactor: Any) -> None:
            server = None
            if trigger == "refusal":
                with udpSocket() as closed:
                    port = closed.getsockname()[1]
            else:
                server = serve(reactor, None if trigger == "reply" else lambda _: [])
                port = server.getHost().port
            client = await connect(reactor, "127.0.0.1", port)
            calls = Calls(reactor, client, [action])
            calls.startMany(MANY)
            if trigger == "close":
                client.close()
            elif trigger == "cancel":
                calls.started[0].cancel()
            elif trigger == "stopProtocol":
                client.transport.abort()  # type: ignore[union-attr]
            await DeferredList(calls.started)
            calls.check()
            await client.close()
            if server is not None:
                await server.stopListening()

        run(test)
