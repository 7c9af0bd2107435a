"""Endpoints of real sockets, and the application with push turned on for this machine."""

from collections.abc import AsyncIterator

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.calls import Calls
from tests.conftest import MakeSettings
from tests.push.endpoint import KEY, Endpoint


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as started:
        yield started


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(
        push_secret_key=KEY, push_allow_http=True, push_allow_networks="127.0.0.0/8", push_allow_ports="*"
    )


@pytest.fixture
def calls(client: httpx.AsyncClient) -> Calls:
    return Calls(client)
