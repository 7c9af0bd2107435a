"""Fixtures of pytest: write `from fastpubsub.testing.fixtures import memory_bus` in your conftest.py."""

import pytest

from fastpubsub.testing.memory import InMemoryBus


@pytest.fixture
def memory_bus() -> InMemoryBus:
    """An empty bus for one test."""
    return InMemoryBus()
