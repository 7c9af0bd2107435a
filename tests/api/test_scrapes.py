"""Who may read `/metrics`."""

from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from fastpubsub.config import Settings
from fastpubsub.scopes import SCOPES
from tests import harness
from tests.api.calls import problem
from tests.api.conftest import Tokens, app_of
from tests.attacks import KEY
from tests.conftest import MakeSettings

TOKEN = "scrape.me-0123456789"
STRANGER = "192.0.2.9"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY)


async def scrape(client: httpx.AsyncClient, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app_of(client), client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://fastpubsub") as scraper:
        response = await scraper.get("/metrics", headers=headers)
    assert (response.status_code == 200) == ("fastpubsub_build_info" in response.text)
    return response


async def test_this_machine_needs_no_token(client: httpx.AsyncClient) -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert (await scrape(client, address)).status_code == 200, address
    for address in (STRANGER, "10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0", "testclient"):
        problem(await scrape(client, address), 401)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_a_proxy_on_this_machine_speaks_for_others(client: httpx.AsyncClient, header: str) -> None:
    problem(await scrape(client, "127.0.0.1", {header: "127.0.0.1"}), 401)


async def test_the_scope(client: httpx.AsyncClient, token: Tokens) -> None:
    for scope in SCOPES:
        expected = 200 if scope in ("*", "metrics:read") else 403
        assert (await scrape(client, STRANGER, token(scope))).status_code == expected, scope
    problem(await client.post("/clients", json={"name": "x", "scopes": "metrics:read:x"}, headers=token("*")), 422)


async def test_a_token_of_its_own(make_settings: MakeSettings) -> None:
    """With authentication and without; from this machine as well, for a proxy may be there that nobody sees."""
    wrong: list[Any] = [None, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}]
    wrong += [{"Authorization": f"Bearer {one}"} for one in (TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "")]
    async with AsyncExitStack() as stack:
        for authentication in ({}, {"auth_enabled": True, "auth_secret_key": KEY}):
            client = await stack.enter_async_context(
                harness.opened(make_settings(metrics_token=TOKEN, **authentication))
            )
            for address in ("127.0.0.1", STRANGER):
                assert (await scrape(client, address, BEARER)).status_code == 200
                for headers in wrong:
                    assert TOKEN not in problem(await scrape(client, address, headers), 401)
            if authentication:
                assert (await client.get("/topics", headers=BEARER)).status_code == 401, "it is for the metrics only"


async def test_without_authentication(make_settings: MakeSettings) -> None:
    async with harness.opened(make_settings()) as client:
        assert (await scrape(client, STRANGER)).status_code == 200
