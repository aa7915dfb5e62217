"""
What a worker and its parent say to each other, over pipes: JSON objects of one item, C{{kind: value}}, each in a line.

===========  ===============================================  ==========================================================
kind         value                                            what it says
===========  ===============================================  ==========================================================
configure    an object                                        the parent: serve, and how
change       an object                                        the parent: go on like this
ready        C{True}                                          the worker: it answers
guard        an object                                        the worker: what its guard tells
received     size, host, port, scope                          a datagram came in, which is worth a line in the log
written      size, host, port, scope                          a datagram went back, which is worth one too
passed       received, bytes, written, bytes                  so many came and went that have no lines
log          level, text                                      a warning, or worse
===========  ===============================================  ==========================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, LogLevel, eventAsText
from zope.interface import implementer

from udpecho.server.datagram_log import IDatagramLines

#: The longest line, in bytes; longer ones are not messages.
MAX_LINE = 65536
#: How many characters of one log event are passed on.
MAX_TEXT = 8192


def encode(kind: str, value: object) -> bytes:
    """Make the line of a message."""
    return json.dumps({kind: value}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, Any]:
    """
    Read the line of a message.

    @return: its kind and its value.

    @raise ValueError: if it is none.
    """
    found = json.loads(line)
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError(f"{line[:80]!r} is not a message")
    ((kind, value),) = found.items()
    return kind, value


class LineBuffer:
    """Takes bytes as they come and gives lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """
        Take bytes.

        @return: the lines that are whole now, without their ends; one that grew longer than L{MAX_LINE} is cut there.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        return lines


@implementer(IDatagramLines)
class SentLines:
    """The lines of a worker's datagrams, sent to its parent."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """@param write: takes the messages."""
        self._write = write

    def received(self, size: int, address: tuple[str, int]) -> None:
        """@see: L{IDatagramLines.received}"""
        self._write(encode("received", [size, *address, getattr(address, "scopeID", 0)]))

    def written(self, size: int, address: tuple[str, int]) -> None:
        """@see: L{IDatagramLines.written}"""
        self._write(encode("written", [size, *address, getattr(address, "scopeID", 0)]))

    def passed(self, received: int, receivedBytes: int, written: int, writtenBytes: int) -> None:
        """@see: L{IDatagramLines.passed}"""
        self._write(encode("passed", [received, receivedBytes, written, writtenBytes]))


@implementer(ILogObserver)
class SentLog:
    """
    Sends a worker's warnings, and what is worse, to its parent. The rest is about the worker's start and stop, of which the
    parent knows.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """@param write: takes the messages."""
        self._write = write

    def __call__(self, event: dict[str, Any]) -> None:
        """Send an event."""
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.warn:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self._write(encode("log", [level.name, text[-MAX_TEXT:]]))
