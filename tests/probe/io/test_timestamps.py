"""Tests of the kernel's stamps: which probe one is of, whether it can be believed, and whether there are any."""

from __future__ import annotations

import socket
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clocks import SettableClocks
from tests.support.guards import needsStamps, onlyLinux
from tests.support.running import PATIENCE, udpSocket
from udpecho.net.linux import cmsg, errqueue, sockopt
from udpecho.probe.io import timestamps
from udpecho.probe.io.stamp_slots import StampSlots
from udpecho.probe.io.timestamps import STEP, Clocks, StampIds, StampNumbers, StepWatch, roundTrip


class RoundTripTests:
    """L{roundTrip}."""

    def test_believed(self) -> None:
        """What lies between the stamps is the round trip, up to what the monotonic clock has measured."""
        assert roundTrip(1000, 1300, 500) == 300
        assert roundTrip(1000, 1000, 500) == 0
        assert roundTrip(1000, 1500, 500) == 500

    @pytest.mark.parametrize(("sent", "received"), [(0, 1300), (1000, 0), (1000, 999), (1000, 1501)])
    def test_notBelieved(self, sent: int, received: int) -> None:
        """There is none if a stamp is missing, if it would be negative, or longer than the monotonic clock has measured."""
        assert roundTrip(sent, received, 500) is None


class StepWatchTests:
    """L{StepWatch}."""

    def test_quiet(self) -> None:
        """Time that passes is no step, nor is what both clocks differ by for the time it takes to read them."""
        hand = SettableClocks()
        watch = StepWatch(hand.clocks)
        hand.time += 10**12
        hand.offset += STEP // 2
        assert not watch.stepped()

    @pytest.mark.parametrize("step", [-3600 * 10**9, -2 * STEP, 2 * STEP, 10**9])
    def test_step(self, step: int) -> None:
        """A clock that is set, forward or back, is seen once, and the offset is the new one."""
        hand = SettableClocks()
        watch = StepWatch(hand.clocks)
        before = watch.offset
        hand.offset += step
        assert watch.stepped()
        assert watch.offset == before + step
        assert not watch.stepped()

    def test_interrupted(self) -> None:
        """That the process waited between reading the one and the other is no step, at the start neither."""
        hand = SettableClocks()
        waits = [0, 0, 0, 700_000]

        def wall() -> int:
            read = hand.time + hand.offset
            hand.time += waits.pop() if waits else 0
            return read

        watch = StepWatch(Clocks(lambda: hand.time, wall))
        waits[:] = [700_000]
        assert not watch.stepped()

    def test_realClocks(self) -> None:
        """This machine's own clocks are not seen as set all the time."""
        watch = StepWatch(Clocks())
        assert sum(watch.stepped() for _ in range(10_000)) < 10


class StampIdsTests:
    """L{StampIds} and L{StampNumbers}."""

    @given(st.lists(st.booleans(), max_size=60))
    def test_gaps(self, outcomes: list[bool]) -> None:
        """Whichever probes could not be sent, the datagrams of the others have their numbers."""
        ids = StampIds()
        sent = [sequence for sequence, taken in enumerate(outcomes) if taken]
        for sequence in sent:
            ids.sent(sequence)
        assert [ids.sequenceOf(number) for number in range(len(sent))] == sent
        assert ids.sequenceOf(len(sent)) is None

    def test_batches(self) -> None:
        """A batch is as many datagrams as it has."""
        ids = StampIds()
        ids.sent(0, 64)
        ids.sent(65, 10)
        assert [ids.sequenceOf(number) for number in (0, 63, 64, 73, 74)] == [0, 63, 65, 74, None]

    def test_longAgo(self) -> None:
        """Memory does not grow: what was sent before many gaps is forgotten."""
        ids = StampIds()
        for number in range(1000):
            ids.sent(2 * number)
        assert ids.sequenceOf(999) == 1998
        assert ids.sequenceOf(0) is None

    @given(st.integers(1, 2**40), st.integers(0, 2**31))
    def test_wraps(self, taken: int, ago: int) -> None:
        """The low 32 bits identify the datagram, among the latest."""
        numbers = StampNumbers()
        numbers.taken = taken
        number = taken - 1 - ago
        assert numbers.numberOf(number & 0xFFFFFFFF) == (number if number >= 0 else None)

    def test_begins(self) -> None:
        """After a new beginning the ids begin anew, and the numbers go on."""
        numbers = StampNumbers()
        numbers.taken = 10
        numbers.begin()
        assert numbers.numberOf(0) is None
        numbers.taken = 12
        assert [numbers.numberOf(id) for id in (0, 1, 2)] == [10, 11, None]


@onlyLinux
class KernelTests:
    """This machine's kernel."""

    def test_bothWays(self) -> None:
        """What is sent has a stamp and its number, what comes has one, and the second is not before the first."""
        with udpSocket() as far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.connect(far.getsockname())
            assert timestamps.enable(near)
            assert timestamps.enable(far)
            assert timestamps.waitForTimestamping(PATIENCE) is None
            for number in range(3):
                near.send(b"hello")
                ancillary = near.recvmsg(100, 512, sockopt.MSG_ERRQUEUE)[1]
                stamp = errqueue.readEntry(ancillary)
                assert isinstance(stamp, errqueue.SendTimestamp)
                assert stamp.id == number
                assert cmsg.readTimestamp(far.recvmsg(100, 512)[1]) >= stamp.time

    @needsStamps
    def test_otherClock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Timestamps that are not of this clock are found out."""
        monkeypatch.setattr(time, "time_ns", partial(lambda real: real() - 3600 * 10**9, time.time_ns))
        assert timestamps.waitForTimestamping(PATIENCE) == "the kernel's timestamps are not of the wall clock"

    @needsStamps
    def test_otherLayout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Timestamps that are read with the wrong width are found out, although they are numbers and grow."""
        monkeypatch.setattr(StampSlots, "_times", lambda slots, count: slots._seconds[:count].tolist())
        assert timestamps.waitForTimestamping(PATIENCE) == "the kernel's timestamps are not of the wall clock"

    def test_notThere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel that refuses is reported in one sentence."""
        monkeypatch.setattr(sockopt, "SO_TIMESTAMPING", 9999)
        assert timestamps.waitForTimestamping() == "the kernel makes no timestamps in software"

    def test_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the kernel takes long to begin, the next socket may have timestamps."""
        timestamps.stamping.forget()
        with monkeypatch.context() as patch:
            patch.setattr(StampSlots, "receive", lambda slots, descriptor: ([], [0]))
            assert timestamps.noTimestampsReason() == "the kernel does not stamp what is received"
        monkeypatch.setattr(timestamps.stamping, "_prove", lambda: None)
        assert timestamps.noTimestampsReason() is None
        timestamps.stamping.forget()
