"""How long a flood keeps a timer waiting: the longest gap between the ticks of a 10 ms ticker, in a server process that is
flooded by another, on L{udpecho.net.open.listen} and on Twisted's own C{listenUDP}, in turn.

    python -m tests.benchmarks.ticker [--rounds 3] [--seconds 3] [--sizes 0,1,64,65507] [--reactor epoll] [--shapes lines,plain]

Then the shapes of L{tests.benchmarks.shapes}, on C{listen} only.

Each flood is bounded in time and in number, and stays on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.shapes import SHAPES

#: Seconds between two ticks, if nothing keeps the ticker waiting.
INTERVAL = 0.01
#: Datagrams in a second of flood, at the most.
MAX_RATE = 2_000_000
_SOL_UDP, _UDP_SEGMENT = 17, 103
#: How many datagrams to send between two looks at the clock.
_batch = 64
#: Seconds that a process has for starting and stopping, beside its flood.
_grace = 20

_ports = ("ours", "stock")


class Ticker:
    """Ticks, and measures the gaps.

    @ivar longest: the longest gap so far, in seconds.
    @ivar longestOwn: the same, less the time in which this process was ready to run and the system ran others.
    @ivar busiest: the most processor time between two ticks, in seconds.
    """

    def __init__(self, reactor: Any) -> None:
        """@param reactor: has the ticks called."""
        self.longest = 0.0
        self.longestOwn = 0.0
        self.busiest = 0.0
        self._reactor = reactor
        self._last = time.monotonic()
        self._waited = _waitedForProcessor()
        self._used = time.process_time()

    def start(self) -> None:
        """Tick from now on."""
        self._last = time.monotonic()
        self._waited = _waitedForProcessor()
        self._used = time.process_time()
        self._reactor.callLater(INTERVAL, self._tick)

    def _tick(self) -> None:
        now, waited, used = time.monotonic(), _waitedForProcessor(), time.process_time()
        gap = now - self._last
        self.longest = max(self.longest, gap)
        self.longestOwn = max(self.longestOwn, gap - (waited - self._waited))
        self.busiest = max(self.busiest, used - self._used)
        self._last, self._waited, self._used = now, waited, used
        self._reactor.callLater(INTERVAL, self._tick)


@dataclass
class Measurement:
    """What one flood did.

    @ivar gap: the longest gap, in seconds.
    @ivar ownGap: the same, less the time in which the system ran others.
    @ivar busiest: the most processor time that the server took between two ticks, in seconds.
    @ivar rate: datagrams that were answered in a second.
    """

    gap: float
    ownGap: float
    busiest: float
    rate: float


def serve(kind: str, reactorName: str | None, lifetime: float) -> None:
    """Be the server: print the port, serve until C{SIGTERM}, print the longest gap and the number of replies.

    @param kind: C{ours}, C{stock}, or the name of a shape.
    @param lifetime: seconds after which to stop anyway.
    """
    _pin(0)
    if reactorName is not None:
        from twisted.application.reactors import installReactor

        installReactor(reactorName)
    from twisted.internet import reactor as installed

    from udpecho.net.open import listen
    from udpecho.net.sockets import MAX_DATAGRAM
    from udpecho.pieces import spareGarbageCollector
    from udpecho.server.protocol import EchoServer

    reactor: Any = installed
    if kind in SHAPES:
        ports: list[Any] = list(SHAPES[kind].open(reactor))
    elif kind == "ours":
        ports = [listen(reactor, 0, EchoServer())]
    else:
        ports = [reactor.listenUDP(0, EchoServer(), "127.0.0.1", MAX_DATAGRAM)]
    # As the daemon does.
    spareGarbageCollector()
    ticker = Ticker(reactor)

    def begin() -> None:
        ticker.start()
        print(json.dumps([[port.getHost().host, port.getHost().port] for port in ports]), flush=True)

    reactor.callWhenRunning(begin)
    reactor.callLater(lifetime, reactor.stop)
    reactor.run()
    echoed = sum(port.protocol.counters.echoed for port in ports if isinstance(port.protocol, EchoServer))
    result = {"gap": ticker.longest, "ownGap": ticker.longestOwn, "busiest": ticker.busiest, "echoed": echoed}
    print(json.dumps(result), flush=True)


def flood(addresses: list[tuple[str, int]], size: int, segments: int, seconds: float) -> None:
    """Be the flood: send datagrams to local ports as fast as they go. The replies are not read.

    @param segments: how many datagrams each send is.
    """
    _pin(1)
    payload = b"x" * size * segments
    if segments > 1:
        # The last one is shorter: some servers treat it differently.
        payload = payload[: -size + 1] if size > 1 else payload
    left = int(seconds * MAX_RATE)
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in addresses]
        for sock, address in zip(socks, addresses):
            sock.connect(address)
            # A reply that finds no room costs less than one that is queued, and neither is read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            if segments > 1:
                sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
        end = time.monotonic() + seconds
        while left > 0 and time.monotonic() < end:
            for sock in socks:
                left -= _batch
                for _ in range(_batch):
                    with suppress(OSError):
                        sock.send(payload)


def measure(kind: str, size: int, seconds: float, reactorName: str | None) -> Measurement:
    """Flood one server, in processes of their own.

    @param kind: C{ours}, C{stock}, or the name of a shape, which has its own size.
    @param size: the payload of each datagram, in bytes.
    @param seconds: how long.
    """
    server = subprocess.Popen(
        _command("serve", kind, reactorName or "", str(seconds + _grace)), stdout=subprocess.PIPE, text=True
    )
    with server:
        try:
            assert server.stdout is not None
            addresses = server.stdout.readline()
            size, segments = (SHAPES[kind].size, SHAPES[kind].segments) if kind in SHAPES else (size, 1)
            command = _command("flood", addresses, str(size), str(segments), str(seconds))
            subprocess.run(command, check=True, timeout=seconds + _grace)
            server.send_signal(signal.SIGTERM)
            result = json.loads(server.communicate(timeout=_grace)[0])
        finally:
            server.kill()
    return Measurement(result["gap"], result["ownGap"], result["busiest"], result["echoed"] / seconds)


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    if arguments[:1] == ["serve"]:
        serve(arguments[1], arguments[2] or None, float(arguments[3]))
        return
    if arguments[:1] == ["flood"]:
        addresses = [(host, number) for host, number in json.loads(arguments[1])]
        flood(addresses, int(arguments[2]), int(arguments[3]), float(arguments[4]))
        return
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ticker", description="The longest gap of a 10 ms ticker.")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each [3]")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each flood takes [3]")
    parser.add_argument("--sizes", default="0,1,64,65507", help="payloads, in bytes [0,1,64,65507]")
    parser.add_argument("--reactor", help="the reactor, as twistd --reactor has it [Twisted's default]")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="other servers to flood [all]")
    options = parser.parse_args(arguments)

    cases = [(int(size), kind) for size in options.sizes.split(",") if size for kind in _ports]
    cases += [(SHAPES[shape].size, shape) for shape in options.shapes.split(",") if shape]
    found: dict[tuple[int, str], list[Measurement]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for size, kind in cases:
            found[size, kind].append(measure(kind, size, options.seconds, options.reactor))

    print(f"The longest gap of a {INTERVAL * 1000:g} ms ticker in each of {options.rounds} floods of {options.seconds:g} s;")
    print("own: less the time in which the server was ready to run, and the system ran others; busy: its processor time.")
    print(f"{'bytes':>6}  {'port':<10} {'median ms':>10} {'worst ms':>10} {'worst own':>10} {'busy ms':>8} {'echoes/s':>10}")
    for (size, kind), measurements in found.items():
        gaps = [measurement.gap * 1000 for measurement in measurements]
        own = max(measurement.ownGap * 1000 for measurement in measurements)
        busy = max(measurement.busiest * 1000 for measurement in measurements)
        rate = statistics.median(measurement.rate for measurement in measurements)
        median = statistics.median(gaps)
        print(f"{size:>6}  {kind:<10} {median:>10.1f} {max(gaps):>10.1f} {own:>10.1f} {busy:>8.1f} {rate:>10.0f}")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.ticker", *arguments]


def _waitedForProcessor() -> float:
    """@return: how many seconds this process has been ready to run, and has not; 0 where the system does not tell."""
    try:
        with open("/proc/self/schedstat", "rb") as told:
            return int(told.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def _pin(number: int) -> None:
    """Keep this process on one processor, where the system can do that and has two."""
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            os.sched_setaffinity(0, {processors[number]})


if __name__ == "__main__":
    main(sys.argv[1:])
