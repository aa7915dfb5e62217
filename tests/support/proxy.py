"""C{udpecho proxy} as a process."""

from __future__ import annotations

import re
import signal

from tests.support.processes import Process, Processes
from udpecho.addresses import formatAddress


class ProxyProcess:
    """C{udpecho proxy} in a process of its own, which listens.

    @ivar process: the process.
    @ivar address: the address that the clients send to.
    """

    def __init__(self, processes: Processes, upstream: tuple[str, int], *options: str, listen: str = "127.0.0.1:0") -> None:
        self.process: Process = processes.start("udpecho", "proxy", listen, formatAddress(upstream), *options)
        line = self.process.until(r"^udpecho: passing datagrams from (\S+):(\d+) to (\S+)$", "stderr")
        assert line[3] == formatAddress(upstream)
        self.address = line[1].strip("[]"), int(line[2])

    @property
    def written(self) -> str:
        """Its address as text."""
        return formatAddress(self.address)

    def stop(self, number: int = signal.SIGINT) -> dict[str, dict[str, int]]:
        """Stop it by a signal, and check how it ends.

        @return: the sums that it prints, for C{up}, C{down} and the last line.
        """
        self.process.signal(number)
        self.process.finish()
        assert self.process.status == 128 + number, self.process
        assert len(self.process.stderr.splitlines()) == 1, self.process
        lines = self.process.stdout.splitlines()[-3:]
        found = {}
        for name, line in zip(("up", "down", ""), lines):
            assert line.startswith(f"{name}: " if name else "refusals="), self.process
            found[name] = {key: int(count) for key, count in re.findall(r"([a-z_-]+)=(\d+)", line)}
        return found
