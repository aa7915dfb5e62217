"""The options of C{udpecho ping}."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from udpecho.cli.console import addArgument, argument
from udpecho.cli.ping.consent import MAX_PUBLIC_RATE
from udpecho.cli.ping.formats import Document, FpingLines, JSONLines, Rows
from udpecho.cli.ping.plot import parsePlotFile
from udpecho.cli.ping.thresholds import RTT_FIGURES, parseLossLimit, parseRttLimit
from udpecho.parsing import (
    parseInterval,
    parseLocalAddress,
    parseNumber,
    parseRate,
    parseSeconds,
    parseSizes,
    parseTOS,
)
from udpecho.probe.packet import DEFAULT_PATTERN, parsePattern
from udpecho.probe.schedule import Plan


def _number(most: int, what: str) -> Callable[[str], int]:
    return lambda text: parseNumber(text, 1, most, what)


def addSchedule(ping: argparse.ArgumentParser) -> None:
    """Add the options of the schedule."""
    group = ping.add_argument_group("schedule")
    addArgument(group, "-c --count", "N", _number(10**15, "number of probes"), "stop after N probes to each target")
    speed = group.add_mutually_exclusive_group()
    addArgument(speed, "-i --interval", "TIME", parseInterval, "time between two probes to each target [1s]", 1.0)
    addArgument(speed, "--rate", "N", parseRate, "probes a second to each target, as in 100, 0.5 or 50k")
    speed.add_argument("-f", "--flood", action="store_true", help="send as fast as replies come; 100 a second while none come")
    consent = f"allow --flood, and more than {MAX_PUBLIC_RATE} probes a second, to public addresses"
    group.add_argument("--allow-public", action="store_true", help=consent)
    addArgument(group, "-w --duration", "TIME", parseSeconds, "stop sending after this time")
    addArgument(group, "-W --timeout", "TIME", parseInterval, "how long a reply may take until it is late [1s]", 1.0)
    wait = "how long to wait after the last probe, for late replies too [until all are answered or timed out]"
    addArgument(group, "--wait", "TIME", parseSeconds, wait)


def addDatagrams(ping: argparse.ArgumentParser) -> None:
    """Add the options of the datagrams."""
    group = ping.add_argument_group("datagrams")
    size = "size of the payload; the sizes of a list 64,512 or a range 64-1400 or 64-1400:8 take turns [64]"
    addArgument(group, "-s --size", "BYTES", parseSizes, size, (64,))
    pattern = "bytes that fill the payload, as in ff00 [00 01 ... ff]"
    addArgument(group, "-p --pattern", "HEX", parsePattern, pattern, DEFAULT_PATTERN)
    addArgument(group, "-b --bind", "ADDR", parseLocalAddress, "the local address to send from, ADDR or ADDR:PORT")
    sources = "send from N ports, to cover several paths, each reported separately"
    addArgument(group, "--sources", "N", _number(1024, "number of sources"), sources, 1)
    tos = "traffic class (type of service): a byte, or the name of a code point, as in EF"
    addArgument(group, "-Q --tos", "CLASS", parseTOS, tos)
    addArgument(group, "-t --ttl", "N", _number(255, "time to live"), "time to live (IPv6: hop limit)")
    group.add_argument("--dont-fragment", action="store_true", help="send each probe whole or not at all")
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")


def addOutput(ping: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    group = ping.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="print the summary only")
    live = "show rates, loss and a histogram on the terminal, instead of a line for each reply"
    group.add_argument("--live", action="store_true", help=live)
    addArgument(group, "--plot", "FILE", parsePlotFile, "draw a plot at the end, FILE.svg or FILE.png")
    form = group.add_mutually_exclusive_group()
    for name, output, meaning in (
        ("json", Document, "print one JSON document at the end"),
        ("ndjson", JSONLines, "print each event as a line of JSON"),
        ("csv", Rows, "print each event as a row of CSV"),
        ("fping", FpingLines, "print the round trips of each target at the end, as fping -C does; needs --count or --duration"),
    ):
        form.add_argument(f"--{name}", dest="output", action="store_const", const=output, help=meaning)


def addLimits(ping: argparse.ArgumentParser) -> None:
    """Add the limits that decide the exit status."""
    group = ping.add_argument_group("limits for scripts")
    loss = "exit status 1 if the network loses more than this of any target, as in 1%%; without it any loss or late reply does"
    addArgument(group, "--fail-if-loss", "PERCENT", parseLossLimit, loss)
    group.add_argument(
        "--fail-if-rtt",
        metavar="FIGURE=TIME",
        type=argument(parseRttLimit),
        action="append",
        default=[],
        help="exit status 1 if a figure of any target's round trips is larger, as in p99=20ms, or cannot be computed;"
        f" may be repeated ({', '.join(RTT_FIGURES)})",
    )


def planOf(options: argparse.Namespace) -> Plan:
    """The plan of a command line. C{ValueError}: too many probes would be outstanding to match their replies."""
    return Plan(
        interval=options.interval if options.rate is None else 1 / options.rate,
        count=options.count,
        duration=options.duration,
        timeout=options.timeout,
        wait=options.wait,
        sizes=options.size,
        pattern=options.pattern,
        flood=options.flood,
    )
