"""The build backend of C{pyproject.toml} (PEP 517): setuptools, whose source distribution depends on nothing but its contents.

With C{SOURCE_DATE_EPOCH} in the environment two builds of the same files give the same bytes. Setuptools does this for wheels
only.

@see: U{https://reproducible-builds.org/specs/source-date-epoch/}
"""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build the source distribution.

    @return: its file name in C{sdist_directory}.
    """
    name: str = build_meta.build_sdist(sdist_directory, config_settings)
    if "SOURCE_DATE_EPOCH" in os.environ:
        normalize(Path(sdist_directory, name), int(os.environ["SOURCE_DATE_EPOCH"]))
    return name


def normalize(path: Path, seconds: int) -> None:
    """Write an archive again, with one time, one owner and the same permissions for everybody.

    @param seconds: the time, in seconds since 1970-01-01 00:00 UTC.
    """
    temporary = path.with_suffix(".tmp")
    with (
        tarfile.open(path) as old,
        # The name and the time stand in the header of gzip, too.
        open(temporary, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=seconds) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = seconds, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            # Otherwise the time that was read, a fraction of a second, is written in an extended header.
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member))
    temporary.replace(path)
