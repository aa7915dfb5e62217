"""The echo server: protocol, service, workers, counters, log."""
