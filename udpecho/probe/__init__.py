"""
The prober: what a probe carries, what is made of its fate, and how that is told.
"""
