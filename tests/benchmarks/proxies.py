"""C{udpecho proxy} beside nginx's UDP proxy, and how exact its delays are: C{python -m tests.benchmarks.proxies}."""

from __future__ import annotations

import argparse
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import loads
from tests.benchmarks.loads import Load
from tests.benchmarks.running import PATIENCE, Broken, Running, freePort
from tests.benchmarks.servers import LOOPBACK
from tests.benchmarks.workshop import Missing, Processors, Workshop

#: What goes through the proxies.
_loads = (
    Load("single", "one outstanding, 64 B", 1, 1, 64),
    Load("1x32", "one socket with 32 outstanding, 64 B", 1, 32, 64),
    Load("4x64", "4 sockets with 64 outstanding each, 64 B", 4, 64, 64),
    Load("sources", "64 sockets with 8 outstanding each, 64 B", 64, 8, 64),
)
#: The delays that are measured, in ms.
_delays = (0.0, 0.1, 0.3, 1.0, 5.0)
#: Seconds between two datagrams of that measurement, beside the round trip.
_pause = 0.002

_nginx = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
stream {{ server {{ listen {host}:{port} udp; proxy_pass {host}:{upstream}; proxy_timeout 60s; }} }}
"""

Command = Callable[[Workshop, int, int], Sequence[str]]


def _nginxCommand(workshop: Workshop, port: int, upstream: int) -> Sequence[str]:
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    text = _nginx.format(directory=workshop.directory, host=LOOPBACK, port=port, upstream=upstream)
    configuration = workshop.directory / "nginx.conf"
    configuration.write_text((f"load_module {module};" if module.exists() else "") + text)
    return [workshop.tool("nginx"), "-p", str(workshop.directory), "-e", "stderr", "-c", str(configuration)]


def _ours(*options: str) -> Command:
    def command(workshop: Workshop, port: int, upstream: int) -> Sequence[str]:
        addresses = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{upstream}"
        return [sys.executable, "-m", "udpecho", "proxy", *addresses, *options]

    return command


_proxies: dict[str, Command] = {"nginx": _nginxCommand, "ours": _ours()}
#: With faults that are drawn for each datagram; none of these ever comes.
_faulty: dict[str, Command] = {"ours, faults": _ours("--loss", "0.0000001%", "--corrupt", "0.0000001%")}


def _speed(workshop: Workshop, processors: Processors, upstream: int, options: argparse.Namespace) -> None:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    proxies = {**_proxies, **_faulty}
    for number in range(options.rounds):
        for name in list(proxies)[:: -1 if number % 2 else 1]:
            port = freePort()
            try:
                command = proxies[name](workshop, port, upstream)
            except Missing as e:
                print(f"{name} is left out: {e}")
                continue
            with Running(command, workshop, processors.server(1), name) as running:
                running.untilAnswered(LOOPBACK, port)
                for load in _loads:
                    loads.run(load, workshop, processors.load, LOOPBACK, port, 0.1)
                    before = running.used().cpu
                    heard = loads.run(load, workshop, processors.load, LOOPBACK, port, options.seconds)
                    cpu = (running.used().cpu - before) / heard.echoed
                    found.setdefault((load.name, name), []).append((cpu * 1e6, heard.echoedInTime / heard.seconds))
    print(f"{'load':<10}{'proxy':<14}{'us CPU each':>12}{'to nginx':>10}{'round trips/s':>15}{'to nginx':>10}")
    order = [each.name for each in _loads]
    for at, name in sorted(found, key=lambda pair: order.index(pair[0])):
        cpu, rate = (statistics.median(values) for values in zip(*found[at, name]))
        peer = [statistics.median(values) for values in zip(*found.get((at, "nginx"), [(float("nan"),) * 2]))]
        print(f"{at:<10}{name:<14}{cpu:>12.1f}{cpu / peer[0]:>10.2f}{rate:>15.0f}{rate / peer[1]:>10.2f}")


def _exactness(workshop: Workshop, processors: Processors, options: argparse.Namespace) -> None:
    """Print how much later than without a delay datagrams come, in the direction to the upstream."""
    print(f"{'delay ms':<10}{'median':>9}{'p10':>9}{'p90':>9}{'p99':>9}   one way, ms; less the median without delay")
    base = 0.0
    for delay in _delays:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            upstream.bind((LOOPBACK, 0))
            port = freePort()
            command = _ours("--direction", "up", "--delay", f"{delay}ms")(workshop, port, upstream.getsockname()[1])
            with Running(command, workshop, processors.server(1), "ours") as running:
                running.untilLogged("passing datagrams")
                taken = sorted(_oneWay(sock, upstream, (LOOPBACK, port)) for _ in range(options.datagrams))
        points = [taken[int(share * (len(taken) - 1))] * 1e3 for share in (0.5, 0.1, 0.9, 0.99)]
        base = points[0] if not delay else base
        print(f"{delay:<10}" + "".join(f"{point - base:>9.3f}" for point in points))


def _oneWay(client: socket.socket, upstream: socket.socket, proxy: tuple[str, int]) -> float:
    time.sleep(_pause)
    began = time.perf_counter()
    client.sendto(b"hello", proxy)
    if not select.select([upstream], [], [], PATIENCE)[0]:
        raise Broken("a datagram did not come through the proxy")
    arrived = time.perf_counter()
    upstream.recv(100)
    return arrived - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it.

    @return: the exit status: 0, 1 if a proxy failed, 2 if this machine cannot run it.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proxies", description="Proxies beside each other.")
    parser.add_argument("--seconds", type=float, default=2, help="of each load [2]")
    parser.add_argument("--rounds", type=int, default=3, help="how often all are measured [3]")
    parser.add_argument("--datagrams", type=int, default=500, help="for each delay, 0 for none [500]")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.rounds < 0 or options.datagrams < 0:
        parser.error("--seconds must be above 0, --rounds and --datagrams 0 or more")
    try:
        processors = Processors()
        with tempfile.TemporaryDirectory(prefix="udpecho-proxies-") as directory:
            workshop = Workshop(Path(directory))
            if options.rounds:
                port = freePort()
                upstream = [workshop.compile("peers/recvmmsg.c"), LOOPBACK, str(port)]
                # On the load's processor, as the two would else take turns with the proxy.
                with Running(
                    upstream, Workshop(Path(tempfile.mkdtemp(dir=directory))), processors.load, "the upstream"
                ) as server:
                    server.untilAnswered(LOOPBACK, port)
                    _speed(workshop, processors, port, options)
            if options.datagrams:
                _exactness(workshop, processors, options)
    except Missing as e:
        print(f"proxies: {e}", file=sys.stderr)
        return 2
    except Broken as e:
        print(f"proxies: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
