"""Fixtures of the tests of the server."""

from tests.support.server import lines  # noqa: F401
