"""Tests of L{udpecho.cli.ping.thresholds}: which limits are exceeded."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.cli.ping import thresholds
from udpecho.cli.ping.thresholds import LossLimit, RttLimit, exceeded, parseLossLimit, parseRttLimit
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.summary import Statistics

MS = 1_000_000


def measured(roundTrips: Sequence[int], lost: int = 0) -> Statistics:
    """Statistics of probes that were answered, in ns, and of lost ones after them."""
    statistics = Statistics()
    for sequence, roundTrip in enumerate(roundTrips):
        statistics.probeSent(sequence)
        statistics.replyReceived(sequence, roundTrip)
    for sequence in range(len(roundTrips), len(roundTrips) + lost):
        statistics.probeSent(sequence)
        statistics.timedOut(sequence)
    return statistics


class ParseTests:
    """Reading limits."""

    @pytest.mark.parametrize(
        ("text", "share"),
        [("1%", 0.01), ("1", 0.01), ("0", 0.0), ("0%", 0.0), ("0.7%", 0.007), (".5", 0.005), ("100%", 1.0), ("5.%", 0.05)],
    )
    def test_loss(self, text: str, share: float) -> None:
        """A limit of loss is in percent, with the sign or without."""
        assert parseLossLimit(text) == LossLimit(share)

    @pytest.mark.parametrize("text", ["", "%", "101", "100.1%", "-1", "1%%", "1 %", "a", "1e1", "٣", "nan"])
    def test_badLoss(self, text: str) -> None:
        """Anything else is refused."""
        with pytest.raises(ValueError, match=r"loss must be a percentage from 0 to 100, as in 1% or 0\.5, got"):
            parseLossLimit(text)

    @pytest.mark.parametrize("name", ["min", "mean", "median", "p90", "p95", "p99", "p99.9", "max", "stddev", "jitter"])
    def test_rtt(self, name: str) -> None:
        """Each figure of the round trips may have a limit, in any unit."""
        assert parseRttLimit(f"{name}=20ms") == RttLimit(name, 0.02)
        assert parseRttLimit(f"{name}=0.5") == RttLimit(name, 0.5)
        assert parseRttLimit(f"{name}=100us") == RttLimit(name, 0.0001)
        assert name in thresholds.RTT_FIGURES

    @pytest.mark.parametrize(("name", "figure"), [("avg", "mean"), ("p50", "median"), ("p99_9", "p99.9")])
    def test_aliases(self, name: str, figure: str) -> None:
        """The figures have the names of the summary and of the JSON document too."""
        assert parseRttLimit(f"{name}=1s") == RttLimit(figure, 1.0)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("20ms", "limit of round trips must be a figure and a duration, as in p99=20ms, got '20ms'"),
            (
                "p98=20ms",
                "figure of round trips must be one of min, mean, median, p90, p95, p99, p99.9, max, stddev, jitter, got 'p98'",
            ),
            (
                "p99=20mm",
                "duration must be 0s to 366 days, as in 0.5s or 500ms, got '20mm'",
            ),
        ],
    )
    def test_badRtt(self, text: str, sentence: str) -> None:
        """Anything else is refused."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parseRttLimit(text)
        assert str(caught.value) == sentence


class LossTests:
    """Limits of loss."""

    def test_broken(self) -> None:
        """The sentence has the limit, the share, the counts, and the confidence interval."""
        assert exceeded(measured([MS] * 95, lost=5), [LossLimit(0.01)]) == [
            "loss must be 1% or less, got 5%: 5 of 100, 2.15% to 11.2% (95 % confidence interval)"
        ]

    def test_kept(self) -> None:
        """The limit itself is accepted; with 0 no loss is."""
        assert exceeded(measured([MS] * 95, lost=5), [LossLimit(0.05)]) == []
        assert exceeded(measured([MS]), [LossLimit(0.0)]) == []
        assert len(exceeded(measured([MS] * 999, lost=1), [LossLimit(0.0)])) == 1

    @given(st.integers(0, 1000))
    def test_exactly(self, lost: int) -> None:
        """A limit in tenths of a percent is exact for a thousand probes."""
        limit = parseLossLimit(f"{lost // 10}.{lost % 10}%")
        assert exceeded(measured([MS] * (1000 - lost), lost), [limit]) == []
        if lost < 1000:
            assert exceeded(measured([MS] * (999 - lost), lost + 1), [limit]) != []

    def test_unknown(self) -> None:
        """Unknown loss exceeds any limit."""
        statistics = Statistics()
        statistics.probeSent(0)
        statistics.refused(0)
        assert exceeded(statistics, [LossLimit(1.0)]) == ["loss must be 100% or less, got no probe that was lost or answered"]

    def test_own(self) -> None:
        """Loss in our own receive queue is not the network's: those probes were carried."""
        statistics = measured([MS] * 8, lost=2)
        statistics.ownDropped += 1
        assert statistics.count(Outcome.LOST_OWN) == 1
        assert exceeded(statistics, [LossLimit(0.1)]) == []
        assert exceeded(statistics, [LossLimit(0.09)]) == [
            "loss must be 9% or less, got 10%: 1 of 10, 1.79% to 40.4% (95 % confidence interval)"
        ]


class RttTests:
    """Limits of round trips."""

    #: 3000 round trips of 1 to 3 ms, enough for all figures.
    statistics = measured([MS + 1000 * (i * 7 % 2000) for i in range(3000)])

    @pytest.mark.parametrize("name", thresholds.RTT_FIGURES)
    def test_eachFigure(self, name: str) -> None:
        """Each figure is compared with its own limit: its value in reports is accepted, a nanosecond less is not."""
        whole = self.statistics.asDict()
        figure = whole["jitter"] if name == "jitter" else whole["rtt"][name.replace(".", "_")]
        assert exceeded(self.statistics, [RttLimit(name, figure)]) == []
        (sentence,) = exceeded(self.statistics, [RttLimit(name, figure - 1e-9)])
        assert re.fullmatch(rf"rtt {name} must be [0-9.]+[mu]s or less, got [0-9.]+[mu]s", sentence)

    def test_sentence(self) -> None:
        """A figure next to its limit is printed with enough digits."""
        assert exceeded(measured([20 * MS + 4_000]), [RttLimit("max", 0.02)]) == ["rtt max must be 20ms or less, got 20.004ms"]
        assert exceeded(measured([20 * MS]), [RttLimit("max", 0.02)]) == []

    @pytest.mark.parametrize(
        ("name", "needed"), [("p90", 29), ("p95", 59), ("p99", 299), ("p99.9", 2995), ("stddev", 2), ("jitter", 2)]
    )
    def test_tooSmall(self, name: str, needed: int) -> None:
        """A figure that the sample is too small for exceeds any limit, and the sentence has the number of replies it needs;
        with so many it is known.
        """
        limit = RttLimit(name, 0.02)
        assert exceeded(measured([MS] * (needed - 1)), [limit]) == [
            f"rtt {name} must be 20ms or less, got {needed - 1} replies, which are too few: it needs {needed} or more"
        ]
        assert exceeded(measured([MS] * needed), [limit]) == []

    @pytest.mark.parametrize("name", ["min", "mean", "median", "max"])
    def test_none(self, name: str) -> None:
        """Without replies no figure is known."""
        assert exceeded(measured([], lost=3), [RttLimit(name, 0.001)]) == [
            f"rtt {name} must be 1ms or less, got 0 replies, which are too few: it needs 1 or more"
        ]

    def test_order(self) -> None:
        """Each exceeded limit has its sentence, in their order."""
        limits: list[thresholds.Limit] = [
            RttLimit("max", 1e-9),
            LossLimit(0.0),
            RttLimit("median", 0.001),
            RttLimit("min", 2e-9),
        ]
        sentences = exceeded(measured([MS] * 3, lost=1), limits)
        assert [each.partition(" must ")[0] for each in sentences] == ["rtt max", "loss", "rtt min"]
