"""The prober: schedules, packets, flows, records."""
