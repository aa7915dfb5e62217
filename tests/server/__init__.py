"""Tests of L{udpecho.server}."""
