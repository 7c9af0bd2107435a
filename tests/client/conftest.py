from collections.abc import AsyncIterator

import httpx
import pytest

from fastpubsub.api.app import create_app
from fastpubsub.client import AsyncClient, Policy
from fastpubsub.config import Settings
from tests import harness

QUICK = Policy(timeout=20, backoff=0.001, max_backoff=0.01)


@pytest.fixture
async def transport(settings: Settings) -> AsyncIterator[httpx.ASGITransport]:
    """To the application in this process; override `settings` to change it."""
    app = create_app(settings)
    async with harness.lifespan(app):
        yield httpx.ASGITransport(app)


@pytest.fixture
async def bus(transport: httpx.ASGITransport) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=transport, policy=QUICK) as client:
        yield client
