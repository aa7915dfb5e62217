"""Tests of L{udpecho.probe}."""
