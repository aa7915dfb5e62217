"""
What C{twistd} lists and runs; nothing is loaded until it is run.
"""

from twisted.application.service import ServiceMaker

udpecho = ServiceMaker("udpecho", "udpecho.tap", "A UDP echo server (RFC 862).", "udpecho")

udpechoClient = ServiceMaker(
    "udpecho-client",
    "udpecho.client_tap",
    "A UDP echo client: standard input out, replies to the log.",
    "udpecho-client",
)

udpechoProbe = ServiceMaker(
    "udpecho-probe",
    "udpecho.probe_tap",
    "A prober of UDP echo servers, with metrics for Prometheus.",
    "udpecho-probe",
)
