"""Publish/subscribe over HTTP on nothing but PostgreSQL."""

__version__ = "1.0.0"
