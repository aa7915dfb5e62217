"""The command: C{python -m tests.benchmarks.year}."""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NoReturn

from tests.benchmarks.running import Broken
from tests.benchmarks.workshop import ROOT, Missing, Workshop
from tests.benchmarks.year.accounts import Balance, Requests
from tests.benchmarks.year.events import EVENTS, Event, Stage, Two
from tests.benchmarks.year.processes import Application, Probe, Proxy, Server
from tests.benchmarks.year.rehearsal import Happened, Rehearsal
from tests.benchmarks.year.upsets import UPSETS
from tests.benchmarks.year.world import World
from tests.support.namespaces import CommandFailed

_all = {event.name: event for event in (*EVENTS, *UPSETS)}
_units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Set in the command's own namespaces.
_inside = "UDPECHO_YEAR_DIRECTORY"


def main(arguments: Sequence[str]) -> int:
    """Rehearse.

    @return: the exit status: 0, 1 if something was wrong, 2 if what was asked for cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.year", description="What happens in a year, to one process of each kind."
    )
    parser.add_argument("--events", type=int, default=None, metavar="N", help="end after so many events [200]")
    parser.add_argument("--duration", type=_seconds, default=None, metavar="TIME", help="end after a time, as in 5m or 24h")
    parser.add_argument("--seed", type=int, default=None, help="decides what happens when [a random one, which is printed]")
    parser.add_argument("--only", metavar="A,B", type=_events, default=list(_all.values()), help=f"only {', '.join(_all)}")
    parser.add_argument("--two", type=float, default=0.25, metavar="SHARE", help="how many are two at once [0.25]")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="copy all logs there at the end")
    options = parser.parse_args(arguments)
    if options.events is None and options.duration is None:
        options.events = 200
    try:
        inside = os.environ.get(_inside)
        return _alone(arguments) if inside is None else _rehearse(options, Path(inside))
    except (Missing, CommandFailed) as e:
        print(f"year: {e}", file=sys.stderr)
        return 2
    except Broken as e:
        print(f"year: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]+)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"a time must be a number with a unit, as in 5m or 24h, got {text!r}")
    return int(found[1]) * _units[found[2] or "s"]


def _events(text: str) -> list[type[Event]]:
    for name in text.split(","):
        if name not in _all:
            raise argparse.ArgumentTypeError(f"an event must be one of {', '.join(_all)}, got {name!r}")
    return [_all[name] for name in text.split(",")]


def _alone(arguments: Sequence[str]) -> int:
    """Run this command in namespaces of its own: of processes, of mounts and of networks. All that it does ends with them.

    @return: its exit status.
    @raise Missing: if this machine does not have them.
    """
    if sys.platform != "linux":
        raise Missing("network namespaces are Linux's")
    for tool in ("unshare", "ip", "mount", "cc"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed")
    # An ordinary user is root in a new user namespace, where the system allows it.
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    alone = ["unshare", *user, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Missing(f"namespaces do not work here: {tried.stderr.strip()}")

    def ended(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, ended)
    with tempfile.TemporaryDirectory(prefix="udpecho-year-") as directory:
        command = [*alone, sys.executable, "-m", "tests.benchmarks.year", *arguments]
        process = subprocess.Popen(command, env={**os.environ, _inside: directory})
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It got the same, and prints what it has found.
            return process.wait()
        finally:
            process.kill()
            process.wait()


def _rehearse(options: argparse.Namespace, directory: Path) -> int:
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    # Where ip(8) keeps the names of namespaces; what other programs have there is hidden.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    kinds: list[type[Event]] = []
    for kind in options.only:
        reason = kind.whyNot()
        if reason is None:
            kinds.append(kind)
        else:
            print(f"without {kind.name}: {reason}")
    with ExitStack() as ending:
        world = World(directory)
        workshop = Workshop(directory)
        stage = Stage(
            world, Server(workshop, world), Probe(workshop, world), Proxy(workshop, world), Application(workshop, world), seed
        )
        if options.keep is not None:
            ending.callback(shutil.copytree, world.disk.directory, options.keep, dirs_exist_ok=True)
        for process in stage.processes:
            ending.callback(process.kill)
        requests = Requests(world)
        for process in stage.processes:
            process.start()
        rehearsal = Rehearsal(stage)
        rehearsal.begin()
        try:
            _run(options, stage, rehearsal, kinds)
        except KeyboardInterrupt:
            print("interrupted")
        faults = rehearsal.growth()
        faults += Balance(stage, requests, rehearsal.restarted).faults()
        return _report(rehearsal.happened, rehearsal.restarted, faults)


def _run(options: argparse.Namespace, stage: Stage, rehearsal: Rehearsal, kinds: Sequence[type[Event]]) -> None:
    began = time.monotonic()
    left: list[type[Event]] = []
    print(f"{'':>5}{'after':>9}  {'event':<64}{'lasted':>9}{'recovery':>10}", flush=True)
    while True:
        seconds = time.monotonic() - began
        if options.duration is not None and seconds >= options.duration:
            return
        if options.events is not None and len(rehearsal.happened) >= options.events:
            return
        if not left:
            # Each kind as often as the others, in any order.
            left = stage.random.sample(kinds, len(kinds))
        kind = left.pop()
        event, others = kind(stage), [other for other in kinds if not other.touches & kind.touches]
        if others and stage.random.random() < options.two:
            event = Two(stage, event, stage.random.choice(others)(stage))
        found = rehearsal.perform(event)
        times = f"{found.lasted:>8.1f}s{found.recovery:>9.1f}s"
        line = f"{len(rehearsal.happened):>5}{seconds:>8.0f}s  {found.event:<64}{times}"
        print(line, *(f"       {fault}" for fault in found.faults), sep="\n", flush=True)


def _report(happened: Sequence[Happened], restarted: set[str], faults: Sequence[str]) -> int:
    print(f"\n{'event':<24}{'number':>8}{'faults':>8}{'recovery':>10}{'slowest':>9}")
    for name in (*_all, Two.name):
        those = [one for one in happened if one.kind == name]
        if those:
            wrong = sum(bool(one.faults) for one in those)
            recovery = [one.recovery for one in those]
            print(f"{name:<24}{len(those):>8}{wrong:>8}{median(recovery):>9.1f}s{max(recovery):>8.1f}s")
    if restarted:
        print(f"restarted, so that their accounts are not complete: {', '.join(sorted(restarted))}")
    for fault in faults:
        print(fault)
    number = sum(bool(one.faults) for one in happened)
    if not faults:
        print("the accounts balance")
    print(f"{len(happened)} events, {number} with faults")
    return 1 if number or faults else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
