"""System calls, socket options and memory layouts that Python does not wrap. Linux only."""
