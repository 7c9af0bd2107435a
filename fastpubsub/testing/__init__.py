"""A bus in memory for the tests of your application; it needs no server and no PostgreSQL, and never sleeps."""

from fastpubsub.testing.memory import InMemoryBus, MemoryTransport

__all__ = ["InMemoryBus", "MemoryTransport"]
