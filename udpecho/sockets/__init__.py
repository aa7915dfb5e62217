"""
Sockets: the one room that talks to the operating system.
"""
