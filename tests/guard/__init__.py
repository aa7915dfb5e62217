"""Tests of L{udpecho.guard}."""
