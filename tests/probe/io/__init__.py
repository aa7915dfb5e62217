"""Tests of L{udpecho.probe.io}."""
