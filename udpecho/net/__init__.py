"""UDP for the reactor: all that touches a socket."""
