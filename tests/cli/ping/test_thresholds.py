"""Tests of L{udpecho.cli.ping.thresholds}: which limits are broken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho.cli.ping import thresholds
from udpecho.cli.ping.thresholds import LossLimit, RttLimit, failures, parseLossLimit, parseRttLimit
from udpecho.probe.outcomes import Outcome
from udpecho.probe.stats.summary import Statistics

MS = 1_000_000


def measured(roundTrips: Sequence[int], lost: int = 0) -> Statistics:
    """Statistics of some probes that were answered, and some that were lost after them."""
    told = Statistics()
    for sequence, roundTrip in enumerate(roundTrips):
        told.probeSent(sequence)
        told.replyReceived(sequence, roundTrip)
    for sequence in range(len(roundTrips), len(roundTrips) + lost):
        told.probeSent(sequence)
        told.timedOut(sequence)
    return told


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
        """What is no percentage is told what would be right."""
        with pytest.raises(ValueError, match=r"is not a limit of loss: a percentage from 0 to 100 is, as in 1% or 0\.5"):
            parseLossLimit(text)

    @pytest.mark.parametrize("name", ["min", "mean", "median", "p90", "p95", "p99", "p99.9", "max", "stddev", "jitter"])
    def test_rtt(self, name: str) -> None:
        """Each figure of the round trips may have a limit, in any unit."""
        assert parseRttLimit(f"{name}=20ms") == RttLimit(name, 20 * MS)
        assert parseRttLimit(f"{name}=0.5") == RttLimit(name, 500 * MS)
        assert parseRttLimit(f"{name}=100us") == RttLimit(name, MS // 10)
        assert name in thresholds.RTT_FIGURES

    @pytest.mark.parametrize(("name", "figure"), [("avg", "mean"), ("p50", "median"), ("p99_9", "p99.9")])
    def test_aliases(self, name: str, figure: str) -> None:
        """The figures have the names of the summary and of the JSON document too."""
        assert parseRttLimit(f"{name}=1s") == RttLimit(figure, 1000 * MS)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("20ms", "'20ms' is not a limit of round trips: a figure and a duration are, as in p99=20ms"),
            (
                "p98=20ms",
                "'p98' is not a figure of round trips: one of min, mean, median, p90, p95, p99, p99.9, max, stddev, jitter is",
            ),
            (
                "p99=20mm",
                "duration must be 0s to 366 days, as in 0.5s or 500ms, got '20mm'",
            ),
        ],
    )
    def test_badRtt(self, text: str, sentence: str) -> None:
        """What is wrong is told what would be right."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parseRttLimit(text)
        assert str(caught.value) == sentence


class LossTests:
    """Limits of loss."""

    def test_broken(self) -> None:
        """The sentence has the share, the limit, the counts, and how sure that is."""
        assert failures(measured([MS] * 95, lost=5), [LossLimit(0.01)]) == [
            "loss is 5%, more than 1%: 5 of 100, between 2.15% and 11.2% (95 %)"
        ]

    def test_kept(self) -> None:
        """As much as the limit may be lost; nothing may be if it is 0."""
        assert failures(measured([MS] * 95, lost=5), [LossLimit(0.05)]) == []
        assert failures(measured([MS]), [LossLimit(0.0)]) == []
        assert len(failures(measured([MS] * 999, lost=1), [LossLimit(0.0)])) == 1

    @given(st.integers(0, 1000))
    def test_exactly(self, lost: int) -> None:
        """A limit in tenths of a percent is kept by exactly so many in a thousand."""
        limit = parseLossLimit(f"{lost // 10}.{lost % 10}%")
        assert failures(measured([MS] * (1000 - lost), lost), [limit]) == []
        if lost < 1000:
            assert failures(measured([MS] * (999 - lost), lost + 1), [limit]) != []

    def test_unknown(self) -> None:
        """Where nothing was lost nor came back, that is a failure: it does not show that the limit was kept."""
        told = Statistics()
        told.probeSent(0)
        told.refused(0)
        assert failures(told, [LossLimit(1.0)]) == ["loss is not known, with a limit of 100%: no probe was lost or came back"]

    def test_own(self) -> None:
        """What our own receive queue lost is not the network's loss, and came back."""
        told = measured([MS] * 8, lost=2)
        told.ownDrops(1)
        assert told.count(Outcome.LOST_OWN) == 1
        assert failures(told, [LossLimit(0.1)]) == []
        assert failures(told, [LossLimit(0.09)]) == ["loss is 10%, more than 9%: 1 of 10, between 1.79% and 40.4% (95 %)"]


class RttTests:
    """Limits of round trips."""

    #: 3000 round trips of 1 to 3 ms, with figures that are known.
    told = measured([MS + 1000 * (i * 7 % 2000) for i in range(3000)])

    @pytest.mark.parametrize("name", thresholds.RTT_FIGURES)
    def test_eachFigure(self, name: str) -> None:
        """Each figure is compared with its own limit: what reports say of it is kept, a nanosecond less is not."""
        whole = self.told.asDict()
        figure = whole["jitter"] if name == "jitter" else whole["rtt"][name.replace(".", "_")]
        value = round(figure * 1e9)
        assert failures(self.told, [RttLimit(name, value + 1)]) == []
        (sentence,) = failures(self.told, [RttLimit(name, value - 1)])
        assert sentence.startswith(f"rtt {name} is ")
        assert "ms, more than " in sentence or "us, more than " in sentence

    def test_sentence(self) -> None:
        """A figure next to its limit does not read as if it were the limit."""
        assert failures(measured([20 * MS + 4_000]), [RttLimit("max", 20 * MS)]) == ["rtt max is 20.004ms, more than 20ms"]
        assert failures(measured([20 * MS]), [RttLimit("max", 20 * MS)]) == []

    @pytest.mark.parametrize(
        ("name", "needed"), [("p90", 29), ("p95", 59), ("p99", 299), ("p99.9", 2995), ("stddev", 2), ("jitter", 2)]
    )
    def test_tooSmall(self, name: str, needed: int) -> None:
        """
        A figure that so small a sample does not have breaks any limit, and the sentence says how many replies it takes; with
        so many it is there.
        """
        limit = RttLimit(name, 20 * MS)
        assert failures(measured([MS] * (needed - 1)), [limit]) == [
            f"rtt {name} is not known, with a limit of 20ms: it takes {needed} replies or more, of which there are {needed - 1}"
        ]
        assert failures(measured([MS] * needed), [limit]) == []

    @pytest.mark.parametrize("name", ["min", "mean", "median", "max"])
    def test_none(self, name: str) -> None:
        """Without a reply no figure is known."""
        assert failures(measured([], lost=3), [RttLimit(name, MS)]) == [
            f"rtt {name} is not known, with a limit of 1ms: it takes 1 reply or more, of which there are 0"
        ]

    def test_order(self) -> None:
        """Each limit that is broken has its sentence, in their order."""
        limits: list[thresholds.Limit] = [RttLimit("max", 1), LossLimit(0.0), RttLimit("median", MS), RttLimit("min", 2)]
        sentences = failures(measured([MS] * 3, lost=1), limits)
        assert [each.partition(" is ")[0] for each in sentences] == ["rtt max", "loss", "rtt min"]
