"""Tests of L{udpecho.faults.plan}: decisions, with no network."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udpecho.faults.decision import (
    BURST_LOST,
    CORRUPTED,
    DELAYED,
    DELIVERED,
    DUPLICATED,
    LOST,
    QUEUE_FULL,
    REORDERED,
    TOO_LONG,
    TRUNCATED,
    Arrival,
    Decision,
    Recording,
    Replay,
)
from udpecho.faults.models import GilbertElliott, Jitter
from udpecho.faults.plan import FaultPlan

MANY = 20000
#: Standard deviations on either side of the mean between which 99.99 % of a normal distribution lie.
WIDE = 3.8906

#: What is no number.
WRONG: list[Any] = ["1", True, []]

#: What the plan below decides about the datagrams below, on every machine.
GOLDEN = """
duplicated,delayed +0.039335619 +0.060401713
corrupted,delayed flip=401 +0.060553367
delayed +0.059523311
delayed +0.060647736
delayed +0.044652871
corrupted,delayed flip=1401 +0.048895100
duplicated,delayed +0.055273426 +0.062138832
delayed +0.048332039
delayed +0.045562743
delayed +0.059175726
delayed +0.067806416
duplicated,delayed +0.061249135 +0.051513535
truncated,duplicated,delayed truncated=717 +0.068488744 +0.061389457
truncated,delayed truncated=678 +0.072576145
delayed +0.096287869
lost
delayed +0.050053734
duplicated,reordered,delayed +0.093294871 +0.095665224
corrupted,delayed flip=5319 +0.081098350
queue_full
queue_full
delayed +0.078958944
queue_full
too_long
"""

probabilities = st.floats(0, 1)
seconds = st.floats(0, 1e6)
plans = st.builds(
    FaultPlan,
    st.one_of(st.integers(), st.text()),
    loss=probabilities,
    burst=st.one_of(st.none(), st.builds(GilbertElliott, p=probabilities, r=probabilities, k=probabilities, h=probabilities)),
    duplicate=probabilities,
    reorder=probabilities,
    corrupt=probabilities,
    truncate=probabilities,
    delay=seconds,
    jitter=st.builds(Jitter, seconds, st.sampled_from(["uniform", "normal", "exponential"])),
    reorderDelay=seconds,
    rate=st.one_of(st.none(), st.floats(1, 1e9)),
    queue=st.integers(0, 100000),
    mtu=st.one_of(st.none(), st.integers(0, 65535)),
)
datagrams = st.lists(st.tuples(st.binary(max_size=100), st.floats(0, 10)), max_size=30).map(
    lambda pairs: sorted(pairs, key=lambda pair: pair[1])
)


def decide(plan: Any, number: int = MANY, size: int = 100, interval: float = 1.0) -> list[Decision]:
    """What a plan decides about datagrams of one size, sent at an interval."""
    return [plan.decide(size, turn * interval) for turn in range(number)]


def goldenPlan() -> FaultPlan:
    return FaultPlan(
        "golden",
        loss=0.05,
        burst=GilbertElliott(0.05, 0.5),
        duplicate=0.15,
        reorder=0.15,
        corrupt=0.2,
        truncate=0.2,
        delay=0.05,
        jitter=Jitter(0.01, "normal"),
        rate=100000,
        queue=3000,
        mtu=1400,
    )


def assertShare(found: int, probability: float, number: int = MANY) -> None:
    """Assert that a count lies in the Wilson score interval of 99.99 % about a probability."""
    share = found / number
    middle = (share + WIDE**2 / (2 * number)) / (1 + WIDE**2 / number)
    half = WIDE * math.sqrt(share * (1 - share) / number + WIDE**2 / (4 * number**2)) / (1 + WIDE**2 / number)
    assert middle - half <= probability <= middle + half, f"{found} of {number} is not {probability}"


class SeedTests:
    """The same again."""

    def test_golden(self) -> None:
        """The decisions of a seed are these, on every machine and Python version."""
        plan = goldenPlan()
        found = [str(plan.decide(n * 61 % 1500, n * 0.005)) for n in range(24)]
        assert found == GOLDEN.strip().splitlines()

    @settings(deadline=None)
    @given(plans, datagrams)
    def test_same(self, plan: FaultPlan, datagrams: list[tuple[bytes, float]]) -> None:
        """Two plans with one seed and the same faults decide the same about the same datagrams."""
        names = ["loss", "burst", "duplicate", "reorder", "corrupt", "truncate", "delay", "jitter", "reorderDelay"]
        names += ["rate", "queue", "mtu"]
        other = FaultPlan(plan.seed, **{name: getattr(plan, name) for name in names})
        for datagram, now in datagrams:
            assert plan.decide(len(datagram), now) == other.decide(len(datagram), now)

    def test_anotherSeed(self) -> None:
        """Another seed decides otherwise; a number and its digits are different seeds."""
        runs = [[d.reasons for d in decide(FaultPlan(seed, loss=0.5), 100)] for seed in (0, 1, "0", "1", "")]
        assert len({tuple(run) for run in runs}) == 5

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ({"duplicate": 0.3}, DUPLICATED),
            ({"reorder": 0.3}, REORDERED),
            ({"corrupt": 0.3}, CORRUPTED),
            ({"truncate": 0.3}, TRUNCATED),
            ({"jitter": Jitter(1.0, "exponential")}, DELAYED),
            ({"delay": 1.0}, DELAYED),
            ({"loss": 0.3}, LOST),
            ({"burst": GilbertElliott(0.1, 0.3)}, BURST_LOST),
        ],
    )
    def test_independent(self, fault: dict[str, Any], reason: str) -> None:
        """A fault that is added changes nothing of what is decided about the others."""
        others: dict[str, Any] = {"loss": 0.2, "duplicate": 0.2, "reorder": 0.2, "corrupt": 0.2, "truncate": 0.2}
        others["burst"] = GilbertElliott(0.1, 0.5)
        others = {name: value for name, value in others.items() if name not in fault}
        without = decide(FaultPlan(3, **others), 2000)
        found = decide(FaultPlan(3, **others, **fault), 2000)
        same = {LOST, BURST_LOST, DUPLICATED, REORDERED, CORRUPTED, TRUNCATED} - {reason}
        seen = 0
        for one, other in zip(without, found):
            if reason in (LOST, BURST_LOST) and reason in other.reasons:
                seen += 1
                continue
            seen += reason in other.reasons
            assert same.intersection(one.reasons) == same.intersection(other.reasons)
            if reason != CORRUPTED:
                assert one.flipped == other.flipped
            if reason != TRUNCATED:
                assert one.truncatedTo == other.truncatedTo
        assert seen > 100


class ShareTests:
    """How often."""

    @pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.99])
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("loss", LOST),
            ("duplicate", DUPLICATED),
            ("reorder", REORDERED),
            ("corrupt", CORRUPTED),
            ("truncate", TRUNCATED),
        ],
    )
    def test_share(self, fault: str, reason: str, probability: float) -> None:
        """Each fault happens with its probability, within the 99.99 % interval of 20000 datagrams."""
        found = decide(FaultPlan(11, **{fault: probability}))  # type: ignore[arg-type]
        assertShare(sum(reason in decision.reasons for decision in found), probability)
        rest = [decision for decision in found if reason not in decision.reasons]
        assert set(rest) == {Decision((DELIVERED,), (0.0,))}

    @pytest.mark.parametrize("probability", [0.0, 1.0])
    def test_neverAndAlways(self, probability: float) -> None:
        """With 0 nothing happens, with 1 all of it does."""
        plan = FaultPlan(
            1, duplicate=probability, reorder=probability, corrupt=probability, truncate=probability, reorderDelay=0.5
        )
        reasons = {decision.reasons for decision in decide(plan, 1000)}
        assert reasons == {(CORRUPTED, TRUNCATED, DUPLICATED, REORDERED, DELAYED) if probability else (DELIVERED,)}
        lost = set(decide(FaultPlan(1, loss=probability), 1000))
        assert lost == {Decision((LOST,), ()) if probability else Decision((DELIVERED,), (0.0,))}

    @pytest.mark.parametrize(
        "model",
        [
            GilbertElliott(0.01, 0.2),
            GilbertElliott(0.05, 0.25, 0.99, 0.3),
            GilbertElliott(0.2, 0.2, 0.9, 0.5),
            GilbertElliott(0.0, 0.5, 0.9),
        ],
    )
    def test_bursts(self, model: GilbertElliott) -> None:
        """The share that Gilbert-Elliott loses is the stationary one, as the literature has it; its variance is that of a
        Markov chain, which is greater than the binomial's.
        """
        number = 200000
        lost = [BURST_LOST in decision.reasons for decision in decide(FaultPlan(5, burst=model), number)]
        bad = model.p / (model.p + model.r)
        assert model.loss == pytest.approx((1 - model.k) * (1 - bad) + (1 - model.h) * bad)
        # Each datagram's variance, and its covariances with those after it, which fall by 1 - p - r from one to the next.
        memory = 1 - model.p - model.r
        covariance = bad * (1 - bad) * (model.k - model.h) ** 2 * memory / (1 - memory)
        deviation = math.sqrt((model.loss * (1 - model.loss) + 2 * covariance) / number)
        assert abs(sum(lost) / number - model.loss) <= WIDE * deviation

    def test_burstLength(self) -> None:
        """With k=1 and h=0, bursts are as long as spells in the bad state, 1/r in the mean, geometrically distributed."""
        lost = "".join(
            "x" if BURST_LOST in d.reasons else " " for d in decide(FaultPlan(6, burst=GilbertElliott(0.02, 0.25)), 200000)
        )
        lengths = [len(burst) for burst in lost.split()]
        deviation = math.sqrt(0.75) / 0.25 / math.sqrt(len(lengths))
        assert abs(sum(lengths) / len(lengths) - 4) <= WIDE * deviation
        assertShare(sum(length == 1 for length in lengths), 0.25, len(lengths))

    def test_burstsThatNeverEnd(self) -> None:
        """With p and r 0 the state stays good: the loss is that of the good state."""
        model = GilbertElliott(0, 0, 0.75, 0)
        assert model.loss == 0.25
        assertShare(sum(BURST_LOST in d.reasons for d in decide(FaultPlan(1, burst=model))), 0.25)
        assert {d.reasons for d in decide(FaultPlan(1, burst=GilbertElliott(1, 0)), 100)} == {(BURST_LOST,)}


class DelayTests:
    """How late."""

    @pytest.mark.parametrize(
        ("shape", "mean", "deviation", "fourth"),
        [("uniform", 0.5, 1 / math.sqrt(12), 1 / 80), ("normal", 0.0, 1.0, 3.0), ("exponential", 1.0, 1.0, 9.0)],
    )
    def test_moments(self, shape: str, mean: float, deviation: float, fourth: float) -> None:
        """Mean and variance of each shape of jitter are those of its distribution, within their 99.99 % intervals."""
        scale, fixed = 0.002, 1.0
        delays = [d.delays[0] for d in decide(FaultPlan(9, delay=fixed, jitter=Jitter(scale, shape)))]
        found = [(delay - fixed) / scale for delay in delays]
        average = sum(found) / MANY
        variance = sum((value - mean) ** 2 for value in found) / MANY
        assert abs(average - mean) <= WIDE * deviation / math.sqrt(MANY)
        assert abs(variance - deviation**2) <= WIDE * math.sqrt((fourth - deviation**4) / MANY)
        assert len(set(delays)) > MANY * 0.9

    def test_bounds(self) -> None:
        """Uniform jitter lies from 0 to the most; normal jitter never makes a delay negative; a number is uniform jitter."""
        uniform = [d.delays[0] for d in decide(FaultPlan(2, delay=0.25, jitter=0.5))]
        assert 0.25 <= min(uniform) < 0.251 < 0.749 < max(uniform) <= 0.75
        normal = [d.delays[0] for d in decide(FaultPlan(2, delay=0.1, jitter=Jitter(0.1, "normal")))]
        assert min(normal) == 0.0
        assertShare(normal.count(0.0), 0.158655)

    def test_drawEnds(self) -> None:
        """The ends of the generator's range draw finite numbers."""
        for shape in ("uniform", "normal", "exponential"):
            for uniform in (0.0, math.nextafter(1.0, 0.0)):
                assert math.isfinite(Jitter(1.0, shape).draw(uniform))

    def test_fixed(self) -> None:
        """A fixed delay is each datagram's; reordering adds to it; a duplicate has a jitter of its own."""
        assert set(decide(FaultPlan(1, delay=0.25), 100)) == {Decision((DELAYED,), (0.25,))}
        held = decide(FaultPlan(1, delay=0.25, reorder=0.5, reorderDelay=0.125), 100)
        assert {(REORDERED in d.reasons, d.delays) for d in held} == {(False, (0.25,)), (True, (0.375,))}
        twice = decide(FaultPlan(1, duplicate=1.0, jitter=1.0), 100)
        assert all(len(set(d.delays)) == 2 for d in twice)

    def test_rate(self) -> None:
        """Under a rate limit each datagram waits for those before it, exactly, and an idle link forgets."""
        plan = FaultPlan(1, rate=1000, queue=65536)
        assert [plan.decide(500, 0.0).delays for _ in range(3)] == [(0.5,), (1.0,), (1.5,)]
        assert plan.decide(100, 1.0).delays == (0.6,)
        assert plan.decide(0, 1.0).delays == (0.6,)
        assert plan.decide(250, 100.0).delays == (0.25,)
        assert plan.decide(0, 200.0) == Decision((DELIVERED,), (0.0,))

    @pytest.mark.parametrize("start", [0.0, 0.1, 0.7, 1.1, 12345.6789, 1e6 + 0.3])
    def test_queue(self, start: float) -> None:
        """The queue takes datagrams until its bytes are full, not one more and not one less, at any time; what the link has
        carried meanwhile leaves the queue.
        """
        plan = FaultPlan(1, rate=1000, queue=3000)
        reasons = [plan.decide(1000, start).reasons for _ in range(4)]
        assert reasons == [(DELAYED,)] * 3 + [(QUEUE_FULL,)]
        assert plan.decide(1, start).reasons == (QUEUE_FULL,)
        assert plan.decide(0, start).delays == (3.0,)
        assert plan.decide(500, start + 0.499).reasons == (QUEUE_FULL,)
        assert plan.decide(500, start + 0.5).delays == (3.0,)
        assert plan.decide(3001, start + 100).reasons == (QUEUE_FULL,)
        assert plan.decide(3000, start + 100).delays == (3.0,)

    def test_rateHolds(self) -> None:
        """Offered twice what it carries, a link carries its rate, and loses the rest."""
        found = decide(FaultPlan(1, rate=10000, queue=2000), 2000, 100, 0.005)
        carried = sum(100 for turn, d in enumerate(found) if d.delays and turn * 0.005 + d.delays[0] <= 10.0)
        assert carried == pytest.approx(100000, abs=100)
        assert {d.reasons for d in found} == {(DELAYED,), (QUEUE_FULL,)}
        assert max(d.delays[0] for d in found if d.delays) <= 0.2

    def test_rateSeesSurvivors(self) -> None:
        """What is lost before the link does not wait for it."""
        assert decide(FaultPlan(1, rate=1, queue=100, loss=1.0), 10, 100, 0) == [Decision((LOST,), ())] * 10

    def test_rateChanged(self) -> None:
        """What waits when the rate is changed is carried at the new one."""
        plan = FaultPlan(1, rate=1000)
        plan.decide(1000, 0.0)
        plan.change(rate=2000)
        assert plan.decide(0, 0.0).delays == (0.5,)
        plan.change(rate=None)
        assert plan.decide(1000, 0.0).delays == (0.0,)


class PayloadTests:
    """What happens to the bytes."""

    @settings(deadline=None)
    @given(st.binary(min_size=1, max_size=200), st.integers())
    def test_flip(self, datagram: bytes, seed: int) -> None:
        """Corruption changes exactly one bit."""
        ((delay, changed),) = FaultPlan(seed, corrupt=1.0).decide(len(datagram), 0.0).apply(datagram)
        assert delay == 0.0
        assert len(changed) == len(datagram)
        assert sum(bin(one ^ other).count("1") for one, other in zip(datagram, changed)) == 1

    def test_everyBit(self) -> None:
        """Every bit of a datagram is as likely to be flipped."""
        flips = Counter(decision.flipped for decision in decide(FaultPlan(4, corrupt=1.0), size=4))
        assert sorted(flips) == list(range(32))  # type: ignore[type-var]
        for count in flips.values():
            assertShare(count, 1 / 32)

    @settings(deadline=None)
    @given(st.binary(min_size=1, max_size=200), st.integers())
    def test_cut(self, datagram: bytes, seed: int) -> None:
        """Truncation leaves a beginning, shorter than the datagram."""
        ((_, left),) = FaultPlan(seed, truncate=1.0).decide(len(datagram), 0.0).apply(datagram)
        assert len(left) < len(datagram)
        assert datagram.startswith(left)

    def test_everyLength(self) -> None:
        """Every shorter length is as likely."""
        cuts = Counter(decision.truncatedTo for decision in decide(FaultPlan(4, truncate=1.0), size=10))
        assert sorted(cuts) == list(range(10))  # type: ignore[type-var]
        for count in cuts.values():
            assertShare(count, 0.1)

    def test_twice(self) -> None:
        """A duplicate is the same bytes again, and what was corrupted is so in both; arrivals are in their order."""
        plan = FaultPlan(1, duplicate=1.0, corrupt=1.0, jitter=1.0)
        for _ in range(100):
            first, second = plan.decide(3, 0.0).apply(b"abc")
            assert first.datagram == second.datagram != b"abc"
            assert first.delay < second.delay
        assert Decision((DUPLICATED,), (0.5, 0.25)).apply(b"x") == [Arrival(0.25, b"x"), Arrival(0.5, b"x")]

    def test_mtu(self) -> None:
        """What is longer than the maximum does not get through, what is as long does."""
        plan = FaultPlan(1, mtu=1400)
        assert plan.decide(1401, 0.0) == Decision((TOO_LONG,), ())
        assert plan.decide(1400, 0.0) == Decision((DELIVERED,), (0.0,))
        assert FaultPlan(1, mtu=0).decide(0, 0.0).delays == (0.0,)

    def test_empty(self) -> None:
        """An empty datagram can be lost, delayed and doubled, but neither corrupted nor truncated."""
        decision = FaultPlan(1, duplicate=1.0, corrupt=1.0, truncate=1.0, delay=1.0).decide(0, 0.0)
        assert decision == Decision((DUPLICATED, DELAYED), (1.0, 1.0))
        assert decision.apply(b"") == [Arrival(1.0, b"")] * 2
        assert FaultPlan(1, loss=1.0).decide(0, 0.0).apply(b"") == []
        assert Decision((CORRUPTED, TRUNCATED), (0.0,), 7, 3).apply(b"") == [Arrival(0.0, b"")]

    @settings(deadline=None)
    @given(plans, datagrams)
    def test_sound(self, plan: FaultPlan, datagrams: list[tuple[bytes, float]]) -> None:
        """With any plan, a datagram is lost for one reason or arrives once or twice, never longer, never early."""
        for datagram, now in datagrams:
            decision = plan.decide(len(datagram), now)
            arrivals = decision.apply(datagram)
            lost = not {LOST, BURST_LOST, TOO_LONG, QUEUE_FULL}.isdisjoint(decision.reasons)
            assert len(arrivals) == (0 if lost else 1 + (DUPLICATED in decision.reasons))
            if not arrivals:
                assert len(decision.reasons) == 1
            assert all(0 <= arrival.delay < math.inf for arrival in arrivals)
            assert all(len(arrival.datagram) <= len(datagram) for arrival in arrivals)
            if not {CORRUPTED, TRUNCATED}.intersection(decision.reasons):
                assert all(arrival.datagram == datagram for arrival in arrivals)


class RangeTests:
    """What is refused."""

    @pytest.mark.parametrize(
        ("fault", "value"),
        [
            *((name, value) for name in ("loss", "duplicate", "reorder", "corrupt", "truncate") for value in (-0.01, 1.01)),
            *(
                (name, value)
                for name in ("loss", "delay", "jitter", "reorderDelay", "rate")
                for value in (math.nan, -1, math.inf)
            ),
            ("rate", 0),
            ("queue", -1),
            ("mtu", -1),
        ],
    )
    def test_values(self, fault: str, value: Any) -> None:
        """A value out of range is refused with the fault and the value, by the constructor and by C{change}."""
        with pytest.raises(ValueError, match=rf"^{fault} must be .*, got {value}$"):
            FaultPlan(1, **{fault: value})
        with pytest.raises(ValueError, match=rf"^{fault} must be "):
            FaultPlan(1).change(**{fault: value})

    @pytest.mark.parametrize(
        ("fault", "value"),
        [
            *((name, value) for value in WRONG for name in ("loss", "delay", "jitter", "rate", "queue", "mtu")),
            ("loss", None),
            ("jitter", None),
            ("queue", None),
            ("queue", 1.5),
            ("mtu", 1500.0),
            ("burst", 0.5),
            ("speed", 1),
            ("seed", 1),
        ],
    )
    def test_types(self, fault: str, value: Any) -> None:
        """A value of the wrong type, or an unknown fault, is refused."""
        with pytest.raises(TypeError):
            FaultPlan(1).change(**{fault: value})

    @pytest.mark.parametrize("seed", [None, 1.5, True, b"seed"])
    def test_seed(self, seed: Any) -> None:
        """A seed is an integer or a string: others would not give the same decisions everywhere."""
        with pytest.raises(TypeError, match=r"^seed must be an integer or a string, got "):
            FaultPlan(seed)

    @pytest.mark.parametrize("name", ["p", "r", "k", "h"])
    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
    def test_burst(self, name: str, value: float) -> None:
        """The parameters of Gilbert-Elliott are probabilities."""
        with pytest.raises(ValueError, match=f"^{name} must be a probability from 0 to 1, got {value}$"):
            GilbertElliott(**{"p": 0.1, "r": 0.1, name: value})

    def test_jitter(self) -> None:
        """Jitter has one of three shapes, and seconds."""
        with pytest.raises(ValueError, match=r"^shape must be uniform, normal or exponential, got 'gaussian'$"):
            Jitter(1.0, "gaussian")
        with pytest.raises(ValueError, match=r"^jitter must be a number of seconds, 0 or more, got -1\.0$"):
            Jitter(-1.0)

    def test_arguments(self) -> None:
        """The seed may be positional, the faults may not, and both are shown."""
        plan = FaultPlan(7, loss=0.1, jitter=0.5)
        assert (plan.seed, plan.loss, plan.jitter, FaultPlan(seed="x").seed) == (7, 0.1, Jitter(0.5), "x")
        assert repr(plan).startswith("FaultPlan(seed=7, loss=0.1, burst=None, ")
        positional: Any = FaultPlan
        with pytest.raises(TypeError):
            positional(7, 0.1)

    def test_allOrNothing(self) -> None:
        """When C{change} refuses one value, none is changed, and the decisions go on as if it had not been called."""
        plan, other = FaultPlan(1, loss=0.5), FaultPlan(1, loss=0.5)
        for wrong in ({"loss": 2.0}, {"speed": 1}):
            with pytest.raises((TypeError, ValueError)):
                plan.change(delay=1.0, duplicate=1.0, **wrong)
        assert decide(plan, 100) == decide(other, 100)

    def test_change(self) -> None:
        """A change holds from the next datagram on; the other faults stay, and the generator continues."""
        plan, other = FaultPlan(1, loss=0.5), FaultPlan(1, loss=0.5)
        decide(plan, 100)
        decide(other, 100)
        plan.change(delay=1.0)
        lost = [LOST in decision.reasons for decision in decide(plan, 100)]
        assert lost == [LOST in decision.reasons for decision in decide(other, 100)]
        plan.change(loss=0.0)
        assert decide(plan, 10) == [Decision((DELAYED,), (1.0,))] * 10


class ReplayTests:
    """Printed decisions, repeated."""

    @settings(deadline=None)
    @given(plans, datagrams)
    def test_identical(self, plan: FaultPlan, datagrams: list[tuple[bytes, float]]) -> None:
        """Decisions that were recorded and printed are the same when they are replayed, and do the same to the same bytes."""
        recording = Recording(plan)
        for datagram, now in datagrams:
            recording.decide(len(datagram), now)
        replay = Replay(str(recording))
        for (datagram, now), decision in zip(datagrams, recording.decisions):
            again = replay.decide(len(datagram), now)
            assert again == decision
            assert again.apply(datagram) == decision.apply(datagram)
        assert replay.decide(5, 0.0) == Decision((DELIVERED,), (0.0,))

    def test_printed(self) -> None:
        """A recording reads as numbered lines, which may be indented, and left without numbers."""
        recording = Recording(
            Replay("lost\n\n  corrupted,delayed flip=9 cut=3 +0.500000000 +1.000000000\n 7:  delivered +0.000000000")
        )
        decide(recording, 3)
        assert str(recording).splitlines() == [
            "0: lost",
            "1: corrupted,delayed flip=9 truncated=3 +0.500000000 +1.000000000",
            "2: delivered +0.000000000",
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "lots",
            "lost,lots",
            "lost,",
            "delivered 0.5",
            "delivered +0.5",
            "delivered +0.000000000 flip=1",
            "1: 2: lost",
            "LOST",
        ],
    )
    def test_notADecision(self, text: str) -> None:
        """Other text is refused, with an example of a decision."""
        with pytest.raises(ValueError, match=r"^decision must be as in .*, got "):
            Replay(f"0: lost\n{text}")
