"""What C{twistd} lists and runs; nothing is loaded until it is run."""

from twisted.application.service import ServiceMaker

udpecho = ServiceMaker("udpecho", "udpecho.daemon.server_tap", "A UDP echo server (RFC 862).", "udpecho")

udpechoClient = ServiceMaker(
    "udpecho-client",
    "udpecho.daemon.client_tap",
    "A UDP echo client: standard input out, replies to the log.",
    "udpecho-client",
)

udpechoProbe = ServiceMaker(
    "udpecho-probe",
    "udpecho.daemon.probe_tap",
    "A prober of UDP echo servers, with metrics for Prometheus.",
    "udpecho-probe",
)
