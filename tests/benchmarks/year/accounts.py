"""The accounts at the end: whether each has all that was sent and received, and one agrees with the other."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator

from tests.benchmarks.chaos import IN_HAND
from tests.benchmarks.running import Broken
from tests.benchmarks.year.events import Stage
from tests.benchmarks.year.processes import TARGETS
from tests.benchmarks.year.world import PORT, World
from tests.support.namespaces import run

_rules = f"""table inet counting {{
 chain input {{
  type filter hook input priority 10
  udp dport {PORT} counter
 }}
}}
"""
#: What becomes of a probe that was sent.
_outcomes = ("answered", "late", "lost", "lost_own", "refused", "unreachable", "outstanding")


class Requests:
    """Counts the datagrams that the kernel hands to the server, where there is C{nft(8)}."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.counts = shutil.which("nft") is not None
        if self.counts:
            world.server.call(run, ["nft", "-f", "-"], _rules)

    def number(self) -> int:
        """@return: how many there were."""
        shown = self._world.server.call(run, ["nft", "list", "table", "inet", "counting"])
        return int(shown.partition("packets ")[2].split()[0])


class Balance:
    """Stops the processes and compares what they have counted."""

    def __init__(self, stage: Stage, requests: Requests, restarted: set[str]) -> None:
        """@param restarted: the names of those whose sums are not of the whole time."""
        self._stage = stage
        self._requests = requests
        self._restarted = restarted

    def faults(self) -> Iterator[str]:
        """@return: what does not balance."""
        stage = self._stage
        self._asked = stage.application.sums()
        # The server is the last: it counts what the others still send.
        for process, number in (
            (stage.application, signal.SIGTERM),
            (stage.probe, signal.SIGTERM),
            (stage.proxy, signal.SIGINT),
            (stage.server, signal.SIGTERM),
        ):
            try:
                process.stop(number)
            except Broken as e:
                yield str(e)
        self.answered = 0
        for name, look in (
            ("application", self._ofApplication),
            ("probe", self._ofProbe),
            ("proxy", self._ofProxy),
            ("server", self._ofServer),
        ):
            if name not in self._restarted:
                yield from look()

    def _ofApplication(self) -> Iterator[str]:
        for target, sums in self._asked.items():
            outcomes = sums["outcomes"]
            self.answered += outcomes.get("answered", 0)
            if sums["asked"] != sum(outcomes.values()) + sums["outstanding"]:
                yield f"the application has asked {target} {sums['asked']} times, and knows of {outcomes}"
            if "wrong" in outcomes:
                yield f"the application has had {outcomes['wrong']} wrong replies from {target}"

    def _ofProbe(self) -> Iterator[str]:
        lines = re.findall(r"stopped probing (\S+) from \S+: (.*)$", self._stage.probe.history(), re.MULTILINE)
        # One target more was there for a time, now and then.
        if not {target for target, _ in lines}.issuperset(TARGETS):
            yield f"the probe service has logged the sums of {[target for target, _ in lines]}"
        for target, text in lines:
            sums = _sums(text)
            self.answered += sums.get("answered", 0)
            if sums["sent"] != sum(sums.get(outcome, 0) for outcome in _outcomes):
                yield f"the probe service's sums for {target} do not balance: {text}"

    def _ofProxy(self) -> Iterator[str]:
        clients = self._stage.checks.newClient, self._stage.checks.oldClient
        sent, received = sum(client.sent for client in clients), sum(client.received for client in clients)
        found = dict(re.findall(r"^(up|down): (.*)$", self._stage.proxy.history(), re.MULTILINE))
        if set(found) != {"up", "down"}:
            yield f"the proxy has printed the sums {found}"
            return
        up, down = _sums(found["up"]), _sums(found["down"])
        self.answered += received
        if up["datagrams"] != sent:
            yield f"the proxy got {sent} datagrams, and has counted {up['datagrams']}"
        if down["datagrams"] - down.get("own_loss", 0) < received:
            yield f"the proxy has sent {received} replies at least, and has counted {found['down']}"

    def _ofServer(self) -> Iterator[str]:
        text = self._stage.server.history()
        stops = [_sums(line) for line in re.findall(r"stopped: (.*)$", text, re.MULTILINE)]
        if len(stops) != self._stage.server.starts:
            yield f"the server was started {self._stage.server.starts} times, and has logged its sums {len(stops)} times"
        received, echoed, dropped = (sum(stop[name] for stop in stops) for name in ("received", "echoed", "dropped"))
        if received != echoed + dropped:
            yield f"received {received} is not echoed {echoed} + dropped {dropped}"
        answered = self.answered + self._stage.checks.direct.received
        if answered > echoed:
            yield f"{answered} replies came to {echoed} echoes"
        if self._requests.counts:
            number = self._requests.number() - self._stage.server.missed
            kernel = sum(map(int, re.findall(r"the kernel dropped ([0-9]+) datagrams", text)))
            # A worker that ends may have received a batch that is in no account, and a port that closes a queue.
            ended = text.count("another takes its place") + len(stops)
            if not 0 <= number - received - kernel <= IN_HAND * ended:
                yield (
                    f"the kernel has handed {number} datagrams to the server, which has received {received}; it has"
                    f" dropped {kernel} before, and {ended} processes have ended"
                )


def _sums(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"([a-z_-]+)=([0-9]+)(?![0-9.])", text)}
