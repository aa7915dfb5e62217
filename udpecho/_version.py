"""The version, written here and nowhere else: C{setup.cfg} reads it from this file."""

from __future__ import annotations

__version__ = "1.0.0"
