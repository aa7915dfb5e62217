"""Start a worker without a new Python: after C{twistd --uid} or C{--chroot} its files may be out of reach.

The child process has the memory of its parent, and nothing else of it: no descriptors, no signal handlers, no reactor, no log.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.internet import process
from twisted.internet.interfaces import IProcessProtocol
from twisted.logger import globalLogPublisher

from udpecho.server.worker_main import main


def _identity() -> tuple[object, ...]:
    """Who this process is, and which file system it sees."""
    root = os.stat("/")
    return os.geteuid(), os.getegid(), root.st_dev, root.st_ino


_identityAtImport = _identity()


def mustFork() -> bool:
    """Whether this process has changed its user or its root directory since this module was imported."""
    return _identity() != _identityAtImport


class ForkedWorker(process.Process):
    """A worker's process that is forked. It is used as what C{spawnProcess} returns."""

    def __init__(
        self, reactor: Any, protocol: IProcessProtocol, names: Sequence[str], childFDs: Mapping[int, int | str]
    ) -> None:
        """@param names: the arguments of the worker's L{main}.
        @param childFDs: as for C{spawnProcess}; those of the child are numbered from 0 without a gap.
        @raise OSError: if there is no process or no descriptor left.
        """
        self._names = names
        # A signal in between would run the parent's handler in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            super().__init__(reactor, b"", [], None, None, protocol, childFDs=dict(childFDs))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # What Twisted's class calls in the child, and would use instead

    def _trySpawnInsteadOfFork(self, *_: object) -> bool:
        return False

    def _setupChild(self, fdmap: Mapping[int, int]) -> None:
        # Twisted looks for open descriptors in /proc or /dev, which a new root directory may lack.
        size = len(fdmap)
        high = {child: fcntl.fcntl(parent, fcntl.F_DUPFD, size) for child, parent in fdmap.items()}
        for child, descriptor in high.items():
            os.dup2(descriptor, child)
        os.closerange(size, os.sysconf("SC_OPEN_MAX"))

    def _execChild(self, *_: object) -> NoReturn:
        # The parent's objects must not be collected: they would close descriptors that are the child's.
        # PyPy cannot freeze them.
        getattr(gc, "freeze", gc.disable)()
        observers = list(globalLogPublisher._observers)
        _forgetParent(observers)
        try:
            main(*self._names)
        except SystemExit as e:
            sys.stderr.flush()
            os._exit(int(e.code or 0))
        # Not reached: it keeps the parent's objects.
        raise AssertionError(observers)


def _forgetParent(observers: Sequence[Any]) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for observer in observers:
        globalLogPublisher.removeObserver(observer)
    asyncio._set_running_loop(None)
    process.reapProcessHandlers.clear()
    sys.modules.pop("twisted.internet.reactor", None)
