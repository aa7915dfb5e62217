"""Tests of L{udpecho.cli}."""
