"""Tests of L{udpecho.probe.packet}: how probes are built and replies are classified."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Container

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packets import Codec
from udpecho.addresses import MAX_PAYLOAD_IPV6
from udpecho.faults.plan import FaultPlan
from udpecho.probe.outcomes import Outcome
from udpecho.probe.packet import DEFAULT_PATTERN, FULL_SIZE, Parsed, parsePattern, sequencesAtOnce

SESSION = 0x0123456789ABCDEF
OTHER = 0xFEDCBA9876543210
ALL = range(MAX_PAYLOAD_IPV6 + 1)

sessions = st.integers(0, (1 << 64) - 1)
sizes = st.integers(0, 100)
sequences = st.integers(0, (1 << 50))


def only(size: int, session: int = SESSION) -> Codec:
    """What reads and builds probes of one size."""
    return Codec(session, (size,))


class BuildTests:
    """Building."""

    def test_full(self) -> None:
        """A probe of 40 bytes is, byte by byte: mark, form, length, session, sequence, send time, CRC-32 of all that, the
        pattern.
        """
        head = bytes.fromhex("ec11 0028 0123456789abcdef 0000000000000003 00000000000f4240")
        filling = bytes(range(8))
        check = zlib.crc32(head + filling).to_bytes(4, "big")
        assert only(40).build(3, 40, 1_000_000) == head + check + filling

    def test_compact(self) -> None:
        """One of 17: mark, form, length, half the session, sequence, CRC-32, the pattern."""
        head = bytes.fromhex("ec12 0011 89abcdef 00000003")
        check = zlib.crc32(head + b"\xff").to_bytes(4, "big")
        assert Codec(SESSION, (17,), b"\xff").build(3, 17) == head + check + b"\xff"

    def test_short(self) -> None:
        """One of 8: a quarter of the session, sequence, CRC-32."""
        head = bytes.fromhex("cdef 0003")
        assert only(8).build(3, 8) == head + zlib.crc32(head).to_bytes(4, "big")

    def test_tiny(self) -> None:
        """One of 5: sequence, half of the CRC-32 of session, sequence and pattern, the pattern."""
        check = zlib.crc32(bytes.fromhex("0123456789abcdef 0003 00")).to_bytes(4, "big")[2:]
        assert only(5).build(3, 5) == b"\0\3" + check + b"\0"

    def test_bare(self) -> None:
        """Those of 1 to 3 have a sequence number of a byte, that of 0 has nothing."""
        assert Codec(SESSION, ALL).build(259, 3) == b"\3\0\1"
        assert Codec(SESSION, ALL).build(259, 1) == b"\3"
        assert Codec(SESSION, ALL).build(259, 0) == b""

    @given(sizes, st.lists(sequences, min_size=1, max_size=5))
    def test_inPlace(self, size: int, numbers: list[int]) -> None:
        """Written again and again to one buffer, or to a part of one, each probe is what it is when built alone."""
        codec = only(size)
        whole = bytearray(b"\xaa" * (size + 2))
        buffer = memoryview(whole)[1 : size + 1]
        codec.prepare(buffer)
        for number in numbers:
            codec.write(buffer, number, number + 1)
            assert bytes(buffer) == codec.build(number, size, number + 1)
        assert (whole[0], whole[-1]) == (0xAA, 0xAA)

    @pytest.mark.parametrize(
        ("text", "pattern"),
        [("ff", b"\xff"), ("00FF", b"\0\xff"), ("f", b"\x0f"), ("abc", b"\xab\x0c"), ("12" * 16, b"\x12" * 16)],
    )
    def test_pattern(self, text: str, pattern: bytes) -> None:
        """A pattern reads as ping's."""
        assert parsePattern(text) == pattern

    @pytest.mark.parametrize("text", ["", "0x10", "g", "12" * 17, " 1", "1\n", "٣"])
    def test_badPattern(self, text: str) -> None:
        """Anything else is refused with a sentence."""
        with pytest.raises(ValueError, match="pattern must be 1 to 16 bytes in hexadecimal digits, as in ff00, got"):
            parsePattern(text)


class ParseTests:
    """Reading what comes back."""

    @given(sessions, sizes, sequences, st.binary(min_size=1, max_size=16), st.booleans())
    def test_valid(self, session: int, size: int, sequence: int, pattern: bytes, oneSize: bool) -> None:
        """The reply to a probe is valid, and its number is known; from 32 bytes on the probe has its send time."""
        chosen: Container[int] = (size,) if oneSize else ALL
        codec = Codec(session, chosen, pattern)
        reply = codec.build(sequence, size, 77)
        assert size < FULL_SIZE or reply[20:28] == (77).to_bytes(8, "big")
        for datagram in (reply, bytearray(reply), memoryview(reply)):
            found = codec.parse(datagram, sequence)
            assert found == Parsed(None, sequence if size else None)

    @given(sizes.filter(bool), sequences, st.integers(0, 1 << 70))
    def test_behind(self, size: int, sequence: int, ahead: int) -> None:
        """A number of few bits is right for as many probes behind the latest as it can count."""
        codec = only(size)
        highest = sequence + ahead % sequencesAtOnce(size)
        assert codec.parse(codec.build(sequence, size), highest).sequence == sequence

    @given(sizes, st.integers(0, 200), st.integers(1, 100))
    def test_neverSent(self, size: int, highest: int, ahead: int) -> None:
        """A reply to a probe that was not sent yet is unrelated."""
        codec = only(size)
        reply = codec.build(highest + ahead, size)
        # A byte counts to 255, and may mean an earlier one.
        if size >= 4 or (size and highest + ahead < 256):
            assert codec.parse(reply, highest).problem is Outcome.UNRELATED
        assert codec.parse(codec.build(0, size), -1).problem is Outcome.UNRELATED

    @pytest.mark.parametrize("size", [4, 5, 7, 8, 12, 15, 16, 17, 31, 32, 33, 64])
    def test_everyBit(self, size: int) -> None:
        """With any one bit flipped a reply is corrupted: not valid, not unrelated, not truncated. That holds for short forms
        too.
        """
        codec = only(size)
        reply = codec.build(0x55AA, size, 123456789)
        for bit in range(8 * size):
            flipped = bytearray(reply)
            flipped[bit // 8] ^= 1 << bit % 8
            assert codec.parse(flipped, 0x55AA) == Parsed(Outcome.CORRUPT), bit

    @pytest.mark.parametrize("size", [16, 32, 64])
    def test_everyBitAmongSizes(self, size: int) -> None:
        """That also holds among probes of all sizes, where a wrong length may be that of another probe."""
        codec = Codec(SESSION, ALL)
        reply = codec.build(0x55AA, size)
        for bit in range(8 * size):
            flipped = bytearray(reply)
            flipped[bit // 8] ^= 1 << bit % 8
            assert codec.parse(flipped, 0x55AA) == Parsed(Outcome.CORRUPT), bit

    @pytest.mark.parametrize("size", [2, 3, 4, 7])
    def test_pattern(self, size: int) -> None:
        """The pattern of a short probe is checked too."""
        codec = only(size)
        reply = bytearray(codec.build(5, size))
        reply[-1] ^= 1
        assert codec.parse(reply, 5) == Parsed(Outcome.CORRUPT)

    @pytest.mark.parametrize("size", [16, 20, 31, 32, 64, 1472])
    def test_truncated(self, size: int) -> None:
        """A reply that is truncated anywhere is classified as such."""
        codec = only(size)
        reply = codec.build(9, size)
        for left in range(size):
            assert codec.parse(reply[:left], 9) == Parsed(Outcome.TRUNCATED), left

    @pytest.mark.parametrize("size", [32, 64, 100])
    def test_truncatedAmongSizes(self, size: int) -> None:
        """Among probes of all sizes a truncated reply is detected down to four bytes."""
        codec = Codec(SESSION, ALL)
        reply = codec.build(9, size)
        for left in range(4, size):
            assert codec.parse(reply[:left], 9) == Parsed(Outcome.TRUNCATED), left

    @pytest.mark.parametrize("size", [8, 12])
    def test_truncatedShort(self, size: int) -> None:
        """A truncated short form is detected by its session."""
        codec = only(size)
        reply = codec.build(9, size)
        assert {codec.parse(reply[:left], 9).problem for left in range(2, size)} == {Outcome.TRUNCATED}

    @given(st.integers(16, 100), st.binary(min_size=1, max_size=100))
    def test_oversized(self, size: int, behind: bytes) -> None:
        """A reply with additional bytes is oversized."""
        codec = only(size)
        assert codec.parse(codec.build(9, size) + behind, 9) == Parsed(Outcome.OVERSIZED)
        assert Codec(SESSION, ALL).parse(codec.build(9, size) + behind, 9) == Parsed(Outcome.OVERSIZED)

    @given(st.integers(8, 100), sequences)
    def test_unrelated(self, size: int, sequence: int) -> None:
        """A reply of another session is unrelated, whole, truncated or oversized."""
        codec = only(size)
        theirs = only(size, OTHER).build(sequence, size)
        assert codec.parse(theirs, sequence) == Parsed(Outcome.UNRELATED)
        if size > 16:
            assert codec.parse(theirs + b"x", sequence) == Parsed(Outcome.UNRELATED)
            assert Codec(SESSION, ALL).parse(theirs[: size - 1], sequence) == Parsed(Outcome.UNRELATED)

    def test_unrelatedTiny(self) -> None:
        """Below 8 bytes an unrelated reply counts as corrupted, and never as a valid reply."""
        codec = only(4)
        assert codec.parse(only(4, OTHER).build(7, 4), 7) == Parsed(Outcome.CORRUPT)

    @given(st.binary(min_size=8, max_size=200), st.integers(-1, 1 << 64))
    def test_anything(self, datagram: bytes, highest: int) -> None:
        """No random datagram is a valid reply."""
        for chosen in (ALL, (8,), (64,), range(0)):
            found = Codec(SESSION, chosen).parse(datagram, highest)
            assert found.problem is not None
            assert found.sequence is None

    def test_noProbe(self) -> None:
        """A datagram that is neither as long as a probe nor the beginning of one is unrelated."""
        for datagram in (b"hello", b"\xec\x13", b"h" * 20, b"\xec\x11\x00\x40" + bytes(10), bytes(100)):
            assert only(64).parse(datagram, 9) == Parsed(Outcome.UNRELATED), datagram

    @given(st.binary(max_size=8), st.integers(-1, 1000))
    def test_anythingShort(self, datagram: bytes, highest: int) -> None:
        """In a session of full probes alone no random datagram is a valid reply, however short."""
        assert only(64).parse(datagram, highest).problem is not None

    def test_faults(self) -> None:
        """Replies through a bad network are classified by what the network did to them."""
        codec = only(64)
        plan = FaultPlan(seed=6, corrupt=0.2, truncate=0.2)
        classified: Counter[tuple[bool, Outcome | None]] = Counter()
        done: Counter[tuple[bool, Outcome | None]] = Counter()
        for sequence in range(2000):
            decision = plan.decide(64, sequence)
            (delivery,) = decision.apply(codec.build(sequence, 64))
            truncated, flipped = decision.truncatedTo is not None, decision.flipped is not None
            right = Outcome.TRUNCATED if truncated else Outcome.CORRUPT if flipped else None
            found = codec.parse(delivery.datagram, sequence)
            # If both happened, any problem is right.
            both = truncated and flipped
            done[both, Outcome.TRUNCATED if both else right] += 1
            classified[both, Outcome.TRUNCATED if both and found.problem is not None else found.problem] += 1
        assert classified == done
        assert len(done) == 4

    @pytest.mark.parametrize("size", [8, 12, 16, 31, 32, 64])
    def test_quotedForms(self, size: int) -> None:
        """The sequence number is read from the beginning of each form that has one; that of another session is not."""
        codec = Codec(0x1234567890ABCDEF, {size})
        assert codec.sequenceOf(codec.build(7, size)[:28], 9) == 7
        assert codec.sequenceOf(Codec(99, {size}).build(7, size)[:28], 9) is None
        assert codec.sequenceOf(b"", 9) is None
        assert codec.sequenceOf(codec.build(7, size)[:3], 9) is None

    def test_sequencesAtOnce(self) -> None:
        """The table of the module's docstring."""
        assert {size: sequencesAtOnce(size).bit_length() - 1 for size in (0, 1, 3, 4, 8, 15, 16, 31, 32, 64)} == {
            0: 0,
            1: 8,
            3: 8,
            4: 16,
            8: 16,
            15: 16,
            16: 32,
            31: 32,
            32: 64,
            64: 64,
        }
        assert len(DEFAULT_PATTERN) == 256
