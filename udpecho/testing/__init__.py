"""The test kit: pytest fixtures, a trial mixin, a network in memory."""
