"""Our statistics against IRTT's, from the same round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.guards import tool
from tests.support.processes import Processes, eventually
from tests.support.sums import checkSums
from udpecho.probe.stats.summary import Statistics

#: The precision of the histogram.
WITHIN = 1 / 2048

#: What C{irtt client -i 10ms -d 300ms} 0.9.0 wrote of a path with loss, duplicates and reordering; of its fields those used
#: here.
IRTT = json.loads(
    """
{"stats": {
 "rtt": {"n": 24, "min": 372539, "max": 26904156, "mean": 8293665, "median": 698363, "stddev": 12017064},
 "ipdv_round_trip": {"n": 19, "min": 91708, "max": 26517485, "mean": 12691098, "median": 2133732, "stddev": 13063547},
 "late_packets": 6,
 "packets_sent": 30,
 "packet_loss_percent": 20},
"round_trips": [
{"seqno": 0, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 1, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 51843834}}}, "delay": {"rtt": 26210084}, "ipdv": {}},
{"seqno": 2, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 3, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 46292703}}}, "delay": {"rtt": 866169}, "ipdv": {}},
{"seqno": 4, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 55649536}}}, "delay": {"rtt": 474042}, "ipdv": {"rtt": -392127}},
{"seqno": 5, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 65679268}}}, "delay": {"rtt": 740461}, "ipdv": {"rtt": 266419}},
{"seqno": 6, "lost": "true_up", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 7, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 111112432}}}, "delay": {"rtt": 26659840}, "ipdv": {}},
{"seqno": 8, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 95780723}}}, "delay": {"rtt": 633530}, "ipdv": {"rtt": -26026310}},
{"seqno": 9, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 106085538}}}, "delay": {"rtt": 1122234}, "ipdv": {"rtt": 488704}},
{"seqno": 10, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 115884214}}}, "delay": {"rtt": 539059}, "ipdv": {"rtt": -583175}},
{"seqno": 11, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 151534437}}}, "delay": {"rtt": 26415264}, "ipdv": {"rtt": 25876205}},
{"seqno": 12, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 135154454}}}, "delay": {"rtt": 711508}, "ipdv": {"rtt": -25703756}},
{"seqno": 13, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 146004478}}}, "delay": {"rtt": 613601}, "ipdv": {"rtt": -97907}},
{"seqno": 14, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 155309422}}}, "delay": {"rtt": 521893}, "ipdv": {"rtt": -91708}},
{"seqno": 15, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 167157302}}}, "delay": {"rtt": 2655625}, "ipdv": {"rtt": 2133732}},
{"seqno": 16, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 175120593}}}, "delay": {"rtt": 680471}, "ipdv": {"rtt": -1975154}},
{"seqno": 17, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 212249074}}}, "delay": {"rtt": 26838628}, "ipdv": {"rtt": 26158157}},
{"seqno": 18, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 195888250}}}, "delay": {"rtt": 685218}, "ipdv": {"rtt": -26153410}},
{"seqno": 19, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 232057972}}}, "delay": {"rtt": 26904156}, "ipdv": {"rtt": 26218938}},
{"seqno": 20, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 214806402}}}, "delay": {"rtt": 386671}, "ipdv": {"rtt": -26517485}},
{"seqno": 21, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 225586801}}}, "delay": {"rtt": 563196}, "ipdv": {"rtt": 176525}},
{"seqno": 22, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 235649693}}}, "delay": {"rtt": 372539}, "ipdv": {"rtt": -190657}},
{"seqno": 23, "lost": "true_down", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 24, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 255332522}}}, "delay": {"rtt": 681033}, "ipdv": {}},
{"seqno": 25, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 291220341}}}, "delay": {"rtt": 26664888}, "ipdv": {"rtt": 25983855}},
{"seqno": 26, "lost": "true_down", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}},
{"seqno": 27, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 311811383}}}, "delay": {"rtt": 26602263}, "ipdv": {}},
{"seqno": 28, "lost": "false",
  "timestamps": {"client": {"receive": {"monotonic": 295930480}}}, "delay": {"rtt": 505609}, "ipdv": {"rtt": -26096654}},
{"seqno": 29, "lost": "true", "timestamps": {"client": {"receive": {}}}, "delay": {}, "ipdv": {}}]}
"""
)


def recompute(measured: dict[str, Any]) -> None:
    """Check that our statistics of IRTT's round trips are IRTT's own. It truncates its means and deviations to whole
    nanoseconds.

    What IRTT calls late is what came after a reply to a later probe, of the one right before it in order of arrival alone.
    """
    ours = Statistics()
    trips = {trip["seqno"]: trip for trip in measured["round_trips"]}
    for sequence in range(len(trips)):
        ours.probeSent(sequence)
    arrived = [trip for trip in trips.values() if trip["lost"] == "false"]
    for trip in sorted(arrived, key=lambda trip: trip["timestamps"]["client"]["receive"]["monotonic"]):
        ours.replyReceived(trip["seqno"], trip["delay"]["rtt"])
    for trip in trips.values():
        if trip["lost"] != "false":
            ours.timedOut(trip["seqno"])
    checkSums(ours)
    theirs, times = measured["stats"], ours.roundTrips
    assert (ours.sent, ours.received) == (theirs["packets_sent"], theirs["rtt"]["n"])
    assert (times.min, times.max) == (theirs["rtt"]["min"] / 1e9, theirs["rtt"]["max"] / 1e9)
    assert times.mean == pytest.approx(theirs["rtt"]["mean"] / 1e9, abs=1e-9)
    assert times.deviation == pytest.approx(theirs["rtt"]["stddev"] / 1e9, abs=1e-9)
    assert times.median() == pytest.approx(theirs["rtt"]["median"] / 1e9, rel=WITHIN, abs=1e-9)
    assert ours.variation.count == theirs["ipdv_round_trip"]["n"]
    assert ours.variation.max == theirs["ipdv_round_trip"]["max"] / 1e9
    assert ours.variation.mean == pytest.approx(theirs["ipdv_round_trip"]["mean"] / 1e9, abs=1e-9)
    assert ours.loss is not None
    assert 100 * ours.loss.ratio == pytest.approx(theirs["packet_loss_percent"])
    assert ours.reordering.reordered >= theirs["late_packets"]


class IRTTTests:
    """The statistics of IRTT, recomputed from its own JSON."""

    def test_sample(self) -> None:
        """Of a sample with faults, ours are IRTT's; the reordered ones too, which are each behind one only here."""
        recompute(IRTT)
        assert IRTT["stats"]["late_packets"] == 6

    def test_real(self, tmp_path: Path) -> None:
        """So they are of what IRTT measures now, through faults."""
        irtt = tool("irtt")
        faults = ("--loss", "10%", "--duplicate", "5%", "--reorder", "10%", "--reorder-delay", "25ms", "--seed", "4")
        with Processes(tmp_path) as processes:
            server = processes.start(irtt, "server", "-b", "127.0.0.1:0")
            port = server.until(r"(?:127\.0\.0\.1|starting).*:(\d+)")[1]
            proxy = processes.start("udpecho", "proxy", *faults, "127.0.0.1:0", f"127.0.0.1:{port}")
            address = proxy.until(r"from (127\.0\.0\.1:\d+) to", "stderr")[1]
            client = processes.run(irtt, "client", "-Q", "-i", "10ms", "-d", "500ms", "-o", "irtt.json", address)
            assert client.status == 0, client.stderr
        measured = json.loads(eventually(lambda: (tmp_path / "irtt.json").read_text() or None, "IRTT's report"))
        assert measured["stats"]["rtt"]["n"] > 10
        recompute(measured)
