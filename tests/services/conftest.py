"""What the services are made of."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from fastpubsub.config import Settings
from fastpubsub.counters import Counters
from fastpubsub.database.calls import Database
from fastpubsub.services.turn import Turn


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings)
    yield opened
    await opened.close()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def counters(registry: CollectorRegistry) -> Counters:
    return Counters(registry, 10)


@pytest.fixture
async def turn(database: Database, settings: Settings) -> Turn:
    """It is the turn of this process."""
    turn = Turn(database, settings)
    turn = Turn(database, settings)
    await turn.look()
    assert turn.holds
    return turn
