"""Fixtures of the tests that start a server."""

from openai_server import direct, serve

__all__ = ["direct", "serve"]
