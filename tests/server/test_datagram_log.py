"""Tests of L{udpecho.server.datagram_log}."""

from __future__ import annotations

import time

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.support.server import PEER, Lines
from udpecho.addresses import DatagramAddress
from udpecho.interfaces import IDatagramLog
from udpecho.server.datagram_log import DatagramLog


class DatagramLogTests:
    """L{DatagramLog}."""

    def test_interface(self) -> None:
        """It provides its interface."""
        assert verifyObject(IDatagramLog, DatagramLog())

    def test_lines(self, lines: Lines) -> None:
        """The lines are those of the design, and carry their values as fields."""
        log = DatagramLog()
        scoped = DatagramAddress(("fe80::1", 7))
        scoped.scopeID = 3
        for address in (PEER, ("::1", 40312), scoped):
            log.written(5, address, log.received(5, address))
        assert lines.texts == [
            "packet-received: bytes=5 from=192.0.2.7:4321",
            "packet-written: bytes=5 to=192.0.2.7:4321",
            "packet-received: bytes=5 from=[::1]:40312",
            "packet-written: bytes=5 to=[::1]:40312",
            "packet-received: bytes=5 from=[fe80::1%3]:7",
            "packet-written: bytes=5 to=[fe80::1%3]:7",
        ]
        assert (lines.events[0]["bytes"], lines.events[0]["from"]) == (5, "192.0.2.7:4321")
        assert (lines.events[1]["bytes"], lines.events[1]["to"]) == (5, "192.0.2.7:4321")
        assert {event["log_namespace"] for event in lines.events} == {"udpecho.server.protocol"}

    def test_limit(self, lines: Lines) -> None:
        """So many datagrams a second have their lines; the rest is one line when the second is over."""
        clock = Clock()
        log = DatagramLog(3, clock)
        for second in range(3):
            del lines.events[:]
            for _ in range(100):
                log.written(5, PEER, log.received(7, PEER))
                clock.advance(0.001)
            assert len(lines.events) == 6
            clock.advance(0.95)
            assert lines.texts[6:] == ["datagrams-not-logged: received=97 bytes=679 written=97 bytes=485"], second
            assert clock.getDelayedCalls() == []

    def test_quietSecond(self, lines: Lines) -> None:
        """Within the limit nothing is left out, and nothing summed up."""
        clock = Clock()
        log = DatagramLog(3, clock)
        for _ in range(3):
            log.written(5, PEER, log.received(5, PEER))
        clock.advance(10)
        log.close()
        assert len(lines.events) == 6

    def test_all(self, lines: Lines) -> None:
        """Without a limit every datagram has its lines."""
        log = DatagramLog(None, Clock())
        for _ in range(100):
            log.written(5, PEER, log.received(5, PEER))
        assert len(lines.events) == 200

    def test_none(self, lines: Lines) -> None:
        """With a limit of 0 there is nothing at all."""
        clock = Clock()
        log = DatagramLog(0, clock)
        for _ in range(100):
            log.written(5, PEER, log.received(5, PEER))
        log.close()
        assert lines.events == []
        assert clock.getDelayedCalls() == []

    def test_close(self, lines: Lines) -> None:
        """Closing writes the sum, once, and leaves no delayed call."""
        clock = Clock()
        log = DatagramLog(1, clock)
        for _ in range(5):
            log.written(5, PEER, log.received(5, PEER))
        log.close()
        log.close()
        assert lines.texts[2:] == ["datagrams-not-logged: received=4 bytes=20 written=4 bytes=20"]
        assert clock.getDelayedCalls() == []

    def test_withoutClock(self, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a clock the sum comes with the first datagram of a later second."""
        clock = Clock()
        monkeypatch.setattr(time, "monotonic", clock.seconds)
        log = DatagramLog(1)
        for _ in range(5):
            log.received(5, PEER)
        clock.advance(1)
        log.received(5, PEER)
        assert lines.texts[1:] == [
            "datagrams-not-logged: received=4 bytes=20 written=0 bytes=0",
            "packet-received: bytes=5 from=192.0.2.7:4321",
        ]

    def test_lateReply(self, lines: Lines) -> None:
        """A reply that goes out long after its second is summed up soon, too."""
        clock = Clock()
        log = DatagramLog(1, clock)
        logged = [log.received(5, PEER) for _ in range(2)]
        clock.advance(100)
        del lines.events[:]
        log.written(5, PEER, logged[1])
        clock.advance(1)
        assert lines.texts == ["datagrams-not-logged: received=0 bytes=0 written=1 bytes=5"]
        assert clock.getDelayedCalls() == []
