"""A limit on how many messages a second the consumers of a subscription get, as they see it."""

import asyncio

import httpx
import pytest

from tests.api.calls import PATIENCE, Calls, payloads, problem, success, until_waiting
from tests.api.conftest import app_of
from tests.together import together

pytestmark = pytest.mark.shared_application

SLOWEST = 0.00001


async def test_the_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    assert "rate_limit" not in success(await client.get(path), 200)
    assert success(await client.patch(path, json={"rate_limit": 0.5}), 200)["rate_limit"] == 0.5
    assert success(await client.patch(path, json={"ack_deadline_seconds": 7}), 200)["rate_limit"] == 0.5
    for none in (0, None):
        assert "rate_limit" not in success(await client.patch(path, json={"rate_limit": none}), 200)
        success(await client.patch(path, json={"rate_limit": 7}), 200)
    for name, value, shown in (("five", 5, 5), ("zero", 0, None), ("null", None, None), ("slow", SLOWEST, SLOWEST)):
        created = success(
            await client.post("/subscriptions", json={"id": name, "topic_id": "t", "rate_limit": value}), 201
        )
        assert created.get("rate_limit") == shown
        assert success(await client.get(f"/subscriptions/{name}"), 200) == created


@together("wrong", [b"-1", b"100001", b"0.000001", b'"many"', b"true", b"NaN", b"1e999", b"[]"])
async def test_what_it_cannot_be(client: httpx.AsyncClient, calls: Calls, wrong: bytes) -> None:
    await calls.ready()
    content = b'{"rate_limit": %b}' % wrong
    refused = await client.patch("/subscriptions/s", content=content, headers={"Content-Type": "application/json"})
    assert "rate_limit" in problem(refused, 422) or wrong in (b"NaN", b"1e999")


async def test_who_waits_gets_a_message_when_it_is_time(
    client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event
) -> None:
    """Nothing else wakes it: nobody publishes, settles or polls meanwhile."""
    await calls.topic_and_subscription(rate_limit=1)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3})
    assert payloads(await calls.pull(10)) == [{"n": 1}]
    waits.clear()
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(
            client.get("/subscriptions/s/messages", params={"consumer_id": "d", "wait_seconds": 20, "batch_size": 1})
        )
        assert payloads(success(await waiting, 200)["data"]) == [{"n": 2}]


async def test_new_messages_wake_nobody_before(client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event) -> None:
    await calls.topic_and_subscription(rate_limit=SLOWEST)
    await calls.publish({"n": 1}, {"n": 2})
    assert payloads(await calls.pull(10)) == [{"n": 1}]
    waits.clear()
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(
            client.get("/subscriptions/s/messages", params={"consumer_id": "d", "wait_seconds": 20})
        )
        await waits.wait()
        state = app_of(client).state
        line = state.wakeups.lines.find(await state.directory.subscriptions.key("s"))
        assert line.is_limited
        await calls.publish({"n": 3})
        await until_waiting(line, waiting)
        # A faster rate counts at once.
        success(await client.patch("/subscriptions/s", json={"rate_limit": 100}), 200)
        assert payloads(success(await waiting, 200)["data"]) == [{"n": 2}, {"n": 3}]


async def test_explanations(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(rate_limit=SLOWEST)
    _, ahead = await calls.publish({"n": 1}, {"n": 2})
    await calls.pull(10)
    explained = success(await client.get(f"/subscriptions/s/messages/{ahead}"), 200)
    assert explained["at_rate_limit"] == SLOWEST
    assert explained["detail"].startswith("consumers get messages as fast as the limit of 0.00001 a second lets them; ")
    success(await client.patch("/subscriptions/s", json={"rate_limit": None}), 200)
    assert "at_rate_limit" not in success(await client.get(f"/subscriptions/s/messages/{ahead}"), 200)
