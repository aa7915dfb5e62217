"""
The version, written here and nowhere else: C{setup.cfg} reads it from this file.
"""

__version__ = "0.1.0"
