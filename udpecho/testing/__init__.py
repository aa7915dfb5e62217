"""
A test kit for UDP code: faults on demand, a network in memory, a proxy that injects faults.
"""
