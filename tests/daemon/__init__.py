"""Tests of L{udpecho.daemon}."""
