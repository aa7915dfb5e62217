"""What a process imports, opens and loads after it has lost privileges: L{watch} has Python report it.

It is a C{sitecustomize} module, which each Python imports when it starts if its folder is in C{PYTHONPATH}.
"""

from __future__ import annotations

import os
from pathlib import Path

_sitecustomize = """
import fcntl, os, sys

def _place():
    root = os.stat("/")
    return os.geteuid(), os.getegid(), root.st_dev, root.st_ino

def _watch(log):
    opened = os.open(log, os.O_WRONLY | os.O_APPEND)
    descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 900)
    os.close(opened)
    first = _place()

    def hook(event, arguments):
        if event in ("import", "open", "ctypes.dlopen") and isinstance(arguments[0], str) and _place() != first:
            try:
                os.write(descriptor, f"{event} {arguments[0]}\\n".encode())
            except OSError:
                # A worker has closed it: its standard error is logged.
                os.write(2, f"late: {event} {arguments[0]}\\n".encode())

    sys.addaudithook(hook)

if "LATE_IMPORTS" in os.environ:
    _watch(os.environ["LATE_IMPORTS"])
"""


def watch(directory: Path) -> dict[str, str]:
    """Prepare a directory of a test that another user can read.

    @return: the environment for the processes to watch.
    """
    (directory / "site").mkdir()
    (directory / "site/sitecustomize.py").write_text(_sitecustomize)
    log = directory / "late"
    log.touch()
    return {"LATE_IMPORTS": str(log), "PYTHONPATH": os.pathsep.join([str(directory / "site"), *_paths()])}


def found(directory: Path) -> list[str]:
    """What was imported, opened or loaded, but what C{prometheus_client} reads of the process for each page."""
    lines = (directory / "late").read_text().splitlines()
    return [line for line in lines if not line.startswith("open /proc/self/")]


def _paths() -> list[str]:
    import udpecho

    return [str(Path(udpecho.__file__).parents[1])]
