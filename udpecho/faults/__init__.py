"""Faults for tests: which datagrams are lost, delayed, duplicated, corrupted; and a proxy that does it."""
