"""Tests of L{udpecho.net} between real hosts, in network namespaces."""
