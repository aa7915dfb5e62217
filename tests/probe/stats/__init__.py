"""Tests of L{udpecho.probe.stats}."""
