"""Subscriptions that are deleted when nobody pulls them, as clients see it."""

import asyncio
import logging
from datetime import datetime, timedelta

import httpx
import pytest

from fastpubsub.services.expiry import expire_subscriptions
from tests.api.calls import PATIENCE, Calls, problem, success
from tests.api.conftest import app_of
from tests.conftest import Connect
from tests.together import together

pytestmark = pytest.mark.shared_application

EXPIRED = "a subscription expired and was deleted, because nobody pulled it: subscription_id=s"
PAST = "update fastpubsub.subscription_uses set used_at = used_at - interval '{seconds} seconds'"


async def test_the_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    assert not {"expire_after_seconds", "expires_at"} & success(await client.get(path), 200).keys()
    changed = success(await client.patch(path, json={"expire_after_seconds": 3600}), 200)
    assert changed["expire_after_seconds"] == 3600
    left = datetime.fromisoformat(changed["expires_at"]) - datetime.now().astimezone()
    assert timedelta(minutes=50) < left < timedelta(minutes=70)
    assert success(await client.get(path), 200) == changed
    (listed,) = success(await client.get("/subscriptions"), 200)["data"]
    assert listed == changed
    for none in (0, None):
        answer = success(await client.patch(path, json={"expire_after_seconds": none}), 200)
        assert not {"expire_after_seconds", "expires_at"} & answer.keys()
        success(await client.patch(path, json={"expire_after_seconds": 60}), 200)
    body = {"id": "new", "topic_id": "t", "expire_after_seconds": 60}
    assert "expires_at" in success(await client.post("/subscriptions", json=body), 201)
    paused = success(await client.post("/subscriptions/new/pause"), 200)
    assert (paused["expire_after_seconds"], paused.get("expires_at")) == (60, None)


@together("wrong", [-1, 1, 59, 31_536_001, 60.5, "long", True])
async def test_what_it_cannot_be(client: httpx.AsyncClient, calls: Calls, wrong: object) -> None:
    await calls.ready()
    refused = await client.patch("/subscriptions/s", json={"expire_after_seconds": wrong})
    assert "expire_after_seconds" in problem(refused, 422)


async def test_one_that_nobody_uses_is_deleted_and_told_of(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """By this call, or by the server itself at the same moment."""
    await calls.topic_and_subscription(expire_after_seconds=60)
    await calls.subscription("other")
    caplog.set_level(logging.WARNING)
    await (await connect()).execute(PAST.format(seconds=86_400))
    async with asyncio.timeout(PATIENCE):
        while EXPIRED not in caplog.text:
            await expire_subscriptions(app_of(client).state.database)
    problem(await client.get("/subscriptions/s"), 404)
    success(await client.get("/subscriptions/other"), 200)
    change = success(await client.get("/audit"), 200)["data"][0]
    assert (change["action"], change["client_id"], change["object_id"]) == ("expire_subscription", "server", "s")
    assert change["details"] == {"expire_after_seconds": 60}


@pytest.mark.parametrize("how", ["pull", "wait", "settle_and_pull", "nothing"])
async def test_each_pull_keeps_it(
    client: httpx.AsyncClient, calls: Calls, connect: Connect, waits: asyncio.Event, how: str
) -> None:
    """Although none of them gets anything."""
    await calls.topic_and_subscription(expire_after_seconds=3600)
    uses = app_of(client).state.uses
    consumer = {"consumer_id": "c"}
    waiting = None
    if how == "wait":
        waiting = asyncio.create_task(client.get("/subscriptions/s/messages", params=consumer | {"wait_seconds": 20}))
        async with asyncio.timeout(PATIENCE):
            await waits.wait()
        # What it asked at first is told, and it still waits.
        await uses.write()
    await (await connect()).execute(PAST.format(seconds=100))
    before = success(await client.get("/subscriptions/s"), 200)["expires_at"]
    if how == "pull":
        assert await calls.pull() == []
    elif how == "settle_and_pull":
        success(await client.post("/subscriptions/s/pulls", params=consumer, json={}), 200)
    await uses.write()
    after = success(await client.get("/subscriptions/s"), 200)["expires_at"]
    assert (after > before) == (how != "nothing")
    if waiting is not None:
        success(await client.delete("/subscriptions/s/waits", params=consumer), 204)
        success(await waiting, 200)
