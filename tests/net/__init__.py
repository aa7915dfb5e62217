"""Tests of L{udpecho.net}."""
