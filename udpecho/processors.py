"""How many processors this process may use."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def availableProcessors(root: str = "/") -> int:
    """How many processors this process may use: those it may run on (C{sched_setaffinity(2)}), or as many as the CPU quotas
    of its control groups are worth, if that is less.

    @param root: where C{proc} and the control groups are mounted.
    @return: 1 or more; a part of a processor counts as one.
    """
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([number, *_quotas(Path(root))])))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas that apply, in processors: those of a control group and of all above it (C{cgroups(7)})."""
    own = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        # Version 2 has all its controllers in one hierarchy, without a name here.
        own.update(dict.fromkeys(controllers.split(","), group))
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        controller = "" if kind == "cgroup2" else "cpu"
        if kind in ("cgroup", "cgroup2") and controller in own and controller in ["", *options.split(",")]:
            top, place = (_unescaped(field) for field in mount.split(" ")[3:5])
            yield from _quotasUp(root / place.lstrip("/"), PurePosixPath(own[controller]), PurePosixPath(top))


def _quotasUp(place: Path, group: PurePosixPath, top: PurePosixPath) -> Iterator[float]:
    # A group outside of what is mounted is not to be seen here: what is mounted is the best that is known.
    inside = group.relative_to(top) if group.is_relative_to(top) and ".." not in group.parts else PurePosixPath()
    for each in (inside, *inside.parents):
        words = [*_lines(place / each / "cpu.max")][:1]
        if not words:
            files = (place / each / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            words = [" ".join(line for file in files for line in _lines(file))]
        match = re.fullmatch("([0-9]+) ([1-9][0-9]*)", words[0])
        if match is not None:
            yield int(match[1]) / int(match[2])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
