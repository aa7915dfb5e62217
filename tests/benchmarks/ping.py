"""What the prober is worth: the figures of C{udpecho ping}, each as a ratio within one run.

    python -m tests.benchmarks.ping [--rounds 3] [--seconds 5] [--virtual 3600]

What is true of a round trip is taken from the wire: a socket of its own hears each datagram on the loopback device, with the
kernel's stamp (C{packet(7)}), which needs root. What this machine cannot measure is said to be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.workshop import ROOT, Missing, Workshop

#: Seconds that a process has for starting and stopping, beside what it does.
_grace = 20
_ETH_P_IP = 0x0800
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35
_timespec = struct.Struct("@qq")
#: A UDP header's ports; then where in a probe its mark, form, length, session and sequence are.
_ports = struct.Struct("!HH")
_beginning = struct.Struct("!BBHQQ")
#: How long the proxy holds datagrams back, and how often probes leave, in seconds.
_delay = 0.02
_interval = 0.001

_ping = "import sys; sys.argv[0] = 'udpecho'; from udpecho.cli.main import main; sys.exit(main())"


# In a process of its own: a prober that tells both round trips of each probe


def probe(port: int, interval: float, count: int) -> None:
    """Probe a local port and print, for each probe that has both, its number, the round trip by the kernel's stamps and that by
    the monotonic clock, in ns.
    """
    from twisted.internet import reactor as installed

    from udpecho.probe import send_times
    from udpecho.probe.io.timestamps import roundTrip
    from udpecho.probe.prober import Prober
    from udpecho.probe.schedule import Plan
    from udpecho.probe.target import Target

    reactor: Any = installed
    found: list[tuple[int, int, int]] = []
    last: list[tuple[int | None, int]] = []

    def noting(sent: int, received: int, monotonic: int) -> int | None:
        kernel = roundTrip(sent, received, monotonic)
        last[:] = [(kernel, monotonic)]
        return kernel

    def hear(_: Any, event: Any) -> None:
        if event.roundTrip is not None and last and last[0][0] is not None:
            found.append((event.sequence, last[0][0], last[0][1]))

    setattr(send_times, roundTrip.__name__, noting)
    prober = Prober(reactor, [Target.of(f"127.0.0.1:{port}")], Plan(interval=interval, count=count), listener=hear)
    reactor.callWhenRunning(lambda: prober.start().addBoth(lambda _: reactor.stop()))
    reactor.run()
    print(json.dumps(found))


def burn() -> None:
    """Keep a processor busy."""
    while True:
        pass


def grow(seconds: int) -> None:
    """Probe in virtual time at 1000 a second, and print how many bytes more this process has at the end than after a minute."""
    from udpecho.faults.plan import FaultPlan
    from udpecho.net.open import listen
    from udpecho.probe.prober import Prober
    from udpecho.probe.schedule import Plan
    from udpecho.probe.target import Target
    from udpecho.server.protocol import EchoServer
    from udpecho.testing.memory_network import MemoryNetwork

    network = MemoryNetwork(FaultPlan(1, loss=0.001, delay=0.005, jitter=0.005))
    here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
    listen(there, 7, EchoServer(), "192.0.2.2")
    prober = Prober(here, [Target.of("192.0.2.2:7")], Plan(interval=0.001))
    prober.start()
    before = 0
    for second in range(seconds):
        if second == min(60, seconds // 2):
            before = _resident()
        network.advance(1)
        # The trace is the network's, not the prober's.
        network.trace.clear()
    sent = prober.flows[0].statistics.sent
    prober.stop()
    print(json.dumps({"growth": _resident() - before, "sent": sent}))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Processes


def _pin(processor: int) -> Callable[[], None]:
    processors = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {processors[processor % len(processors)]})


@contextmanager
def running(command: Sequence[str], processor: int | None, workshop: Workshop) -> Iterator[subprocess.Popen[str]]:
    """A process for a while, on one processor or wherever the system has it."""
    process = subprocess.Popen(
        command,
        env=workshop.environment,
        cwd=workshop.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=None if processor is None else _pin(processor),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(command: Sequence[str], processor: int | None, workshop: Workshop, seconds: float) -> str:
    """Run a process to its end.

    @return: what it has written.
    """
    done = subprocess.run(
        command,
        env=workshop.environment,
        cwd=workshop.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + _grace,
        check=False,
        preexec_fn=None if processor is None else _pin(processor),
    )
    if not done.stdout:
        raise Missing(f"{' '.join(command[:4])} says nothing: {done.stderr.strip()[-200:]}")
    return done.stdout


def itself(*arguments: object) -> list[str]:
    """How to run this module in a process of its own."""
    return [sys.executable, "-m", "tests.benchmarks.ping", *map(str, arguments)]


def freePort() -> int:
    """A port that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def awaitEcho(port: int) -> None:
    """Wait until something answers on a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(0.1)
        end = time.monotonic() + _grace
        while time.monotonic() < end:
            try:
                sock.send(b"?")
                sock.recv(10)
                return
            except OSError:
                time.sleep(0.02)
    raise Missing(f"nothing answers on port {port}")


@contextmanager
def cEcho(workshop: Workshop, processor: int | None = 1) -> Iterator[int]:
    """The C server.

    @param processor: where it runs; by default not where the prober does.
    @return: its port.
    """
    port = freePort()
    with running([workshop.compile("peers/recvfrom.c"), "127.0.0.1", str(port)], processor, workshop):
        awaitEcho(port)
        yield port


class Wire:
    """Hears the datagrams of one port on the loopback device.

    @ivar times: by a probe's number, when it went to the port and when its reply came from there, in ns.
    """

    def __init__(self, port: int) -> None:
        """@raise Missing: if this is not for this user."""
        self.times: dict[int, list[int]] = {}
        self._port = port
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        except PermissionError:
            raise Missing("hearing the wire is for root") from None
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.settimeout(0.1)
        self._over = False
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def stop(self) -> None:
        """Hear no more."""
        self._over = True
        self._thread.join()
        self._socket.close()

    def roundTrips(self) -> dict[int, int]:
        """The round trips, in ns, by the probes' numbers."""
        return {sequence: times[1] - times[0] for sequence, times in self.times.items() if len(times) == 2}

    def _hear(self) -> None:
        while not self._over:
            try:
                data, controls, _, address = self._socket.recvmsg(200, 200)
            except TimeoutError:
                continue
            # Each datagram on this device is heard as it goes and as it comes.
            if address[2] == _PACKET_OUTGOING or len(data) < 60 or data[9] != socket.IPPROTO_UDP:
                continue
            start = 4 * (data[0] & 15)
            source, destination = _ports.unpack_from(data, start)
            if self._port in (source, destination):
                whole, rest = _timespec.unpack_from(controls[0][2])
                sequence = _beginning.unpack_from(data, start + 8)[4]
                self.times.setdefault(sequence, []).append(whole * 1_000_000_000 + rest)


def heard(port: int, count: int, workshop: Workshop, interval: float = 0.005) -> tuple[float, float, float]:
    """Probe a port from the first processor, and hear the wire.

    @return: medians in seconds over the same probes: of the wire's round trips, the kernel's, and the monotonic clock's.
    """
    wire = Wire(port)
    try:
        found = json.loads(told(itself("--probe", port, interval, count), 0, workshop, count * interval))
    finally:
        wire.stop()
    true = wire.roundTrips()
    rows = [(true[sequence], kernel, monotonic) for sequence, kernel, monotonic in found if sequence in true]
    if len(rows) < count // 2:
        raise Missing(f"of {count} probes only {len(rows)} were heard on the wire")
    wired, kernel, monotonic = (median(column) / 1e9 for column in zip(*rows, strict=True))
    return wired, kernel, monotonic


# The figures


def stampsToUserSpace(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """The median of kernel stamps to that of user-space stamps of the same probes, to a C echo."""
    with cEcho(workshop, None) as port:
        found = json.loads(told(itself("--probe", port, _interval, int(seconds / _interval)), None, workshop, seconds))
    kernel, monotonic = median(row[1] for row in found) / 1e3, median(row[2] for row in found) / 1e3
    return kernel / monotonic, f"{kernel:.1f} us to {monotonic:.1f} us, {len(found)} probes"


def oursToIRTT(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """Our median to IRTT's, each to its own server, at the same interval."""
    return _toIRTT(workshop, seconds, None)


def cToIRTT(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """The same with a C echo for our server: what is left is the prober's."""
    return _toIRTT(workshop, seconds, workshop.compile("peers/recvfrom.c"))


def _toIRTT(workshop: Workshop, seconds: float, echo: str | None) -> tuple[float, str]:
    irtt = workshop.tool("irtt")
    with ExitStack() as stack:
        ports = [freePort(), freePort()]
        own = workshop.udpecho("127.0.0.1", ports[0], "--log-datagrams", "0")
        server = own if echo is None else [echo, "127.0.0.1", str(ports[0])]
        stack.enter_context(running(server, None, workshop))
        stack.enter_context(running([irtt, "server", "-b", f"127.0.0.1:{ports[1]}", "-i", "1ms"], None, workshop))
        awaitEcho(ports[0])
        often = ("-i", f"{_interval * 1e3:g}ms")
        command = [sys.executable, "-c", _ping, "ping", "--json", *often, "-w", f"{seconds}s", f"127.0.0.1:{ports[0]}"]
        ours = json.loads(told(command, None, workshop, seconds))["targets"][0]["rtt"]["median"]
        output = workshop.directory / "irtt.json"
        command = [irtt, "client", *often, "-d", f"{seconds}s", "-l", "64", "-o", str(output), f"127.0.0.1:{ports[1]}"]
        told(command, None, workshop, seconds)
        theirs = json.loads(output.read_text())["stats"]["rtt"]["median"] / 1e9
    return ours / theirs, f"{ours * 1e6:.1f} us to {theirs * 1e6:.1f} us"


def _behindProxy(workshop: Workshop, seconds: float, busy: bool) -> tuple[float, float, float]:
    with ExitStack() as stack:
        port, own = stack.enter_context(cEcho(workshop)), freePort()
        command = ["proxy", f"127.0.0.1:{own}", f"127.0.0.1:{port}", "--direction", "up", "--delay", f"{_delay}"]
        stack.enter_context(running([sys.executable, "-c", _ping, *command], 1, workshop))
        awaitEcho(own)
        if busy:
            stack.enter_context(running(itself("--burn"), 0, workshop))
        return heard(own, int(seconds / 0.005), workshop)


def errorBehindProxy(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """By how many us the median is wrong behind the proxy, less what the proxy itself adds to its delay, which
    the wire tells.
    """
    wire, kernel, monotonic = _behindProxy(workshop, seconds, busy=False)
    return abs(kernel - wire) * 1e6, (
        f"kernel {kernel * 1e3:.3f} ms, user space {monotonic * 1e3:.3f} ms, the proxy {_delay * 1e3:.0f} ms and"
        f" {(wire - _delay) * 1e6:.0f} us more"
    )


def errorWhenBusy(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """The same, with another process that keeps the prober's processor busy, to the error of user space."""
    wire, kernel, monotonic = _behindProxy(workshop, seconds, busy=True)
    errors = abs(kernel - wire) * 1e6, abs(monotonic - wire) * 1e6
    return errors[0] / errors[1], f"{errors[0]:.1f} us to {errors[1]:.1f} us"


def probesPerSecond(workshop: Workshop, seconds: float) -> tuple[float, str]:
    """How many probes a second one process sends on schedule at 50 000, and what is lost."""
    port = freePort()
    server = workshop.udpecho("127.0.0.1", port, "--log-datagrams", "0", "--receive-buffer", "4M")
    with running(server, 1, workshop):
        awaitEcho(port)
        where = f"127.0.0.1:{port}"
        command = [sys.executable, "-c", _ping, "ping", "-q", "--json", "--rate", "50k", "-w", f"{seconds}s", where]
        target = json.loads(told(command, 0, workshop, seconds + 2))["targets"][0]
    outcomes, deviation = target["outcomes"], target["schedule_deviation"]
    bad = {name: number for name, number in outcomes.items() if number and name != "answered"}
    return target["sent"] / seconds, (
        f"answered {outcomes['answered']} of {target['scheduled']}, own drops {target['own_queue_drops']}, else {bad},"
        f" schedule deviation p50/p99/max {deviation['median'] * 1e6:.0f}/{(deviation['p99'] or 0) * 1e6:.0f}"
        f"/{deviation['max'] * 1e6:.0f} us,"
        f" stamps: {target['timestamp_source']}"
    )


def growth(workshop: Workshop, seconds: int) -> tuple[float, str]:
    """By how many MB memory grows while probing in virtual time."""
    found = json.loads(told(itself("--grow", seconds), None, workshop, 3600))
    return found["growth"] / 1e6, f"{found['sent']} probes in {seconds} virtual seconds"


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ping", description="What the prober is worth.")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each; the median counts [3]")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each takes [5]")
    parser.add_argument("--virtual", type=int, default=3600, help="virtual seconds for the memory [3600]")
    parser.add_argument("--probe", nargs=3, metavar="N", help=argparse.SUPPRESS)
    parser.add_argument("--burn", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe(int(options.probe[0]), float(options.probe[1]), int(options.probe[2]))
        return
    if options.burn:
        burn()
    if options.grow:
        grow(options.grow)
        return
    if sys.platform != "linux" or shutil.which("cc") is None:
        sys.exit("these measurements need Linux and a C compiler")
    figures: list[tuple[str, str, Callable[[Workshop, float], tuple[float, str]]]] = [
        ("kernel stamps to user space, medians", "<= 0.5", stampsToUserSpace),
        ("our median to IRTT's", "<= 0.6", oursToIRTT),
        ("our median to a C echo, to IRTT's", "", cToIRTT),
        ("error behind the proxy, us", "<= 50", errorBehindProxy),
        ("error on a busy processor, to user space", "<= 0.5", errorWhenBusy),
        ("probes a second", ">= 50000", probesPerSecond),
    ]
    with tempfile.TemporaryDirectory() as directory:
        workshop = Workshop(Path(directory))
        workshop.environment["PYTHONPATH"] = str(ROOT)
        for name, wanted, measure in figures:
            _measure(name, wanted, lambda measure=measure: measure(workshop, options.seconds), options.rounds)  # type: ignore[misc]
        _measure("memory, MB more", "<= 1", lambda: growth(workshop, options.virtual), 1)


def _measure(name: str, wanted: str, measure: Callable[[], tuple[float, str]], rounds: int) -> None:
    found = []
    for _ in range(rounds):
        try:
            found.append(measure())
        except (Missing, subprocess.TimeoutExpired) as e:
            print(f"{name:<42} {wanted:>9}  missing: {e}", flush=True)
            return
    value = median(each for each, _ in found)
    print(f"{name:<42} {wanted:>9}  {value:.3f}", flush=True)
    for each, what in found:
        print(f"{'':<42} {'':>9}  {each:.3f}: {what}", flush=True)


if __name__ == "__main__":
    main()
