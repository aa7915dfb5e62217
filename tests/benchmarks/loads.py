"""The loads that servers are measured under, and the program that makes them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from tests.benchmarks.running import PATIENCE, Broken
from tests.benchmarks.workshop import Missing, Workshop, on

_noOffload = 3


@dataclass(frozen=True)
class Load:
    """One load.

    @ivar name: what it is called on the command line and in tables.
    @ivar what: what it is, for people.
    @ivar sockets: how many sockets, each with a source port of its own.
    @ivar outstanding: how many datagrams, or GSO batches, each has on their way.
    @ivar size: the payload of a datagram, in bytes.
    @ivar segments: the datagrams of a GSO batch, which is one send to the kernel.
    """

    name: str
    what: str
    sockets: int
    outstanding: int
    size: int
    segments: int = 1


@dataclass(frozen=True)
class Heard:
    """What the load says of one run; all in datagrams and seconds.

    @ivar sent: those that went out, those that were sent again too.
    @ivar echoed: those that came back as they went out.
    @ivar echoedInTime: those of them that came back before the load stopped sending.
    @ivar lost: those that were given up.
    @ivar late: those that came back after that.
    @ivar wrong: those that came back and were not what went out, or came twice.
    @ivar failed: those that the kernel did not take.
    @ivar seconds: how long it was sending.
    @ivar cpu: its own processor time.
    @ivar idle: how long it had nothing to do.
    """

    sent: int
    echoed: int
    echoedInTime: int
    lost: int
    late: int
    wrong: int
    failed: int
    seconds: float
    cpu: float
    idle: float


LOADS: dict[str, Load] = {
    load.name: load
    for load in (
        Load("4x64", "4 sockets with 64 outstanding each, 64 B", 4, 64, 64),
        Load("4x64-1200", "4 sockets with 64 outstanding each, 1200 B", 4, 64, 1200),
        Load("single", "one outstanding, 64 B", 1, 1, 64),
        Load("sources", "64 sockets with 8 outstanding each, 64 B", 64, 8, 64),
        Load("gso", "one socket, GSO batches of 64, 8 outstanding, 64 B", 1, 8, 64, 64),
    )
}


def run(load: Load, workshop: Workshop, processors: set[int], host: str, port: int, seconds: float) -> Heard:
    """Put a server under a load.

    @param processors: those of the load.
    @param seconds: how long.
    @raise Missing: if this kernel cannot make it.
    @raise Broken: if the load fails, or hears nothing.
    """
    numbers = [load.sockets, load.outstanding, load.size, load.segments, seconds]
    with on(processors):
        done = subprocess.run(
            [workshop.compile("load.c"), host, str(port), *map(str, numbers)],
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
            check=False,
        )
    if done.returncode == _noOffload:
        raise Missing(done.stderr.strip())
    if done.returncode:
        raise Broken(done.stderr.strip() or f"the load ended with {done.returncode}")
    heard = Heard(**json.loads(done.stdout))
    if not heard.echoed:
        raise Broken(f"no echo under the load {load.name}")
    return heard
