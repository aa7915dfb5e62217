"""Tests of L{udpecho.probe.stats.summary} and L{udpecho.probe.stats.window}: against a simple model."""

from __future__ import annotations

import statistics
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.references import nReordering, variations
from tests.support.sums import checkSums
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.distribution import seconds, wilson
from udpecho.probe.stats.summary import Statistics

MS = 1_000_000
TIMEOUT = 1000 * MS
#: The precision of the histogram.
WITHIN = 1 / 2048


class Model:
    """The same, simple and with everything kept."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.arrivals: list[tuple[int, int]] = []
        self.extra: Counter[Outcome] = Counter()
        self.deviations: list[int] = []

    def sent(self, deviation: int) -> None:
        self.outcomes.append(Outcome.OUTSTANDING)
        self.deviations.append(abs(deviation))

    def reply(self, sequence: int, roundTrip: int) -> None:
        outcome = self.outcomes[sequence]
        if outcome is Outcome.NOT_SENT:
            self.extra[Outcome.UNMATCHED] += 1
        elif outcome in (Outcome.ANSWERED, Outcome.LATE):
            self.extra[Outcome.DUPLICATE] += 1
        else:
            self.outcomes[sequence] = Outcome.LATE if roundTrip > TIMEOUT else Outcome.ANSWERED
            self.arrivals.append((sequence, roundTrip))

    def change(self, sequence: int, outcome: Outcome) -> None:
        if self.outcomes[sequence] is Outcome.OUTSTANDING or (
            self.outcomes[sequence] is Outcome.LOST and outcome is not Outcome.LOST
        ):
            self.outcomes[sequence] = outcome

    def longestRun(self) -> int:
        sent = [outcome for outcome in self.outcomes if outcome is not Outcome.NOT_SENT]
        return max((len(list(run)) for outcome, run in groupby(sent) if outcome is Outcome.LOST), default=0)


events = st.lists(
    st.one_of(
        st.tuples(st.just("sent"), st.integers(-1000, 10**6)),
        st.tuples(st.just("sent"), st.integers(-1000, 10**6)),
        st.tuples(st.just("not sent"), st.just(0)),
        st.tuples(st.just("reply"), st.integers(0, 9), st.integers(0, 2 * TIMEOUT)),
        st.tuples(st.sampled_from([Outcome.LOST, Outcome.REFUSED, Outcome.UNREACHABLE]), st.integers(0, 9)),
        st.tuples(st.sampled_from([Outcome.CORRUPT, Outcome.TRUNCATED, Outcome.OVERSIZED, Outcome.UNRELATED]), st.just(0)),
        st.tuples(st.just("own drops"), st.integers(1, 3)),
    ),
    max_size=120,
)


def play(inputs: Iterable[Any], measured: Statistics, model: Model) -> None:
    """Give both the same input."""
    for kind, *what in inputs:
        count = len(model.outcomes)
        sequence = count - 1 - what[0]
        if kind == "sent":
            measured.probeSent(count, what[0])
            model.sent(what[0])
        elif kind == "not sent":
            measured.probeNotSent(count)
            model.outcomes.append(Outcome.NOT_SENT)
        elif kind == "own drops":
            measured.ownDropped += what[0]
            model.extra[Outcome.LOST_OWN] += what[0]
        elif kind in (Outcome.CORRUPT, Outcome.TRUNCATED, Outcome.OVERSIZED, Outcome.UNRELATED):
            measured.datagramReceived(kind)
            model.extra[kind] += 1
        elif sequence < 0:
            continue
        elif kind == "reply":
            measured.replyReceived(sequence, what[1])
            model.reply(sequence, what[1])
        else:
            {Outcome.LOST: measured.timedOut, Outcome.REFUSED: measured.refused, Outcome.UNREACHABLE: measured.unreachable}[
                kind
            ](sequence)
            model.change(sequence, kind)
        checkSums(measured)


class StatisticsTests:
    """L{Statistics}."""

    @given(events)
    def test_model(self, inputs: list[Any]) -> None:
        """For any input, in any order, all figures are those of the model, and the sums add up after each step."""
        measured, model = Statistics(TIMEOUT / 1e9), Model()
        play(inputs, measured, model)
        found = measured.asDict()
        outcomes = Counter(model.outcomes)
        own = min(model.extra[Outcome.LOST_OWN], outcomes[Outcome.LOST])
        outcomes[Outcome.LOST_OWN] = own
        outcomes[Outcome.LOST] -= own
        assert found["outcomes"] == {name: outcomes[Outcome(name)] for name in found["outcomes"]}
        order = [sequence for sequence, _ in model.arrivals]
        roundTrips = [roundTrip for _, roundTrip in model.arrivals]
        lost = outcomes[Outcome.LOST]
        assert found["scheduled"] == len(model.outcomes)
        assert found["sent"] == len(model.deviations)
        assert found["received"] == len(roundTrips)
        assert (found["lost"], found["late"]) == (lost, outcomes[Outcome.LATE])
        assert (found["duplicates"], found["unmatched"]) == (model.extra[Outcome.DUPLICATE], model.extra[Outcome.UNMATCHED])
        for outcome in (Outcome.CORRUPT, Outcome.TRUNCATED, Outcome.OVERSIZED, Outcome.UNRELATED):
            assert found[outcome.value] == model.extra[outcome]
        trials = lost + own + len(roundTrips)
        assert found["loss"]["ratio"] == (lost / trials if trials else None)
        assert found["longest_loss_run"] == (model.longestRun() if trials else None)
        assert found["reordered"] == sum(any(s > each for s in order[:i]) for i, each in enumerate(order))
        assert found["n_reordering"]["max"] == max(nReordering(order), default=None)
        expected = variations(order, dict(model.arrivals))
        assert found["ipdv"]["max"] == seconds(max(expected, default=None))
        for name, sample in (("rtt", roundTrips), ("schedule_deviation", model.deviations)):
            times = found[name]
            assert times["min"] == seconds(min(sample, default=None))
            assert times["max"] == seconds(max(sample, default=None))
            if sample:
                assert times["mean"] == pytest.approx(statistics.mean(sample) / 1e9)
                assert times["median"] == pytest.approx(statistics.median(sample) / 1e9, rel=WITHIN)
        underWay = [sequence for sequence, outcome in enumerate(model.outcomes) if outcome is Outcome.OUTSTANDING]
        assert measured.oldestOutstanding == (underWay[0] if underWay else None)

    @given(events, st.integers(10, 20))
    def test_smallWindow(self, inputs: list[Any], window: int) -> None:
        """With a small window the outcomes are those of the model, except that outstanding probes which leave it are lost; the
        sums add up.
        """
        measured, model = Statistics(TIMEOUT / 1e9, window), Model()
        # The inputs concern the latest ten probes only.
        play(inputs, measured, model)
        for sequence in range(max(0, len(model.outcomes) - window)):
            model.change(sequence, Outcome.LOST)
        outcomes = Counter(model.outcomes)
        assert measured.count(Outcome.LOST) + measured.count(Outcome.LOST_OWN) == outcomes[Outcome.LOST]
        for outcome in (Outcome.ANSWERED, Outcome.LATE, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT):
            assert measured.count(outcome) == outcomes[outcome]
        if measured.longestLossRun is not None:
            assert measured.longestLossRun == model.longestRun()

    @given(st.lists(st.sampled_from("LLLLNA-"), max_size=60), st.integers(1, 12))
    def test_longRuns(self, inputs: list[str], window: int) -> None:
        """The length of a run of losses (L) does not depend on the window. Replies (A) end it, probes not sent (N) do not,
        outstanding ones (-) do until they have left the window.
        """
        measured, model = Statistics(window=window), Model()
        for sequence, what in enumerate(inputs):
            play([("not sent", 0) if what == "N" else ("sent", 0)], measured, model)
            if what == "L":
                play([(Outcome.LOST, 0)], measured, model)
            elif what == "A":
                play([("reply", 0, MS)], measured, model)
            if sequence >= window:
                model.change(sequence - window, Outcome.LOST)
            assert measured._window.longestLossRun == model.longestRun()

    def test_outstandingForgotten(self) -> None:
        """The first outstanding probe is one in the window."""
        measured = Statistics(window=10)
        for sequence in range(12):
            measured.probeSent(sequence)
        assert measured.oldestOutstanding == 2

    def test_forgotten(self) -> None:
        """A reply to a probe that has left the window is unmatched, and so is one to a probe that was not sent."""
        measured = Statistics(window=10)
        for sequence in range(12):
            measured.probeSent(sequence)
        assert [measured.replyReceived(sequence, MS) for sequence in (1, 2, 11, 12, -1)] == [
            Outcome.UNMATCHED,
            Outcome.ANSWERED,
            Outcome.ANSWERED,
            Outcome.UNMATCHED,
            Outcome.UNMATCHED,
        ]
        assert not measured.timedOut(0)
        assert not measured.refused(0)
        assert measured.count(Outcome.LOST) == 2
        checkSums(measured)

    def test_empty(self) -> None:
        """Without data, counts are 0 and all other figures C{None}."""
        found = Statistics().asDict()
        parts = ("loss", "rtt", "ipdv", "n_reordering", "schedule_deviation")
        assert {value for part in parts for value in found.pop(part).values()} == {None}
        nothing = {"longest_loss_run", "reordered_ratio", "jitter", "p95_minus_median"}
        assert {name for name, value in found.items() if value is None} == nothing
        assert set(found.pop("outcomes").values()) == {0}
        assert {value for value in found.values() if value is not None} == {0}

    def test_refusedOnly(self) -> None:
        """Refusals are not loss: with nothing else, loss and its longest run are unknown."""
        measured = Statistics()
        for sequence in range(3):
            measured.probeSent(sequence)
            assert measured.refused(sequence)
        assert (measured.loss, measured.longestLossRun, measured.count(Outcome.REFUSED)) == (None, None, 3)

    @pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNREACHABLE])
    def test_errorAfterTimeout(self, outcome: Outcome) -> None:
        """An ICMP error changes a lost probe, which is no longer lost then, and not an answered one."""
        measured = Statistics()
        for sequence in range(2):
            measured.probeSent(sequence)
        measured.timedOut(0)
        measured.replyReceived(1, MS)
        report = measured.refused if outcome is Outcome.REFUSED else measured.unreachable
        assert [report(sequence) for sequence in range(2)] == [True, False]
        assert (measured.count(outcome), measured.count(Outcome.LOST), measured.received) == (1, 0, 1)
        assert report(0) is False
        checkSums(measured)

    def test_readLate(self) -> None:
        """A reply within the timeout that was read later is answered and not late: its round trip decides."""
        measured = Statistics(TIMEOUT / 1e9)
        measured.probeSent(0)
        assert measured.timedOut(0)
        assert measured.longestLossRun == 1
        assert measured.replyReceived(0, TIMEOUT) is Outcome.ANSWERED
        assert (measured.count(Outcome.LOST), measured.longestLossRun) == (0, 0)

    def test_readBeforeTheTimer(self) -> None:
        """A reply beyond the timeout is late, although the probe was not marked as lost yet."""
        measured = Statistics(TIMEOUT / 1e9)
        measured.probeSent(0)
        assert measured.replyReceived(0, TIMEOUT + 1) is Outcome.LATE

    def test_timerDecides(self) -> None:
        """Without a timeout, replies to probes that were marked as lost are late."""
        measured = Statistics()
        for sequence in range(2):
            measured.probeSent(sequence)
        measured.timedOut(0)
        assert [measured.replyReceived(sequence, MS) for sequence in range(2)] == [Outcome.LATE, Outcome.ANSWERED]

    def test_ownDrops(self) -> None:
        """As many lost probes as our own queue dropped datagrams are our loss, and carried by the network."""
        measured = Statistics()
        for sequence in range(10):
            measured.probeSent(sequence)
            if sequence < 4:
                measured.timedOut(sequence)
            else:
                measured.replyReceived(sequence, MS)
        measured.ownDropped += 3
        assert (measured.count(Outcome.LOST), measured.count(Outcome.LOST_OWN)) == (1, 3)
        assert measured.loss == wilson(1, 10)
        measured.ownDropped += 3
        assert (measured.count(Outcome.LOST), measured.count(Outcome.LOST_OWN)) == (0, 4)
        checkSums(measured)

    def test_unknownDrops(self) -> None:
        """Where the system does not report drops, there is no number of them, and it does not come back."""
        measured = Statistics()
        measured.addOwnDrops(0)
        assert (measured.asDict()["own_queue_drops"], measured.asDict()["outcomes"]["lost_own"]) == (0, 0)
        for number in (None, 2):
            measured.addOwnDrops(number)
            assert (measured.asDict()["own_queue_drops"], measured.asDict()["outcomes"]["lost_own"]) == (None, None)

    def test_spread(self) -> None:
        """It is the difference of p95 and median, if both are known."""
        measured = Statistics()
        for sequence in range(100):
            measured.probeSent(sequence)
            assert (measured.p95MinusMedian is None) == (sequence < 59)
            measured.replyReceived(sequence, sequence + 1)
        assert measured.p95MinusMedian == pytest.approx(44.5e-9)

    def test_negative(self) -> None:
        """A negative round trip is refused, and the probe stays outstanding."""
        measured = Statistics()
        measured.probeSent(0)
        with pytest.raises(ValueError, match=r"value must be 0 to \d+, got -1"):
            measured.replyReceived(0, -1)
        checkSums(measured)
        assert measured.count(Outcome.OUTSTANDING) == 1

    def test_misuse(self) -> None:
        """Wrong arguments are refused, and change nothing."""
        measured = Statistics()
        for event in (measured.probeSent, measured.probeNotSent):
            with pytest.raises(ValueError, match="sequence must be 0, the next, got 1"):
                event(1)
        with pytest.raises(ValueError, match="window must be 1 probe or more, got 0"):
            Statistics(window=0)
        with pytest.raises(ValueError, match=r"outcome must be one of duplicate, corrupt, truncated, .*, got answered"):
            measured.datagramReceived(Outcome.ANSWERED)
        checkSums(measured)

    def test_checkSums(self) -> None:
        """The check detects a count that is off by one."""
        measured = Statistics()
        measured.probeSent(0)
        measured.probeSent(1)
        measured.replyReceived(0, MS)
        checkSums(measured)
        counts, ring = measured._window.counts, measured._window._ring
        counts[0] += 1
        with pytest.raises(AssertionError, match="sent = the sum of its outcomes must hold, got 2 and 3"):
            checkSums(measured)
        counts[0] -= 1
        ring[1] += 1
        with pytest.raises(AssertionError, match="outstanding = those in the window must hold, got 1 and 0"):
            checkSums(measured)
        ring[1] -= 1
        ring[0] += 1
        with pytest.raises(AssertionError, match="late probes in the window must be 0 or fewer, got 1"):
            checkSums(measured)
        ring[0] -= 1
        measured.roundTrips.recordNanoseconds(MS)
        with pytest.raises(AssertionError, match="received = round trips must hold, got 1 and 2"):
            checkSums(measured)

    @pytest.mark.slow
    def test_memory(self) -> None:
        """Memory does not grow with the number of probes."""
        random = Random(1)

        def some(first: int, count: int) -> None:
            for sequence in range(first, first + count):
                measured.probeSent(sequence, random.randrange(MS))
                behind = sequence - random.randrange(50)
                if behind >= 0:
                    measured.replyReceived(behind, random.randrange(TIMEOUT))
                measured.timedOut(max(0, sequence - 100))
            measured.asDict()

        tracemalloc.start()
        try:
            measured = Statistics(TIMEOUT / 1e9, window=1000)
            some(0, 10_000)
            before, _ = tracemalloc.get_traced_memory()
            some(10_000, 20_000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 32 * 1024
