"""Statistics of probes, in bounded memory."""
