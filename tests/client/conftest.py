from collections.abc import AsyncIterator

import httpx
import pytest

from fastpubsub.client import AsyncClient, Policy
from fastpubsub.config import Settings
from tests import harness
from tests.conftest import shares
from tests.lasting import SharedApplication

QUICK = Policy(timeout=20, backoff=0.001, max_backoff=0.01)


@pytest.fixture
async def transport(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[httpx.ASGITransport]:
    """To the application in this process; override `settings` to change it."""
    if shares(request):
        shared: SharedApplication = request.getfixturevalue("shared_application")
        yield httpx.ASGITransport(await shared.get(settings))
        return
    async with harness.running(settings) as app:
        yield httpx.ASGITransport(app)


@pytest.fixture
async def bus(transport: httpx.ASGITransport) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=transport, policy=QUICK) as client:
        yield client
