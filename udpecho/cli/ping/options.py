"""The options of C{udpecho ping}."""

from __future__ import annotations

import argparse

from udpecho.cli.console import argument
from udpecho.cli.ping.consent import MAX_PUBLIC_RATE
from udpecho.cli.ping.formats import Document, FpingLines, JSONLines, Rows
from udpecho.cli.ping.plot import parsePlotFile
from udpecho.cli.ping.thresholds import RTT_FIGURES, parseLossLimit, parseRttLimit
from udpecho.parsing import parseAddress, parseInterval, parseLocalAddress, parseNumber, parseRate, parseSizes, parseTOS
from udpecho.probe.packet import DEFAULT_PATTERN, parsePattern
from udpecho.probe.schedule import Plan

_mostSources = 1024
_mostProbes = 10**15


def addSchedule(ping: argparse.ArgumentParser) -> None:
    """Add the options of the schedule."""
    group = ping.add_argument_group("schedule")
    count = argument(lambda text: parseNumber(text, 1, _mostProbes, "a number of probes"))
    group.add_argument("-c", "--count", metavar="N", type=count, help="stop after N probes to each target")
    speed = group.add_mutually_exclusive_group()
    speed.add_argument(
        "-i", "--interval", metavar="TIME", type=argument(parseInterval), default=1.0, help="time between two probes [1s]"
    )
    speed.add_argument("--rate", metavar="N", type=argument(parseRate), help="probes a second, as in 100, 0.5 or 50k")
    speed.add_argument("-f", "--flood", action="store_true", help="send as fast as replies come; 100 a second while none come")
    group.add_argument(
        "--allow-public",
        action="store_true",
        help=f"allow --flood, and more than {MAX_PUBLIC_RATE} probes a second, to public addresses",
    )
    seconds = argument(lambda text: parseInterval(text, 0))
    group.add_argument("-w", "--duration", metavar="TIME", type=seconds, help="stop sending after this time")
    group.add_argument(
        "-W",
        "--timeout",
        metavar="TIME",
        type=argument(parseInterval),
        default=1.0,
        help="how long a reply may take until it is late [1s]",
    )
    group.add_argument(
        "--wait",
        metavar="TIME",
        type=seconds,
        help="how long to wait after the last probe, for late replies too [until all are answered or timed out]",
    )


def addDatagrams(ping: argparse.ArgumentParser) -> None:
    """Add the options of the datagrams."""
    group = ping.add_argument_group("datagrams")
    group.add_argument(
        "-s",
        "--size",
        metavar="BYTES",
        type=argument(parseSizes),
        default=(64,),
        help="size of the payload; the sizes of a list 64,512 or a range 64-1400 or 64-1400:8 take turns [64]",
    )
    group.add_argument(
        "-p",
        "--pattern",
        metavar="HEX",
        type=argument(parsePattern),
        default=DEFAULT_PATTERN,
        help="the bytes that fill it, as in ff00",
    )
    group.add_argument(
        "-b",
        "--bind",
        metavar="ADDR",
        type=argument(parseLocalAddress),
        help="the local address to send from, ADDR or ADDR:PORT",
    )
    sources = argument(lambda text: parseNumber(text, 1, _mostSources, "a number of sources"))
    group.add_argument(
        "--sources",
        metavar="N",
        type=sources,
        default=1,
        help="send from N ports, to cover several paths, each reported separately",
    )
    group.add_argument(
        "-Q",
        "--tos",
        metavar="CLASS",
        type=argument(parseTOS),
        help="traffic class (type of service): a byte, or the name of a code point, as in EF",
    )
    ttl = argument(lambda text: parseNumber(text, 1, 255, "a time to live"))
    group.add_argument("-t", "--ttl", metavar="N", type=ttl, help="time to live (IPv6: hop limit)")
    group.add_argument("--dont-fragment", action="store_true", help="send each probe whole or not at all")
    family = group.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")


def addOutput(ping: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    group = ping.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="print the summary only")
    group.add_argument(
        "--live", action="store_true", help="show rates, loss and a histogram on the terminal, in place of the lines"
    )
    group.add_argument(
        "--plot", metavar="FILE", type=argument(parsePlotFile), help="draw a picture at the end, FILE.svg or FILE.png"
    )
    form = group.add_mutually_exclusive_group()
    for name, output, meaning in (
        ("json", Document, "print one JSON document at the end"),
        ("ndjson", JSONLines, "print each event as a line of JSON"),
        ("csv", Rows, "print each event as a row of CSV"),
        (
            "fping",
            FpingLines,
            "print a line of round trips for each target at the end, as fping -C does; needs --count or --duration",
        ),
    ):
        form.add_argument(f"--{name}", dest="output", action="store_const", const=output, help=meaning)


def addLimits(ping: argparse.ArgumentParser) -> None:
    """Add the limits that decide the exit status."""
    group = ping.add_argument_group("limits for scripts")
    group.add_argument(
        "--fail-if-loss",
        metavar="PERCENT",
        type=argument(parseLossLimit),
        help="exit status 1 if the network loses more than this of any target, as in 1%%; without it any loss, and any late"
        " reply, gives status 1",
    )
    group.add_argument(
        "--fail-if-rtt",
        metavar="FIGURE=TIME",
        type=argument(parseRttLimit),
        action="append",
        default=[],
        help="exit status 1 if a figure of any target's round trips is larger, as in p99=20ms, or not known; may be repeated"
        f" ({', '.join(RTT_FIGURES)})",
    )


def targetText(text: str) -> str:
    """Check a target, and return it unchanged."""
    parseAddress(text)
    return text


def planOf(options: argparse.Namespace) -> Plan:
    """
    The plan that the command line asks for.

    @raise ValueError: if too many probes would be outstanding to match their replies.
    """
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
