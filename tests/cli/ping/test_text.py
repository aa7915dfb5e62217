"""Tests of L{udpecho.cli.ping.text}: the lines that people read."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.guards import tool
from tests.support.records import MS, PEER, TARGET, event, everyOutcome
from udpecho.cli.ping import text
from udpecho.cli.ping.text import milliseconds
from udpecho.probe.outcomes import Event, Outcome
from udpecho.probe.stats.summary import Statistics


class LineTests:
    """Lines for people."""

    @pytest.mark.parametrize(
        ("what", "line"),
        [
            (event(Outcome.ANSWERED, roundTrip=0.000052), "64 bytes from 127.0.0.1:7: seq=3 time=0.052 ms"),
            (event(Outcome.ANSWERED, roundTrip=0.000052, size=1), "1 byte from 127.0.0.1:7: seq=3 time=0.052 ms"),
            (
                event(Outcome.ANSWERED, roundTrip=0.001, reordered=True),
                "64 bytes from 127.0.0.1:7: seq=3 time=1.00 ms (reordered)",
            ),
            (event(Outcome.LATE, roundTrip=1.5), "64 bytes from 127.0.0.1:7: seq=3 time=1500 ms (late)"),
            (event(Outcome.DUPLICATE, roundTrip=0.001), "64 bytes from 127.0.0.1:7: seq=3 time=1.00 ms (DUP!)"),
            (event(Outcome.CORRUPT, sequence=None), "64 bytes from 127.0.0.1:7: corrupted"),
            (event(Outcome.TRUNCATED, sequence=None, size=20), "20 bytes from 127.0.0.1:7: truncated"),
            (event(Outcome.OVERSIZED, sequence=None, size=65), "65 bytes from 127.0.0.1:7: oversized"),
            (event(Outcome.UNRELATED, sequence=None, size=5), "5 bytes from 127.0.0.1:7: unrelated to this session"),
            (event(Outcome.UNMATCHED), "64 bytes from 127.0.0.1:7: seq=3 unmatched: its probe is forgotten"),
            (event(Outcome.LOST), "127.0.0.1:7: seq=3 no reply"),
            (event(Outcome.LOST_OWN), "127.0.0.1:7: seq=3 lost in our own receive queue"),
            (event(Outcome.REFUSED), "127.0.0.1:7: seq=3 refused, nothing listens on that port"),
            (event(Outcome.UNREACHABLE, detail="No route to host"), "127.0.0.1:7: seq=3 unreachable: No route to host"),
            (event(Outcome.NOT_SENT, detail="No buffer space"), "127.0.0.1:7: seq=3 not sent: No buffer space"),
            (event(Outcome.OUTSTANDING), "127.0.0.1:7: seq=3 outstanding"),
        ],
    )
    def test_line(self, what: Event, line: str) -> None:
        """Each outcome has its own line."""
        assert text.probeLine(what) == line

    def test_everyOutcome(self) -> None:
        """All outcomes have lines, which are different."""
        assert len({text.probeLine(event(outcome)) for outcome in Outcome}) == len(Outcome)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.0, "0.000"),
            (0.0000524, "0.052"),
            (0.000999499, "0.999"),
            (0.0009996, "1.00"),
            (0.009994, "9.99"),
            (0.009996, "10.0"),
            (0.09994, "99.9"),
            (0.09996, "100"),
            (12.345678901, "12346"),
        ],
    )
    def test_milliseconds(self, seconds: float, text: str) -> None:
        """Times have as many digits as in ping."""
        assert milliseconds(seconds) == text

    def test_head(self) -> None:
        """The first line has the address of a name."""
        assert text.headLine(TARGET, PEER, 64) == "PING localhost:7 (127.0.0.1:7) 64 bytes of data"
        assert text.headLine(PEER, PEER, 1) == "PING 127.0.0.1:7 1 byte of data"


class SummaryTests:
    """The lines at the end."""

    def test_whole(self) -> None:
        """All lines, with every outcome."""
        assert text.summary(TARGET, everyOutcome(), 10.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "101 probes sent, 95 received, +1 duplicates, +1 corrupt, +1 truncated, +1 oversized, +1 unrelated, +1 unmatched, "
            "+1 reordered, +1 late, 2.04% loss, time 10000ms",
            "no reply: 2 lost by the network, 1 lost in our own receive queue, 1 refused, 1 unreachable, 1 not sent, "
            "1 outstanding",
            "loss 0.561% to 7.14% (95 % confidence interval), longest run 3",
            "rtt min/avg/max/stddev = 1.000/22.042/2000.000/205.093 ms",
            "rtt p50/p90/p95/p99/p99.9/max = 1.000/1.000/1.000/-/-/2000.000 ms",
            "jitter 10.245 ms, ipdv mean/max = 43.457/1999.000 ms, p95-p50 0.000 ms",
            "schedule deviation p50/p90/p95/p99/p99.9/max = 0.005/0.005/0.005/-/-/0.005 ms",
        ]

    def test_clean(self) -> None:
        """Without anomalies there is no line for them."""
        statistics = Statistics()
        for sequence in range(2):
            statistics.probeSent(sequence, 1000)
            statistics.replyReceived(sequence, MS + sequence * MS)
        assert text.summary(TARGET, statistics, 1.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "2 probes sent, 2 received, 0% loss, time 1000ms",
            "loss 0% to 65.8% (95 % confidence interval)",
            "rtt min/avg/max/stddev = 1.000/1.500/2.000/0.707 ms",
            "rtt p50/p90/p95/p99/p99.9/max = 1.500/-/-/-/-/2.000 ms",
            "jitter 0.062 ms, ipdv mean/max = 1.000/1.000 ms, p95-p50 - ms",
            "schedule deviation p50/p90/p95/p99/p99.9/max = 0.001/-/-/-/-/0.001 ms",
        ]

    def test_nothing(self) -> None:
        """There is a summary before the first probe."""
        assert text.summary(TARGET, Statistics(), 0.0).splitlines() == [
            "--- localhost:7 ping statistics ---",
            "0 probes sent, 0 received, loss unknown, time 0ms",
        ]

    def test_refused(self) -> None:
        """Refusals are not reported as loss."""
        statistics = Statistics()
        statistics.probeSent(0)
        statistics.refused(0)
        lines = text.summary(TARGET, statistics, 0.0).splitlines()
        assert lines[1:3] == ["1 probes sent, 0 received, loss unknown, time 0ms", "no reply: 1 refused"]

    @pytest.mark.parametrize(
        ("sent", "lost", "shown"),
        [(30_000, 1, "0.00333% loss"), (200_000, 1, "<0.001% loss"), (1000, 999, "99.9% loss"), (5000, 4999, ">99.9% loss")],
    )
    def test_almost(self, sent: int, lost: int, shown: str) -> None:
        """Shares next to 0 and 1 are not rounded to them."""
        statistics = Statistics()
        for sequence in range(sent):
            statistics.probeSent(sequence)
            if sequence < lost:
                statistics.timedOut(sequence)
            else:
                statistics.replyReceived(sequence, MS)
        assert shown in text.summary(TARGET, statistics, 0.0)


class FpingTests:
    """The line that C{fping -C} has."""

    def test_line(self) -> None:
        """Times have three digits, a lost probe is a dash."""
        times = [0.000052, None, 0.001234567, 0.012345678, 0.123456789]
        assert text.fpingLine(PEER, times) == "127.0.0.1:7 : 0.052 - 1.23 12.3 123"

    def test_real(self) -> None:
        """The line has the form of fping's own."""
        command = [tool("fping"), "-q", "-C", "3", "-p", "20", "127.0.0.1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        line = done.stderr.strip()
        if done.returncode or " : " not in line:
            pytest.skip("fping may not send here")
        times = [None if each == "-" else float(each) / 1000 for each in line.partition(" : ")[2].split()]
        assert text.fpingLine("127.0.0.1", times) == line
