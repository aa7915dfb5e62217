"""The format of probes, and the check of their replies, which are not trusted.

What a probe can carry depends on its size, and so does what can be detected in its reply. The forms, by size in bytes::

    size     content                                             outstanding  distinguished from a valid reply
    32 up    mark, form, length, session of 64 bits,                2^64      unrelated, corrupted, truncated, oversized
             sequence of 64, send time, CRC-32
    16 - 31  mark, form, length, session of 32 bits,                2^32      unrelated, corrupted, truncated, oversized
             sequence of 32, CRC-32
    8 - 15   session of 16 bits, sequence of 16, CRC-32             2^16      unrelated except for one of 65536; corrupted
    4 - 7    sequence of 16 bits, 16 of a CRC-32 over the           2^16      corrupted, and unrelated as such, except for one
             session too                                                      of 65536
    1 - 3    sequence of 8 bits                                     2^8       corrupted, except for the first byte
    0        nothing                                                1         nothing

"Outstanding" is how many probes may be outstanding so that each reply matches one probe: short sequence numbers repeat. A reply
to an empty probe is matched to the oldest outstanding one. Of replies truncated to fewer than 16 bytes the beginning is
compared, unless they could be whole probes of another size. Forms below 16 bytes do not distinguish oversized replies from
corrupted and unrelated ones.

A pattern fills the rest. The check covers all bytes except itself. It protects against accidents (CRC-32, ISO 3309, as in
C{zlib}), not against forged replies: their sender would have to know the session, which is random for each socket. Numbers are
in network byte order.
"""

from __future__ import annotations

import re
from binascii import crc32
from collections.abc import Container
from struct import Struct
from typing import NamedTuple

from udpecho.probe.outcomes import Outcome

#: The first byte of probes of 16 bytes or more, and the second byte of each form. A new layout needs new values.
MARK = 0xEC
_FULL, _COMPACT = 0x11, 0x12

#: Mark, form, length, session, sequence, send time.
_full = Struct("!BBHQQQ")
#: The same, up to the sequence.
_compactOfFull = Struct("!BBHQQ")
#: Mark, form, length, session, sequence.
_compact = Struct("!BBHII")
#: Session, sequence.
_short = Struct("!HH")
_check = Struct("!I")
_half = Struct("!H")

#: The smallest size of each form, in bytes.
FULL_SIZE = 32
COMPACT_SIZE = 16
SHORT_SIZE = 8
TINY_SIZE = 4

#: As in ping: each byte is one more than the previous one.
DEFAULT_PATTERN = bytes(range(256))

Buffer = bytes | bytearray | memoryview


class Parsed(NamedTuple):
    """A parsed datagram.

    @ivar problem: C{None} if it is a valid reply to a probe of this session; else unrelated, corrupt, truncated or oversized.
    @ivar sequence: the number of the probe it answers, if it is valid and not empty; else C{None}.
    """

    problem: Outcome | None
    sequence: int | None = None


_unrelated = Parsed(Outcome.UNRELATED)
_corrupt = Parsed(Outcome.CORRUPT)
_truncated = Parsed(Outcome.TRUNCATED)
_oversized = Parsed(Outcome.OVERSIZED)


def sequencesAtOnce(size: int) -> int:
    """How many probes of a size, in bytes, may be outstanding so that each reply matches one probe."""
    bitsOfSequence = ((FULL_SIZE, 64), (COMPACT_SIZE, 32), (TINY_SIZE, 16), (1, 8), (0, 0))
    return 1 << next(bits for least, bits in bitsOfSequence if size >= least)


def parsePattern(text: str) -> bytes:
    """Read a pattern as C{ping -p} takes it: up to 16 bytes in hexadecimal digits; an odd last digit is a byte of its own.

    @raise ValueError: with the form that is expected.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
        raise ValueError(f"pattern must be 1 to 16 bytes in hexadecimal digits, as in ff00, got {text!r}")
    return bytes.fromhex(text if len(text) % 2 == 0 else f"{text[:-1]}0{text[-1]}")


class Codec:
    """Builds the probes of one session and parses their replies.

    L{prepare} a buffer for each size once, then L{write} each probe into it.
    """

    def __init__(self, session: int, sizes: Container[int], pattern: bytes = DEFAULT_PATTERN) -> None:
        """@param session: a random number of 64 bits, C{secrets.randbits(64)}, different for each socket.
        @param sizes: the sizes of the session's probes, in bytes.
        @param pattern: one byte or more to fill them with, repeated.
        """
        self._session = session
        self._session32 = session & 0xFFFFFFFF
        self._session16 = session & 0xFFFF
        self._initial = crc32(session.to_bytes(8, "big"))
        self._sizes = sizes
        self._pattern = pattern

    def prepare(self, buffer: bytearray | memoryview) -> None:
        """Fill a buffer of the size of a probe with the pattern."""
        start = _headerOf(len(buffer))
        buffer[start:] = self._filling(len(buffer) - start)

    def write(self, buffer: bytearray | memoryview, sequence: int, sendTime: int = 0) -> None:
        """Write a probe into a buffer of its size that was prepared; it may contain an earlier probe.

        @param sequence: its number, from 0; short forms carry the low bits.
        @param sendTime: the time, in ns of any clock, for somebody who looks at the datagram.
        """
        size = len(buffer)
        if size >= FULL_SIZE:
            _full.pack_into(buffer, 0, MARK, _FULL, size, self._session, sequence, sendTime)
            _check.pack_into(buffer, 28, _checkOf(buffer, 28, 32))
        elif size >= COMPACT_SIZE:
            _compact.pack_into(buffer, 0, MARK, _COMPACT, size, self._session32, sequence & 0xFFFFFFFF)
            _check.pack_into(buffer, 12, _checkOf(buffer, 12, 16))
        elif size >= SHORT_SIZE:
            _short.pack_into(buffer, 0, self._session16, sequence & 0xFFFF)
            _check.pack_into(buffer, 4, _checkOf(buffer, 4, 8))
        elif size >= TINY_SIZE:
            _half.pack_into(buffer, 0, sequence & 0xFFFF)
            _half.pack_into(buffer, 2, _checkOf(buffer, 2, 4, self._initial) & 0xFFFF)
        elif size:
            buffer[0] = sequence & 0xFF

    def parse(self, datagram: Buffer, highest: int) -> Parsed:
        """Parse a datagram from the peer.

        @param highest: the number of the latest probe, -1 before the first: a short sequence number is that of the latest
            possible probe.
        """
        size = len(datagram)
        if size < COMPACT_SIZE and size not in self._sizes:
            return _truncated if self._isBeginning(datagram) else _unrelated
        if size >= FULL_SIZE and (found := self._parseFull(datagram, highest)) is not None:
            return found
        if size >= COMPACT_SIZE:
            return self._parseCompact(datagram, highest)
        if size >= SHORT_SIZE:
            return self._parseShort(datagram, highest)
        if size >= TINY_SIZE:
            return self._parseTiny(datagram, highest)
        return self._parseBare(datagram, highest)

    def sequenceOf(self, beginning: Buffer, highest: int) -> int | None:
        """The number of a probe of which a router quotes only the beginning (RFC 792, RFC 1812 section 4.3.2.3); C{None} if
        it is not known. C{highest} is as for L{parse}.
        """
        begin = bytes(beginning[:20])
        if begin[:2] == bytes((MARK, _FULL)):
            if len(begin) < 20:
                return None
            _, _, _, session, sequence = _compactOfFull.unpack(begin)
            return sequence if session == self._session and sequence <= highest else None
        if begin[:2] == bytes((MARK, _COMPACT)):
            if len(begin) < 12:
                return None
            _, _, _, session, low = _compact.unpack_from(begin)
            return _numbered(low, highest, 32).sequence if session == self._session32 else None
        if len(begin) >= 4 and any(SHORT_SIZE <= size < COMPACT_SIZE for size in range(16) if size in self._sizes):
            session, low = _short.unpack_from(begin)
            return _numbered(low, highest, 16).sequence if session == self._session16 else None
        return None

    def _parseFull(self, datagram: Buffer, highest: int) -> Parsed | None:
        """@return: C{None} if it may be an oversized compact one."""
        size = len(datagram)
        mark, form, length, session, sequence, _ = _full.unpack_from(datagram)
        marked = mark == MARK and form == _FULL
        if marked and length == size and _check.unpack_from(datagram, 28)[0] == _checkOf(datagram, 28, 32):
            if session != self._session or sequence > highest:
                return _unrelated
            return Parsed(None, sequence)
        if mark == MARK and form == _COMPACT:
            return None
        return self._damaged(datagram, 28, FULL_SIZE, length, marked, session == self._session)

    def _parseCompact(self, datagram: Buffer, highest: int) -> Parsed:
        size = len(datagram)
        mark, form, length, session, low = _compact.unpack_from(datagram)
        marked = mark == MARK and form == _COMPACT
        if marked and length == size and _check.unpack_from(datagram, 12)[0] == _checkOf(datagram, 12, 16):
            return _numbered(low, highest, 32) if session == self._session32 else _unrelated
        if mark == MARK and form == _FULL and size < FULL_SIZE:
            return _truncated if self._isBeginning(datagram) else _unrelated
        return self._damaged(datagram, 12, COMPACT_SIZE, length, marked, session == self._session32)

    def _damaged(self, datagram: Buffer, at: int, least: int, length: int, marked: bool, ours: bool) -> Parsed:
        """Classify a datagram with a wrong check (at offset C{at}), length or mark, of a form of C{least} bytes or more.

        After one flipped bit, or one overwritten field, the session is still right, or else the marks and the length are.

        @param length: the length in its header.
        @param marked: whether its marks are right.
        @param ours: whether its session is right.
        """
        size = len(datagram)
        if not ours:
            return _corrupt if marked and length == size else _unrelated
        if not marked or length == size:
            return _corrupt
        check = _check.unpack_from(datagram, at)[0]
        if length < size:
            return _oversized if length >= least and check == _checkOf(datagram, at, at + 4, end=length) else _corrupt
        # Its length field alone may be corrupted.
        mended = b"".join((datagram[:2], _half.pack(size), datagram[4:]))
        return _truncated if length in self._sizes and check != _checkOf(mended, at, at + 4) else _corrupt

    def _parseShort(self, datagram: Buffer, highest: int) -> Parsed:
        session, low = _short.unpack_from(datagram)
        if _check.unpack_from(datagram, 4)[0] == _checkOf(datagram, 4, 8):
            return _numbered(low, highest, 16) if session == self._session16 else _unrelated
        return _truncated if self._isBeginning(datagram) else _corrupt

    def _parseTiny(self, datagram: Buffer, highest: int) -> Parsed:
        if _half.unpack_from(datagram, 2)[0] == _checkOf(datagram, 2, 4, self._initial) & 0xFFFF:
            return _numbered(_half.unpack_from(datagram)[0], highest, 16)
        return _truncated if self._isBeginning(datagram) else _corrupt

    def _parseBare(self, datagram: Buffer, highest: int) -> Parsed:
        if not len(datagram):
            return Parsed(None) if highest >= 0 else _unrelated
        if bytes(datagram[1:]) != self._filling(len(datagram) - 1):
            return _truncated if self._isBeginning(datagram) else _corrupt
        return _numbered(datagram[0], highest, 8)

    def _isBeginning(self, datagram: Buffer) -> bool:
        """Whether a short datagram can be the beginning of a longer probe of this session."""
        begin = bytes(datagram)
        if len(begin) >= 4 and not len(begin) < int.from_bytes(begin[2:4], "big"):
            return self._isBeginningOfShort(begin)
        return (
            _begins(begin, bytes((MARK, _FULL)), self._session.to_bytes(8, "big"))
            or _begins(begin, bytes((MARK, _COMPACT)), self._session32.to_bytes(4, "big"))
            or self._isBeginningOfShort(begin)
        )

    def _isBeginningOfShort(self, begin: bytes) -> bool:
        return any(size in self._sizes for size in range(max(len(begin) + 1, SHORT_SIZE), COMPACT_SIZE)) and (
            self._session16.to_bytes(2, "big").startswith(begin[:2])
        )

    def _filling(self, length: int) -> bytes:
        return (self._pattern * (length // len(self._pattern) + 1))[:length]


def _headerOf(size: int) -> int:
    """The number of bytes before the pattern."""
    return next((least for least in (FULL_SIZE, COMPACT_SIZE, SHORT_SIZE, TINY_SIZE) if size >= least), min(size, 1))


def _checkOf(datagram: Buffer, start: int, stop: int, initial: int = 0, end: int | None = None) -> int:
    """The check over a datagram without its own bytes, from C{start} to C{stop}, and without those from C{end} on."""
    return crc32(datagram[stop:end], crc32(datagram[:start], initial))


def _numbered(low: int, highest: int, bits: int) -> Parsed:
    """A valid reply with the low bits of its number: that of the latest possible probe."""
    sequence = highest - ((highest - low) & ((1 << bits) - 1))
    return Parsed(None, sequence) if sequence >= 0 else _unrelated


def _begins(begin: bytes, marks: bytes, session: bytes) -> bool:
    return marks.startswith(begin[:2]) and session.startswith(begin[4 : 4 + len(session)])
