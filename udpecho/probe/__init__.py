"""The prober: schedules, datagrams, flows, records."""
