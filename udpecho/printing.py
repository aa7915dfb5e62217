"""Standard output and standard error. What is printed is data: none of it is lost, and none of it controls a terminal."""

from __future__ import annotations

import io
import select
import sys
from typing import Any


def escapeWhatDoesNotFit() -> None:
    """Escape the letters that the charset of standard output or error lacks, as in C{caf\\xe9}: no name is to end a command.
    Where a descriptor does not take everything, because another program has made it non-blocking, wait: no line is to be lost.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # A program that embeds a command may have replaced them.
        if stream is getattr(sys, f"__{name}__"):
            stream = _waiting(stream)
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            try:
                "\xe4 _\n".encode(stream.encoding, "backslashreplace")
            except UnicodeError:
                # A codec that escapes nothing, such as PYTHONIOENCODING=idna.
                stream.reconfigure(encoding="ascii", errors="backslashreplace")


def printable(text: str) -> str:
    """Escape what is not printable, as in C{\\x1b}: also the end of a line, surrogates, and what turns its direction."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def printableLines(text: str) -> str:
    """Do the same in each line of a text."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


class _Waiting(io.FileIO):
    """Waits until everything is written."""

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left:
            written = super().write(left)
            if written is None:
                select.select([], [self], [])
            left = left[written or 0 :]
        return memoryview(data).nbytes


def _waiting(stream: Any) -> Any:
    """The same stream, with a L{_Waiting} file below it."""
    buffer = getattr(stream, "buffer", None)
    # With PYTHONUNBUFFERED there is no buffer.
    raw = getattr(buffer, "raw", buffer)
    if type(raw) is not io.FileIO:
        return stream
    stream.flush()
    file: Any = _Waiting(raw.fileno(), "wb", closefd=False)
    through = stream.write_through
    buffer = file if through else io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, stream.encoding, line_buffering=stream.line_buffering, write_through=through)
