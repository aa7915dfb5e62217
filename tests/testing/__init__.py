"""Tests of L{udpecho.testing}."""
