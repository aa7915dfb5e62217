"""What was measured, and what it comes to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.running import Memory

#: A server that works for less than this share of its time waits for the load, or for its one datagram.
BUSY = 0.95


@dataclass(frozen=True)
class Spread:
    """A median, and how far the measurements are from it."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """@param values: at least one."""
        known = list(values)
        return cls(statistics.median(known), min(known), max(known))


@dataclass(frozen=True)
class Measurement:
    """One server under one load in one round.

    @ivar rate: echoes a second.
    @ivar cpu: the server's processor time for each echoed datagram, in seconds.
    @ivar busy: the share of the time in which the server worked, of the time that the system left to it.
    @ivar others: the share of all the time in which the server was ready to work, and the system ran others.
    @ivar idle: the share of the time in which the load had nothing to do.
    @ivar lost: datagrams that the load gave up.
    @ivar wrong: datagrams that came back and should not have.
    """

    server: str
    load: str
    round: int
    rate: float
    cpu: float
    busy: float
    others: float
    idle: float
    echoed: int
    lost: int
    wrong: int


@dataclass(frozen=True)
class Summary:
    """All rounds of one server under one load."""

    server: str
    load: str
    rate: Spread
    cpu: Spread
    busy: float
    others: float
    idle: float
    echoed: int
    lost: int
    wrong: int


@dataclass(frozen=True)
class Start:
    """One start of a process.

    @ivar seconds: from its start to its first answer.
    @ivar memory: what it had then.
    @ivar loaded: what it had after a load, if it was put under one.
    """

    seconds: float
    memory: Memory
    loaded: Memory | None = None


@dataclass(frozen=True)
class Gap:
    """The longest gaps of a ticker under one flood, over all rounds, in seconds.

    @ivar longestOwn: less the time in which the system ran others.
    """

    port: str
    size: int
    longest: float
    longestOwn: float


@dataclass
class Figures:
    """All that one run of the benchmarks has found.

    @ivar starts: by C{ours} and C{bare}.
    @ivar skipped: what was not measured, and why, by name.
    @ivar broken: what should have been measured, and failed.
    """

    measurements: list[Measurement] = field(default_factory=list)
    starts: dict[str, list[Start]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def summaries(self) -> list[Summary]:
        """One for each server under each load, those of a load together."""
        found: dict[tuple[str, str], list[Measurement]] = {}
        for measurement in self.measurements:
            found.setdefault((measurement.load, measurement.server), []).append(measurement)
        loads = list(dict.fromkeys(measurement.load for measurement in self.measurements))
        ordered = sorted(found.items(), key=lambda item: loads.index(item[0][0]))
        return [_summary(server, load, rounds) for (load, server), rounds in ordered]

    def cpu(self, server: str, load: str) -> float | None:
        """The median processor time of a server for each datagram, in seconds; C{None} if it was not measured."""
        known = [one.cpu for one in self.measurements if (one.server, one.load) == (server, load)]
        return statistics.median(known) if known else None

    def secondsToStart(self, kind: str) -> float | None:
        """The median time to the first answer."""
        known = [start.seconds for start in self.starts.get(kind, ())]
        return statistics.median(known) if known else None

    def resident(self, kind: str) -> float | None:
        """The median resident memory, after a load where there was one, in bytes."""
        known = [(start.loaded or start.memory).resident for start in self.starts.get(kind, ())]
        return statistics.median(known) if known else None

    @property
    def wrong(self) -> int:
        """How many datagrams came back that should not have."""
        return sum(one.wrong for one in self.measurements)


@dataclass(frozen=True)
class Target:
    """What one figure should be at the most.

    @ivar value: what it is; C{None} if that was not measured.
    """

    name: str
    limit: float
    value: float | None

    @property
    def reached(self) -> bool | None:
        """Whether it is; C{None} if nobody knows."""
        return None if self.value is None else self.value <= self.limit


def targets(figures: Figures) -> list[Target]:
    """The figures that udpecho is meant to have."""

    def ratio(server: str, peer: str, load: str) -> float | None:
        return _ratio(figures.cpu(server, load), figures.cpu(peer, load))

    own = [gap.longestOwn * 1e3 for gap in figures.gaps if gap.port == "ours"]
    resident, bare = figures.resident("ours"), figures.resident("bare")
    return [
        Target("processor time, 4x64, ours to c-recvmmsg", 1.05, ratio("ours", "c-recvmmsg", "4x64")),
        Target("processor time, 4x64, ours-wildcard to c-recvmmsg", 1.15, ratio("ours-wildcard", "c-recvmmsg", "4x64")),
        Target("processor time, 4x64, ours to stock", 0.35, ratio("ours", "stock", "4x64")),
        Target("processor time, 4x64, ours to go", 0.5, ratio("ours", "go", "4x64")),
        Target("processor time, 4x64, ours to ours-guard-off", 1.1, ratio("ours", "ours-guard-off", "4x64")),
        Target("processor time, 4x64, ours-limiter to ours-guard-off", 1.35, ratio("ours-limiter", "ours-guard-off", "4x64")),
        Target("processor time, gso, ours to c-recvmmsg", 0.05, ratio("ours", "c-recvmmsg", "gso")),
        Target("processor time, single, ours to stock", 0.8, ratio("ours", "stock", "single")),
        Target("resident memory over the bare twistd, MB", 10, None if None in (resident, bare) else (resident - bare) / 1e6),  # type: ignore[operator]
        Target(
            "time to first echo, to the bare twistd's",
            1.15,
            _ratio(figures.secondsToStart("ours"), figures.secondsToStart("bare")),
        ),
        Target("longest gap of a 10 ms ticker, ms", 25, max(own) if own else None),
    ]


def ratios(figures: Figures, peers: Sequence[str], loads: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Our processor time for each datagram over that of each peer, by peer and load."""
    return {
        peer: {load: _ratio(figures.cpu("ours", load), figures.cpu(peer, load)) for load in loads}
        for peer in peers
        if peer != "ours"
    }


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _summary(server: str, load: str, rounds: Sequence[Measurement]) -> Summary:
    return Summary(
        server,
        load,
        Spread.of(one.rate for one in rounds),
        Spread.of(one.cpu for one in rounds),
        statistics.median(one.busy for one in rounds),
        statistics.median(one.others for one in rounds),
        statistics.median(one.idle for one in rounds),
        sum(one.echoed for one in rounds),
        sum(one.lost for one in rounds),
        sum(one.wrong for one in rounds),
    )
