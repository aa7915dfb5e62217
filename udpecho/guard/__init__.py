"""The guard: who is answered. Pure decisions, no socket."""
