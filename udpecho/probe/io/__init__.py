"""Sockets for probes, with kernel timestamps."""
