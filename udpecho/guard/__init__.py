"""The guard decides which datagrams are answered. Pure decisions, no socket."""
