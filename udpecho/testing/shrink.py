"""Which decisions make a test fail: recorded ones are left out, step by step, as long as it still fails.

The steps are those of A. Zeller and R. Hildebrandt, I{Simplifying and isolating failure-inducing input} (2002).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from udpecho.faults.decision import AT_ONCE, CORRUPTED, DELAYED, DUPLICATED, REORDERED, TRUNCATED, Decision, Recording, Replay
from udpecho.faults.journal import Journal, Place

#: Seconds of processor time after which what is found by then is returned.
MAX_SECONDS = 60.0

_Key = TypeVar("_Key", int, Place)


def shrink(test: Callable[..., object], recording: Recording | Journal | str, seconds: float = MAX_SECONDS) -> str:
    """The few of the recorded decisions that make a test fail.

    @param test: raises if the test fails. Its argument decides as recorded: a L{Replay}, to be the plan of a network, a link or
        a proxy; of a L{Journal}, one that is to be the C{journal} of a new network.
    @param recording: what was recorded while it failed; a recording may be printed already.
    @param seconds: how long to look, in seconds of processor time.
    @return: the decisions that matter, one a line. L{Replay} reads them, and those of a journal
        L{MemoryNetwork.replay <udpecho.testing.memory_network.MemoryNetwork.replay>}.
    @raise ValueError: if the test does not fail with all of them.
    """
    if isinstance(recording, Journal):
        entries = {entry.place: entry.decision for entry in recording.entries}
        journals: list[Journal] = []

        def repeat(decisions: Mapping[Place, Decision]) -> None:
            journals.append(Journal(decisions))
            test(journals[-1])

        places = reduce(Failing(repeat, seconds), entries)
        # Once more: the datagrams that they are about now.
        Failing(repeat, seconds)(places)
        return journals[-1].report(places)
    numbered = Replay(str(recording)).decisions
    return _written(reduce(Failing(lambda decisions: test(Replay(_written(decisions))), seconds), numbered))


def _written(decisions: Mapping[int, Decision]) -> str:
    return "\n".join(f"{number}: {decision}" for number, decision in sorted(decisions.items()))


class Failing(Generic[_Key]):
    """Whether a test fails with some of the decisions, in the same way as with all of them.

    @ivar runs: how often it was run.
    """

    def __init__(self, test: Callable[[dict[_Key, Decision]], object], seconds: float) -> None:
        self._test: Callable[[dict[_Key, Decision]], object] = test
        self._end = time.process_time() + seconds
        self._kind: type[BaseException] | None = None
        self.runs = 0

    def __call__(self, decisions: Mapping[_Key, Decision]) -> bool:
        """Run it. When the time is over, it is taken to pass."""
        if self._kind is not None and time.process_time() > self._end:
            return False
        self.runs += 1
        try:
            self._test(dict(decisions))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as e:
            self._kind = self._kind or type(e)
            return type(e) is self._kind
        return False


def reduce(fails: Failing[_Key], decisions: Mapping[_Key, Decision]) -> dict[_Key, Decision]:
    """The fewest decisions that can be found with which a test still fails.

    @raise ValueError: if it does not fail with all of them.
    """
    kept = {key: decision for key, decision in decisions.items() if decision != AT_ONCE}
    if not fails(kept):
        raise ValueError("test must fail with the recorded decisions, but it does not: what else is random in it?")
    if fails({}):
        return {}
    onTime = {
        key: decision for key, decision in ((key, _onTime(decision)) for key, decision in kept.items()) if decision != AT_ONCE
    }
    if onTime != kept and fails(onTime):
        kept = onTime
    while True:
        before = kept
        kept = _simplified(fails, _without(fails, kept))
        for key in list(kept):
            kept = _earlier(fails, kept, key)
        if kept == before:
            return kept


def _without(fails: Failing[_Key], kept: dict[_Key, Decision]) -> dict[_Key, Decision]:
    """Leave out half of them, then quarters, and so on, down to single ones."""
    size = max(1, len(kept) // 2)
    while size:
        keys = list(kept)
        for start in range(0, len(keys), size):
            left = set(keys[start : start + size])
            fewer = {key: decision for key, decision in kept.items() if key not in left}
            if fails(fewer):
                kept = fewer
        size //= 2
    return kept


def _simplified(fails: Failing[_Key], kept: dict[_Key, Decision]) -> dict[_Key, Decision]:
    """Leave out faults of a decision that has several."""
    for key, decision in kept.items():
        for simpler in _simpler(decision):
            if fails({**kept, key: simpler}):
                kept = {**kept, key: simpler}
                break
    return kept


def _earlier(fails: Failing[_Key], kept: dict[_Key, Decision], key: _Key) -> dict[_Key, Decision]:
    """Let a decision be about an earlier datagram: what made it a late one may not be needed then."""
    number = key if isinstance(key, int) else key.number
    for earlier in range(number):
        other = earlier if isinstance(key, int) else key._replace(number=earlier)
        if other not in kept:
            moved = {(other if each == key else each): decision for each, decision in kept.items()}
            if fails(moved):
                return moved
    return kept


def _onTime(decision: Decision) -> Decision:
    """The decision without its delays."""
    return _less(decision, (DELAYED, REORDERED), delays=(0.0,) * len(decision.delays))


def _simpler(decision: Decision) -> list[Decision]:
    """Decisions with fewer faults, the simplest first."""
    found = [
        _less(
            decision,
            (CORRUPTED, TRUNCATED, DELAYED, REORDERED),
            flipped=None,
            truncatedTo=None,
            delays=(0.0,) * len(decision.delays),
        ),
        _less(decision, (DUPLICATED,), delays=decision.delays[:1]),
        _less(decision, (CORRUPTED,), flipped=None),
        _less(decision, (TRUNCATED,), truncatedTo=None),
        _onTime(decision),
    ]
    return [simpler for simpler in found if simpler not in (decision, AT_ONCE)]


def _less(decision: Decision, without: tuple[str, ...], **fields: object) -> Decision:
    reasons = tuple(reason for reason in decision.reasons if reason not in without)
    return decision._replace(reasons=reasons or AT_ONCE.reasons, **fields)  # type: ignore[arg-type]
