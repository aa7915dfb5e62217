"""A rehearsed year: one process of each kind, and everything that happens to them in a year, at random:

    python -m tests.benchmarks.year [--events 200] [--duration 24h] [--seed N] [--only EVENT,EVENT]

The processes are a server with workers and metrics, a probe service, a proxy, and an application with long-lived clients. They
live in three hosts, which are network namespaces::

    client eth0 ---- eth0 router eth2 ---- eth0 server
           eth1 ---- eth1

An event declares what it breaks: addresses that cannot be reached, addresses that do not work at the server itself, processes
that stand still. While it lasts, everything else must work, and the pages must say what does not. When it is over, everything
must work within L{tests.benchmarks.year.rehearsal.RECOVERY} seconds. At the end all accounts must balance.

All of it happens in namespaces of this command (mounts, processes, networks), which end with it. Nothing of the machine is
changed: not its clock, its names, its addresses.
"""
