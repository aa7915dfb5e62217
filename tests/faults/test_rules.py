"""Tests of L{udpecho.faults.rules} and L{udpecho.faults.matching}: rules that see datagrams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.support import memory
from tests.support.memory import pair
from tests.support.proxy import Upstream, addressOf, open_, until
from tests.support.running import PATIENCE, Run, udpSocket
from udpecho.addresses import DatagramAddress
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import (
    AT_ONCE,
    DELAYED,
    DELIVERED,
    DUPLICATED,
    LOST,
    TOO_LONG,
    Decision,
    Recording,
    Replay,
    decideOn,
)
from udpecho.faults.matching import Match, matching
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.faults.rule_text import parseRule
from udpecho.faults.rules import Rules, corrupt, delay, deliver, duplicate, lose, replace, rule, truncate
from udpecho.testing.memory_network import MemoryNetwork

CLIENT, SERVER = DatagramAddress(("192.0.2.1", 5000)), DatagramAddress(("192.0.2.2", 69))


def datagram(payload: bytes = b"", time: float = 0.0, back: bool = False, link: str = "") -> Datagram:
    return Datagram(payload, *((SERVER, CLIENT) if back else (CLIENT, SERVER)), time, link)


def chosen(match: Match, datagrams: Iterable[Datagram]) -> list[int]:
    """The numbers of the datagrams that a match is about."""
    isMeant = match.begin()
    return [number for number, each in enumerate(datagrams) if isMeant(each)]


def isAck(datagram: Datagram) -> bool:
    return datagram.payload.startswith(b"\0\4")


#: Data and acknowledgements in turn, with their numbers as times.
TRANSFER = [
    datagram(b"\0\4" if time % 2 else b"\0\3data", time, time % 2 == 1, "up" if time % 2 else "down") for time in range(12)
]


class MatchTests:
    """Which datagrams are meant."""

    @pytest.mark.parametrize(
        ("match", "expected"),
        [
            (matching(), [*range(12)]),
            (matching(isAck), [1, 3, 5, 7, 9, 11]),
            (matching(isAck).nth(3), [5]),
            (matching(isAck).nth(6, 1), [1, 11]),
            (matching().nth(3).matching(isAck), []),
            (matching(isAck).first(), [1]),
            (matching(isAck).first(2), [1, 3]),
            (matching().first(0), []),
            (matching(isAck).after(4), [9, 11]),
            (matching(isAck).after(1).first(2), [3, 5]),
            (matching().every(5), [4, 9]),
            (matching().during(3, 5), [3, 4]),
            (matching().during(10), [10, 11]),
            (matching().size(3), [0, 2, 4, 6, 8, 10]),
            (matching().size(0, 2), [1, 3, 5, 7, 9, 11]),
            (matching().startingWith(b"\0\3").nth(2), [2]),
            (matching().containing(b"ata").nth(2), [2]),
            (matching().source("192.0.2.2").first(), [1]),
            (matching().destination(("192.0.2.2", 69)).first(), [0]),
            (matching().destination(("192.0.2.2", 70)), []),
            (matching().source(5000).every(6), [10]),
            (matching().link("up").first(), [1]),
            (matching().probability(1.0).probability(0.0), []),
        ],
    )
    def test_conditions(self, match: Match, expected: list[int]) -> None:
        """Each condition sees what fulfils those before it, and each use of a match counts from the beginning."""
        assert chosen(match, TRANSFER) == expected
        assert chosen(match, TRANSFER) == expected

    def test_probability(self) -> None:
        """A share is random, and the same for the same seed."""
        many = [datagram()] * 1000
        first = chosen(matching().probability(0.1, 7), many)
        assert 50 < len(first) < 150
        assert chosen(matching().probability(0.1, 7), many) == first
        assert chosen(matching().probability(0.1, 8), many) != first

    def test_host(self) -> None:
        """A host in memory stands for its addresses."""
        host = MemoryNetwork().host("server", "192.0.2.2", "2001:db8::2")
        assert chosen(matching().source(host), TRANSFER) == [1, 3, 5, 7, 9, 11]

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: matching().nth(), "nth must have one number or more, got none"),
            (lambda: matching().nth(0), "nth must be 1 or more, got 0"),
            (lambda: matching().first(-1), "first must be 0 or more, got -1"),
            (lambda: matching().every(0), "every must be 1 or more, got 0"),
            (lambda: matching().after(-1), "after must be 0 or more, got -1"),
            (lambda: matching().during(-1), "start must be a number of seconds, 0 or more, got -1"),
            (lambda: matching().during(2, 2), "end must be a number of seconds, more than 2, got 2"),
            (lambda: matching().size(-1), "least must be 0 or more, got -1"),
            (lambda: matching().size(5, 4), "most must be a number of bytes, 5 or more, got 4"),
            (lambda: matching().probability(2), "share must be a probability from 0 to 1, got 2"),
            (lambda: delay(-1), "delay must be a number of seconds, 0 or more, got -1"),
            (lambda: duplicate(copies=0), "copies must be 1 or more, got 0"),
            (lambda: corrupt(bit=-1), "bit must be 0 or more, got -1"),
            (lambda: truncate(-1), "size must be 0 or more, got -1"),
        ],
    )
    def test_outOfRange(self, make: Callable[[], object], message: str) -> None:
        """Values out of range are refused at once, not when the first datagram comes."""
        with pytest.raises(ValueError, match=f"^{message}$"):
            make()

    @pytest.mark.parametrize(("function", "value"), [(lose, 3), (matching, 7), (matching().nth, "1"), (replace, "text")])
    def test_wrongType(self, function: Callable[..., object], value: object) -> None:
        """So are those of a wrong type."""
        with pytest.raises(TypeError, match=" must be "):
            function(value)


class RuleTests:
    """What becomes of these datagrams."""

    @pytest.mark.parametrize(
        ("rules", "decision", "arrivals"),
        [
            (lose(), "lost", []),
            (lose(lambda datagram: False), "delivered +0.000000000", [(0.0, b"hello")]),
            (deliver(), "delivered +0.000000000", [(0.0, b"hello")]),
            (delay(0.1), "delayed +0.100000000", [(0.1, b"hello")]),
            (duplicate(), "duplicated +0.000000000 +0.000000000", [(0.0, b"hello")] * 2),
            (
                duplicate(copies=2, after=0.5),
                "duplicated +0.000000000 +0.500000000 +1.000000000",
                [(0.0, b"hello"), (0.5, b"hello"), (1.0, b"hello")],
            ),
            (corrupt(bit=9), "corrupted flip=9 +0.000000000", [(0.0, b"hgllo")]),
            (truncate(2), "truncated truncated=2 +0.000000000", [(0.0, b"he")]),
            (truncate(5), "delivered +0.000000000", [(0.0, b"hello")]),
            (replace(b""), "replaced payload= +0.000000000", [(0.0, b"")]),
            (replace(lambda d: d.payload[::-1]), "replaced payload=6f6c6c6568 +0.000000000", [(0.0, b"olleh")]),
            (
                Rules(replace(b"abc"), corrupt(), truncate(2), duplicate(), delay(1)),
                "replaced,corrupted,truncated,duplicated,delayed payload=616263 flip=0 truncated=2 +1.000000000 +1.000000000",
                [(1.0, b"`b")] * 2,
            ),
            (Rules(lose(), delay(1)), "lost", []),
            (Rules(lose(), deliver()), "delivered +0.000000000", [(0.0, b"hello")]),
        ],
    )
    def test_actions(self, rules: Rules, decision: str, arrivals: list[tuple[float, bytes]]) -> None:
        """Each action makes a decision that reads, and is replayed, as those of a plan."""
        found = rules.decideDatagram(datagram(b"hello"))
        assert str(found) == decision
        assert Decision.fromString(decision) == found
        assert found.apply(b"hello") == arrivals

    def test_empty(self) -> None:
        """An empty payload has no bit to flip and no end to miss."""
        assert Rules(corrupt(), truncate(0)).decideDatagram(datagram()) == AT_ONCE

    def test_ownChange(self) -> None:
        """A rule of one's own sees the datagram and what was decided before."""
        seen: list[object] = []

        def change(datagram: Datagram, decision: Decision) -> Decision:
            seen.append((datagram.size, decision))
            return Decision((LOST,), ())

        made = Rules(delay(1), rule(matching().nth(2), change))
        assert [made.decideDatagram(datagram(bytes(size))).reasons for size in (5, 6, 7)] == [(DELAYED,), (LOST,), (DELAYED,)]
        assert seen == [(6, Decision((DELAYED,), (1.0,)))]

    def test_onPlan(self) -> None:
        """Rules change what a plan decides, and the plan decides about all other datagrams as it does alone."""
        faults: dict[str, Any] = {"loss": 0.3, "duplicate": 0.3, "delay": 0.5}
        alone = FaultPlan(7, **faults)
        rules = Rules(lose(matching().every(3)), deliver(matching().first(2)), plan=FaultPlan(7, **faults))
        for number in range(1, 100):
            expected = alone.decide(5, 0.0)
            found = decideOn(rules, datagram(b"hello"))
            if number <= 2:
                assert found == AT_ONCE
            elif number % 3 == 0:
                assert found == Decision((LOST,), ())
            else:
                assert found == expected

    def test_withoutDatagram(self) -> None:
        """A refusal by ICMP has no payload: the plan decides, and no rule counts it."""
        rules = Rules(lose(matching().nth(1)), plan=FaultPlan(delay=1))
        assert rules.decide(0, 0.0) == Decision((DELAYED,), (1.0,))
        assert lose().decide(0, 0.0) == AT_ONCE
        assert rules.decideDatagram(datagram()).reasons == (LOST,)

    def test_mtu(self) -> None:
        """What a plan says about its limit is said by rules on top of it, and by a recording."""
        assert Recording(Rules(lose(), plan=FaultPlan(mtu=1400))).mtu == 1400
        assert Recording(Rules()).mtu is None

    def test_recorded(self) -> None:
        """Their decisions are recorded, and replayed, as others are."""
        recording = Recording(
            Rules(lose(matching(isAck).nth(3)), replace(b"x", matching(isAck).nth(1)), plan=FaultPlan(3, jitter=1))
        )
        found = [decideOn(recording, each) for each in TRANSFER]
        replay = Replay(str(recording))
        assert [decideOn(replay, each) for each in TRANSFER] == found == recording.decisions
        assert found[5] == Decision((LOST,), ())

    def test_sparse(self) -> None:
        """Of a recording the lines that matter are enough: their numbers count, and comments do not."""
        replay = Replay("# the third acknowledgement\n5: lost  # 0004\n  7: lost\nduplicated +0.000000000 +1.000000000")
        found = [decideOn(replay, each).reasons for each in TRANSFER]
        assert [number for number, reasons in enumerate(found) if reasons == (LOST,)] == [5, 7]
        assert [number for number, reasons in enumerate(found) if reasons == (DUPLICATED,)] == [8]
        assert found.count((DELIVERED,)) == 9


class MemoryTests:
    """Rules on a network in memory."""

    def test_seen(self) -> None:
        """A rule sees the payload, both addresses, the time and the link; deciders that see sizes only go on to work."""
        seen: list[Datagram] = []
        network = MemoryNetwork(lose(seen.append))
        one, two = pair(network)
        port, _ = memory.open_(one, "0.0.0.0", 5000)
        _, protocol = memory.open_(two, "0.0.0.0", 7)
        network.setPlan(two, one, Replay("lost"))
        network.advance(1.5)
        port.write(b"hello", ("10.0.0.2", 7))
        network.advance(0)
        assert seen == [Datagram(b"hello", ("10.0.0.1", 5000), ("10.0.0.2", 7), 1.5, f"{one.name} > {two.name}")]
        assert len(protocol.datagrams) == 1
        protocol.transport.write(b"back", ("10.0.0.1", 5000))
        assert network.trace[-1].outcome == "lost"

    def test_thirdAck(self) -> None:
        """C{lose(matching(...).nth(3))} loses the third acknowledgement, and nothing else."""
        network = MemoryNetwork()
        one, two = pair(network)
        network.setPlan(two, one, lose(matching(lambda d: d.payload.startswith(b"\0\4")).nth(3)))
        port, _ = memory.open_(two, "0.0.0.0", 69)
        _, protocol = memory.open_(one, "0.0.0.0", 5000)
        for number in range(5):
            port.write(b"\0\3", ("10.0.0.1", 5000))
            port.write(b"\0\4%d" % number, ("10.0.0.1", 5000))
        network.advance(1)
        acks = [payload for payload, _ in protocol.datagrams if payload.startswith(b"\0\4")]
        assert acks == [b"\0\0040", b"\0\0041", b"\0\0043", b"\0\0044"]
        assert len(protocol.datagrams) == 9

    def test_raises(self, caught: Any) -> None:
        """A condition that raises is a plan that failed: the datagram is lost, and the program goes on."""
        network = MemoryNetwork(lose(lambda datagram: datagram.payload[7]))
        one, _ = pair(network)
        port, _ = memory.open_(one, "0.0.0.0")
        port.write(b"short", ("10.0.0.2", 7))
        assert network.trace[0].outcome == "plan failed"
        assert len(caught.flush(IndexError)) == 1

    def test_tooLong(self) -> None:
        """Rules on a plan with a limit report that limit, as the plan alone does."""
        network = MemoryNetwork(Rules(plan=FaultPlan(mtu=100)))
        one, _ = pair(network)
        port, protocol = memory.open_(one, "0.0.0.0")
        port.connect("10.0.0.2", 7)
        port.write(bytes(101))
        network.advance(1)
        assert network.trace[0].outcome == TOO_LONG
        assert [reason.limit for reason in protocol.errors] == [100]


class ProxyTests:
    """Rules in a real proxy."""

    def test_bothWays(self, runOnce: Run) -> None:
        """They see the client and the upstream as the two ends, in each direction, and the time since the proxy was made."""
        seen: list[Datagram] = []

        def note(datagram: Datagram) -> bool:
            seen.append(datagram)
            return False

        async def test(reactor: Any) -> None:
            server = open_(reactor, Upstream())
            up, down = lose(note), Rules(lose(note), replace(b"changed", matching().nth(2)))
            proxy = FaultProxy(reactor, addressOf(server), up, down)
            proxy.start()
            with udpSocket() as client:
                client.settimeout(0)
                for number in (1, 2, 3):
                    client.sendto(b"hello", proxy.address)
                    await until(reactor, lambda: len(received(client, replies)) == number, "the reply")  # noqa: B023
                ends = client.getsockname(), addressOf(server)
            proxy.stop()
            server.abort()
            assert replies == [b"hello", b"changed", b"hello"]
            ups, downs = ([each for each in seen if each.link == link] for link in ("up", "down"))
            assert [each.payload for each in seen] == [b"hello"] * 6
            assert {(each.source, each.destination) for each in ups} == {ends}
            assert {(each.destination, each.source) for each in downs} == {ends}
            times = [each.time for each in ups]
            assert 0 <= times[0] <= times[1] <= times[2] < PATIENCE
            assert +proxy.down.outcomes == {"delivered": 2, "replaced": 1}

        replies: list[bytes] = []
        runOnce(test)


class TextTests:
    """Rules as text."""

    @pytest.mark.parametrize(
        ("text", "reasons"),
        [
            ("lose", ["lost"] * 12),
            ("lose starts=0004 nth=3", {5: "lost"}),
            ("lose starts=00:04", None),
            ("lose contains=64617461 after=1 first=2", {2: "lost", 4: "lost"}),
            ("delay=50ms from=192.0.2.2 first=1", {1: "delayed"}),
            ("delay=0.05 to=192.0.2.2:69 first=1", {0: "delayed"}),
            ("duplicate to=69 every=6", {10: "duplicated"}),
            ("duplicate=3 nth=1,12", {0: "duplicated", 11: "duplicated"}),
            ("corrupt link=up nth=1", {1: "corrupted"}),
            ("corrupt=7 size=6 nth=2", {2: "corrupted"}),
            ("truncate=4 size=3-", dict.fromkeys(range(0, 12, 2), "truncated")),
            ("replace=ff size=0-2 nth=1", {1: "replaced"}),
            ("lose during=3s-5s", {3: "lost", 4: "lost"}),
            ("lose during=11", {11: "lost"}),
            ("lose share=100% nth=2", {1: "lost"}),
            ("deliver nth=1", {}),
        ],
    )
    def test_read(self, text: str, reasons: Any) -> None:
        """Each action and condition does what its method does."""
        if reasons is None:
            with pytest.raises(ValueError, match=r"^bytes must be hexadecimal digits, as in 0004, got '00:04'$"):
                parseRule(text)
            return
        if isinstance(reasons, dict):
            reasons = [reasons.get(number, "delivered") for number in range(12)]
        rules = parseRule(text)
        assert [rules.decideDatagram(each).reasons for each in TRANSFER] == [(reason,) for reason in reasons]

    def test_seed(self) -> None:
        """The seed decides about shares."""
        many = [datagram()] * 100
        first, same, other = (
            [parseRule("lose share=0.5", seed).decideDatagram(each) for each in many] for seed in ("1", "1", "2")
        )
        assert first == same != other

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "rule must start with one of lose, .*, got ''"),
            ("loose nth=3", "rule must start with one of lose, .*, got 'loose nth=3'"),
            ("lose=3", "rule must start with one of lose, .*"),
            ("delay", "rule must start with one of .* delay=, .*, got 'delay'"),
            ("delay=", "duration must be .*, got ''"),
            ("delay=-1", "duration must be .*, got '-1'"),
            ("duplicate=0", "copies must be 1 to 1000, got '0'"),
            ("corrupt=x", "bit must be 0 to .*, got 'x'"),
            ("truncate=x", "payload size must be .*, got 'x'"),
            ("replace=0", "bytes must be hexadecimal digits, as in 0004, got '0'"),
            ("lose nth", "nth must be 1 to .*, got ''"),
            ("lose nth=0", "nth must be 1 to .*, got '0'"),
            ("lose nth=3,", "nth must be 1 to .*, got ''"),
            ("lose third", "condition must be one of starts=, .*, got 'third'"),
            ("lose from=localhost", "local address must be .*, got 'localhost'"),
            ("lose to=99999", "port must be 1 to 65535, got '99999'"),
            ("lose size=9-3", "most must be a number of bytes, 9 or more, got 3"),
            ("lose during=5-3", "end must be a number of seconds, more than 5, got 3.0"),
            ("lose share=2", "share must be 0 to 1, .*, got '2'"),
            ("lose starts=\udcff", "bytes must be hexadecimal digits, as in 0004, got .*"),
        ],
    )
    def test_refused(self, text: str, message: str) -> None:
        """Other text is refused, with what must be and what was given."""
        with pytest.raises(ValueError, match=f"^{message}$"):
            parseRule(text)


def received(client: Any, replies: list[bytes]) -> list[bytes]:
    """All that a socket has received."""
    with contextlib.suppress(BlockingIOError):
        while True:
            replies.append(client.recv(100))
    return replies
