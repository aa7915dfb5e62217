"""Measurements. Nothing here passes or fails: what a machine is slow at is for people to look at."""
