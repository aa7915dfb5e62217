"""Standard output and standard error."""

from __future__ import annotations

import sys


def escapeWhatDoesNotFit() -> None:
    """Escape the letters that the charset of standard output or error lacks, as in C{caf\\xe9}: no name is to end a command."""
    for stream in (sys.stdout, sys.stderr):
        # A program that embeds a command may have replaced them.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
