"""Tests of L{udpecho.net.linux}."""
