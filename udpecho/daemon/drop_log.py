"""The log of drops: one line for each reason, soon after the first drop and then at long intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.guard.heavy_hitters import HeavyHitters
from udpecho.interfaces import Reactor
from udpecho.net import features
from udpecho.net.monotonic import useMonotonicTime
from udpecho.server.counters import CountersView

#: Seconds between two readings of the counters, and the longest delay of a first line.
READ_INTERVAL = 1.0
#: The least time between two lines of one reason, in seconds.
LINE_INTERVAL = 30.0
#: The largest number of prefixes in a line.
PREFIXES = 3

_log = Logger()

#: Returns at most so many prefixes with the most drops since the last call, by reason, each with its number of drops.
BusiestPrefixes = Callable[[int], Mapping[str, "list[tuple[str, int]]"]]


class LogThrottle:
    """Decides when to report a growing number: at once if L{LINE_INTERVAL} seconds have passed without growth, else once in
    that time.
    """

    def __init__(self, now: float, value: int) -> None:
        self._reported = value
        self._since = now
        self._idle = True

    def update(self, now: float, value: int, atOnce: bool = False) -> tuple[int, float] | None:
        """Take a new value.

        @param now: the time, in seconds.
        @param value: the number; less than before if its source started again.
        @param atOnce: do not wait for the end of L{LINE_INTERVAL}.
        @return: the growth since the last report and the seconds since then, if they are to be reported now.
        """
        self._reported = min(self._reported, value)
        growth, seconds = value - self._reported, now - self._since
        if not self._idle and not atOnce and seconds < LINE_INTERVAL:
            return None
        self._since, self._reported, self._idle = now, value, not growth
        return (growth, seconds) if growth else None


class DropLog:
    """Logs drops: the server's, those that a guard in a dry run would have made, and the kernel's. It reads the counters once a
    second; nothing runs per datagram.
    """

    def __init__(
        self,
        reactor: Reactor,
        account: CountersView,
        busiest: BusiestPrefixes | None = None,
        kernelDrops: Callable[[], int | None] | None = None,
        wouldDrop: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """@param reactor: an C{IReactorTime} provider.
        @param account: the server's counters.
        @param busiest: L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}. Nothing else may call it: it returns a drop once.
        @param kernelDrops: returns the number of datagrams that the kernel dropped, C{None} where that is unknown.
        @param wouldDrop: returns L{Guard.wouldDrop <udpecho.guard.guard.Guard.wouldDrop>}, the drops of a dry run by reason.
        """
        useMonotonicTime(reactor)
        self._reactor = reactor
        self._account = account
        self._busiest: BusiestPrefixes = busiest or (lambda most: {})
        self._hasKernel = kernelDrops is not None
        self._kernelDrops = kernelDrops or (lambda: None)
        self._wouldDrop: Callable[[], Mapping[str, int]] = wouldDrop or dict
        self._throttles: dict[tuple[str, str], LogThrottle] = {}
        self._prefixes: dict[str, HeavyHitters[str]] = {}
        self._reading: LoopingCall | None = None
        self._readTime = 0.0

    def start(self) -> None:
        """Begin to log. Earlier drops are not logged."""
        if self._reading is not None:
            return
        now = self._readTime = self._reactor.seconds()
        self._throttles = {key: LogThrottle(now, value) for key, value in self._counts().items()}
        self._reading = LoopingCall(self._read)
        self._reading.clock = self._reactor
        self._reading.start(READ_INTERVAL, now=False).addErrback(self._failed)

    def stop(self) -> None:
        """Log the drops since the last line, and stop. May be called twice."""
        reading, self._reading = self._reading, None
        if reading is not None and reading.running:
            reading.stop()
            self._read(atOnce=True)

    def logCounters(self) -> None:
        """Log the counters now, and which features the system refuses: for SIGUSR1."""
        kernelDrops = self._kernelDrops()
        lacking = ", ".join(features.lacking())
        _log.info(
            "counters: {counters}{suffix}{lacking}",
            counters=str(self._account),
            suffix=f" kernel-dropped={'unknown' if kernelDrops is None else kernelDrops}" if self._hasKernel else "",
            lacking=lacking and f"; lacking: {lacking}",
            kernelDropped=kernelDrops,
            **self._account.asFields(),
        )

    def _failed(self, failure: Failure) -> None:
        _log.failure("cannot read the counters: drops are not logged any more", failure)

    def _counts(self) -> dict[tuple[str, str], int]:
        # By the name of their event and their reason.
        counts = {("datagrams-dropped", reason): count for reason, count in self._account.dropped.items()}
        counts.update({("datagrams-would-drop", reason): count for reason, count in self._wouldDrop().items()})
        kernelDrops = self._kernelDrops()
        if kernelDrops is not None:
            counts["kernel", ""] = kernelDrops
        return counts

    def _read(self, atOnce: bool = False) -> None:
        now, before = self._reactor.seconds(), self._readTime
        self._readTime = now
        due: list[tuple[str, str, int, float]] = []
        for key, count in self._counts().items():
            # A reason has no count before its first drop.
            throttle = self._throttles.setdefault(key, LogThrottle(before, 0))
            growth = throttle.update(now, count, atOnce)
            if growth is not None:
                due.append((*key, *growth))
        if any(event != "kernel" for event, *_ in due):
            self._readPrefixes()
        for event, reason, datagrams, seconds in due:
            if event == "kernel":
                self._logKernelDrops(datagrams, seconds)
            else:
                self._logDrops(event, reason, datagrams, seconds)

    def _readPrefixes(self) -> None:
        # Each is returned once: keep those of the reasons that are not due yet.
        for reason, prefixes in self._busiest(PREFIXES).items():
            counts = self._prefixes.setdefault(reason, HeavyHitters())
            for prefix, datagrams in prefixes:
                counts.add(prefix, datagrams)

    def _logDrops(self, event: str, reason: str, datagrams: int, seconds: float) -> None:
        prefixes = self._prefixes[reason].drain(PREFIXES) if reason in self._prefixes else []
        busiest = ", ".join(f"{prefix} ({count})" for prefix, count in prefixes)
        _log.info(
            "{event}: reason={reason} datagrams={datagrams} in {seconds:.0f} s{sources}",
            event=event,
            reason=reason,
            datagrams=datagrams,
            seconds=seconds,
            sources=busiest and f"; busiest {busiest}",
            busiest=dict(prefixes),
        )

    def _logKernelDrops(self, datagrams: int, seconds: float) -> None:
        _log.warn(
            "the kernel dropped {kernelDropped} datagrams in {seconds:.0f} s before they were received:"
            " --receive-buffer helps against bursts",
            kernelDropped=datagrams,
            seconds=seconds,
        )
