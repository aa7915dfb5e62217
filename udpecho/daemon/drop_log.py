"""
What an operator reads of datagrams that are not answered: a line for each reason, soon after the first and then at long
intervals, however many they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from udpecho.guard.heavy_hitters import HeavyHitters

#: Seconds between two looks at the account; so late may a first line be.
LOOK_EVERY = 1.0
#: Seconds between two lines of one reason.
LINE_EVERY = 30.0
#: How many prefixes a line names.
PREFIXES = 3

_log = Logger()

#: Says the prefixes from which most was dropped since it was last asked, by reason, each with a count.
BusiestPrefixes = Callable[[int], Mapping[str, "list[tuple[str, int]]"]]


class DropAccount(Protocol):
    """What is read of an account, besides C{str()} of it: L{Counters <udpecho.server.counters.Counters>} has it."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams that were not answered, by reason."""

    def asFields(self) -> dict[str, object]:
        """The numbers as a log event's fields."""


class LogThrottle:
    """
    Decides when a number that grows is told: as soon as it has grown after a time of rest, and then once in each
    L{LINE_EVERY} seconds, until it has not grown in one of those.
    """

    def __init__(self, now: float, value: int) -> None:
        """
        @param now: the time, in seconds.
        @param value: the number, as far as it has been told.
        """
        self._told = value
        self._since = now
        self._resting = True

    def look(self, now: float, value: int, atOnce: bool = False) -> tuple[int, float] | None:
        """
        Look at the number.

        @param now: the time, in seconds; it may have been set back.
        @param value: the number. If it is less than it was, somebody has begun to count anew.
        @param atOnce: tell it, even if it is not time.

        @return: what it has grown by and in how many seconds, if that is to be told now.
        """
        self._told = min(self._told, value)
        grown, seconds = value - self._told, max(0.0, now - self._since)
        if not self._resting and not atOnce and 0 <= now - self._since < LINE_EVERY:
            return None
        self._since, self._told, self._resting = now, value, not grown
        return (grown, seconds) if grown else None


class DropLog:
    """
    Logs the datagrams that an account has as dropped, those that a guard would have dropped in a dry run, and those that the
    system dropped before they came in. It looks at the numbers once a second; a datagram costs nothing.
    """

    def __init__(
        self,
        clock: IReactorTime,
        account: DropAccount,
        busiest: BusiestPrefixes | None = None,
        kernelDrops: Callable[[], int | None] | None = None,
        wouldDrop: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """
        @param clock: tells the time, and when to look.
        @param account: the account.
        @param busiest: L{Guard.busiest <udpecho.guard.guard.Guard.busiest>}; nobody else may call it, since it forgets what it
            has returned.
        @param kernelDrops: says how many datagrams the system has dropped, C{None} where it does not tell.
        @param wouldDrop: says how many datagrams would have been dropped, by reason: L{Guard.wouldDrop
            <udpecho.guard.guard.Guard.wouldDrop>}.
        """
        self._clock = clock
        self._account = account
        self._busiest = busiest
        self._kernelDrops = kernelDrops
        self._wouldDrop = wouldDrop
        self._paces: dict[tuple[str, str], LogThrottle] = {}
        self._prefixes: dict[str, HeavyHitters[str]] = {}
        self._looking: LoopingCall | None = None
        self._lookedAt = 0.0

    def start(self) -> None:
        """Begin to look. What is in the account already is not told."""
        if self._looking is not None:
            return
        now = self._lookedAt = self._clock.seconds()
        self._paces = {key: LogThrottle(now, value) for key, value in self._numbers().items()}
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._clock
        self._looking.start(LOOK_EVERY, now=False).addErrback(self._cannotLook)

    def stop(self) -> None:
        """Tell what has not been told yet, and look no more. May be called twice."""
        if self._looking is None:
            return
        looking, self._looking = self._looking, None
        if looking.running:
            looking.stop()
            self._look(atOnce=True)

    def logCounters(self) -> None:
        """Log the account now: for SIGUSR1."""
        lost = None if self._kernelDrops is None else self._kernelDrops()
        _log.info(
            "counters: {counters}{lost}",
            counters=str(self._account),
            lost="" if lost is None else f" kernel-dropped={lost}",
            kernelDropped=lost,
            **self._account.asFields(),
        )

    def _cannotLook(self, reason: Failure) -> None:
        _log.failure("cannot look at the account any more: drops are not logged", failure=reason)

    def _numbers(self) -> dict[tuple[str, str], int]:
        """All numbers that are looked at, by the name of their event and their reason."""
        numbers = {("datagrams-dropped", reason): number for reason, number in self._account.dropped.items()}
        if self._wouldDrop is not None:
            numbers.update({("datagrams-would-drop", reason): number for reason, number in self._wouldDrop().items()})
        lost = None if self._kernelDrops is None else self._kernelDrops()
        if lost is not None:
            numbers["kernel", ""] = lost
        return numbers

    def _look(self, atOnce: bool = False) -> None:
        now, before = self._clock.seconds(), self._lookedAt
        self._lookedAt = now
        due: list[tuple[str, str, int, float]] = []
        for key, number in self._numbers().items():
            # A reason has no number before its first datagram.
            pace = self._paces.setdefault(key, LogThrottle(before, 0))
            grown = pace.look(now, number, atOnce)
            if grown is not None:
                due.append((*key, *grown))
        if any(event != "kernel" for event, *_ in due):
            self._askForPrefixes()
        for event, reason, datagrams, seconds in due:
            if event == "kernel":
                self._logLost(datagrams, seconds)
            else:
                self._logDropped(event, reason, datagrams, seconds)

    def _askForPrefixes(self) -> None:
        """Keep the prefixes of the reasons whose line is not due yet too: they are told only once."""
        if self._busiest is not None:
            for reason, found in self._busiest(PREFIXES).items():
                known = self._prefixes.setdefault(reason, HeavyHitters())
                for prefix, datagrams in found:
                    known.add(prefix, datagrams)

    def _logDropped(self, event: str, reason: str, datagrams: int, seconds: float) -> None:
        found = self._prefixes[reason].drain(PREFIXES) if reason in self._prefixes else []
        busiest = ", ".join(f"{prefix} ({count})" for prefix, count in found)
        _log.info(
            "{event}: reason={reason} datagrams={datagrams} in {seconds:.0f} s{sources}",
            event=event,
            reason=reason,
            datagrams=datagrams,
            seconds=seconds,
            sources=busiest and f"; busiest {busiest}",
            busiest=dict(found),
        )

    def _logLost(self, datagrams: int, seconds: float) -> None:
        _log.warn(
            "the kernel dropped {kernelDropped} datagrams in {seconds:.0f} s before they were received:"
            " --receive-buffer helps against bursts",
            kernelDropped=datagrams,
            seconds=seconds,
        )
