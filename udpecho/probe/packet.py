"""
What a probe carries, and what its reply says when nothing of it is trusted.

A datagram has room for so much, and what can be told of a reply depends on it. The forms, by the probe's size in bytes::

    size     carries                                             outstanding  told apart from ours
    32 up    mark, form, length, session of 64 bits,                2^64      another session's, corrupted, cut, longer
             sequence of 64, send time, CRC-32
    16 - 31  mark, form, length, session of 32 bits,                2^32      another session's, corrupted, cut, longer
             sequence of 32, CRC-32
    8 - 15   session of 16 bits, sequence of 16, CRC-32             2^16      another session's, but for one of 65536; corrupted
    4 - 7    sequence of 16 bits, 16 of a CRC-32 over the           2^16      corrupted, which another session's is too, but for
             session too                                                      one of 65536
    1 - 3    sequence of 8 bits                                     2^8       corrupted, where it is not in the first byte
    0        nothing                                                1         nothing

"Outstanding" is how many probes may be under way at once for a reply to be matched without doubt, as a sequence number of few
bits comes again; a reply to an empty probe is matched to the oldest that is under way, which is right for one at a time. What
was cut to fewer than 16 bytes is known by how it begins, where it does not pass for a probe of its own; what was shorter than
16 and made longer is taken for corrupted or another session's.

Behind what a form carries follows a pattern. The check of every form is over all the bytes, its own apart. It is a check
against accidents (CRC-32, ISO 3309, as C{zlib} has it), and no proof against somebody who forges replies: for that one would
have to know the session, which is drawn at random for each socket. Numbers are in network order.
"""

from __future__ import annotations

import re
from collections.abc import Container
from enum import Enum
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from udpecho.addresses import MAX_PAYLOAD_IPV6

#: The first byte of a probe that has room for one, and the second by its form; a change of the layout changes these.
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

#: From which size on a probe has each form. From C{FULL_SIZE} on it carries everything.
FULL_SIZE = 32
COMPACT_SIZE = 16
SHORT_SIZE = 8
TINY_SIZE = 4

#: As ping's own: each byte is one more than the one before.
DEFAULT_PATTERN = bytes(range(256))

Buffer = bytes | bytearray | memoryview


class Verdict(Enum):
    """
    What a datagram from the peer is.

    @cvar OURS: a whole reply to a probe of this session.
    @cvar FOREIGN: something else: a reply to another session's probe, one to a probe never sent, no reply at all.
    @cvar CORRUPT: a reply, with other bytes than its probe's.
    @cvar CUT: the beginning of a reply.
    @cvar LONGER: a reply with something behind it.
    """

    OURS = "ours"
    FOREIGN = "foreign"
    CORRUPT = "corrupt"
    CUT = "cut"
    LONGER = "longer"


class Parsed(NamedTuple):
    """
    What a datagram says.

    @ivar verdict: what it is.
    @ivar sequence: the number of the probe it answers; only of one that is ours, and C{None} for an empty one.
    @ivar sendTime: the send time that it carries, in ns, or C{None}. For information: who replies may have changed it.
    """

    verdict: Verdict
    sequence: int | None = None
    sendTime: int | None = None


_foreign = Parsed(Verdict.FOREIGN)
_corrupt = Parsed(Verdict.CORRUPT)
_cut = Parsed(Verdict.CUT)
_longer = Parsed(Verdict.LONGER)


def sequencesAtOnce(size: int) -> int:
    """How many probes of a size may be outstanding for each reply to be matched without doubt."""
    if size >= FULL_SIZE:
        return 1 << 64
    if size >= COMPACT_SIZE:
        return 1 << 32
    if size >= TINY_SIZE:
        return 1 << 16
    return 1 << 8 if size else 1


def parsePattern(text: str) -> bytes:
    """
    Read a pattern as C{ping -p} takes it: up to 16 bytes in hexadecimal digits, a digit that is left over for a byte of its
    own.

    @raise ValueError: with a sentence that says what would be right.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
        raise ValueError(f"{text!r} is not a pattern: 1 to 16 bytes in hexadecimal digits are, as in ff00")
    return bytes.fromhex(text if len(text) % 2 == 0 else f"{text[:-1]}0{text[-1]}")


class Codec:
    """
    Builds the probes of one session and reads what comes back.

    To send fast, L{prepare} a buffer for each size once and L{write} each probe to it; to send one, L{build} it.
    """

    def __init__(self, session: int, sizes: Container[int], pattern: bytes = DEFAULT_PATTERN) -> None:
        """
        @param session: a random number of 64 bits, C{secrets.randbits(64)}; another for each socket.
        @param sizes: which sizes in bytes the session's probes have.
        @param pattern: what is repeated to fill them.

        @raise ValueError: if the session is no such number, or the pattern is empty.
        """
        if not 0 <= session < 1 << 64:
            raise ValueError(f"{session} is not a session: a number from 0 to 2**64 - 1 is")
        if not pattern:
            raise ValueError("b'' is not a pattern: one byte or more is")
        self._session = session
        self._session32 = session & 0xFFFFFFFF
        self._session16 = session & 0xFFFF
        self._seed = crc32(session.to_bytes(8, "big"))
        self._sizes = sizes
        self._pattern = pattern

    def build(self, sequence: int, size: int, sendTime: int = 0) -> bytes:
        """
        Build one probe.

        @param sequence: its number, from 0; a form of few bits carries the low ones.
        @param size: its length, in bytes.
        @param sendTime: any clock's ns, 0 up, for the information of who looks at the datagram.

        @raise ValueError: if no datagram has that size.
        """
        if not 0 <= size <= MAX_PAYLOAD_IPV6:
            raise ValueError(f"{size} is not a datagram's size: a number of bytes from 0 to {MAX_PAYLOAD_IPV6} is")
        buffer = bytearray(size)
        self.prepare(buffer)
        self.write(buffer, sequence, sendTime)
        return bytes(buffer)

    def prepare(self, buffer: bytearray | memoryview) -> None:
        """Fill a buffer of a probe's size with the pattern."""
        start = _headerOf(len(buffer))
        buffer[start:] = self._filling(len(buffer) - start)

    def write(self, buffer: bytearray | memoryview, sequence: int, sendTime: int = 0) -> None:
        """
        Make a probe of a buffer that was prepared, and perhaps was another probe before. Its length is the probe's.

        @param sequence: as L{build} takes it.
        @param sendTime: as L{build} takes it.
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
            _half.pack_into(buffer, 2, _checkOf(buffer, 2, 4, self._seed) & 0xFFFF)
        elif size:
            buffer[0] = sequence & 0xFF

    def parse(self, datagram: Buffer, highest: int) -> Parsed:
        """
        Read a datagram from the peer.

        @param datagram: all of it.
        @param highest: the number of the last probe sent, -1 before the first; a sequence number of few bits is taken for the
            latest that it can be.
        """
        size = len(datagram)
        if size < COMPACT_SIZE and size not in self._sizes:
            return _cut if self._isBeginning(datagram) else _foreign
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
        """
        Read which probe a datagram of ours was, when only its beginning is known: as a router quotes it (RFC 792, RFC 1812
        section 4.3.2.3).

        @param beginning: as many of its first bytes as are known.
        @param highest: as L{parse} takes it.

        @return: its number; C{None} if that cannot be told.
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
        """@return: C{None} if it is a compact one with something behind it."""
        size = len(datagram)
        mark, form, length, session, sequence, sendTime = _full.unpack_from(datagram)
        marked = mark == MARK and form == _FULL
        if marked and length == size and _check.unpack_from(datagram, 28)[0] == _checkOf(datagram, 28, 32):
            if session != self._session or sequence > highest:
                return _foreign
            return Parsed(Verdict.OURS, sequence, sendTime)
        if mark == MARK and form == _COMPACT:
            return None
        return self._damaged(datagram, 28, FULL_SIZE, length, marked, session == self._session)

    def _parseCompact(self, datagram: Buffer, highest: int) -> Parsed:
        size = len(datagram)
        mark, form, length, session, low = _compact.unpack_from(datagram)
        marked = mark == MARK and form == _COMPACT
        if marked and length == size and _check.unpack_from(datagram, 12)[0] == _checkOf(datagram, 12, 16):
            return _numbered(low, highest, 32) if session == self._session32 else _foreign
        if mark == MARK and form == _FULL and size < FULL_SIZE:
            return _cut if self._isBeginning(datagram) else _foreign
        return self._damaged(datagram, 12, COMPACT_SIZE, length, marked, session == self._session32)

    def _damaged(self, datagram: Buffer, at: int, least: int, length: int, marked: bool, ours: bool) -> Parsed:
        """
        What a datagram is that has a wrong check, length or mark.

        One bit that is flipped, or one field that is overwritten, leaves the session right, or else the marks and the length.

        @param at: where its check is.
        @param least: how long its form is at least.
        @param length: the length it says to have.
        @param marked: whether its marks are right.
        @param ours: whether its session is.
        """
        size = len(datagram)
        if not ours:
            return _corrupt if marked and length == size else _foreign
        if not marked or length == size:
            return _corrupt
        check = _check.unpack_from(datagram, at)[0]
        if length < size:
            return _longer if length >= least and check == _checkOf(datagram, at, at + 4, end=length) else _corrupt
        # It may be whole but for its length.
        mended = b"".join((datagram[:2], _half.pack(size), datagram[4:]))
        return _cut if length in self._sizes and check != _checkOf(mended, at, at + 4) else _corrupt

    def _parseShort(self, datagram: Buffer, highest: int) -> Parsed:
        session, low = _short.unpack_from(datagram)
        if _check.unpack_from(datagram, 4)[0] == _checkOf(datagram, 4, 8):
            return _numbered(low, highest, 16) if session == self._session16 else _foreign
        return _cut if self._isBeginning(datagram) else _corrupt

    def _parseTiny(self, datagram: Buffer, highest: int) -> Parsed:
        if _half.unpack_from(datagram, 2)[0] == _checkOf(datagram, 2, 4, self._seed) & 0xFFFF:
            return _numbered(_half.unpack_from(datagram)[0], highest, 16)
        return _cut if self._isBeginning(datagram) else _corrupt

    def _parseBare(self, datagram: Buffer, highest: int) -> Parsed:
        if not len(datagram):
            return Parsed(Verdict.OURS) if highest >= 0 else _foreign
        if bytes(datagram[1:]) != self._filling(len(datagram) - 1):
            return _cut if self._isBeginning(datagram) else _corrupt
        return _numbered(datagram[0], highest, 8)

    def _isBeginning(self, datagram: Buffer) -> bool:
        """Whether a short datagram is how a longer probe of this session begins, as far as it goes."""
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
    """How many bytes of a probe of a size are not the pattern."""
    for least in (FULL_SIZE, COMPACT_SIZE, SHORT_SIZE, TINY_SIZE):
        if size >= least:
            return least
    return min(size, 1)


def _checkOf(datagram: Buffer, start: int, stop: int, seed: int = 0, end: int | None = None) -> int:
    """The check over a datagram without the bytes from C{start} to C{stop}, which hold it, and without those from C{end} on."""
    return crc32(datagram[stop:end], crc32(datagram[:start], seed))


def _numbered(low: int, highest: int, bits: int) -> Parsed:
    """A reply of ours with the low bits of its number: the latest that was sent has them."""
    sequence = highest - ((highest - low) & ((1 << bits) - 1))
    return Parsed(Verdict.OURS, sequence) if sequence >= 0 else _foreign


def _begins(begin: bytes, marks: bytes, session: bytes) -> bool:
    """Whether some bytes are the first of a probe with these marks and this session."""
    return marks.startswith(begin[:2]) and session.startswith(begin[4 : 4 + len(session)])
