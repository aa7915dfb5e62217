"""Tests of L{tests.benchmarks.year}: that the rehearsal notices what is wrong."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from tests.benchmarks.workshop import ROOT
from tests.benchmarks.year import rehearsal
from tests.benchmarks.year.__main__ import main
from tests.benchmarks.year.checks import Check, Needs
from tests.benchmarks.year.events import EVENTS, Event
from tests.benchmarks.year.processes import Has
from tests.benchmarks.year.rehearsal import Rehearsal, Waiting
from tests.benchmarks.year.upsets import UPSETS
from tests.support.guards import onlyLinux
from tests.support.running import PATIENCE

#: An address and a process.
HERE, SERVER = "198.18.3.1", "server"


class FakeProcess:
    """A process that has what a test gives it."""

    name = SERVER
    spread = 3

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen = Has(0.0, 10, 2**20)
        self.started = self.killed = 0
        self.ended = False

    def logged(self) -> int:
        return len(self.lines)

    def text(self, start: int = 0) -> str:
        return "\n".join(self.lines[start:])

    def has(self) -> Has:
        return self.seen

    def hasEnded(self) -> bool:
        return self.ended

    def start(self) -> None:
        self.ended = False
        self.started += 1

    def kill(self) -> None:
        self.killed += 1


class Works:
    """A check's function: it works, or does not for a number of looks."""

    def __init__(self) -> None:
        self.broken = 0

    def __call__(self) -> str | None:
        self.broken -= 1
        return "broken" if self.broken >= 0 else None


class FakeStage:
    """One process, which one check is about. Its C{checks} are itself, with that check."""

    def __init__(self) -> None:
        self.server = self.probe = FakeProcess()
        self.processes = [self.server]
        self.works = Works()
        self.random = random.Random(0)
        self.checks = self
        self.all = [check(self.works, self.server)]
        self.world = self
        self.names = self
        self.possible = frozenset({HERE})


def check(fault: Callable[[], str | None], culprit: Any = None, **needs: Any) -> Check:
    """A check of one function."""
    return Check("it", Needs(**{"processes": frozenset(), **needs}), culprit, fault)


def perform(stage: FakeStage, happen: Callable[[], object], lasts: bool = False) -> Sequence[str]:
    """Have an event happen that breaks nothing by its own account.

    @return: the faults.
    """

    class Happens(Event):
        name = "happens"

        def happen(self) -> None:
            happen()

    Happens.lasts = lasts
    return Rehearsal(cast(Any, stage)).perform(Happens(cast(Any, stage))).faults


class CheckTests:
    """L{Check}."""

    def test_isAffected(self) -> None:
        """A check need not work while an address or a process that it needs does not."""
        far = check(lambda: None, processes=frozenset({SERVER}), remote=lambda: frozenset({HERE}))
        near = check(lambda: None, local=frozenset({HERE}))
        nothing: frozenset[str] = frozenset()
        assert (far.isAffected([HERE], [], nothing), near.isAffected([HERE], [], nothing)) == (True, False)
        assert (far.isAffected([], [HERE], nothing), near.isAffected([], [HERE], nothing)) == (False, True)
        assert (far.isAffected([], [], frozenset({SERVER})), near.isAffected([], [], frozenset({SERVER}))) == (True, False)

    def test_noAnswer(self) -> None:
        """That there is no answer is a fault."""

        def refuse() -> str:
            raise ConnectionRefusedError(111, "Connection refused")

        assert check(refuse).look() == "[Errno 111] Connection refused"


class WaitingTests:
    """L{Waiting}."""

    def test_inTurn(self) -> None:
        """A check that must work three times in turn begins again when it does not."""
        looks = iter([None, None, "no", None, None, None])
        one = check(lambda: next(looks))
        one.times = 3
        assert Waiting([one], lambda: None).until(PATIENCE)
        assert list(looks) == []

    def test_lastLook(self) -> None:
        """What works at a look that began in time has worked, and each gets one look at least."""
        waiting = Waiting([check(lambda: None)], lambda: None)
        assert waiting.until(0)
        late = Waiting([check(lambda: "no")], lambda: None)
        assert not late.until(0)
        assert late.left == {"it": "no"}


class RehearsalTests:
    """L{Rehearsal}, with a process that is none."""

    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rehearsal, "_pause", 0)
        monkeypatch.setattr(rehearsal, "NEVER", 0.2)
        monkeypatch.setattr(Event, "patience", 0.05)
        monkeypatch.setattr(Event, "longest", 0)

    def test_nothing(self) -> None:
        """Nothing is found where nothing is wrong."""
        assert perform(FakeStage(), lambda: None) == []
        assert perform(FakeStage(), lambda: None, lasts=True) == []

    def test_never(self) -> None:
        """What does not work again is a fault, and its process is restarted."""
        stage = FakeStage()
        stage.server.start = lambda: setattr(stage.works, "broken", 0)  # type: ignore[method-assign]
        assert perform(stage, lambda: setattr(stage.works, "broken", 10**9)) == ["afterwards, never: it: broken"]
        assert stage.server.killed == 1

    def test_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What works again too late is a fault, and nothing is restarted."""
        monkeypatch.setattr(rehearsal, "NEVER", PATIENCE)
        monkeypatch.setattr(Event, "patience", 0)
        stage = FakeStage()
        (fault,) = perform(stage, lambda: setattr(stage.works, "broken", 2))
        assert fault.startswith("afterwards, only after ")
        assert stage.server.killed == 0

    def test_meanwhile(self) -> None:
        """So is what does not work while an event lasts that does not break it."""
        stage = FakeStage()
        stage.server.start = lambda: setattr(stage.works, "broken", 0)  # type: ignore[method-assign]
        faults = perform(stage, lambda: setattr(stage.works, "broken", 10**9), lasts=True)
        assert faults[0] == "meanwhile, it: broken"

    @pytest.mark.parametrize(
        ("lines", "fault"),
        [
            (
                ["Traceback (most recent call last):", "  in it", "OSError", "more"],
                "the server has logged a traceback: OSError",
            ),
            (["again"] * 201, "the server has logged 201 lines, such as: again"),
        ],
    )
    def test_log(self, lines: list[str], fault: str) -> None:
        """So are a traceback and too many lines in a log; what was there before is not."""
        stage = FakeStage()
        stage.server.lines = ["Traceback"]
        assert perform(stage, lambda: stage.server.lines.extend(lines)) == [fault]

    def test_ended(self) -> None:
        """A process that has ended is a fault, and is started."""
        stage = FakeStage()
        assert perform(stage, lambda: setattr(stage.server, "ended", True)) == ["the server has ended"]
        assert stage.server.started == 1

    @pytest.mark.parametrize("seen", [Has(0.0, 14, 2**20), Has(0.0, 10, 6 * 2**20)])
    def test_growth(self, seen: Has) -> None:
        """So is a process that has ever more."""
        stage = FakeStage()
        whole = Rehearsal(cast(Any, stage))

        class Nothing(Event):
            name, lasts = "nothing", False

            def happen(self) -> None:
                if len(whole.happened) == 7:
                    stage.server.seen = seen

        for _ in range(9):
            whole.perform(Nothing(cast(Any, stage)))
        assert len(whole.growth()) == 1


class CommandTests:
    """C{python -m tests.benchmarks.year}."""

    def test_names(self) -> None:
        """Each event has its own name."""
        kinds = [*EVENTS, *UPSETS]
        assert len({kind.name for kind in kinds}) == len(kinds)

    @pytest.mark.parametrize("arguments", [["--only", "flood"], ["--duration", "long"], ["--events", "some"]])
    def test_wrong(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """A wrong argument is refused before anything begins."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert repr(arguments[1]) in capsys.readouterr().err

    @onlyLinux
    @pytest.mark.slow
    def test_short(self) -> None:
        """A few events, and everything balances."""
        only = "address-changes,name-moves,server-address-goes,reload-bad,kill-worker,server-restarts"
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.year", "--events", "6", "--only", only],
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=10 * PATIENCE,
            check=False,
        )
        if done.returncode == 2:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("the accounts balance\n6 events, 0 with faults\n")
