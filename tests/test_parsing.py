"""Tests of L{udpecho.parsing}: what people ask for on the command line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udpecho import parsing
from udpecho.addresses import MAX_PAYLOAD_IPV6

MS = 1_000_000
sizes = st.integers(0, MAX_PAYLOAD_IPV6)


class DurationTests:
    """L{options.parseDuration} and L{options.formatDuration}."""

    @pytest.mark.parametrize(
        ("text", "nanoseconds"),
        [
            ("1", 1000 * MS),
            ("0.5", 500 * MS),
            (".5", 500 * MS),
            ("1.", 1000 * MS),
            ("1s", 1000 * MS),
            ("10ms", 10 * MS),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("7ns", 7),
            ("2m", 120_000 * MS),
            ("1h", 3600_000 * MS),
            ("0.0000001", 100),
            ("8784h", parsing.LONGEST),
        ],
    )
    def test_good(self, text: str, nanoseconds: int) -> None:
        """Seconds, and numbers with units, to the nanosecond."""
        assert parsing.parseDuration(text) == nanoseconds

    @pytest.mark.parametrize("text", ["", "ms", "-1", "1 s", "1d", "1e3", "1s1", "inf", "nan", "٣", "8785h", "9" * 30, "1\n"])
    def test_bad(self, text: str) -> None:
        """Anything else is told what would be right."""
        with pytest.raises(ValueError, match=r"is not a duration: seconds are, as in 1 or 0\.5, or a number with a unit"):
            parsing.parseDuration(text)

    def test_least(self) -> None:
        """No time at all is right only where the caller says so."""
        assert parsing.parseDuration("0", least=0) == 0
        with pytest.raises(ValueError, match="'0' is too short: 1ns or more is right"):
            parsing.parseDuration("0")
        with pytest.raises(ValueError, match="'9us' is too short: 10us or more is right"):
            parsing.parseDuration("9us", least=10_000)

    def test_interval(self) -> None:
        """An interval is a microsecond or more, unless the caller says that none at all is right; it is in seconds."""
        assert parsing.parseInterval("20us") == 20e-6
        assert parsing.parseInterval("0", 0) == 0
        with pytest.raises(ValueError, match="'0' is too short: 1us or more is right"):
            parsing.parseInterval("0")

    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [(0, "0s"), (7, "7ns"), (1500, "1.5us"), (10 * MS, "10ms"), (1000 * MS, "1s"), (100_000 * MS, "100s")],
    )
    def test_format(self, nanoseconds: int, text: str) -> None:
        """The unit is the largest of which there is one."""
        assert parsing.formatDuration(nanoseconds) == text

    @given(st.integers(0, parsing.LONGEST))
    def test_roundTrip(self, nanoseconds: int) -> None:
        """What is written is read again, without loss."""
        assert parsing.parseDuration(parsing.formatDuration(nanoseconds), least=0) == nanoseconds


class SizesTests:
    """L{options.parseSizes}."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("64", (64,)),
            ("0", (0,)),
            ("0,64,1400", (0, 64, 1400)),
            ("1400,64,64", (1400, 64, 64)),
            ("64-67", (64, 65, 66, 67)),
            ("64-400:100", (64, 164, 264, 364)),
            ("64-264:100", (64, 164, 264)),
            ("7-7", (7,)),
            ("0,10-12,65527", (0, 10, 11, 12, 65527)),
        ],
    )
    def test_good(self, text: str, expected: tuple[int, ...]) -> None:
        """Sizes, lists, ranges, and lists of ranges, in their order."""
        assert parsing.parseSizes(text) == expected

    @pytest.mark.parametrize("text", ["", ",", "64,", "-1", "1-", "1-2:", "64k", "1-2-3", "1:2", "٣", "6 4", "1.5", "999999"])
    def test_bad(self, text: str) -> None:
        """What is none of these is told what would be right."""
        with pytest.raises(ValueError, match="is not a size: bytes are, as in 64, or a list or range of them"):
            parsing.parseSizes(text)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("65528", "65528 is not a datagram's size: a number of bytes from 0 to 65527 is"),
            ("0-65528", "65528 is not a datagram's size: a number of bytes from 0 to 65527 is"),
            ("0,9-5", "'9-5' is not a range: one that goes up is, as in 5-9"),
            ("5-9:0", "'5-9:0' is not a range: one with a step of 1 or more is, as in 5-9:100"),
            ("0-65527,1", "'0-65527,1' has too many sizes: up to 65528 are right"),
        ],
    )
    def test_wrong(self, text: str, sentence: str) -> None:
        """What no datagram has, and what is no range, has a sentence of its own."""
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            parsing.parseSizes(text)
        assert str(caught.value) == sentence

    @given(st.lists(sizes, min_size=1, max_size=50).map(tuple))
    def test_list(self, some: tuple[int, ...]) -> None:
        """Whatever sizes there are, a list of them is read as these."""
        assert parsing.parseSizes(",".join(map(str, some))) == some

    @given(sizes, sizes, st.integers(1, 9000))
    def test_range(self, one: int, other: int, step: int) -> None:
        """A range begins with its first size, goes on by its step, and is not beyond its last."""
        first, last = min(one, other), max(one, other)
        assert parsing.parseSizes(f"{first}-{last}:{step}") == tuple(range(first, last + 1, step))


class RateTests:
    """L{options.parseRate}."""

    @pytest.mark.parametrize(
        ("text", "rate"),
        [("1000", 1000.0), ("50k", 50_000.0), ("50K", 50_000.0), ("1.5k", 1500.0), ("0.5", 0.5), ("1m", 1e6), ("1M", 1e6)],
    )
    def test_good(self, text: str, rate: float) -> None:
        """Probes a second, in units of 1000 too."""
        assert parsing.parseRate(text) == rate

    @pytest.mark.parametrize("text", ["", "0", "-5", "k", "1g", "1.1m", "50k/s", "1e3", "0.0000001", "inf"])
    def test_bad(self, text: str) -> None:
        """No rate at all, and one that no machine keeps, are told what would be right."""
        with pytest.raises(ValueError, match="is not a rate: probes a second are, as in 1000 or 50k, above 0 and up to 1m"):
            parsing.parseRate(text)

    @given(st.integers(1, 10**9))
    def test_exact(self, thousandths: int) -> None:
        """The result is the number nearest to what was written, whatever the unit."""
        nearest = float(Fraction(thousandths, 1000))
        if nearest <= parsing.HIGHEST_RATE:
            assert parsing.parseRate(f"{thousandths // 1000}.{thousandths % 1000:03}") == nearest
            assert parsing.parseRate(f"{thousandths // 10**6}.{thousandths % 10**6:06}k") == nearest


class TOSTests:
    """L{options.parseTOS}."""

    @pytest.mark.parametrize(
        ("text", "tos"),
        [
            ("EF", 0xB8),
            ("ef", 0xB8),
            ("AF11", 0x28),
            ("AF41", 0x88),
            ("AF43", 0x98),
            ("CS0", 0),
            ("CS6", 0xC0),
            ("VA", 0xB0),
            ("LE", 0x04),
            ("DF", 0),
            ("BE", 0),
            ("184", 0xB8),
            ("0xb8", 0xB8),
            ("0XB8", 0xB8),
            ("0", 0),
            ("255", 255),
            ("3", 3),
        ],
    )
    def test_good(self, text: str, tos: int) -> None:
        """Names are the upper six bits, numbers the whole byte; the values are those of the RFCs."""
        assert parsing.parseTOS(text) == tos

    @pytest.mark.parametrize("text", ["", "AF44", "AF51", "CS8", "256", "0x100", "-1", "0x", "EF ", "1.0", "b8", "٣"])
    def test_bad(self, text: str) -> None:
        """What is neither is told what would be right."""
        with pytest.raises(
            ValueError, match="is not a TOS byte: a DSCP's name is, as in EF, AF41 or CS6, or a number from 0 to 255"
        ):
            parsing.parseTOS(text)

    @given(st.integers(0, 255))
    def test_number(self, tos: int) -> None:
        """Each byte is read, in both ways to write it."""
        assert parsing.parseTOS(str(tos)) == parsing.parseTOS(f"0x{tos:x}") == tos


class SentenceTests:
    """What is said of bad input."""

    @given(
        st.sampled_from([parsing.parseDuration, parsing.parseSizes, parsing.parseRate, parsing.parseTOS]),
        st.text(max_size=30),
    )
    def test_anything(self, parser: Callable[[str], object], text: str) -> None:
        """Whatever is written, it is read, or there is one line that says what would be right."""
        try:
            parser(text)
        except ValueError as e:
            assert len(str(e).splitlines()) == 1  # noqa: PT017
            assert " right" in str(e) or " is" in str(e) or " are" in str(e)  # noqa: PT017
