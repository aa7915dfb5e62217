"""Tests of L{udpecho.client}."""
