"""Tests on code that was written elsewhere: UDP programs from the package index, on the port and on the network in memory."""
