"""Minutes of mixed load on a server process, and whether its accounts balance:

    python -m tests.benchmarks.soak [--minutes 10] [--rate 20000] [--sources 50000]

Datagrams of 0 to 1400 bytes, some of 65507, and GSO batches, from a changing set of source ports. Every
minute it prints the server's memory and descriptors. At the end, what the load has sent must be what the server has received
and what the kernel has dropped before, and what the server has received must be what it has echoed and dropped.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.running import Broken, Running, freePort
from tests.benchmarks.servers import LOOPBACK
from tests.benchmarks.workshop import Missing, Processors, Workshop, on

#: Datagrams in a GSO batch, at the most.
_segments = 64


@dataclass(frozen=True)
class Sent:
    """What the load says, of all the time since its start.

    @ivar sent: datagrams that the kernel took.
    @ivar failed: those that it did not take.
    @ivar replies: those that came back as they went out, to a socket that was still open.
    @ivar wrong: those that came back otherwise.
    @ivar gsoBatches: how many sends were GSO batches.
    @ivar opened: how many sockets have been opened.
    @ivar sources: how many source addresses have been used.
    """

    seconds: float
    sent: int
    failed: int
    replies: int
    wrong: int
    gsoBatches: int
    opened: int
    sources: int


@dataclass(frozen=True)
class Accounts:
    """What a server says at its stop, in datagrams.

    @ivar kernel: what the kernel dropped before.
    """

    received: int
    echoed: int
    dropped: int
    kernel: int

    @classmethod
    def read(cls, log: str) -> Accounts:
        """@param log: what the server has logged.
        @raise Broken: if the sums are not there.
        """
        lines = re.findall(r"stopped: (.*)$", log, re.MULTILINE)
        if len(lines) != 1:
            raise Broken("the server has not logged its sums, or more than once")
        found = {name: int(number) for name, number in re.findall(r"([a-z_-]+)=([0-9]+)", lines[0])}
        kernel = sum(int(number) for number in re.findall(r"the kernel dropped ([0-9]+) datagrams", log))
        return cls(found["received"], found["echoed"], found["dropped"], kernel)


def faults(sent: Sent, accounts: Accounts) -> list[str]:
    """What does not balance.

    @return: a line for each fault.
    """
    found = []
    if accounts.received != accounts.echoed + accounts.dropped:
        found.append(f"received {accounts.received} is not echoed {accounts.echoed} + dropped {accounts.dropped}")
    missing = sent.sent - accounts.received
    if missing != accounts.kernel and not (sent.gsoBatches and accounts.kernel < missing <= _segments * accounts.kernel):
        found.append(f"{missing} datagrams were sent and not received, and the kernel has dropped {accounts.kernel}")
    if sent.wrong:
        found.append(f"{sent.wrong} replies were not what was sent")
    if sent.replies > accounts.echoed:
        found.append(f"{sent.replies} replies came to {accounts.echoed} echoes")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run it.

    @return: the exit status: 0, 1 if the accounts do not balance or the server failed, 2 if what was asked for cannot be.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description="Minutes of mixed load on a server.")
    parser.add_argument("--minutes", type=float, default=10, help="how long [10]")
    parser.add_argument("--rate", type=int, default=20_000, help="datagrams a second [20000]")
    parser.add_argument("--sources", type=int, default=50_000, help="source ports to go through [50000]")
    parser.add_argument("--no-gso", action="store_true", help="no GSO batches")
    parser.add_argument("--seed", type=int, default=1, help="of the sizes and their order [1]")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION", help="of udpecho, after -- [--log-datagrams 0 --receive-buffer 4M]"
    )
    options = parser.parse_args(arguments)
    if not (options.minutes > 0 and options.rate > 0 and 2048 <= options.sources <= 5_000_000):
        parser.error("--minutes and --rate are above 0, --sources is from 2048 to 5000000")
    try:
        return _run(options)
    except Missing as e:
        print(f"soak: {e}", file=sys.stderr)
        return 2
    except Broken as e:
        print(f"soak: {e}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    processors = Processors()
    with tempfile.TemporaryDirectory(prefix="udpecho-soak-") as directory:
        workshop = Workshop(Path(directory))
        load = workshop.compile("soak.c")
        port = freePort()
        chosen = options.options or ["--log-datagrams", "0", "--receive-buffer", "4M"]
        with Running(workshop.udpecho(LOOPBACK, port, *chosen), workshop, processors.server(1), "udpecho") as server:
            # Not asked, as what it receives is counted.
            server.untilLogged("answering on")
            descriptors = server.descriptors()
            numbers = (options.minutes * 60, options.rate, options.sources, int(not options.no_gso), 60, options.seed)
            sent = _watch([load, LOOPBACK, str(port), *map(str, numbers)], processors.load, server)
            leaked = server.descriptors() - descriptors
            accounts = Accounts.read(server.stop())
    print(f"sent {sent.sent} in {sent.gsoBatches} GSO batches and singly, from {sent.sources} sources")
    print(
        f"received {accounts.received}, echoed {accounts.echoed}, dropped {accounts.dropped}; by the kernel {accounts.kernel}"
    )
    wrong = faults(sent, accounts)
    if leaked:
        wrong.append(f"the server has {leaked} descriptors more than at the start")
    missing = sent.sent - accounts.received
    if not wrong and missing != accounts.kernel:
        print(f"{missing} are missing: the kernel counts a GRO batch that it drops as one if the server reads it whole")
    for line in wrong:
        print(f"does not balance: {line}")
    if not wrong:
        print("the accounts balance")
    return 1 if wrong else 0


def _watch(command: Sequence[str], processors: set[int], server: Running) -> Sent:
    """Run the load, and print a line for each of its lines.

    @return: the last one.
    """
    print(
        f"{'minutes':>8}{'resident MB':>13}{'unique MB':>11}{'descriptors':>13}"
        f"{'sent':>13}{'failed':>8}{'replies':>13}{'wrong':>7}"
    )
    last = None
    with on(processors), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        try:
            assert load.stdout is not None
            for line in load.stdout:
                last = Sent(**json.loads(line))
                memory = server.memory()
                unique = "-" if memory.unique is None else f"{memory.unique / 1e6:.1f}"
                print(
                    f"{last.seconds / 60:>8.1f}{memory.resident / 1e6:>13.1f}{unique:>11}{server.descriptors():>13}"
                    f"{last.sent:>13}{last.failed:>8}{last.replies:>13}{last.wrong:>7}",
                    flush=True,
                )
        finally:
            load.kill()
    if last is None:
        raise Broken("the load has not told anything")
    return last


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
