"""Tests of L{udpecho.cli.ping}."""
