"""C{udpecho ping}."""
