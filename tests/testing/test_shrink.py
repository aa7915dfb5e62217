"""Tests of L{udpecho.testing.shrink} and L{udpecho.faults.journal}: the few decisions that make a test fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.memory import open_
from tests.support.transfer import failingSeed, transfer
from udpecho.addresses import DatagramAddress
from udpecho.faults.datagram import Datagram
from udpecho.faults.decision import LOST, Decision, Recording, Replay
from udpecho.faults.journal import Journal
from udpecho.faults.plan import FaultPlan
from udpecho.testing.explain import explain
from udpecho.testing.memory_network import MemoryNetwork
from udpecho.testing.shrink import shrink

BAD: dict[str, Any] = {"loss": 0.3, "duplicate": 0.2, "delay": 0.01, "jitter": 0.01}
THIRD_ACK = "server > client 2: lost  # 0.000000 s, 192.0.2.2:69 > 192.0.2.1:5000, 2 B: 04 03"


def failing() -> Journal:
    """What was recorded while the transfer failed: many decisions."""
    network = MemoryNetwork(FaultPlan(failingSeed(**BAD), **BAD))
    journal = network.record()
    with pytest.raises(AssertionError):
        transfer(network)
    return journal


def again(journal: Journal) -> None:
    network = MemoryNetwork()
    network.journal = journal
    transfer(network)


class ShrinkTests:
    """L{shrink}."""

    def test_ninetyNine(self) -> None:
        """Of 99 decisions of a plan the two are left that make a test fail."""
        recording = Recording(FaultPlan(3, loss=0.5, duplicate=0.3, truncate=0.3, jitter=0.5))
        decisions = [recording.decide(100, 0.0) for _ in range(99)]
        lost = [number for number, decision in enumerate(decisions) if decision.reasons == (LOST,)]
        first, second = lost[10], lost[30]
        runs = []

        def test(replay: Replay) -> None:
            runs.append(replay)
            found = [replay.decide(100, 0.0) for _ in range(99)]
            assert found[first].delays or found[second].delays

        # Another failure does not count.
        def other(replay: Replay) -> None:
            test(replay)
            raise ZeroDivisionError

        expected = f"{first}: lost\n{second}: lost"
        assert shrink(test, recording) == expected
        assert len(runs) < 300
        assert shrink(other, str(recording)) == expected

    def test_thirdAck(self) -> None:
        """A real bug, found by a network that loses, duplicates and delays, is one line: the third acknowledgement is lost."""
        journal = failing()
        assert len(journal.entries) >= 10
        found = shrink(again, journal)
        assert found == THIRD_ACK
        network = MemoryNetwork(FaultPlan(loss=1))
        network.replay(found)
        with pytest.raises(AssertionError, match=r"^stopped at block 3"):
            transfer(network)
        assert [entry.outcome for entry in network.trace].count("lost") == 1
        assert network.journal is not None
        assert network.journal.replays

    def test_alike(self) -> None:
        """A network that repeats all that was recorded does the same again."""
        journal = failing()
        network = MemoryNetwork()
        network.replay(str(journal))
        with pytest.raises(AssertionError):
            transfer(network)
        assert str(network.journal) == str(journal)

    def test_simpler(self) -> None:
        """Of a decision with several faults those are left that matter."""

        def test(replay: Replay) -> None:
            assert replay.decide(9, 0.0).truncatedTo is None

        text = "corrupted,truncated,duplicated,delayed flip=3 truncated=2 +1.000000000 +2.000000000"
        assert shrink(test, text) == "0: truncated truncated=2 +0.000000000"

    def test_earlier(self) -> None:
        """What one fault has made late is looked for earlier."""

        def test(replay: Replay) -> None:
            found = [replay.decide(9, 0.0).delays for _ in range(10)]
            assert sum(map(len, found[:4])) == 4

        assert shrink(test, "3: lost\n5: lost") == "0: lost"

    def test_noFault(self) -> None:
        """A test that fails without any fault needs no decision."""

        def test(replay: Replay) -> None:
            raise ValueError

        assert shrink(test, "lost") == ""

    def test_passes(self) -> None:
        """A test that does not fail with the recorded decisions is refused."""
        with pytest.raises(ValueError, match=r"^test must fail with the recorded decisions, but it does not"):
            shrink(lambda replay: None, "lost")

    def test_time(self) -> None:
        """When the time is over, what was found by then is good: it fails."""
        calls: list[Replay] = []

        def test(replay: Replay) -> None:
            calls.append(replay)
            assert replay.decisions.get(7) is None

        assert "7: lost" in shrink(test, "\n".join(["lost"] * 9), seconds=-1)
        assert len(calls) == 1

    def test_interrupt(self) -> None:
        """An interrupt ends it."""

        def test(replay: Replay) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            shrink(test, "lost")


class JournalTests:
    """L{Journal}."""

    def test_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It keeps so many decisions, and counts the others."""
        journal = Journal()
        datagram = Datagram(b"", DatagramAddress(("192.0.2.1", 1)), DatagramAddress(("192.0.2.2", 2)), 0.0, "a > b")
        monkeypatch.setattr("udpecho.faults.journal.MAX_DECISIONS", 5)
        for _ in range(8):
            journal.decide(Replay(""), datagram)
        assert len(journal.entries) == 5
        assert journal.forgotten == 3
        assert "not looked for" in explain(lambda journal: None, journal, str)

    def test_payloads(self) -> None:
        """Of a long payload it keeps what it prints."""
        journal = Journal()
        ends = DatagramAddress(("192.0.2.1", 1)), DatagramAddress(("192.0.2.2", 2))
        journal.decide(None, Datagram(bytes(60000), *ends, 0.0, "a > b"))
        assert len(journal.entries[0].datagram.payload) == 16
        assert str(journal).endswith(f"60000 B: {bytes(16).hex(' ')} ...")

    def test_refusals(self) -> None:
        """A refusal by ICMP is decided about on its way back, and has a link of its own."""
        for text, errors in (("", 1), ("server > client refusal 0: lost", 0)):
            network = MemoryNetwork()
            network.replay(text)
            client, _ = network.host("client", "192.0.2.1"), network.host("server", "192.0.2.2")
            port, protocol = open_(client, "0.0.0.0")
            port.connect("192.0.2.2", 7)
            port.write(b"hello")
            network.advance(1)
            assert protocol.refusals == errors
            assert network.journal is not None
            assert [entry.place.link for entry in network.journal.entries] == ["client > server", "server > client refusal"]

    def test_read(self) -> None:
        """Printed decisions are read, with comments and without."""
        journal = Journal.fromString("# which\n a > b 3: lost # why\n\nlong name > other 0: delayed +1.000000000")
        datagram = Datagram(b"", ("192.0.2.1", 1), ("192.0.2.2", 2), 0.0, "a > b")
        assert [journal.decide(Replay(""), datagram).reasons for _ in range(5)] == [
            *[("delivered",)] * 3,
            ("lost",),
            ("delivered",),
        ]
        assert journal.decide(Replay("lost"), datagram._replace(link="long name > other")) == Decision(("delayed",), (1.0,))

    @pytest.mark.parametrize("text", ["lost", "3: lost", "a > b: lost", "a > b x: lost", "a > b 3: lots", "a > b 3 lost"])
    def test_refused(self, text: str) -> None:
        """Other text is refused."""
        with pytest.raises(ValueError, match=r"^(line|decision) must be as in '.*', got '"):
            MemoryNetwork().replay(text)
