"""A limit on what all consumers of a subscription hold together, as they see it."""

import asyncio
import contextlib

import httpx
import pytest

from tests.api.calls import PATIENCE, Calls, payloads, problem, success, until_waiting
from tests.api.conftest import app_of
from tests.together import together

pytestmark = pytest.mark.shared_application


async def test_the_setting(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription()
    path = "/subscriptions/s"
    assert "max_in_flight" not in success(await client.get(path), 200)
    assert success(await client.patch(path, json={"max_in_flight": 7}), 200)["max_in_flight"] == 7
    assert success(await client.patch(path, json={"ack_deadline_seconds": 7}), 200)["max_in_flight"] == 7
    for none in (0, None):
        assert "max_in_flight" not in success(await client.patch(path, json={"max_in_flight": none}), 200)
        success(await client.patch(path, json={"max_in_flight": 7}), 200)
    for name, value, shown in (("five", 5, 5), ("zero", 0, None), ("null", None, None)):
        created = success(
            await client.post("/subscriptions", json={"id": name, "topic_id": "t", "max_in_flight": value}), 201
        )
        assert created.get("max_in_flight") == shown
        assert success(await client.get(f"/subscriptions/{name}"), 200) == created


@together("wrong", [-1, 1_000_001, 1.5, "many", True])
async def test_what_it_cannot_be(client: httpx.AsyncClient, calls: Calls, wrong: object) -> None:
    await calls.ready()
    assert "max_in_flight" in problem(await client.patch("/subscriptions/s", json={"max_in_flight": wrong}), 422)


async def test_who_waits_gets_what_an_ack_makes_room_for(
    client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event
) -> None:
    await calls.topic_and_subscription(max_in_flight=2)
    await calls.publish({"n": 1}, {"n": 2}, {"n": 3}, {"n": 4})
    held = await calls.pull(10)
    assert payloads(held) == [{"n": 1}, {"n": 2}]
    assert await calls.pull(10) == []
    waits.clear()
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(
            client.get("/subscriptions/s/messages", params={"consumer_id": "d", "wait_seconds": 20})
        )
        await waits.wait()
        await calls.ack(held[0]["ack_id"])
        assert payloads(success(await waiting, 200)["data"]) == [{"n": 3}]
    assert await calls.counts() == (1, 2, 1, 0)


async def test_who_waits_looks_for_room_that_others_made(
    client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event
) -> None:
    """As another process does, which tells nobody."""
    await calls.topic_and_subscription(max_in_flight=1)
    await calls.publish({"n": 1}, {"n": 2})
    await calls.pull(10)
    waits.clear()
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(
            client.get("/subscriptions/s/messages", params={"consumer_id": "d", "wait_seconds": 20})
        )
        await waits.wait()
        state = app_of(client).state
        keys = await state.directory.subscriptions.key("s")
        assert state.wakeups.lines.find(keys).is_limited
        await calls.publish({"n": 3})
        await until_waiting(state.wakeups.lines.find(keys), waiting)
        await state.database.fetch_one("seek_subscription", *keys, "message", None, 2)
        assert payloads(success(await waiting, 200)["data"]) == [{"n": 2}]


async def test_a_stream_obeys(client: httpx.AsyncClient, calls: Calls, waits: asyncio.Event) -> None:
    await calls.topic_and_subscription(max_in_flight=1)
    await calls.publish({"n": 1}, {"n": 2})
    deliveries = app_of(client).state.deliveries.stream("s", "c", 10)
    async with contextlib.aclosing(deliveries), asyncio.timeout(PATIENCE):
        first = await anext(deliveries)
        first.is_sent = True
        assert first.claim.payloads == [b'{"n":1}']
        coming = asyncio.create_task(anext(deliveries))
        await waits.wait()
        (held,) = success(await client.get("/subscriptions/s/messages/browse?state=leased"), 200)["data"]
        await calls.ack(held["id"])
        assert (await coming).claim.payloads == [b'{"n":2}']


async def test_explanations(client: httpx.AsyncClient, calls: Calls) -> None:
    await calls.topic_and_subscription(max_in_flight=1)
    _, ahead = await calls.publish({"n": 1}, {"n": 2})
    (held,) = await calls.pull(10)
    explained = success(await client.get(f"/subscriptions/s/messages/{ahead}"), 200)
    assert explained["at_limit"] == 1
    assert explained["detail"].startswith("consumers hold as many messages as the limit of 1 lets them; ")
    await calls.ack(held["ack_id"])
    assert "at_limit" not in success(await client.get(f"/subscriptions/s/messages/{ahead}"), 200)
