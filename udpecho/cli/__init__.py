"""The C{udpecho} command."""
