"""What the network in memory finds in codebases from the package index, which run on it unchanged.

Each test shows that a codebase works, and then the fault that it does not bear, though the protocol that it implements would.
The versions are pinned, so the faults stay. C{docs/strangers.rst} has the table.
"""

from __future__ import annotations

import os
import pdb
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import protocol
from twisted.names import dns

from tests.conftest import CaughtErrors
from tests.strangers import plays
from tests.strangers.shelf import Shelf
from tests.strangers.virtual import Play, Virtual, perform, theatre
from udpecho import FaultPlan
from udpecho.faults.decision import Replay

# Their warnings are theirs.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: A decision of a recording: nothing happens to the datagram.
UNTOUCHED = "delivered +0.000000000\n"


def flip(bit: int, before: int = 0) -> Replay:
    """@return: a plan in which one bit is flipped, of the datagram after so many others."""
    return Replay(f"{UNTOUCHED * before}corrupted flip={bit} +0.000000000")


def outcomes(play: Play, bits: range, before: int = 0) -> list[list[Any]]:
    """Flip some bits of a datagram in turn.

    @return: what the play notes with each.
    """
    return [perform(play, flip(bit, before)) for bit in bits]


def firstSeed(play: Play, wrong: Any, **faults: Any) -> int:
    """@return: the first seed with which a play notes something."""
    return next(seed for seed in range(200) if wrong in perform(play, FaultPlan(seed, **faults)))


@pytest.fixture(autouse=True)
def _theatre(caught: CaughtErrors) -> Iterator[None]:
    with theatre():
        yield
    # What their protocols raise is logged; what it does to them is looked at.
    caught.flush(Exception)


class NamesTests:
    """C{twisted.names}, of the installed Twisted."""

    def test_other_question(self) -> None:
        """A resolver repeats a query that is lost, but takes the answer to a question that it has not asked (RFC 5452, section
        9.1): one flipped bit of the query's name, and the name that was asked does not exist.
        """
        assert perform(plays.names) == perform(plays.names, Replay("lost")) == [["192.0.2.1"]]
        # The name is behind the 12 octets of the header: the last bit of its first letter.
        assert perform(plays.names, flip(8 * 13)) == ["DNSNameError"]

    def test_answers_answered(self) -> None:
        """A server answers answers: two of them, and one query in the name of one of them to the other, never end."""
        stage = Virtual()
        (one, address), (other, _) = stage.host("one"), stage.host("other")
        with stage.on(one):
            plays.nameServer(one, 53)
        with stage.on(other):
            port = plays.nameServer(other, 53)
            query = dns.Message(id=1)
            query.addQuery(b"www.example.com")
            port.protocol.transport.write(query.toStr(), (address, 53))
            stage.network.advance(60)
        assert len(stage.network.trace) > 5000


class IndexTests:
    """Codebases from the package index."""

    def test_coap(self, shelf: Shelf) -> None:
        """txThings: a reply that is lost is asked for again after 2 to 3 s. With a flipped bit in its token, or in its message
        type, the request is never repeated, and fails after 93 s.
        """
        with shelf.opened("txthings"):
            assert perform(plays.coap) == perform(plays.coap, Replay(f"{UNTOUCHED}lost")) == ["hello"]
            noted = outcomes(plays.coap, range(8 * 8), before=1)
            assert noted.count(["RequestTimedOut"]) > 20
            assert firstSeed(plays.coap, "RequestTimedOut", loss=0.1, corrupt=0.1) < 100

    def test_rpc(self, shelf: Shelf) -> None:
        """rpcudp: a request that arrives twice is carried out twice, though it has an identifier."""
        with shelf.opened("rpcudp"):
            assert perform(plays.rpc) == ["deposit 10", (True, 10)]
            twice = Replay("duplicated +0.000000000 +0.000000000")
            assert perform(plays.rpc, twice) == ["deposit 10", "deposit 10", (True, 10)]

    def test_kademlia(self, shelf: Shelf) -> None:
        """kademlia: one datagram is lost, and storing a value fails with an error of C{max}, not with False."""
        with shelf.opened("kademlia"):
            assert perform(plays.kademlia) == [True]
            assert perform(plays.kademlia, Replay(f"{UNTOUCHED * 4}lost")) == ["ValueError"]
            assert firstSeed(plays.kademlia, "ValueError", loss=0.1) < 50

    def test_rudp(self, shelf: Shelf) -> None:
        """txrudp: all messages arrive, in their order, whatever is lost, repeated or overtaken. But a connection without
        messages ends after 15 s, with no fault at all: nothing acknowledges the last SYN.
        """
        with shelf.opened("txrudp"):
            messages = [f"message {number}" for number in range(5)]
            for seed in range(20):
                assert perform(plays.rudp, FaultPlan(seed, loss=0.1, duplicate=0.1, reorder=0.1)) == messages
            assert perform(lambda stage: plays.rudp(stage, 0), seconds=14) == []
            assert perform(lambda stage: plays.rudp(stage, 0), seconds=16) == ["shutdown", "shutdown"]

    def test_snmp(self, shelf: Shelf) -> None:
        """pysnmp: no fault was found with datagrams that are lost, repeated, or truncated."""
        with shelf.opened("pysnmp"):
            for seed in range(5):
                plan = FaultPlan(seed, loss=0.2, duplicate=0.2, reorder=0.2, truncate=0.1)
                assert perform(plays.snmp, plan, 20) == [["TimeTicks of 1.3.6.1.2.1.1.3.0"]]

    def test_ssdp(self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cohen3: a datagram whose end is missing stops the program, in Python's debugger."""
        stopped: list[str] = []
        monkeypatch.setattr(pdb, "set_trace", lambda: stopped.append("stopped"))
        with shelf.opened("cohen3"):
            assert perform(plays.ssdp) == ["uuid:1::upnp:rootdevice"]
            assert not stopped
            perform(plays.ssdp, Replay("truncated truncated=40 +0.000000000"))
            assert stopped

    def test_canary(self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        """opencanary: one request whose Via header has a flipped bit, and its SIP service, which is that of
        C{twisted.protocols.sip}, notices no request any more. An empty datagram is reported as an attack on NTP.
        """
        # It replaces this class of Twisted's by its own.
        monkeypatch.setattr(protocol, "Protocol", protocol.Protocol)
        with shelf.opened("opencanary"):
            assert perform(plays.canary) == ["sip", "tftp", "ntp"] * 2
            start = 8 * plays.REQUEST.index(b"Via")
            noted = outcomes(plays.canary, range(start, start + 8))
            # "v" means the same as "V", and a byte that is no UTF-8 is noticed in time.
            assert noted.count(["tftp", "ntp"] * 2) == 6
            assert perform(plays.emptyDatagram) == ["ntp"]

    def test_metrics(self, shelf: Shelf) -> None:
        """carbon: a line whose end is missing is stored, at another time."""
        with shelf.opened("carbon"):
            assert len(perform(plays.metrics)) == 6
            size = len("load.one 1.5 17000000")
            noted = perform(plays.metrics, Replay(f"truncated truncated={size} +0.000000000"))
            assert noted[0] == ["load.one", 17000000.0, 1.5]


class OthersTests:
    """A codebase that is not on the package index: C{UDPECHO_TX_TFTP} is a folder with its sources."""

    @pytest.fixture(autouse=True)
    def _sources(self, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = os.environ.get("UDPECHO_TX_TFTP")
        if folder is None:
            pytest.skip("UDPECHO_TX_TFTP is not a folder with python-tx-tftp")
        monkeypatch.syspath_prepend(folder)

    def test_tftp(self, tmp_path: Path) -> None:
        """python-tx-tftp: an upload none of whose DATA arrives is committed, as an empty file. One whose first ACK is lost is
        refused when the client asks again: its own file exists already.
        """
        file = tmp_path / "file"
        play = partial(plays.upload, folder=tmp_path)
        assert perform(play) == ["done"]
        assert file.read_bytes() == b"contents"
        file.unlink()
        # The request and its ACK arrive, and nothing else: DATA and repeated ACKs are lost.
        perform(play, Replay(UNTOUCHED * 2 + "lost\n" * 7))
        assert file.read_bytes() == b""
        file.unlink()
        assert perform(play, Replay(f"{UNTOUCHED}lost")) == ["File already exists"]
