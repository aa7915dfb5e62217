"""Tests of the prober's statistics: against slow obvious models, published numbers, and IRTT's own."""

from __future__ import annotations

import json
import math
import statistics
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.processes import Processes, eventually, tool
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.distribution import Distribution, leastCount, seconds, wilson
from udpecho.probe.stats.jitter import Jitter, Reordering, Variation
from udpecho.probe.stats.summary import Statistics

MS = 1_000_000
TIMEOUT = 1000 * MS
#: What the histogram promises.
WITHIN = 1 / 2048


class WilsonTests:
    """The interval about a share."""

    @pytest.mark.parametrize(
        ("some", "all", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published(self, some: int, all: int, low: float, high: float) -> None:
        """
        The intervals are those of R. G. Newcombe, I{Two-sided confidence intervals for the single proportion}, Statistics in
        Medicine 17 (1998), table I, method 3 (the score method without continuity correction), to the four digits printed
        there.
        """
        found = wilson(some, all)
        assert found is not None
        assert found.ratio == some / all
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)

    @given(st.integers(0, 10**6), st.integers(0, 10**6))
    def test_definition(self, some: int, others: int) -> None:
        """
        The ends are where the share seen is 1.96 standard errors away, by the standard error there: the equation that Wilson
        solved. They are within 0 and 1, and have the share between them; of nothing there is no interval.
        """
        found = wilson(some, some + others)
        if found is None:
            assert some + others == 0
            return
        assert 0 <= found.low <= found.ratio <= found.high <= 1
        for end in (found.low, found.high):
            distance = 1.959963984540054 * math.sqrt(end * (1 - end) / (some + others))
            assert abs(found.ratio - end) == pytest.approx(distance, rel=1e-6, abs=1e-9)


class DistributionTests:
    """What is said of times."""

    @pytest.mark.parametrize(("q", "count"), [(0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
    def test_leastCount(self, q: float, count: int) -> None:
        """How large a sample must be is what Wilks' formula says: 59 for 95/95 and 299 for 95/99 are in every table of it."""
        assert leastCount(q) == count
        assert 1 - q ** (count - 1) < 0.95 <= 1 - q**count

    @pytest.mark.parametrize(("name", "count"), [("p90", 29), ("p95", 59), ("p99", 299), ("p99_9", 2995)])
    def test_absent(self, name: str, count: int) -> None:
        """A quantile is told of a sample so large, and not of one less."""
        times = Distribution()
        for _ in range(count - 1):
            times.record(5 * MS)
        assert times.asDict()[name] is None
        times.record(5 * MS)
        assert times.asDict()[name] == 0.005

    @given(st.lists(st.integers(0, 10**10), min_size=2, max_size=100))
    def test_moments(self, values: list[int]) -> None:
        """Mean and standard deviation are those of Python's own C{statistics}, which reckons in fractions."""
        times = Distribution()
        for value in values:
            times.record(value)
        assert times.mean == pytest.approx(statistics.mean(values), rel=1e-12)
        assert times.deviation == pytest.approx(statistics.stdev(values), rel=1e-9)

    def test_noCancellation(self) -> None:
        """A small deviation of large numbers keeps its digits: of 10**15 + (4, 7, 13, 16) it is the root of 30."""
        times = Distribution()
        for value in (4, 7, 13, 16):
            times.record(10**15 + value)
        assert times.deviation == math.sqrt(30)

    def test_few(self) -> None:
        """Of nothing there is nothing to tell, and of one value no deviation."""
        times = Distribution()
        assert set(times.asDict().values()) == {None}
        times.record(MS)
        one = times.asDict()
        assert (one["min"], one["mean"], one["median"], one["max"], one["stddev"]) == (0.001, 0.001, 0.001, 0.001, None)


class JitterTests:
    """RFC 3550's jitter."""

    def test_byHand(self) -> None:
        """
        The recurrence of RFC 3550 appendix A.8, by hand: transits of 10, 26, 10, 10 ms differ by 16, 16 and 0, which makes
        16/16 = 1, then 1 + (16 - 1)/16 = 1.9375, then 1.9375 - 1.9375/16 = 1.81640625 ms.
        """
        jitter = Jitter()
        found = []
        for transit in (10, 26, 10, 10):
            jitter.arrive(transit * MS)
            found.append(jitter.value)
        assert found == [None, 1 * MS, 1.9375 * MS, 1.81640625 * MS]

    @given(st.lists(st.integers(0, 10**10), min_size=2))
    def test_code(self, transits: list[int]) -> None:
        """It is what the code of the appendix makes: C{s->jitter += (1./16.) * ((double)d - s->jitter)}."""
        jitter, expected = Jitter(), 0.0
        jitter.arrive(transits[0])
        for last, transit in pairwise(transits):
            jitter.arrive(transit)
            expected += (1.0 / 16.0) * (abs(transit - last) - expected)
        assert jitter.value == pytest.approx(expected, rel=1e-12)


def variations(order: Sequence[int], roundTrips: dict[int, int]) -> list[int]:
    """RFC 3393's variations, all at once: of each two probes in a row that both have a reply."""
    return [abs(roundTrips[each] - roundTrips[each - 1]) for each in order if each - 1 in roundTrips]


class VariationTests:
    """RFC 3393's delay variation."""

    def test_gap(self) -> None:
        """A probe without a reply makes two pairs fall out."""
        variation = Variation()
        assert (variation.mean, variation.max, variation.count) == (None, None, 0)
        for sequence, roundTrip in ((0, 10), (1, 14), (3, 100), (4, 98)):
            variation.arrive(sequence, roundTrip)
        assert (variation.mean, variation.max, variation.count) == (3, 4, 2)

    @given(st.permutations(range(30)), st.integers(0, 30), st.randoms(use_true_random=False))
    def test_anyOrder(self, order: list[int], received: int, random: Random) -> None:
        """In whatever order replies come, and whichever do not, it is that of the pairs."""
        arrived = order[:received]
        roundTrips = {sequence: random.randrange(1000) for sequence in arrived}
        variation = Variation()
        for sequence in arrived:
            variation.arrive(sequence, roundTrips[sequence])
        expected = variations(arrived, roundTrips)
        assert variation.count == len(expected)
        assert variation.max == max(expected, default=None)
        assert variation.mean == (pytest.approx(statistics.mean(expected)) if expected else None)

    def test_longAfter(self) -> None:
        """Numbers that share a place in the memory are not taken for neighbours."""
        variation = Variation()
        for sequence in (0, 1025, 2050, 1024 * 1024 + 2051):
            variation.arrive(sequence, sequence)
        assert variation.count == 0


def nReordering(arrivals: Sequence[int]) -> list[int]:
    """For each arrival the greatest n by which it is n-reordered: RFC 4737 section 5.3, word for word."""
    found = []
    for i, sequence in enumerate(arrivals):
        degrees = [n for n in range(1, i + 1) if all(arrivals[j] > sequence for j in range(i - n, i))]
        found.append(max(degrees, default=0))
    return found


class ReorderingTests:
    """RFC 4737's reordering."""

    @pytest.mark.parametrize(
        ("arrivals", "reordered", "degrees"),
        [
            ([1, 2, 3, 5, 6, 7, 8, 4, 9, 10], {4}, {4: 4}),
            ([1, 2, 3, 4, 7, 5, 6, 8, 9, 10], {5, 6}, {5: 1}),
            ([1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11], {4, 5, 6}, {4: 4}),
        ],
        ids=["one", "two", "three"],
    )
    def test_published(self, arrivals: list[int], reordered: set[int], degrees: dict[int, int]) -> None:
        """
        The examples of RFC 4737 section 7: one, two and three reordered. Of several in a row the first alone is n-reordered:
        right before the others came one that was sent before them.
        """
        reordering = Reordering()
        assert {sequence for sequence in arrivals if reordering.arrive(sequence)} == reordered
        assert reordering.reordered == len(reordered)
        assert reordering.ratio == len(reordered) / len(arrivals)
        assert reordering.greatest == max(degrees.values())
        for n in (1, 2, 3):
            assert reordering.degree(n) == sum(degree >= n for degree in degrees.values()) / len(arrivals)

    @given(st.lists(st.integers(0, 200), unique=True, max_size=60))
    def test_definition(self, arrivals: list[int]) -> None:
        """Whatever the order, it is what the definitions say."""
        reordering = Reordering()
        for sequence in arrivals:
            reordering.arrive(sequence)
        expected = nReordering(arrivals)
        assert reordering.reordered == sum(any(s > sequence for s in arrivals[:i]) for i, sequence in enumerate(arrivals))
        assert reordering.greatest == max(expected, default=0)
        for n in (1, 2, 3):
            assert reordering.degree(n) == (sum(each >= n for each in expected) / len(arrivals) if arrivals else None)

    def test_longStream(self) -> None:
        """Of a long stream it remembers so much that n is exact up to a thousand, and no less than that beyond."""
        reordering = Reordering()
        late = {5_000: 3, 10_000: 900, 20_000: 4_000}
        for sequence in range(30_000):
            if sequence not in late:
                reordering.arrive(sequence)
            for held, behind in late.items():
                if sequence == held + behind:
                    before = reordering.greatest
                    assert reordering.arrive(held)
                    assert reordering.greatest == behind if behind < 1000 else 1000 <= reordering.greatest <= behind
                    assert reordering.greatest >= before
        assert reordering.reordered == 3

    def test_memory(self) -> None:
        """It remembers no more of a stream that is behind all of it, as when a stray number far ahead came first."""
        reordering = Reordering()
        reordering.arrive(1 << 40)
        tracemalloc.start()
        try:
            for sequence in range(20_000):
                assert reordering.arrive(sequence)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size < 512 * 1024
        assert (reordering.greatest, reordering.reordered) == (1, 20_000)


# All together


class Model:
    """The same, with everything kept and nothing clever."""

    def __init__(self) -> None:
        self.fates: list[Outcome] = []
        self.arrivals: list[tuple[int, int]] = []
        self.beside: Counter[Outcome] = Counter()
        self.sendErrors: list[int] = []

    def sent(self, error: int) -> None:
        self.fates.append(Outcome.OUTSTANDING)
        self.sendErrors.append(abs(error))

    def reply(self, sequence: int, roundTrip: int) -> None:
        fate = self.fates[sequence]
        if fate is Outcome.NOT_SENT:
            self.beside[Outcome.UNMATCHED] += 1
        elif fate in (Outcome.ANSWERED, Outcome.LATE):
            self.beside[Outcome.DUPLICATE] += 1
        else:
            self.fates[sequence] = Outcome.LATE if roundTrip > TIMEOUT else Outcome.ANSWERED
            self.arrivals.append((sequence, roundTrip))

    def settle(self, sequence: int, outcome: Outcome) -> None:
        if self.fates[sequence] is Outcome.OUTSTANDING or (
            self.fates[sequence] is Outcome.LOST and outcome is not Outcome.LOST
        ):
            self.fates[sequence] = outcome

    def longestRun(self) -> int:
        sent = [fate for fate in self.fates if fate is not Outcome.NOT_SENT]
        return max((len(list(run)) for fate, run in groupby(sent) if fate is Outcome.LOST), default=0)


events = st.lists(
    st.one_of(
        st.tuples(st.just("sent"), st.integers(-1000, 10**6)),
        st.tuples(st.just("sent"), st.integers(-1000, 10**6)),
        st.tuples(st.just("not sent"), st.just(0)),
        st.tuples(st.just("reply"), st.integers(0, 9), st.integers(0, 2 * TIMEOUT)),
        st.tuples(st.sampled_from([Outcome.LOST, Outcome.REFUSED, Outcome.UNREACHABLE]), st.integers(0, 9)),
        st.tuples(st.sampled_from([Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN]), st.just(0)),
        st.tuples(st.just("own drops"), st.integers(1, 3)),
    ),
    max_size=120,
)


def play(happened: Iterable[Any], told: Statistics, model: Model) -> None:
    """Have both hear what happened."""
    for kind, *what in happened:
        count = len(model.fates)
        sequence = count - 1 - what[0]
        if kind == "sent":
            told.probeSent(count, what[0])
            model.sent(what[0])
        elif kind == "not sent":
            told.probeNotSent(count)
            model.fates.append(Outcome.NOT_SENT)
        elif kind == "own drops":
            told.ownDrops(what[0])
            model.beside[Outcome.LOST_OWN] += what[0]
        elif kind in (Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN):
            told.datagramReceived(kind)
            model.beside[kind] += 1
        elif sequence < 0:
            continue
        elif kind == "reply":
            told.replyReceived(sequence, what[1])
            model.reply(sequence, what[1])
        else:
            {Outcome.LOST: told.timedOut, Outcome.REFUSED: told.refused, Outcome.UNREACHABLE: told.unreachable}[kind](sequence)
            model.settle(sequence, kind)
        told.checkSums()


class StatisticsTests:
    """L{Statistics}."""

    @given(events)
    def test_model(self, happened: list[Any]) -> None:
        """Whatever happens, in whatever order, all of it is what the model says, and the sums add up at each step."""
        told, model = Statistics(TIMEOUT), Model()
        play(happened, told, model)
        found = told.asDict()
        fates = Counter(model.fates)
        own = min(model.beside[Outcome.LOST_OWN], fates[Outcome.LOST])
        fates[Outcome.LOST_OWN] = own
        fates[Outcome.LOST] -= own
        assert found["outcomes"] == {name: fates[Outcome(name)] for name in found["outcomes"]}
        order = [sequence for sequence, _ in model.arrivals]
        roundTrips = [roundTrip for _, roundTrip in model.arrivals]
        lost = fates[Outcome.LOST]
        assert found["scheduled"] == len(model.fates)
        assert found["sent"] == len(model.sendErrors)
        assert found["received"] == len(roundTrips)
        assert (found["lost"], found["late"]) == (lost, fates[Outcome.LATE])
        assert (found["duplicates"], found["unmatched"]) == (model.beside[Outcome.DUPLICATE], model.beside[Outcome.UNMATCHED])
        for outcome in (Outcome.CORRUPT, Outcome.CUT, Outcome.LONGER, Outcome.FOREIGN):
            assert found[outcome.value] == model.beside[outcome]
        trials = lost + own + len(roundTrips)
        assert found["loss"]["ratio"] == (lost / trials if trials else None)
        assert found["longest_loss_run"] == (model.longestRun() if trials else None)
        assert found["reordered"] == sum(any(s > each for s in order[:i]) for i, each in enumerate(order))
        assert found["n_reordering"]["max"] == max(nReordering(order), default=None)
        expected = variations(order, dict(model.arrivals))
        assert found["ipdv"]["max"] == seconds(max(expected, default=None))
        for name, sample in (("rtt", roundTrips), ("send_error", model.sendErrors)):
            times = found[name]
            assert times["min"] == seconds(min(sample, default=None))
            assert times["max"] == seconds(max(sample, default=None))
            if sample:
                assert times["mean"] == pytest.approx(statistics.mean(sample) / 1e9)
                assert times["median"] == pytest.approx(statistics.median(sample) / 1e9, rel=WITHIN)
        underWay = [sequence for sequence, fate in enumerate(model.fates) if fate is Outcome.OUTSTANDING]
        assert told.oldestOutstanding == (underWay[0] if underWay else None)

    @given(events, st.integers(10, 20))
    def test_smallWindow(self, happened: list[Any], window: int) -> None:
        """
        While nothing happens to a probe that has left the window, a small one tells the same as a large one, but that probes
        which leave it are lost; the sums add up.
        """
        told, model = Statistics(TIMEOUT, window), Model()
        # What is late enough to have left the window is not among the events.
        play(happened, told, model)
        for sequence in range(max(0, len(model.fates) - window)):
            model.settle(sequence, Outcome.LOST)
        fates = Counter(model.fates)
        assert told.count(Outcome.LOST) + told.count(Outcome.LOST_OWN) == fates[Outcome.LOST]
        for outcome in (Outcome.ANSWERED, Outcome.LATE, Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.NOT_SENT):
            assert told.count(outcome) == fates[outcome]
        if told.longestLossRun is not None:
            assert told.longestLossRun == model.longestRun()

    @given(st.lists(st.sampled_from("LLLLNA-"), max_size=60), st.integers(1, 12))
    def test_longRuns(self, happened: list[str], window: int) -> None:
        """
        A run of losses (L) is as long as it is, however small the window. Replies (A) end it, probes not sent (N) do not, those
        still under way (-) do until they have left the window.
        """
        told, model = Statistics(window=window), Model()
        for sequence, what in enumerate(happened):
            play([("not sent", 0) if what == "N" else ("sent", 0)], told, model)
            if what == "L":
                play([(Outcome.LOST, 0)], told, model)
            elif what == "A":
                play([("reply", 0, MS)], told, model)
            if sequence >= window:
                model.settle(sequence - window, Outcome.LOST)
            assert told._fates.longestLossRun == model.longestRun()

    def test_forgotten(self) -> None:
        """
        A reply to a probe which has left the window is unmatched, be it late or a duplicate, as is one to a probe not sent yet.
        """
        told = Statistics(window=10)
        for sequence in range(12):
            told.probeSent(sequence)
        assert [told.replyReceived(sequence, MS) for sequence in (1, 2, 11, 12, -1)] == [
            Outcome.UNMATCHED,
            Outcome.ANSWERED,
            Outcome.ANSWERED,
            Outcome.UNMATCHED,
            Outcome.UNMATCHED,
        ]
        assert not told.timedOut(0)
        assert not told.refused(0)
        assert told.count(Outcome.LOST) == 2
        told.checkSums()

    def test_empty(self) -> None:
        """Where there is no data it says C{None}, and 0 for counts alone."""
        found = Statistics().asDict()
        parts = ("loss", "rtt", "ipdv", "n_reordering", "send_error")
        assert {value for part in parts for value in found.pop(part).values()} == {None}
        nothing = {"longest_loss_run", "reordered_ratio", "jitter", "p95_minus_median"}
        assert {name for name, value in found.items() if value is None} == nothing
        assert set(found.pop("outcomes").values()) == {0}
        assert {value for value in found.values() if value is not None} == {0}

    def test_refusedOnly(self) -> None:
        """Refusals are no loss: with nothing else there is nothing to say of loss, and no run of it."""
        told = Statistics()
        for sequence in range(3):
            told.probeSent(sequence)
            assert told.refused(sequence)
        assert (told.loss, told.longestLossRun, told.count(Outcome.REFUSED)) == (None, None, 3)

    def test_readLate(self) -> None:
        """A reply that came in time, but was read after the timer, is answered and not late: its own time decides."""
        told = Statistics(TIMEOUT)
        told.probeSent(0)
        assert told.timedOut(0)
        assert told.longestLossRun == 1
        assert told.replyReceived(0, TIMEOUT) is Outcome.ANSWERED
        assert (told.count(Outcome.LOST), told.longestLossRun) == (0, 0)

    def test_readBeforeTheTimer(self) -> None:
        """One that took longer than the timeout is late, though the timer did not run yet."""
        told = Statistics(TIMEOUT)
        told.probeSent(0)
        assert told.replyReceived(0, TIMEOUT + 1) is Outcome.LATE

    def test_timerDecides(self) -> None:
        """Without a timeout to compare with, what was said to have timed out is late."""
        told = Statistics()
        for sequence in range(2):
            told.probeSent(sequence)
        told.timedOut(0)
        assert [told.replyReceived(sequence, MS) for sequence in range(2)] == [Outcome.LATE, Outcome.ANSWERED]

    def test_ownDrops(self) -> None:
        """So many of those that timed out as our own queue dropped are our loss, and count as brought back by the network."""
        told = Statistics()
        for sequence in range(10):
            told.probeSent(sequence)
            if sequence < 4:
                told.timedOut(sequence)
            else:
                told.replyReceived(sequence, MS)
        told.ownDrops(3)
        assert (told.count(Outcome.LOST), told.count(Outcome.LOST_OWN)) == (1, 3)
        assert told.loss == wilson(1, 10)
        told.ownDrops(3)
        assert (told.count(Outcome.LOST), told.count(Outcome.LOST_OWN)) == (0, 4)
        told.checkSums()

    def test_spread(self) -> None:
        """p95 less the median is the difference of the two, where both are known."""
        told = Statistics()
        for sequence in range(100):
            told.probeSent(sequence)
            assert (told.p95MinusMedian is None) == (sequence < 59)
            told.replyReceived(sequence, sequence + 1)
        assert told.p95MinusMedian == 95 - 50.5

    def test_negative(self) -> None:
        """A round trip below nothing is refused, and leaves the probe under way."""
        told = Statistics()
        told.probeSent(0)
        with pytest.raises(ValueError, match="-1 cannot be recorded"):
            told.replyReceived(0, -1)
        told.checkSums()
        assert told.count(Outcome.OUTSTANDING) == 1

    def test_misuse(self) -> None:
        """Numbers have no gaps, windows a size, and what came beside a kind."""
        told = Statistics()
        for event in (told.probeSent, told.probeNotSent):
            with pytest.raises(ValueError, match="1 is not the number of the next probe: 0 is"):
                event(1)
        with pytest.raises(ValueError, match="0 is not a window: a number of probes from 1 is"):
            Statistics(window=0)
        with pytest.raises(ValueError, match="is not what such a datagram is: one of duplicate, corrupt, cut,"):
            told.datagramReceived(Outcome.ANSWERED)
        told.checkSums()

    def test_checkSums(self) -> None:
        """The check sees a count that is off by one."""
        told = Statistics()
        told.probeSent(0)
        told.probeSent(1)
        told.replyReceived(0, MS)
        told.checkSums()
        counts, ring = told._fates.counts, told._fates._ring
        counts[0] += 1
        with pytest.raises(ArithmeticError, match="sent = the sum of its fates does not hold: 2 and 3"):
            told.checkSums()
        counts[0] -= 1
        ring[1] += 1
        with pytest.raises(ArithmeticError, match="outstanding = those in the window does not hold: 1 and 0"):
            told.checkSums()
        ring[1] -= 1
        ring[0] += 1
        with pytest.raises(ArithmeticError, match="1 probes in the window are late, but 0 of all"):
            told.checkSums()
        ring[0] -= 1
        told.roundTrips.record(MS)
        with pytest.raises(ArithmeticError, match="received = round trips does not hold: 1 and 2"):
            told.checkSums()

    def test_memory(self) -> None:
        """Its memory does not grow with the number of probes, answered, lost and reordered."""
        random = Random(1)

        def some(first: int, count: int) -> None:
            for sequence in range(first, first + count):
                told.probeSent(sequence, random.randrange(MS))
                behind = sequence - random.randrange(50)
                if behind >= 0:
                    told.replyReceived(behind, random.randrange(TIMEOUT))
                told.timedOut(max(0, sequence - 100))
            told.asDict()

        tracemalloc.start()
        try:
            told = Statistics(TIMEOUT, window=1000)
            some(0, 20_000)
            before, _ = tracemalloc.get_traced_memory()
            some(20_000, 40_000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 32 * 1024


# IRTT

#: What C{irtt client -i 10ms -d 300ms} 0.9.0 wrote of a path with loss, duplicates and reordering; of its fields those used
#: here.
IRTT = json.loads(
    """
{"stats": {
 "rtt": {"n": 24, "min": 372539, "max": 26904156, "mean": 8293665, "median": 698363, "stddev": 12017064},
 "ipdv_round_trip": {"n": 19, "min": 91708, "max": 26517485, "mean": 12691098, "median": 2133732, "stddev": 13063547},
 "late_packets": 6,
 "packets_sent": 30,
 "packet_loss_percent": 20},
"round_trips": [
{"seqno": 0, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 1, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 51843834}}}, "delay": {"rtt": 26210084}, "ipdv": {}},
{"seqno": 2, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 3, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 46292703}}}, "delay": {"rtt": 866169}, "ipdv": {}},
{"seqno": 4, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 55649536}}}, "delay": {"rtt": 474042}, "ipdv": {"rtt": -392127}},
{"seqno": 5, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 65679268}}}, "delay": {"rtt": 740461}, "ipdv": {"rtt": 266419}},
{"seqno": 6, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 7, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 111112432}}}, "delay": {"rtt": 26659840}, "ipdv": {}},
{"seqno": 8, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 95780723}}}, "delay": {"rtt": 633530}, "ipdv": {"rtt": -26026310}},
{"seqno": 9, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 106085538}}}, "delay": {"rtt": 1122234}, "ipdv": {"rtt": 488704}},
{"seqno": 10, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 115884214}}}, "delay": {"rtt": 539059}, "ipdv": {"rtt": -583175}},
{"seqno": 11, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 151534437}}}, "delay": {"rtt": 26415264}, "ipdv": {"rtt": 25876205}},
{"seqno": 12, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 135154454}}}, "delay": {"rtt": 711508}, "ipdv": {"rtt": -25703756}},
{"seqno": 13, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 146004478}}}, "delay": {"rtt": 613601}, "ipdv": {"rtt": -97907}},
{"seqno": 14, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 155309422}}}, "delay": {"rtt": 521893}, "ipdv": {"rtt": -91708}},
{"seqno": 15, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 167157302}}}, "delay": {"rtt": 2655625}, "ipdv": {"rtt": 2133732}},
{"seqno": 16, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 175120593}}}, "delay": {"rtt": 680471}, "ipdv": {"rtt": -1975154}},
{"seqno": 17, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 212249074}}}, "delay": {"rtt": 26838628}, "ipdv": {"rtt": 26158157}},
{"seqno": 18, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 195888250}}}, "delay": {"rtt": 685218}, "ipdv": {"rtt": -26153410}},
{"seqno": 19, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 232057972}}}, "delay": {"rtt": 26904156}, "ipdv": {"rtt": 26218938}},
{"seqno": 20, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 214806402}}}, "delay": {"rtt": 386671}, "ipdv": {"rtt": -26517485}},
{"seqno": 21, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 225586801}}}, "delay": {"rtt": 563196}, "ipdv": {"rtt": 176525}},
{"seqno": 22, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 235649693}}}, "delay": {"rtt": 372539}, "ipdv": {"rtt": -190657}},
{"seqno": 23, "lost": "true_down", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 24, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 255332522}}}, "delay": {"rtt": 681033}, "ipdv": {}},
{"seqno": 25, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 291220341}}}, "delay": {"rtt": 26664888}, "ipdv": {"rtt": 25983855}},
{"seqno": 26, "lost": "true_down", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 27, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 311811383}}}, "delay": {"rtt": 26602263}, "ipdv": {}},
{"seqno": 28, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 295930480}}}, "delay": {"rtt": 505609}, "ipdv": {"rtt": -26096654}},
{"seqno": 29, "lost": "true", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}}]}
"""
)


def recompute(measured: dict[str, Any]) -> None:
    """
    Check that our statistics of IRTT's round trips are IRTT's own. Its means and deviations are cut to whole nanoseconds.

    What IRTT calls late is what came after a reply to a later probe, of the one right before it in order of arrival alone.
    """
    told = Statistics()
    trips = {trip["seqno"]: trip for trip in measured["round_trips"]}
    for sequence in range(len(trips)):
        told.probeSent(sequence)
    arrived = [trip for trip in trips.values() if trip["lost"] == "false"]
    for trip in sorted(arrived, key=lambda trip: trip["timestamps"]["client"]["receive"]["monotonic"]):
        told.replyReceived(trip["seqno"], trip["delay"]["rtt"])
    for trip in trips.values():
        if trip["lost"] != "false":
            told.timedOut(trip["seqno"])
    told.checkSums()
    theirs, times = measured["stats"], told.roundTrips
    assert (told.sent, told.received) == (theirs["packets_sent"], theirs["rtt"]["n"])
    assert (times.min, times.max) == (theirs["rtt"]["min"], theirs["rtt"]["max"])
    assert times.mean == pytest.approx(theirs["rtt"]["mean"], abs=1)
    assert times.deviation == pytest.approx(theirs["rtt"]["stddev"], abs=1)
    assert times.median() == pytest.approx(theirs["rtt"]["median"], rel=WITHIN, abs=1)
    assert told.variation.count == theirs["ipdv_round_trip"]["n"]
    assert told.variation.max == theirs["ipdv_round_trip"]["max"]
    assert told.variation.mean == pytest.approx(theirs["ipdv_round_trip"]["mean"], abs=1)
    assert told.loss is not None
    assert 100 * told.loss.ratio == pytest.approx(theirs["packet_loss_percent"])
    assert told.reordering.reordered >= theirs["late_packets"]


class IRTTTests:
    """The statistics of IRTT, recomputed from its own JSON."""

    def test_sample(self) -> None:
        """Of a sample with faults, ours are IRTT's; the reordered ones too, which are each behind one only here."""
        recompute(IRTT)
        assert IRTT["stats"]["late_packets"] == 6

    def test_real(self, tmp_path: Path) -> None:
        """So they are of what IRTT measures now, through faults."""
        irtt = tool("irtt")
        faults = ("--loss", "10%", "--duplicate", "5%", "--reorder", "10%", "--reorder-delay", "25ms", "--seed", "4")
        with Processes(tmp_path) as processes:
            server = processes.start(irtt, "server", "-b", "127.0.0.1:0")
            port = server.until(r"(?:127\.0\.0\.1|starting).*:(\d+)")[1]
            proxy = processes.start("udpecho", "proxy", *faults, "127.0.0.1:0", f"127.0.0.1:{port}")
            address = proxy.until(r"from (127\.0\.0\.1:\d+) to", "stderr")[1]
            client = processes.run(irtt, "client", "-Q", "-i", "10ms", "-d", "500ms", "-o", "irtt.json", address)
            assert client.status == 0, client.stderr
        measured = json.loads(eventually(lambda: (tmp_path / "irtt.json").read_text() or None, "IRTT's report"))
        assert measured["stats"]["rtt"]["n"] > 10
        recompute(measured)
