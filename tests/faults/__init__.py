"""Tests of L{udpecho.faults}."""
