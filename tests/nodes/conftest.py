"""A database that is still to be spread, and servers on it."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests import harness, spread_databases
from tests.conftest import StartServer
from tests.nodes.load import CALM, SECONDS, TOPICS, Load


@pytest.fixture
def unspread_database_url(template_url: str) -> Iterator[str]:
    """Migrated, in a cluster."""
    maintenance = os.environ["FASTPUBSUB_TEST_DATABASE_URL"]
    name = harness.unique_name(template_url)
    spread_databases.create(maintenance, name, is_spread=False)
    yield harness.with_database(maintenance, name)
    spread_databases.drop(maintenance, name)


@pytest.fixture
def start_on(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a server on a database, and returns its URL."""
    with ExitStack() as stack:

        def start(url: str) -> str:
            settings = {"database_url": url, "database_pool_timeout_seconds": 30, "log_requests": False}
            started = harness.start_server(["server"], tmp_path, settings)
            stack.callback(started.stop)
            started.wait_until_ready()
            return started.base_url

        yield start


@pytest.fixture
async def load(database_url: str, server: StartServer) -> AsyncIterator[Load]:
    async with httpx.AsyncClient(base_url=server(**CALM).base_url, timeout=SECONDS) as client:
        made = Load(client, TOPICS)
        await made.create()
        yield made
