"""Millions of sources, as forged ones would come, on a server whose limiter has to decide about each: how much memory they
take, and how much of the processor.

    python -m tests.benchmarks.sources [--number 10000000] [--rate 100000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.running import Broken, Running, freePort
from tests.benchmarks.servers import LOOPBACK
from tests.benchmarks.soak import Accounts
from tests.benchmarks.workshop import Missing, Processors, Workshop, on

#: No address of the load's is trusted.
_options = ("--log-datagrams", "0", "--receive-buffer", "4M", "--trust", "192.0.2.0/24")


def main(arguments: Sequence[str]) -> int:
    """Run it.

    @return: the exit status: 0, 1 if the server failed or its accounts do not balance, 2 if what is needed is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sources", description="Millions of sources on a server.")
    parser.add_argument("--number", type=int, default=10_000_000, help="how many sources [10000000]")
    parser.add_argument("--rate", type=int, default=100_000, help="datagrams a second [100000]")
    options = parser.parse_args(arguments)
    if not (0 < options.number <= 16_000_000 and options.rate > 0):
        parser.error("--number is from 1 to 16000000, --rate above 0")
    try:
        return _run(options.number, options.rate)
    except (Missing, Broken) as e:
        print(f"sources: {e}", file=sys.stderr)
        return 2 if isinstance(e, Missing) else 1


def _run(number: int, rate: int) -> int:
    processors = Processors()
    with tempfile.TemporaryDirectory(prefix="udpecho-sources-") as directory:
        workshop = Workshop(Path(directory))
        load = workshop.compile("sources.c")
        port = freePort()
        with Running(workshop.udpecho(LOOPBACK, port, *_options), workshop, processors.server(1), "udpecho") as server:
            server.untilLogged("answering on")

            def send(count: int) -> int:
                with on(processors.load):
                    done = subprocess.run(
                        [load, LOOPBACK, str(port), str(count), str(rate)], check=True, capture_output=True, text=True
                    )
                return int(json.loads(done.stdout)["sent"])

            # What any traffic takes once is no growth.
            sent = send(min(number, 100_000))
            before, used = server.memory(), server.used()
            sent += send(number)
            after, spent = server.memory(), server.used().cpu - used.cpu
            accounts = Accounts.read(server.stop())
    print(f"sent {sent} from {number} sources: received {accounts.received}, by the kernel {accounts.kernel}")
    print(f"echoed {accounts.echoed}, dropped {accounts.dropped}")
    print(f"resident memory {before.resident / 1e6:.2f} MB, then {after.resident / 1e6:.2f} MB")
    print(f"processor time {spent / number * 1e6:.2f} µs for each")
    balanced = sent == accounts.received + accounts.kernel and accounts.received == accounts.echoed + accounts.dropped
    print("the accounts balance" if balanced else "the accounts do not balance")
    return 0 if balanced else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
