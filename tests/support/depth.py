"""How deep the calls of a program are inside each other."""

from __future__ import annotations

import sys
from types import FrameType


def stackDepth() -> int:
    """The number of frames on the stack of this thread."""
    depth, frame = 0, sys._getframe()
    following: FrameType | None = frame
    while following is not None:
        depth += 1
        following = following.f_back
    return depth
