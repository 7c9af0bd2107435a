"""For pytest: `from fastpubsub.testing.fixtures import memory_bus` in your conftest.py."""

import pytest

from fastpubsub.testing.memory import InMemoryBus


@pytest.fixture
def memory_bus() -> InMemoryBus:
    """Empty, for one test."""
    return InMemoryBus()
