"""One event after the other, and what was found."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.benchmarks.running import Broken
from tests.benchmarks.year.checks import Check, Truths
from tests.benchmarks.year.events import Event, Stage
from tests.benchmarks.year.processes import Has, Process

#: Seconds after an event in which everything must work again.
RECOVERY = 10.0
#: Seconds after which it will not.
NEVER = 60.0
#: Seconds between two looks at what does not work yet.
_pause = 0.1
#: How many lines a process may log for one event.
_mostLines = 200
#: What of one processor a process may use while an event lasts, and the seconds that it must last to know.
_mostBusy, _longEnough = 0.7, 3.0
#: How many bytes of memory more it may have in the last third of the time than in the first.
_mostMemory = 4 * 2**20


@dataclass
class Happened:
    """One event, and what was found.

    @ivar lasted: seconds until it was undone.
    @ivar recovery: seconds from then until everything worked.
    @ivar slowest: what worked last.
    @ivar faults: what was wrong.
    """

    event: str
    kind: str
    lasted: float = 0.0
    recovery: float = 0.0
    slowest: str = ""
    faults: list[str] = field(default_factory=list)


class Waiting:
    """Waits for checks to succeed.

    @ivar seconds: how long it took.
    @ivar slowest: the name of the last one.
    @ivar left: what did not, and the reason.
    """

    def __init__(self, checks: Sequence[Check], meanwhile: Callable[[], None]) -> None:
        self.left = {check.name: "" for check in checks}
        self.seconds = 0.0
        self.slowest = ""
        self._checks = {check.name: check for check in checks}
        self._times = {check.name: check.times for check in checks}
        self._meanwhile = meanwhile
        self._began = time.monotonic()
        for check in checks:
            check.begin()

    def until(self, seconds: float) -> bool:
        """Wait so many seconds since it began; each is looked at once more afterwards, as a look may take long.

        @return: whether all have succeeded.
        """
        while self.left:
            looked = time.monotonic()
            self._meanwhile()
            for name in list(self.left):
                reason = self._checks[name].look()
                if reason is not None:
                    self.left[name] = reason
                    self._times[name] = self._checks[name].times
                    continue
                self._times[name] -= 1
                if not self._times[name]:
                    del self.left[name]
                    self.slowest, self.seconds = name, time.monotonic() - self._began
            if looked - self._began >= seconds:
                break
            time.sleep(_pause)
        return not self.left

    @property
    def culprits(self) -> list[Process]:
        """The processes that have not recovered."""
        return list(dict.fromkeys(self._checks[name].culprit for name in self.left))


class Rehearsal:
    """Has events happen to the processes.

    @ivar happened: each, and what was found.
    @ivar restarted: the processes that were restarted, whose sums are not those of the whole time.
    """

    def __init__(self, stage: Stage) -> None:
        self.happened: list[Happened] = []
        self.restarted: set[str] = set()
        self._stage = stage
        self._truths = Truths(stage.world.names, stage.server, stage.probe)
        self._has: dict[str, list[Has]] = {process.name: [] for process in stage.processes}

    def begin(self) -> None:
        """Wait until everything works.

        @raise Broken: if it does not.
        """
        waiting = Waiting(self._stage.checks.all, lambda: None)
        if not waiting.until(NEVER):
            raise Broken("\n    ".join(["at the beginning:", *_lines(waiting)]))

    def perform(self, event: Event) -> Happened:
        """Have it happen, look, undo it, look again."""
        found = Happened(str(event), event.name)
        self.happened.append(found)
        processes = self._stage.processes
        logged = {process.name: process.logged() for process in processes}
        began, used = time.monotonic(), {process.name: process.has().seconds for process in processes}
        event.happen()
        if event.lasts:
            try:
                self._during(event, found)
            finally:
                event.undo()
        found.lasted = time.monotonic() - began
        self._after(event, found)
        seconds = time.monotonic() - began
        for process in processes:
            self._lookAt(process, logged[process.name], used[process.name], seconds, found)
        return found

    def _during(self, event: Event, found: Happened) -> None:
        breaks = event.cut, event.ill, event.stopped
        checks = [check for check in self._stage.checks.all if not check.isAffected(*breaks)]
        checks += [*self._truths.of(*breaks), *event.proofs()]
        chance = self._stage.random
        # It may also be over before anybody notices.
        if chance.random() < 0.2:
            time.sleep(chance.random())
            return
        waiting = Waiting(checks, event.meanwhile)
        if not waiting.until(event.patience):
            found.faults += [f"meanwhile, {line}" for line in _lines(waiting)]
        over = time.monotonic() + chance.uniform(0, event.longest)
        while time.monotonic() < over:
            event.meanwhile()
            time.sleep(_pause)

    def _after(self, event: Event, found: Happened) -> None:
        waiting = Waiting([*self._stage.checks.all, *event.afterwards()], lambda: None)
        if not waiting.until(event.patience):
            late = _lines(waiting)
            if waiting.until(NEVER):
                found.faults += [f"afterwards, only after {waiting.seconds:.1f} s: {line}" for line in late]
            else:
                found.faults += [f"afterwards, never: {line}" for line in _lines(waiting)]
                self._restart(waiting.culprits)
        found.recovery, found.slowest = waiting.seconds, waiting.slowest

    def _restart(self, culprits: Sequence[Process]) -> None:
        """So that the next event finds everything at work."""
        for process in culprits:
            self.restarted.add(process.name)
            process.kill()
            process.start()
        self.begin()

    def _lookAt(self, process: Process, logged: int, used: float, seconds: float, found: Happened) -> None:
        if process.hasEnded():
            found.faults.append(f"the {process.name} has ended")
            self._restart([process])
            return
        text = process.text(logged)
        lines = text.splitlines()
        if "Traceback" in text:
            reason = re.search(r"^Traceback.*\n(?:[ \t].*\n)*(.*)$", text, re.MULTILINE)
            found.faults.append(f"the {process.name} has logged a traceback: {'' if reason is None else reason[1]}")
        if len(lines) > _mostLines:
            found.faults.append(f"the {process.name} has logged {len(lines)} lines, such as: {lines[-1]}")
        has = process.has()
        if seconds > _longEnough and has.seconds - used > _mostBusy * seconds:
            found.faults.append(f"the {process.name} has used {has.seconds - used:.1f} s of the processor in {seconds:.1f} s")
        self._has[process.name].append(has)

    def growth(self) -> list[str]:
        """@return: the processes that have ever more descriptors or memory."""
        found = []
        for process in self._stage.processes:
            seen = self._has[process.name]
            third = len(seen) // 3
            if third < 3 or process.name in self.restarted:
                continue
            for what, most in (("descriptors", process.spread), ("resident", _mostMemory)):
                first, last = (median(getattr(has, what) for has in part) for part in (seen[:third], seen[-third:]))
                if last > first + most:
                    found.append(f"the {process.name} had {first:.10g} {what} in the first third, {last:.10g} in the last")
        return found


def _lines(waiting: Waiting) -> list[str]:
    return [f"{name}: {reason}" for name, reason in waiting.left.items()]
